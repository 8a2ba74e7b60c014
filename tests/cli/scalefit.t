#!/bin/sh
# smoke
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/law.sh"
runs=tests/data/isoflop.tsv
tab=$(printf '\t')

# reference WINDOW COLUMN
reference() { awk -F'\t' -v w="$1" -v c="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == c) k = i } $1 == w { print $k }' tests/data/isoflop-fits.tsv; }

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
scalefit isoflop --json --where 'flops>=1e17' --where 'flops<1e19' $runs >"$T/c"
awk 'NR == 1 || ($3 >= 1e17 && $3 < 1e19)' $runs | scalefit isoflop --json >"$T/b"
same "--where compares numbers" "$T/c" "$T/b"
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

law 9 7 0 >"$T/known.tsv"
scalefit isoflop -q --json --budget 5.76e23 "$T/known.tsv" >"$T/fit.json"
close "a table of a known law: its exponent of N" "$(value "$T/fit.json" log10_N_on_log10_C slope)" 0.4516129 2e-4
close "and of D" "$(value "$T/fit.json" log10_D_on_log10_C slope)" 0.5483871 2e-4
law 9 7 0.004 | scalefit isoflop -q --json --budget 5.76e23 >"$T/fit.json"
inside() { # inside NAME LAW KEY TRUE: the interval KEY holds the truth
    awk -v line="$(grep "\"$2\"" "$T/fit.json")" -v key="$3" -v t="$4" 'BEGIN { if (!match(line, "\"" key "\": \\[[^]]*")) exit 1
        s = substr(line, RSTART, RLENGTH); sub(/.*\[/, "", s); split(s, a, ", "); exit !(a[1] < t && t < a[2]) }'
    result $? "$1"
}
inside "with noise the interval of the exponent holds the truth" log10_N_on_log10_C slope_ci95 0.4516129
inside "and the interval of the prediction too" params params_ci95 3.2187e10
awk -F'\t' -v OFS='\t' '{ print $1, $2, $4 }' "$T/known.tsv" | scalefit isoflop --json >"$T/b"
like "absent FLOPs are six times parameters times tokens" "$(cat "$T/b")" '"log10_N_on_log10_C": ..slope.: 0\.451[5-7]'
awk -F'\t' -v OFS='\t' 'NR == 1 { print; next } { print; print $1 * 1.01, $2, $3, NR % 4 ? "nan" : NR % 3 ? "" : "NA" }' "$T/known.tsv" >"$T/holes.tsv"
scalefit isoflop --json "$T/known.tsv" >"$T/a"
scalefit isoflop --json "$T/holes.tsv" >"$T/b" 2>"$T/said"
same "rows without a loss are left out" "$T/a" "$T/b"
like "and counted" "$(cat "$T/said")" '63 of 126 rows have no loss'
law 2 7 0 | scalefit isoflop --json --budget 1e21 >"$T/two"
awk -F'\t' -v OFS=';' '{ print $1, $2, $3, $4 }' "$T/known.tsv" | scalefit isoflop --json >"$T/b"
same "semicolons part cells too" "$T/a" "$T/b"
{ printf '\357\273\277'; awk -F'\t' -v OFS=', ' '{ print $4, $2, $3, $1 "\r" }' "$T/known.tsv"; } | scalefit isoflop --json >"$T/b"
same "a byte order mark, blanks behind commas, line ends of two bytes" "$T/a" "$T/b"
awk -F'\t' 'NR > 1 { printf "{\"note\": \"NaN \\\"NaN\", \"params\": %s, \"tokens\": %s, \"flops\": %s, \"loss\": %s}\n", $1, $2, $3, $4
    printf "{\"params\": %s, \"tokens\": -Infinity, \"flops\": %s, \"loss\": NaN}\n", $1 * 1.01, $3 }' "$T/known.tsv" | scalefit isoflop --json >"$T/b" 2>"$T/said"
same "NaN in JSON Lines, as Python writes it, is a missing value" "$T/a" "$T/b"
fails 1 "array.json:1: a JSON array; one object a line" "a JSON array" sh -c "echo '[{\"params\": 1}]' >'$T/array.json'; scalefit isoflop '$T/array.json'"
fails 1 "diverged.tsv:3: loss is inf, not a positive number" "a loss that is infinite" sh -c "sed '3s/[^	]*$/inf/' '$T/known.tsv' >'$T/diverged.tsv'; scalefit isoflop '$T/diverged.tsv'"
fails 1 "none.tsv:4: no params" "a run without a size" sh -c "sed '4s/^[^	]*/nan/' '$T/known.tsv' >'$T/none.tsv'; scalefit isoflop '$T/none.tsv'"
like "two budgets give a law without intervals" "$(cat "$T/two")" '"slope_ci95": \[null, null\]'
fails 1 "one.tsv:2: a power law needs two budgets with an inner minimum; 1 of 1" "one budget gives none" sh -c "head -n 8 '$T/known.tsv' >'$T/one.tsv'; scalefit isoflop '$T/one.tsv'"
like "but its minimum is printed" "$(cat "$T/.out")" '6e\+18 +7 +1\.8[0-9]*e\+08'
: >"$T/empty.tsv"
fails 1 "empty.tsv: no rows to fit" "nor does an empty table" scalefit isoflop "$T/empty.tsv"
fails 2 "not a positive number" "a budget beyond every number" scalefit isoflop --budget 1e999 $runs
fails 1 "flat.csv:2: the loss does not fall" "a loss that is the same everywhere" sh -c "{ echo params,tokens,loss; for i in 1 2 3 4 5 6 7; do echo 1e6,1e9,3; done; } >'$T/flat.csv'; scalefit parametric '$T/flat.csv'"
fails 1 "neither exponential nor linear" "an unknown law of mixtures" scalefit mixture --law cubic $runs
printf '"a ""b""",flops,loss\nx,1e3,3\nx,1e5,2\n' >"$T/quoted.csv"
ok "CSV's quotes" scalefit power --where 'a "b"=x' "$T/quoted.csv"

if command -v gnuplot >/dev/null; then
    ok "--plot draws" scalefit isoflop --plot "$T/p.svg" --budget 1e21 $runs
    like "an SVG" "$(head -c 200 "$T/p.svg")" '<svg|<\?xml'
    for text in "loss (nats a token)" "Runs of equal compute, over tokens" "training tokens" "tokens ∝ FLOPs" "training compute (FLOPs)" parameters tokens minimum predicted "1.25·10¹⁶" "95 % of a new point"; do
        ok "that says '$text'" grep -qF "$text" "$T/p.svg"
    done
    ok "--plot draws a power law as PNG" scalefit power --plot "$T/p.png" "$T/power.tsv"
    is "a PNG" "$(head -c 4 "$T/p.png" | od -An -tx1 | tr -d ' ')" 89504e47
    ok "--plot draws a single budget" sh -c "head -n 8 '$T/known.tsv' | scalefit isoflop --plot '$T/single.svg'; [ -s '$T/single.svg' ]"
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
like "compute lost to failures there" "$(scalefit plan --json --params 405e9 --tokens 15e12 --gpus 16384)" 'lost_share": 0\.1038'
llama="scalefit plan --json --params 405853388800 --tokens 15.6e12 --layers 126 --hidden 16384 --heads 128 --kv-heads 8 --intermediate 53248 --vocab 128256 --seq-len 8192"
like "attention and no input table: 4 % over 6 N D of Llama 3 405B without it" "$($llama)" 'flops_attention": 3\.937[0-9]*e\+?25'
like "checkpoint of Llama 3 405B" "$($llama)" 'checkpoint_bytes": 5681947443200'
like "KV cache of Llama 3 405B" "$($llama)" 'kv_cache_bytes_per_token": 516096'
like "memory of training without activations is 18 bytes a parameter" "$plan" 'parts together.* 1\.26e\+11 bytes'
is "plan writes JSON" "$($llama | perl -MJSON::PP -e 'local $/; print ref decode_json(<>)' 2>&1)" HASH
like "KV cache of Llama 3 8B" "$(scalefit plan --json --params 8e9 --tokens 1 --layers 32 --hidden 4096 --heads 32 --kv-heads 8)" 'kv_cache_bytes_per_token": 131072'
for n in 3e5 2e6 5e7; do
    scalefit shape --params $n --vocab 4096 --head-dim 32 --eos 4095 >"$T/config.json" 2>"$T/said"
    got=$(sed 's/^scalefit: \([0-9]*\) .*/\1/' "$T/said")
    close "shape of $n parameters" "$got" "$n" "$(awk -v n=$n 'BEGIN { print n * 0.02 }')"
    ok "whose configuration plan reads" scalefit plan --model-config "$T/config.json" --tokens 1e9
done
is "the number said is that of the configuration" "$(scalefit plan --json --model-config "$T/config.json" --tokens 1 | sed -n 's/.*"params": \([0-9.e+]*\),/\1/p' | awk '{ printf "%d", $1 }')" "$got"

fails 2 "unknown command 'upstream'" "a command that is not there" scalefit upstream $runs
fails 2 "command" "no command" scalefit
fails 2 "needs --tokens" "plan without sizes" scalefit plan --params 1e9
fails 2 "needs --params" "shape without sizes" scalefit shape --params 1e9
fails 2 "budget" "a budget that is no number" scalefit isoflop --budget much $runs
fails 2 "window" "a window that is no number" scalefit isoflop --window x $runs
fails 2 "columns" "--columns without a name" scalefit isoflop --columns params $runs
fails 1 "no column 'size'" "--columns of a column that is not there" scalefit isoflop --columns size=width $runs
fails 1 "two columns are called 'params'" "--columns that makes a second column of a name" scalefit isoflop --columns tokens=params $runs
fails 1 "no column 'set'" "--where of a column that is not there" scalefit isoflop --where set=good $runs
fails 2 "" "an unknown option" scalefit isoflop --nonsense $runs
fails 2 "where" "--where without a value" scalefit isoflop --where a $runs
fails 1 "no rows" "no row that --where wants" scalefit isoflop --where params=none $runs
fails 2 "where" "--where with no number to compare with" scalefit isoflop --where 'params<many' $runs
fails 1 "none.tsv" "a missing table" scalefit isoflop "$T/none.tsv"
fails 1 "" "a folder for a table" scalefit isoflop "$T"
fails 1 "power.tsv:2: the table has no column 'params'" "columns that are not there" scalefit isoflop "$T/power.tsv"
printf 'params\ttokens\tflops\tloss\n1\t2\t3\n' >"$T/bad.tsv"
fails 1 "bad.tsv:2: 3 cells" "a row that is too short" scalefit isoflop "$T/bad.tsv"
printf 'params\ttokens\tflops\tloss\n1\t2\t3\t4\t5\n' >"$T/bad.tsv"
fails 1 "bad.tsv:2: 5 cells" "a row that is too long" scalefit isoflop "$T/bad.tsv"
printf 'params\ttokens\tflops\tloss\nmany\t2\t3\t4\n' >"$T/bad.tsv"
fails 1 "bad.tsv:2: params is .many., not a number" "a cell that is no number" scalefit isoflop "$T/bad.tsv"
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
    # Every set-up of Porian et al. with both windows: budgets, slopes, intercepts, standard errors, minima, extrapolation.
    cat >"$T/compare" <<'P'
use strict; use JSON::PP;
my ($reference, $table) = @ARGV;
open my $f, '<', $reference or die; local $/; my $all = decode_json(<$f>)->{isoflop_porian}{configs};
my ($fits, @bad) = (0);
for my $name (sort keys %$all) {
    my @w = split ' ', $name; my @where = map { ('--where', (qw(corpus hparams warmup decay count split))[$_] . "=$w[$_]") } 0 .. 5;
    for ([2, 'window2'], ['all', 'all_points']) {
        my ($window, $key) = @$_; my $want = $all->{$name}{$key};
        open my $p, '-|', 'scalefit', 'isoflop', '-q', '--json', '--window', $window, '--budget', '5.88e23', @where, $table or die;
        my $got = decode_json(<$p>); close $p; $fits++;
        my @used = grep { $_->{used} } @{$got->{optima}};
        push @bad, "$name $window: budgets" if @used != $want->{budgets};
        for my $law (qw(log10_N_on_log10_C log10_D_on_log10_C)) {
            for (qw(slope intercept slope_se intercept_se r2)) { push @bad, "$name $window: $law $_" if abs($got->{$law}{$_} / $want->{$law}{$_} - 1) > 1e-6 }
            for (0, 1) { push @bad, "$name $window: interval" if abs($got->{$law}{slope_ci95}[$_] - $want->{$law}{slope_ci95}[$_]) > 1e-7 }
        }
        my @inside = grep { $_->{inside} } @{$want->{optima} || []};
        for my $i (0 .. $#inside) { for (qw(log10_N log10_D loss c2)) { push @bad, "$name $window: minimum $i" if abs($used[$i]{$_} - $inside[$i]{$_}) > 1e-6 } }
        push @bad, "$name $window: extrapolation" if $want->{N_at_5_88e23} && abs($got->{predictions}[0]{params} / $want->{N_at_5_88e23} - 1) > 1e-6;
    }
}
print "$fits fits", map { "\n$_" } @bad;
P
    is "all fits of Porian et al.'s 15 set-ups are the reference's" "$(perl "$T/compare" "$shared/reference-fits.json" "$shared/porian-isoflop.tsv")" "30 fits"
else
    skip "slopes of other set-ups" "there is no ../shared/data"
fi
# What is published, by figures of the papers: the step law of 1B on 20B tokens, the compute of Chinchilla by both laws, Llama 3's printed law,
# 34 bytes an activation of an 8B model.
published=$(scalefit plan --published --json --params 1e9 --tokens 20e9)
like "plan --published: the step law's rate" "$published" '"lr_step": 0\.000996'
like "and batch" "$published" '"batch_step": 4418[0-9][0-9]'
published=$(scalefit plan --published --json --params 70e9 --tokens 1.4e12)
like "Chinchilla's compute by Hoffmann's constants: 32.5B" "$published" '"params_hoffmann": 32[0-9]{9}'
like "by Besiroglu's: 73 to 74B" "$published" '"params_besiroglu": 7[34][0-9]{9}'
like "Llama 3's law as printed: 10.5T tokens" "$(scalefit plan --published --json --params 402e9 --tokens 15.754e12)" '"tokens_llama3": 104[0-9]{11}'
eight="--params 8030261248 --tokens 1e12 --layers 32 --hidden 4096 --heads 32 --kv-heads 8 --intermediate 14336 --vocab 128256 --seq-len 8192"
scalefit plan --published --json $eight >"$T/eight.json"
field() { sed -n "s/^ *\"$1\": \([0-9.e+]*\),*$/\1/p" "$T/eight.json"; }
ok "an 8B layer keeps about 34 bytes a number" awk -v a="$(field activations_bytes)" -v b="$(field activations_selective_bytes)" 'BEGIN { exit !(a / b > 0.99 && a / b < 1.01) }'
ok "attention over all pairs is twice the causal one, 14 % of the rest" awk -v all="$(field flops_full_attention)" -v half="$(field flops_attention)" \
    'BEGIN { rest = 2 * half - all; exit !(half / rest > 1.13 && half / rest < 1.15) }'
ok "recomputing makes 6 N D to 8" awk -v a="$(field flops_recompute)" -v b="$(field flops)" 'BEGIN { exit !(a / b > 1.333 && a / b < 1.334) }'
done_testing
