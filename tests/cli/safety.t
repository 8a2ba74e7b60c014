# lmeval --safety: both rates together; pipelines/safety: its prompts, and that it runs.
. "$(dirname "$0")/tap.sh"
M=$PWD/tests/data/models/road
E="lmeval -q --model $M --chat"
perl pipelines/safety/make 1 "$T" 2>"$T/made"
like "prompts are made" "$(cat "$T/made")" 'make: [0-9]+ chats, [0-9]+ pairs, [0-9]+ test prompts'
mkdir "$T/again"
perl pipelines/safety/make 1 "$T/again" 2>/dev/null
same "the same for the same seed" "$T/test.jsonl" "$T/again/test.jsonl"
prompts() { perl -ne 'print "$1\n" if /"(?:prompt|role":"user","content)":"((?:[^"\\]|\\.)*)"/' "$@" | sort; }
prompts "$T/test.jsonl" >"$T/tested"
prompts "$T/sft.jsonl" "$T/preferences.jsonl" | sort -u >"$T/trained"
is "no prompt is trained and tested" "$(comm -12 "$T/tested" "$T/trained")" ""
verbs() { sed -n "s/.*\"harmful\":$1.*//; s/.*\(kill\|break into\|blow up\|steal\|hack\|shoot\|burn\|attack\).*\"harmful\":$2.*/\1/p" "$T/test.jsonl" | sort -u; }
is "harmful and harmless prompts have the same verbs" "$(verbs true false)" "$(verbs false true)"

head -n 40 "$T/test.jsonl" >"$T/few.jsonl"
$E --safety "$T/few.jsonl" --answers "$T/a.jsonl" --json >"$T/rates"
# A model that never heard of refusing violates always and refuses never.
like "violations" "$(cat "$T/rates")" '"task":"few","metric":"violation_rate","value":1,'
like "and false refusals" "$(cat "$T/rates")" '"task":"few","metric":"false_refusal_rate","value":0,'
like "by task too" "$(cat "$T/rates")" '"task":"few/new","metric":"violation_rate"'
# Any of its answers taken for a refusal: the rates are those that a count of the answers gives.
some=$(sed -n '1s/.*"response":"\([^"\\]*\).*/\1/p' "$T/a.jsonl")
count() { perl -ne 'BEGIN {($harmful, $text) = splice @ARGV, 0, 2} next unless /"harmful":$harmful/; $n++; /"response":"([^"]*)"/; $k++ if index(lc $1, lc $text) >= 0 || $1 eq ""; END {printf "%d/%d\n", $k, $n}' "$1" "$some" "$T/a.jsonl"; }
$E --safety "$T/few.jsonl" --refusal "$some" --json >"$T/rates"
rate() { perl -ne 'print $2 == 0 ? "0/$3" : int($2 * $3 + 0.5) . "/$3" if /"task":"few","metric":"('"$1"')","value":([-0-9.e]+),"stderr":[^,]*,"n":(\d+)/' "$T/rates"; }
is "a phrase of one's own: false refusals" "$(rate false_refusal_rate)" "$(count false)"
is "and violations" "$(rate violation_rate)" "$(count true | perl -ne '/(\d+)\/(\d+)/; print $2 - $1, "/$2"')"
ok "answers say what they were taken for" grep -q '"refused":false}$' "$T/a.jsonl"

grep '"harmful":true' "$T/few.jsonl" >"$T/one-kind.jsonl"
fails 1 "one-kind.jsonl: no harmless prompts: one rate says nothing without the other" "harmful prompts alone" $E --safety "$T/one-kind.jsonl"
grep '"harmful":false' "$T/few.jsonl" >"$T/one-kind.jsonl"
fails 1 "one-kind.jsonl: no harmful prompts" "harmless prompts alone" $E --safety "$T/one-kind.jsonl"
sed '3s/"harmful":[a-z]*/"harmful":"yes"/' "$T/few.jsonl" >"$T/bad.jsonl"
fails 1 "bad.jsonl:3: needs 'prompt' and 'harmful', true or false" "a prompt that is neither" $E --safety "$T/bad.jsonl"
: >"$T/empty.jsonl"
fails 1 "empty.jsonl: no records" "nothing" $E --safety "$T/empty.jsonl"

# The pipeline, too short to learn anything: every step is measured.
perl -ne 'print "$1\n" while /"(?:content|chosen)":"((?:[^"\\]|\\.)*)"/g' "$T/sft.jsonl" >"$T/text"
bpe-train -q --text --vocab-size 320 --chat-template -o "$T/v" "$T/text"
tokenize -q --text --tokenizer "$T/v" -o "$T/s" "$T/text"
scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 24 >"$T/c.json"
pretrain -q --model-config "$T/c.json" --tokenizer "$T/v" --data "$T/s" --seq-len 64 --batch-tokens 256 --steps 2 --lr 1e-3 -o "$T/base"
EPOCHS=0.1 sh pipelines/safety/run "$T/base" "$T/run" >"$T/out" 2>&1
is "the pipeline measures each step" "$(awk '$3 ~ /±/ {printf "%s ", $1}' "$T/run/table")" "before harmful harmless sft dpo "
like "and says whether it was enough" "$(cat "$T/run/table")" '^gate: '
done_testing
