# The experiment on mixtures: small runs over random mixes, the laws of their losses, and the best mix trained beside the given one.
. "$(dirname "$0")/tap.sh"
command -v bash >/dev/null || skip_all "no bash"
for s in a b c; do
    awk -v s=$s 'BEGIN { srand(s == "a" ? 1 : s == "b" ? 2 : 3); for (i = 0; i < 120; i++) { t = ""; for (k = 0; k < 40; k++) t = t (s == "a" ? "the river " int(rand() * 90) " " : s == "b" ? "x = " int(rand() * 90) "; " : "zwei " int(rand() * 9) " und ")
        printf "{\"id\":\"%s-%d\",\"text\":\"%s\"}\n", s, i, t } }' >"$T/$s.jsonl"
done
bpe-train -q --vocab-size 300 -o "$T/v" "$T/a.jsonl" "$T/b.jsonl" "$T/c.jsonl"
for s in a b c; do tokenize -q --tokenizer "$T/v" -o "$T/$s" "$T/$s.jsonl"; done
export RUNS=8 TEST=3 SIZE=8e3 TOKENS=4096 CHECK=1.5e4,4096 SEEDS=1 SEQ=32 BATCH=128 HELDOUT=320 JOBS=2 LMPIPE_CUDA=none
M="bash pipelines/mix $T/out $T/v a=0.6:$T/a b=0.3:$T/b c=0.1:$T/c"
ok "an experiment of eight runs" sh -c "$M >'$T/said' 2>&1 || { cat '$T/said' >&2; exit 1; }"
is "as many mixes are drawn as there are runs" "$(wc -l <"$T/out/mixes.txt")" 11
is "whose shares add up to 1" "$(awk '{ s = $1 + $2 + $3; if (s < 0.999 || s > 1.001) print }' "$T/out/mixes.txt")" ""
is "each has a loss of each source" "$(awk -F'\t' 'NR > 1 && NF == 7 && $5 > 0 && $6 > 0 && $7 > 0' "$T/out/runs.tsv" | wc -l)" 8
like "more of a source gives a lower loss of it" "$(for k in 2:5 3:6 4:7; do awk -F'\t' -v k="$k" 'BEGIN { split(k, c, ":") } NR > 1 { n++; x = $c[1]; y = $c[2]; sx += x; sy += y; sxy += x * y } END { printf "%s ", sxy - sx * sy / n < 0 ? "lower" : "higher" }' "$T/out/runs.tsv"; done)" "^lower lower lower "
like "the laws are tested on the other runs" "$(cat "$T/out/law.txt")" 'test.tsv, loss_a \(3 runs\): rank correlation'
like "both mixes are foretold and reached at two sizes" "$(tr '\n' ' ' <"$T/out/report.txt")" 'given mix: shares +0\.600 +0\.300 +0\.100 +foretold .*reached, 8e3 on 4096 \(1 runs\).*reached, 1\.5e4 on 4096 .*best mix: shares .*foretold .*reached, 8e3.*best less given, small runs: [-+][0-9.]+ \(foretold -[0-9.]+\)'
cp "$T/out/report.txt" "$T/first"
rm -rf "$T/out/runs/2" "$T/out/check/small-best-1/done" "$T/out/report.txt"
ok "what was broken off goes on" sh -c "$M >'$T/said' 2>&1"
same "and ends in the same report" "$T/out/report.txt" "$T/first"
is "shares may be scattered about those given" "$(RUNS=40 AROUND=300 bash -c 'sed -n "/^\[ -s .*mixes.txt/,/mixes.txt\"$/p" pipelines/mix >'"$T/draw"'; OUT='"$T/around"'; mkdir -p $OUT; shares=(0.6 0.3 0.1); SEED=2; . '"$T/draw"'; awk "{ s += \$1 } END { m = s / NR; print (m > 0.57 && m < 0.63) }" $OUT/mixes.txt')" 1
fails 2 "usage: mix" "one source is no mix" bash pipelines/mix "$T/x" "$T/v" a=1:"$T/a"
done_testing
