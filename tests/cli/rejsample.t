# rejsample: choices by several reward models, what is left out, the curve of the best of k, and people's rankings.
. "$(dirname "$0")/tap.sh"
choice() { grep -o '"content":"[^"]*"' | sed -n "$1p" | cut -d'"' -f4; }

# Votes: two of three models like y best; the mean of the standardised scores says z.
echo '{"prompt":"a","responses":["x","y","z"],"scores":[[0,0,5],[2,1,4],[1.8,0.99,7]]}' >"$T/three.jsonl"
rejsample -q --best "$T/three.jsonl" >"$T/out"
is "most votes win" "$(choice 2 <"$T/out")" y
like "and are told, beside the mean of the scores" "$(cat "$T/out")" '"score":2\.333[0-9]*,"votes":2\}$'
is "or the mean alone" "$(rejsample -q --best --choose=mean "$T/three.jsonl" | choice 2)" z
rejsample -q --pairs --margins "$T/three.jsonl" >"$T/out"
like "the worst is voted for too, and the margin written" "$(cat "$T/out")" '"content":"x"\}\],"margin":0\.666[0-9]*,"scores":\[2\.333[0-9]*,1\.666[0-9]*\],"votes":\[2,2\]\}$'
fails 1 "as many for each response" "a list that lacks a score" sh -c "echo '{\"prompt\":\"a\",\"responses\":[\"x\",\"y\"],\"scores\":[[1,2],[3]]}' | rejsample --best"
fails 2 "needs files of candidates" "ranking without candidates" rejsample --annotate "$T/none.jsonl"
fails 2 "margins goes with --pairs" "margins of no pairs" rejsample --best --margins "$T/three.jsonl"

# What a record has besides goes with the choice as it stands: the tools that the prompt was rendered with, names, fields of the user's own.
cat >"$T/more.jsonl" <<'J'
{"id":12345678901234567890,"prompt":"a", "tools" : [{"type": "function"}],"responses":["x","y"],"scores":[1,2],"finish_reasons":["stop","stop"],"x":{"y": [1e2, 0.10]},"score":9,"k\u0065y":"v\u0041"}
J
is "other fields go with the best, as they stand" "$(rejsample -q --best "$T/more.jsonl")" \
    '{"id":12345678901234567890,"tools":[{"type": "function"}],"x":{"y": [1e2, 0.10]},"key":"vA","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"y"}],"score":2}'
like "and with a pair" "$(rejsample -q --pairs "$T/more.jsonl")" '^\{"id":12345678901234567890,"tools":\[.*"key":"vA","prompt":\[.*"rejected":\[.*\],"scores":\[2,1\]\}$'

# So do the prompt's messages and the scores' digits; a conversation may be empty.
is "messages stand as they were" "$(echo '{"prompt":[{"role":"user","content":"a","n":[1.50,  12345678901234567890]}],"responses":["x","y"],"scores":[0.1,0.3]}' | rejsample -q --best)" \
    '{"messages":[{"role":"user","content":"a","n":[1.50,  12345678901234567890]},{"role":"assistant","content":"y"}],"score":0.3}'
is "an empty prompt is answered" "$(echo '{"prompt":[],"responses":["x"],"scores":[1]}' | rejsample -q --best)" '{"messages":[{"role":"assistant","content":"x"}],"score":1}'
for prompt in 5 null '{"role":"user"}' '["a"]'; do
    fails 1 "bad.jsonl:1: 'prompt' must be a string or a list of messages" "the prompt $prompt" \
        sh -c "echo '{\"prompt\":$prompt,\"responses\":[\"x\",\"y\"],\"scores\":[1,2]}' >$T/bad.jsonl; rejsample --best $T/bad.jsonl"
done

# Scores of other answers do not stand beside new ones.
is "generate takes old scores away" "$(echo '{"scores":[1,2],"prompt":"a","responses":["x","y"]}' | generate -q --model tests/data/posttrain/model --samples 2 --max-tokens 2 | grep -c scores)" 0

# The curve: of 1, 2, 3, 6 the best of two is (1·2 + 2·3 + 3·6)/6 = 26/6 on average; repeated answers count as drawn.
cat >"$T/curve.jsonl" <<'J'
{"prompt":"a","responses":["p","q","r","s"],"scores":[3,1,6,2]}
{"prompt":"b","responses":["p","q","p","q"],"scores":[1,0,1,0]}
{"prompt":"c","responses":["p","","q"],"scores":[4,9,2],"finish_reasons":["stop","stop","length"]}
J
rejsample --best --curve "$T/curve.tsv" -o "$T/best" "$T/curve.jsonl" 2>"$T/err"
is "the best of k is estimated without bias" "$(cut -f 1,2,5 "$T/curve.tsv" | tr '\t\n' '  ')" "k reward prompts 1 2.5 3 2 2.58333 2 3 3.125 2 4 3.5 2 "
is "with the bound of its divergence" "$(cut -f 4 "$T/curve.tsv" | tr '\n' ' ')" "kl_bound 0.000000 0.193147 0.431946 0.636294 "
like "which is told" "$(cat "$T/err")" 'best of 2: reward 2\.5833 ± 1\.7500, KL at most 0\.193 \(2 prompts\)'
like "and what was left out" "$(cat "$T/err")" 'left out: 1 empty answers, 1 cut off, 2 there twice'
if command -v gnuplot >/dev/null; then
    rejsample -q --best --curve "$T/curve.svg" -o "$T/best" "$T/curve.jsonl"
    like "a picture of it" "$(head -c 300 "$T/curve.svg")" "<svg"
else
    skip "a picture of it" "no gnuplot"
fi

# Models: the record's own answer joins; candidates that are there are scored; two reward models.
M=tests/data/posttrain/model
for i in 1 2; do rmtrain -q --model $M --epochs 1 --lr 1e-3 --seed $i --save-every 0 -o "$T/r$i" tests/data/posttrain/pairs.jsonl; done
for i in 1 2 3 4 5; do echo "{\"prompt\":\"Is $i even?\",\"answer\":\"number $i\",\"talk\":[{\"role\":\"assistant\",\"content\":\"talk $i\"}]}"; done >"$T/p.jsonl"
R="rejsample --model $M --reward $T/r1 --samples 6 --seed 3 --temperature 0.9 --max-tokens 6"
generate -q --model $M --samples 6 --seed 3 --temperature 0.9 --max-tokens 6 "$T/p.jsonl" | sed 's/"finish_reasons":\[[^]]*\],//' >"$T/c.jsonl"
rmtrain --score -q --model "$T/r1" --max-length 2100 "$T/c.jsonl" >"$T/s1.jsonl"
rejsample -q --pairs "$T/s1.jsonl" >"$T/a"
rejsample -q --pairs --reward "$T/r1" "$T/c.jsonl" >"$T/b"
same "candidates that are there are scored as rmtrain --score does" "$T/a" "$T/b"
rmtrain --score -q --model "$T/r2" --max-length 2100 "$T/c.jsonl" >"$T/s2.jsonl"
paste -d '\n' "$T/s1.jsonl" "$T/s2.jsonl" | perl -ne 'if ($. % 2) { $line = $_; next } my ($two) = /"scores":\[([^\]]*)/; my @b = split /,/, $two;
    $line =~ s/"scores":\[([^\]]*)\]/my $i = 0; "\"scores\":[" . join(",", map { "[$_,$b[$i++]]" } split \/,\/, $1) . "]"/e; print $line' >"$T/s12.jsonl"
rejsample -q --pairs "$T/s12.jsonl" >"$T/a"
rejsample -q --pairs --reward "$T/r1" --reward "$T/r2" "$T/c.jsonl" >"$T/b"
same "two reward models score as they do one by one" "$T/a" "$T/b"
# A prompt that the reward model's template does not take is left out, and those before it are chosen from.
sed '2s/"prompt":"[^"]*"/"prompt":[{"role":"nobody","content":"a"}]/' "$T/c.jsonl" >"$T/odd.jsonl"
rejsample -q --best --reward "$T/r1" "$T/c.jsonl" >"$T/a"
rejsample --best --reward "$T/r1" --on-error=skip "$T/odd.jsonl" >"$T/b" 2>"$T/err"
is "candidates with a malformed prompt are left out" "$(cat "$T/b")" "$(sed 2d "$T/a")"
like "and named" "$(cat "$T/err")" "odd.jsonl:2: message 1 has the unknown role 'nobody'"
fails 1 "odd.jsonl:2: message 1 has the unknown role 'nobody'" "or end the program" rejsample --best --reward "$T/r1" -o "$T/no" "$T/odd.jsonl"
is "behind what came before" "$(rejsample -q --best --reward "$T/r1" "$T/odd.jsonl" 2>"$T/err")" "$(sed -n 1p "$T/a")"
like "the reference answer can win" "$($R --reference answer --best -o "$T/with" "$T/p.jsonl" 2>&1)" 'the reference answer was the best of [0-9]+ prompts'
is "it is there where all others are cut" "$($R --reference talk --max-tokens 1 --best -q "$T/p.jsonl" | sed 's/.*"messages"//' | grep -o 'talk [1-5]' | tr '\n' ' ')" "talk 1 talk 2 talk 3 talk 4 talk 5 "
fails 1 "no answer in 'nothing'" "a record without it" $R --reference nothing --best "$T/p.jsonl"

# People rank, driven by a script. What is shown is parsed, so that answers can be named.
cat >"$T/q.jsonl" <<'J'
{"id":1,"prompt":"first","responses":["one","two","three","two"]}
{"prompt":[{"role":"system","content":"be brief"},{"role":"user","content":"second"}],"responses":["red","green"]}
{"prompt":"alone","responses":["same","same",""]}
{"id":"3","prompt":"third","responses":["up","down","left","right"]}
J
A="rejsample -q --annotate $T/r.jsonl --annotator"
letter() { sed -n "s/^\[\(.\)\] $1\$/\1/p" "$T/shown"; }
printf '/quit\n' | $A ann "$T/q.jsonl" >"$T/shown"
is "different answers are shown" "$(sed -n 's/^\[.\] //p' "$T/shown" | sort | tr '\n' ' ')" "one three two "
like "with the prompt and its place" "$(tr '\n' ' ' <"$T/shown")" '1 of 3 ----- first'
order="$(letter two)>$(letter three)=$(letter one)"
printf 'nonsense\na b\na=\n%s\n' "$order" | $A ann "$T/q.jsonl" >"$T/shown"
is "what is no order is asked again" "$(grep -c 'that is no order of 3' "$T/shown")" 3
is "an order with ties is saved" "$(cat "$T/r.jsonl")" '{"id":1,"prompt":"first","responses":["two","one","three"],"ranks":[1,2,2],"annotator":"ann"}'
like "the next session begins where this one ended" "$(printf '' | $A ann "$T/q.jsonl" | tr '\n' ' ')" '2 of 3 ----- system: be brief user: second'
printf '{"half' >>"$T/r.jsonl"
printf 'a b\n/back\na=b\n/skip\n' | $A ann "$T/q.jsonl" >"$T/shown"
is "a line that a crash has cut goes, and a ranking is taken back" "$(sed 1d "$T/r.jsonl")" '{"prompt":[{"role":"system","content":"be brief"},{"role":"user","content":"second"}],"responses":["red","green"],"ranks":[1,1],"annotator":"ann"}'
like "what is left is told" "$(printf '' | rejsample --annotate "$T/r.jsonl" --annotator ann "$T/q.jsonl" 2>&1 >/dev/null)" '0 ranked by ann, 1 left, 1 with less than two different answers'
for who in ann bob; do printf '' | $A $who --seed 4 "$T/q.jsonl" | grep '^\[' | sort | tr '\n' ' '; echo; done >"$T/orders"
is "another annotator sees another order" "$(sort -u "$T/orders" | wc -l | tr -d ' ')" 2
$A bob "$T/q.jsonl" </dev/null >"$T/shown"
printf '%s %s=%s\na b\n' "$(letter two)" "$(letter one)" "$(letter three)" | $A bob "$T/q.jsonl" >"$T/report"
like "agreement is told" "$(cat "$T/report")" "Kendall's W 0.75[0-9]*, the mean of 2 items"
# Golden by SciPy and scikit-learn (tests/reference/agreement_check.py compares live).
cat >"$T/g.jsonl" <<'J'
{"prompt":"p","responses":["a","b","c","d"],"annotator":"ann"}
{"prompt":"p","responses":["b","a","d","c"],"ranks":[1,2,3,3],"annotator":"bob"}
{"prompt":"p","responses":["a","c","b","d"],"annotator":"cy"}
J
rejsample --agreement "$T/g.jsonl" >"$T/report"
is "Kendall's W and Cohen's kappa are those of SciPy and scikit-learn" "$(sed 's/:.*//' "$T/report" | tr '\n' ';')" "Kendall's W 0.7241, the mean of 1 items;Cohen's kappa 0.4286 of ann and bob;Cohen's kappa 0.6667 of ann and cy;Cohen's kappa 0.1429 of bob and cy;"
fails 1 "g.jsonl:1: 'ranks' must hold" "ranks that are too few" sh -c "echo '{\"prompt\":\"p\",\"responses\":[\"a\",\"b\"],\"ranks\":[1]}' >$T/g.jsonl; rejsample --agreement $T/g.jsonl"
# What is tied teaches a reward model nothing: the loss is that of the pairs that are left.
loss() { sed -n 's/.*"loss":\([0-9.]*\).*/\1/p' "$1/log.jsonl" | head -n 1; }
echo '{"prompt":"p","responses":["a","b","c"],"ranks":[1,1,2]}' >"$T/tied.jsonl"
printf '{"prompt":"p","chosen":"a","rejected":"c"}\n{"prompt":"p","chosen":"b","rejected":"c"}\n' >"$T/pairs.jsonl"
for k in tied pairs; do rmtrain -q --model "$T/r1" --epochs 1 --batch-size 4 --save-every 0 --lr 0 --min-lr 0 -o "$T/$k" "$T/$k.jsonl"; done
is "a tied pair is left out" "$(loss "$T/tied" | cut -c 1-7)" "$(loss "$T/pairs" | cut -c 1-7)"
fails 1 "numbers that do not fall" "ranks against the order" sh -c "echo '{\"prompt\":\"p\",\"responses\":[\"a\",\"b\"],\"ranks\":[2,1]}' | rmtrain --model $M -o $T/no"
done_testing
