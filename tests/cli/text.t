# smoke
# dedup, qfilter, tokenize, bpe-train and mixshard on small inputs, good and bad.
. "$(dirname "$0")/tap.sh"
cat >"$T/d.jsonl" <<'D'
{"id":"a","text":"The quick brown fox jumps over the lazy dog near the river bank in the early morning light","x":[1, 2]}
{"text":"the quick brown fox jumps over the lazy dog near the river bank in the early morning light!","id":"b"}
{"id":"c","text":"Something else entirely, about numbers and their sums, with nothing in common.","url":"http://a.spam.example/x"}
{"id":"d","text":"The quick brown fox jumps over the lazy dog near the river bank in the early morning light","x":[1, 2]}
D
is "dedup --exact keeps the first" "$(dedup --exact "$T/d.jsonl" | wc -l)" 3
is "dedup --fuzzy finds what differs in case and marks" "$(dedup --fuzzy --removed "$T/r" "$T/d.jsonl" | cut -c1-9 | tr '\n' ' ')" '{"id":"a" {"id":"c" '
like "and says why" "$(head -n 1 "$T/r")" '"removed":\{"method":"fuzzy","kept":"a","match":"a","similarity":1\}'
is "fields pass through byte for byte" "$(dedup --exact "$T/d.jsonl" | head -n 1)" "$(head -n 1 "$T/d.jsonl")"
for i in 1 2 3 4 5 6 7 8; do printf '{"id":"%s","text":"menu\\nline %s of its own"}\n' $i $i; done >"$T/l.jsonl"
is "dedup --lines cuts what stands too often" "$(dedup --lines <"$T/l.jsonl" | head -n 1)" '{"id":"1","text":"line 1 of its own"}'
is "qfilter names rule and reason" "$(qfilter --rules gopher-quality --removed "$T/r" "$T/d.jsonl"; sed -n '1s/.*"removed"://p' "$T/r")" '{"rule":"gopher-quality","reason":"gopher_short_doc"}}'
is "qfilter --block-domains" "$(qfilter --block-domains pipelines/lists/domains.txt "$T/d.jsonl" | wc -l)" 3
is "qfilter --pii=mask" "$(echo '{"text":"bob@x.io 10.0.0.1 8.8.8.8"}' | qfilter --pii=mask)" '{"text":"email@example.com 10.0.0.1 22.214.171.124"}'
is "c4 removes citations" "$(echo '{"text":"See [12] the facts [edit]."}' | qfilter --rules c4 --set c4.min-num-sentences=-1)" '{"text":"See  the facts ."}'

# Bytes in and out are of lines, so that a filter's books can be checked with wc.
stat() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$T/stats"; }
{ cat "$T/d.jsonl"; printf '%s\n' '{"text":"write to \"bob\":\nbob@x.io"}'; } >"$T/in.jsonl"
for t in "dedup --exact" "qfilter --pii=mask --block-domains pipelines/lists/domains.txt"; do
    $t --stats "$T/stats" "$T/in.jsonl" >"$T/kept.jsonl"
    is "${t%% *} --stats: bytes in and out" "$(stat bytes_in) $(stat bytes_out)" "$(wc -c <"$T/in.jsonl") $(wc -c <"$T/kept.jsonl")"
done
like "and bytes removed" "$(cat "$T/stats")" "\"removed\":\{\"block-domains/domain\":\{\"documents\":1,\"bytes\":$(sed -n 3p "$T/d.jsonl" | wc -c)\}\},\"seconds\":[0-9]"

ok "bpe-train" bpe-train -q --vocab-size 300 --chat-template -o "$T/v" "$T/d.jsonl"
bpe-train -q --vocab-size 300 --chat-template -o "$T/again" "$T/d.jsonl"
bpe-train -q --vocab-size 300 -o "$T/again" "$T/d.jsonl"
is "a vocabulary without a chat template leaves none of an older one" "$(ls "$T/again" | tr '\n' ' ')" "tokenizer.json tokenizer_config.json "
fails 2 "special is empty" "bpe-train: an empty special token" bpe-train -q --vocab-size 300 --special "" -o "$T/none" "$T/d.jsonl"
ok "and no vocabulary appears" test ! -e "$T/none"
hash_of() { tokenize --tokenizer "$1" --ids tests/data/converter.jsonl | sed 's/.*"ids":\(.*\)}/\1/; s/,/, /g' | tr -d '\n' | sha256sum | cut -d' ' -f1; }
like "the line that registers it with llama.cpp is printed" "$(bpe-train --vocab-size 300 --pattern qwen2 -o "$T/q" "$T/d.jsonl" 2>&1)" "if chkhsh == \"$(hash_of "$T/q")\": res = \"qwen2\""
tokenize --tokenizer "$T/v" --ids "$T/d.jsonl" >"$T/ids"
tokenize --tokenizer "$T/v" --decode --text "$T/ids" >"$T/back"
is "tokenize --decode gives the text back" "$(head -n 1 "$T/back")" "The quick brown fox jumps over the lazy dog near the river bank in the early morning light"
tokenize --tokenizer "$T/v" -j 1 --ids "$T/d.jsonl" >"$T/ids1"
same "threads change nothing" "$T/ids" "$T/ids1"
counted=$(tokenize --tokenizer "$T/v" --count "$T/d.jsonl" | sed 's/.*\("documents".*\)}/\1/')
like "--count: bytes are of the texts" "$counted" '^"documents":4,"bytes":349,"tokens":[1-9]'
for t in "--ids $T/d.jsonl" "--decode $T/ids"; do
    tokenize --tokenizer "$T/v" --stats "$T/stats" $t >"$T/out"
    like "${t%% *} --stats: as --count says" "$(cat "$T/stats")" "^.$counted,\"skipped\":0,\"seconds\":"
done
: >"$T/none.jsonl"
is "--count has a line for each file" "$(cd "$T" && tokenize --tokenizer v --count none.jsonl d.jsonl d.jsonl - none.jsonl <d.jsonl | sed 's/,"bytes.*//' | tr '\n' ' ')" \
    '{"file":"none.jsonl","documents":0 {"file":"d.jsonl","documents":4 {"file":"d.jsonl","documents":4 {"file":"stdin","documents":4 {"file":"none.jsonl","documents":0 '
is "its tokens are those of --ids" "$(tokenize --tokenizer "$T/v" --count "$T/d.jsonl" | sed 's/.*"tokens":\([0-9]*\)}/\1/')" "$(sed 's/.*\[//; s/\].*//' "$T/ids" | awk -F, '{ n += NF } END { print n }')"
is "--max-tokens leaves a document's first ones" "$(tokenize --tokenizer "$T/v" --max-tokens 3 --ids "$T/d.jsonl")" "$(sed 's/\(\[[0-9]*,[0-9]*,[0-9]*\)[^]]*/\1/' "$T/ids")"
tokenize -q --tokenizer "$T/v" --max-tokens 4 -o "$T/cut" "$T/d.jsonl"
tokenize -q --tokenizer "$T/v" --max-tokens 1 -o "$T/eos" "$T/d.jsonl"
is "and in a shard end-of-text behind them" "$(od -An -v -tu2 -w8 "$T/cut.bin" | tr -s ' ' | cut -c2-)" \
    "$(sed 's/.*\[\([0-9]*\),\([0-9]*\),\([0-9]*\).*/\1 \2 \3/' "$T/ids" | while read -r first; do echo "$first $(od -An -tu2 -N2 "$T/eos.bin" | tr -d ' ')"; done)"
special() { printf 'a<|eot_id|><|end_of_text|>\n' | tokenize --tokenizer "$T/v" --text --ids "--parse-special=$1" | tr -cd , | wc -c; }
is "--parse-special takes those of its list" "$(special all) $(special '<|eot_id|>,<|end_of_text|>') $(($(special '<|eot_id|>') > 2))" "2 2 1"
for name in '<|eot|>' '<|eot_id|>,<|eot|>'; do
    fails 1 "$T/v: no added token '<.eot.>'" "--parse-special=$name: a token that there is not" tokenize --tokenizer "$T/v" --ids "--parse-special=$name" "$T/d.jsonl"
done
# In GPT-2's pattern four digits are one piece, in cl100k's three and one.
for name in r50k p50k gpt2 cl100k o200k; do printf '%s\n' 'MQ== 0' 'Mg== 1' 'Mw== 2' 'NA== 3' 'MTI= 4' 'MzQ= 5' 'MTIzNA== 6' >"$T/${name}_base.tiktoken"; done
is "a .tiktoken file's name says its pattern" "$(for name in r50k p50k gpt2 cl100k o200k; do echo 1234 | tokenize --tokenizer "$T/${name}_base.tiktoken" --text --ids | tr -dc '0-9,\n' | tr '\n' ' '; done)" \
    "6 6 6 4,2,3 4,2,3 "
ok "tokenize -o" tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
ok "mixshard" mixshard -q x=1:"$T/s" --tokens 64 --seq-len 16 --holdout 20 -o "$T/m"
fails 1 "runs out" "mixshard: a source that runs out is named" mixshard -q x=1:"$T/s" --tokens 1e6 --seq-len 16 -o "$T/m2"
ok "and no shard appears" test ! -e "$T/m2/train.bin"
printf 'MMIDIDX\000\000\001\000\000\000\000\000\000\000\010\377\377\377\377\377\377\377\177\002\000\000\000\000\000\000\000' >"$T/bad.idx"
: >"$T/bad.bin"
fails 1 "bad.idx: claims" "an absurd header is refused" mixshard x=1:"$T/bad" --tokens 10 --seq-len 4 -o "$T/m3"

for t in "dedup --exact" "qfilter --rules c4" "tokenize --tokenizer $T/v --ids" "bpe-train -o $T/v2"; do
    prog=${t%% *}
    fails 1 "$prog: nowhere: No such file" "$prog: a missing file" $t nowhere
    fails 1 "$prog: $T: is a directory" "$prog: a directory" $t "$T"
    gzip -c "$T/d.jsonl" | head -c 60 >"$T/cut.gz"
    fails 1 "cut.gz: compressed data ends too early" "$prog: truncated gzip" $t "$T/cut.gz"
    printf '{"text":"a"}\n{"text":\n' >"$T/bad.jsonl"
    fails 1 "bad.jsonl:2: " "$prog: a malformed line" $t "$T/bad.jsonl"
    printf '{"text":7}\n' >"$T/type.jsonl"
    fails 1 "type.jsonl:1: field 'text' is not a string" "$prog: a wrong type" $t "$T/type.jsonl"
    printf '{"text":"\377"}\n' >"$T/utf.jsonl"
    fails 1 "utf.jsonl:1: invalid UTF-8" "$prog: invalid UTF-8" $t "$T/utf.jsonl"
done
like "--on-error=skip counts" "$(dedup --exact --on-error=skip "$T/bad.jsonl" 2>&1 >/dev/null)" "1 malformed record skipped, the first: .*bad.jsonl:2"
fails 1 "No space left" "a full disk" sh -c "dedup --exact $T/d.jsonl >/dev/full"
is "a closed pipe is silent" "$( (yes '{"text":"a b c"}' | head -n 200000 | tokenize --tokenizer "$T/v" --ids | head -n 1 >/dev/null) 2>&1)" ""
is "-o leaves nothing behind when it fails" "$(dedup --exact -o "$T/out.jsonl" "$T/bad.jsonl" 2>/dev/null; ls "$T" | grep -c out.jsonl)" 0
done_testing
