#!/bin/sh
# smoke
. "$(dirname "$0")/tap.sh"
[ -x "$BIN/scalefit" ] || skip_all "scalefit is not built"
runs=tests/data/isoflop.tsv
tab=$(printf '\t')

# value JSON-file LAW KEY
value() { grep "\"$2\"" "$1" | sed "s/.*\"$3\": \([^,}]*\).*/\1/"; }
# reference WINDOW COLUMN
reference() { awk -F'\t' -v w="$1" -v c="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == c) k = i } $1 == w { print $k }' tests/data/isoflop-fits.tsv; }
# close NAME A B TOLERANCE: absolute
close() { awk -v a="$2" -v b="$3" -v t="$4" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d <= t && d >= -t) }'; s=$?; result $s "$1"; [ $s -eq 0 ] || echo "# $2 for $3" >&2; }

for window in 2 all; do
    ok "isoflop --window $window runs" scalefit isoflop -q --json --window $window --budget 5.88e23 $runs
    cp "$T/.out" "$T/fit.json"
    is "as many budgets count as NumPy finds" "$(grep -c '"used": true' "$T/fit.json")" "$(reference $window budgets)"
    for law in N D; do
        close "slope of $law" "$(value "$T/fit.json" "log10_${law}_on_log10_C" slope)" "$(reference $window ${law}_slope)" 1e-6
        close "intercept of $law" "$(value "$T/fit.json" "log10_${law}_on_log10_C" intercept)" "$(reference $window ${law}_intercept)" 1e-5
        close "standard error of $law's slope" "$(value "$T/fit.json" "log10_${law}_on_log10_C" slope_se)" "$(reference $window ${law}_slope_se)" 1e-7
        close "standard error of $law's intercept" "$(value "$T/fit.json" "log10_${law}_on_log10_C" intercept_se)" "$(reference $window ${law}_intercept_se)" 1e-6
    done
done
like "a budget without an inner minimum is named with the reason" "$(scalefit isoflop --window all $runs 2>&1 >/dev/null)" 'budget .* is not used: '
like "a prediction has an interval" "$(scalefit isoflop --budget 1e21 $runs)" 'at 1e\+21 FLOPs:  parameters [0-9.e+]* \([0-9.e+]* … [0-9.e+]*\)  tokens'
tr '\t' , <$runs >"$T/runs.csv"
scalefit isoflop --json $runs >"$T/a"
scalefit isoflop --json "$T/runs.csv" >"$T/b"
same "CSV is read as TSV is" "$T/a" "$T/b"
awk 'NR > 1 { printf "{\"loss\": %s, \"params\": %s, \"flops\": %s, \"tokens\": %s}\n", $4, $1, $3, $2 }' $runs >"$T/runs.jsonl"
scalefit isoflop --json "$T/runs.jsonl" >"$T/b"
same "so are JSON Lines, in any order of keys" "$T/a" "$T/b"
gzip -c $runs | scalefit isoflop --json - >"$T/b"
same "so is compressed standard input" "$T/a" "$T/b"
sed 's/^params/size/' $runs | scalefit isoflop --json --columns size=params >"$T/b"
same "--columns renames" "$T/a" "$T/b"
awk 'NR == 1 { print $0 "\tset"; next } { print $0 "\tgood"; print $1 "\t" $2 "\t" $3 "\t1\tbad" }' $runs | scalefit isoflop --json --where set=good >"$T/b"
same "--where chooses rows" "$T/a" "$T/b"
awk 'NR == 1 { print; next } { print; print $1 "\t" $2 "\t" $3 "\t" $4 + 1 }' $runs | scalefit isoflop --json >"$T/b"
same "of runs of one size the lowest loss counts" "$T/a" "$T/b"
mkdir "$T/logs"
awk -v dir="$T/logs" 'NR > 1 { f = dir "/" NR ".jsonl"; printf "{\"step\": 1, \"params\": %s, \"flops\": %s, \"tokens\": 10, \"loss\": 0.1}\n", $1, $3 / 2 >f
    printf "{\"step\": 2, \"loss\": 9, \"val_loss\": %s, \"params\": %s, \"flops\": %s, \"tokens\": %s, \"final\": true}\n", $4, $1, $3, $2 >f; close(f) }' $runs
scalefit isoflop --json "$T"/logs/*.jsonl >"$T/b"
same "of training logs the final line counts, with its val_loss" "$T/a" "$T/b"
head -n 1 "$T/logs/9.jsonl" >"$T/unfinished.jsonl"
like "a run that has not ended is left out and named" "$(scalefit isoflop "$T/unfinished.jsonl" $runs 2>&1 >/dev/null)" 'unfinished.jsonl: no line is final'
awk 'BEGIN { print "flops\tloss"; for (i = 1; i < 9; i++) print 10 ^ i "\t" 3 * 10 ^ (-0.25 * i) }' >"$T/power.tsv"
like "power finds a power law" "$(scalefit power --budget 1e12 "$T/power.tsv")" 'loss = 3 · flops\^-0\.250000 .*'
like "and predicts with it" "$(scalefit power --budget 1e12 "$T/power.tsv")" 'at flops 1e\+12: loss 0\.003 '
if command -v gnuplot >/dev/null; then
    ok "--plot draws" scalefit isoflop --plot "$T/p.svg" --budget 1e21 $runs
    like "an SVG" "$(head -c 200 "$T/p.svg")" '<svg|<\?xml'
    ok "--plot draws a power law as PNG" scalefit power --plot "$T/p.png" "$T/power.tsv"
    fails 1 "svg or .png" "a picture of another kind" scalefit isoflop --plot "$T/p.gif" $runs
else
    skip "--plot draws" "gnuplot is not installed"
fi
mkdir "$T/empty"
fails 1 "gnuplot" "no gnuplot: said so" env PATH="$T/empty:/nowhere" "$BIN/scalefit" isoflop --plot "$T/none.svg" $runs
is "and no picture appears" "$(ls "$T/none.svg" 2>/dev/null)" ""

plan=$(scalefit plan --params 7e9 --tokens 1e12 --tflops 10 --mfu 1)
like "GPU hours of 7B on 1T" "$plan" 'GPU hours +1\.16667e\+06 h'
like "and the same in seconds" "$plan" '4\.2e\+09 s'
like "memory of inference by rule" "$(scalefit plan --params 70e9 --tokens 1 --bits 4)" '4\.2e\+10 bytes'
like "memory of training by rule is three times that" "$plan" 'three times that +5\.04e\+10 bytes'
like "a checkpoint" "$plan" 'checkpoint .*9\.8e\+10 bytes'
like "interval of saves of 16,384 GPUs" "$(scalefit plan --json --params 405e9 --tokens 15e12 --gpus 16384)" 'checkpoint_interval_young": 1155\.9'
like "KV cache of Llama 3 8B" "$(scalefit plan --json --params 8e9 --tokens 1 --layers 32 --hidden 4096 --heads 32 --kv-heads 8)" 'kv_cache_bytes_per_token": 131072'
for n in 3e5 2e6 5e7; do
    scalefit shape --params $n --vocab 4096 --head-dim 32 --eos 4095 >"$T/config.json" 2>"$T/said"
    got=$(sed 's/^scalefit: \([0-9]*\) .*/\1/' "$T/said")
    close "shape of $n parameters" "$got" "$n" "$(awk -v n=$n 'BEGIN { print n * 0.02 }')"
    ok "whose configuration plan reads" scalefit plan --model-config "$T/config.json" --tokens 1e9
done
is "the number said is that of the configuration" "$(scalefit plan --json --model-config "$T/config.json" --tokens 1 | sed -n 's/.*"params": \([0-9.e+]*\),/\1/p' | awk '{ printf "%d", $1 }')" "$got"

fails 2 "unknown command 'parametric'" "a command that is not there" scalefit parametric $runs
fails 2 "command" "no command" scalefit
fails 2 "needs --tokens" "plan without sizes" scalefit plan --params 1e9
fails 2 "needs --params" "shape without sizes" scalefit shape --params 1e9
fails 2 "budget" "a budget that is no number" scalefit isoflop --budget much $runs
fails 2 "window" "a window that is no number" scalefit isoflop --window x $runs
fails 2 "" "an unknown option" scalefit isoflop --nonsense $runs
fails 1 "where" "--where without a value" scalefit isoflop --where a $runs
fails 1 "no rows" "no row that --where wants" scalefit isoflop --where params=none $runs
fails 1 "none.tsv" "a missing table" scalefit isoflop "$T/none.tsv"
fails 1 "" "a folder for a table" scalefit isoflop "$T"
fails 1 "no positive flops" "columns that are not there" scalefit isoflop "$T/power.tsv"
printf 'params\ttokens\tflops\tloss\n1\t2\t3\n' >"$T/bad.tsv"
fails 1 "bad.tsv:2: 3 cells" "a row that is too short" scalefit isoflop "$T/bad.tsv"
printf 'params\ttokens\tflops\tloss\n1\t2\t3\t4\t5\n' >"$T/bad.tsv"
fails 1 "bad.tsv:2: 5 cells" "a row that is too long" scalefit isoflop "$T/bad.tsv"
printf 'params\ttokens\tflops\tloss\nmany\t2\t3\t4\n' >"$T/bad.tsv"
fails 1 "no positive flops" "a cell that is no number" scalefit isoflop "$T/bad.tsv"
printf '{"params": 1}\n{"params": \n' >"$T/bad.jsonl"
fails 1 "bad.jsonl:2" "a malformed JSON line" scalefit isoflop "$T/bad.jsonl"
printf '{"params": "\377"}\n' >"$T/bad.jsonl"
fails 1 "bad.jsonl:1" "invalid UTF-8" scalefit isoflop "$T/bad.jsonl"
gzip -c $runs | head -c 500 >"$T/cut.gz"
fails 1 "cut.gz" "a truncated gzip" scalefit isoflop "$T/cut.gz"
head -n 9 $runs >"$T/one.tsv"
fails 1 "two budgets" "too few budgets" scalefit isoflop "$T/one.tsv"
: >"$T/nothing"
fails 1 "no rows" "an empty table" scalefit isoflop "$T/nothing"
fails 1 "" "a full device" sh -c "scalefit isoflop $runs >/dev/full"
is "a closed pipe is silent" "$( (scalefit isoflop $runs | true) 2>&1)" ""

shared=$ROOT/../shared/data/scaling
if [ -r "$shared/reference-fits.json" ]; then
    for a in "rw base short kaplan standard 0.592957149" "rw base long kaplan kaplan 0.864646271" "owt2 tuned short const standard 0.507914419"; do
        set -- $a
        scalefit isoflop -q --json --where corpus=$1 --where hparams=$2 --where warmup=$3 --where decay=$4 --where count=$5 "$shared/porian-isoflop.tsv" >"$T/fit.json"
        close "slope of the set-up $1 $2 $3 $4 $5" "$(value "$T/fit.json" log10_N_on_log10_C slope)" "$6" 1e-6
    done
else
    skip "slopes of other set-ups" "there is no ../shared/data"
fi
done_testing
