# smoke
# A model that lmpipe trained gives here what it gives in transformers (tests/reference/road_golden.py): log-probabilities of
# held-out text and greedy answers.
. "$(dirname "$0")/tap.sh"
M=tests/data/models/road
lmeval --model $M --perplexity $M/heldout.jsonl --json >"$T/out" 2>"$T/err" || cat "$T/err" >&2
ours=$(sed -n 's/.*"metric":"token_perplexity","value":\([0-9.]*\).*/\1/p' "$T/out")
verdict=$(awk -F '\t' -v ours="$ours" '$1 == "nll" {n += $3; nll += $4} END {want = nll / n; d = log(ours) / want - 1; d = d < 0 ? -d : d
    printf "%s: %.6f nats a token over %d, relative difference %.2g", (n > 500 && d <= 1e-6 ? "fine" : "bad"), want, n, d}' $M/golden.tsv)
like "log-probabilities of held-out text ($verdict)" "$verdict" '^fine'
tab=$(printf '\t')
grep '^answer' $M/golden.tsv | while IFS=$tab read -r _ prompt answer; do
    printf '%s\n' "$answer" >"$T/want"
    generate --model $M --prompt "$prompt" --temperature 0 --max-tokens 12 -q </dev/null 2>/dev/null | sed 's/.*/"&"/' >"$T/got"
    cmp "$T/want" "$T/got" >&2 || echo "$prompt"
done >"$T/wrong"
is "greedy answers to $(grep -c '^answer' $M/golden.tsv) chats" "$(grep -q '^answer' $M/golden.tsv || echo none; cat "$T/wrong")" ""
done_testing
