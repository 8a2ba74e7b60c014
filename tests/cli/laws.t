# scalefit downstream, mixture and repeated: laws that are known, and the fits of ../shared/data/scaling.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/law.sh"

# Loss 30·C^-0.07, accuracy 0.25 + 0.6/(1 + exp(12(loss − 1)))
awk 'BEGIN { print "run\tflops\tparams\ttokens\tquiz_bpb\tquiz_acc"
    for (i = 0; i < 24; i++) { c = 1e18 * 2 ^ i; x = 30 * c ^ -0.07; printf "r%d\t%.6g\t%.6g\t%.6g\t%.10f\t%.10f\n", i, c, sqrt(c / 120), sqrt(c / 120) * 20, x, 0.25 + 0.6 / (1 + exp(12 * (x - 1))) } }' >"$T/tasks.tsv"
for chance in "--chance 0.25" "--chance quiz=0.25" ""; do
    scalefit downstream --json --bootstrap 50 $chance --first 'flops<1e22' --budget 1e25 "$T/tasks.tsv" >"$T/fit.json"
    close "downstream${chance:+ $chance} finds the exponent" "$(value "$T/fit.json" step1 slope)" -0.07 1e-7
    close "the height" "$(value "$T/fit.json" step2 height)" 0.6 1e-3
    close "the middle" "$(value "$T/fit.json" step2 x0)" 1 1e-4
    close "the slope" "$(value "$T/fit.json" step2 k)" -12 1e-2
    close "the floor" "$(value "$T/fit.json" step2 floor)" 0.25 1e-4
    close "and predicts" "$(grep 'flops": 1e+25' "$T/fit.json" | sed 's/.*acc_predicted": \([0-9.]*\).*/\1/')" 0.847785 1e-4
done
is "rows that the first step leaves out are predicted" "$(grep -c '"run": "r' "$T/fit.json")" "$(awk 'NR > 1 && $2 >= 1e22' "$T/tasks.tsv" | wc -l | tr -d ' ')"
like "and told beside what they reached" "$(scalefit downstream --bootstrap 50 --chance 0.25 --first 'flops<1e22' "$T/tasks.tsv")" 'r20 1.049e\+24 FLOPs: loss 0.[0-9]* \([0-9.]* … [0-9.]*\) for 0.[0-9]*, accuracy'
scalefit downstream --json --bootstrap 0 --chance 0.25 --nll quiz_bpb --accuracy quiz_acc --first 'flops<1e22' --budget 1e25 "$T/tasks.tsv" | sed 's/quiz_acc/quiz/' >"$T/b"
scalefit downstream --json --bootstrap 0 --chance 0.25 --task quiz --first 'flops<1e22' --budget 1e25 "$T/tasks.tsv" >"$T/a"
same "columns can be named" "$T/a" "$T/b"
fails 1 "no columns other_bpb and other_acc" "a task that is not there" scalefit downstream --task other "$T/tasks.tsv"
fails 1 "rows are left for the first step" "too few rows" scalefit downstream --first 'flops<2e18' "$T/tasks.tsv"
sed '3s/[0-9.]*$/1.5/' "$T/tasks.tsv" >"$T/bad.tsv"
fails 1 "bad.tsv:3: quiz_acc is 1.5" "an accuracy above 1" scalefit downstream "$T/bad.tsv"
fails 1 "chance" "a chance that is no number" scalefit downstream --chance much "$T/tasks.tsv"

# Two losses over three domains with known t; equal rows of shares in percent, which need not add up to 1.
awk 'BEGIN { srand(3); print "run\tw_a\tw_b\tw_c\tloss_x\tloss_y"
    for (i = 0; i < 60; i++) { a = rand() ^ 3; b = rand() ^ 3; c = rand() ^ 3; s = a + b + c
        printf "%d\t%.8f\t%.8f\t%.8f\t%.8f\t%.8f\n", i, a, b, c, 2 + exp((-3 * a + 0.5 * b + 0.2 * c) / s), 1 + exp((0.4 * a - 2 * b - 0.1 * c) / s) } }' >"$T/mix.tsv"
scalefit mixture --json --bootstrap 40 --mixture a=1,b=1 --test "$T/mix.tsv" "$T/mix.tsv" >"$T/fit.json"
is "mixture finds the known laws" "$(perl -MJSON::PP -e 'local $/; my $f = decode_json(<>); my ($x, $y) = map { $f->{targets}{$_}{exponential} } qw(loss_x loss_y);
    my @want = ([2, -3, 0.5, 0.2], [1, 0.4, -2, -0.1]); my $i = 0; for my $l ($x, $y) { my $w = $want[$i++]; my @g = ($l->{c}, @{$l->{t}}); for (0 .. 3) { print "$g[$_] for $w->[$_]; " if abs($g[$_] - $w->[$_]) > 1e-3 } }
    print "predicts $f->{predictions}[0]{losses}{loss_x}; " if abs($f->{predictions}[0]{losses}{loss_x} - 2 - exp(-1.25)) > 1e-4;
    print "ranks; " if grep { abs($_->{spearman_exponential} - 1) > 1e-9 } @{$f->{tests}};
    # Where c does not help either loss the best mix is of a and b: 3 exp(-3a + b/2) + .4 ... has its minimum where both slopes are equal.
    my ($best) = grep { $_->{best} } @{$f->{predictions}}; my ($a, $least) = (0, 9); for (0 .. 10000) { my $q = $_ / 10000; my $v = exp(-3 * $q + 0.5 * (1 - $q)) + exp(0.4 * $q - 2 * (1 - $q)); ($a, $least) = ($q, $v) if $v < $least }
    print "best $best->{shares}{w_a} for $a; " if abs($best->{shares}{w_a} - $a) > 2e-4 || $best->{shares}{w_c} > 1e-4' "$T/fit.json")" ""
like "the best mix is told with its spread" "$(scalefit mixture --bootstrap 40 "$T/mix.tsv")" 'best mix: w_a 0\.[0-9]* \(0\.[0-9]* … 0\.[0-9]*\)'
scalefit mixture --json --bootstrap 40 -j 1 "$T/mix.tsv" >"$T/a"
scalefit mixture --json --bootstrap 40 -j 2 "$T/mix.tsv" >"$T/b"
same "threads change no bit of it" "$T/a" "$T/b"
like "--aim weighs the losses" "$(scalefit mixture --bootstrap 0 --aim x=1 "$T/mix.tsv")" 'best mix: w_a 0.9'
fails 1 "bad.tsv:2: w_b is no share" "a share that is missing" sh -c "sed '2s/^\([^	]*	[^	]*	\)[^	]*/\1nan/' '$T/mix.tsv' >'$T/bad.tsv'; scalefit mixture '$T/bad.tsv'"
fails 1 "too few" "too few mixtures" sh -c "head -n 4 '$T/mix.tsv' | scalefit mixture"
fails 1 "begin with w_" "no shares" scalefit mixture "$T/tasks.tsv"
fails 1 "has no 'z'" "a mixture of what is not there" scalefit mixture --mixture z=1 "$T/mix.tsv"

# The published law and lifetimes give the published forward value (huggingface/datablations README).
L=520.824952,1487.71609,1.86914368,0.3526596,0.3526596
like "repeated has the published forward value" "$(scalefit repeated --json --law $L --lifetimes 15.387756,5.309743 --at 6.34e9,242e9,25e9)" '"loss": 2\.225644'
# Runs of that law with lifetimes 12 and 6.
sizes="7e6 5e7 3e8 2e9" tokens="1e8 4e8 2e9 1e10 5e10"
for n in $sizes; do for d in $tokens; do for u in 1e8 1e9; do echo "$n,$d,$u"; done; done; done | awk -F, '$3 <= $2' >"$T/at"
scalefit repeated --json --law $L --lifetimes 12,6 $(sed 's/^/--at /' "$T/at") | perl -MJSON::PP -e 'local $/; print "params\ttokens\tunique_tokens\tloss\n"; printf "%.17g\t%.17g\t%.17g\t%.17g\n", @$_{qw(params tokens unique_tokens loss)} for @{decode_json(<>)->{predictions}}' >"$T/repeated.tsv"
scalefit repeated --json --bootstrap 20 "$T/repeated.tsv" >"$T/fit.json"
close "and finds the lifetime of data again" "$(value "$T/fit.json" params R_D)" 12 0.05
close "that of parameters" "$(value "$T/fit.json" params R_N)" 6 0.05
close "and the exponent" "$(value "$T/fit.json" params alpha)" 0.3526596 1e-3
fails 1 "bad.tsv:2: .* unique tokens of" "more unique tokens than tokens" sh -c "printf 'params\ttokens\tunique_tokens\tloss\n1e6\t1e8\t1e9\t3\n' >'$T/bad.tsv'; scalefit repeated '$T/bad.tsv'"
fails 1 "no column 'unique_tokens'" "no column of unique tokens" scalefit repeated "$T/tasks.tsv"
if command -v gnuplot >/dev/null; then
    ok "repeated --plot draws" scalefit repeated --bootstrap 0 --plot "$T/p.svg" "$T/repeated.tsv"
    ok "measured beside fitted losses" grep -qF "measured loss" "$T/p.svg"
    fails 1 "lifetimes reads none" "a picture of no runs" scalefit repeated --law $L --lifetimes 12,6 --at 1e6,1e8,1e8 --plot "$T/p.svg"
else
    skip "repeated --plot draws" "gnuplot is not installed"
fi
fails 1 "5 positive numbers" "a law of four numbers" scalefit repeated --law 1,2,3,4 "$T/repeated.tsv"

# plan --layout: the search itself is tested in tests/unit/cost.c.
llama="--layers 126 --hidden 16384 --heads 128 --kv-heads 8 --intermediate 53248 --vocab 128256 --seq-len 8192"
scalefit plan --layout $llama --gpus 16384 >"$T/layouts"
ok "plan --layout has Llama 3's grid among its best ten" grep -Eq '^ +([1-9]|10) +8 +1 +16 +128 ' "$T/layouts"
like "and says why others do not fit" "$(cat "$T/layouts")" 'grids do not fit into 80 GB, such as'
like "with failures and intervals" "$(cat "$T/layouts")" 'a failure every 3.09 h; .*\(Young 19.3, Daly 18.6\)'
is "as JSON too" "$(scalefit plan --layout $llama --gpus 512 --cluster memory=40,node=4 --json | perl -MJSON::PP -e 'local $/; print ref decode_json(<>)->{layouts}')" ARRAY
scalefit plan --layout $llama --gpus 8 --batch-tokens 1048576 >"$T/none"
like "a model that fits nowhere: what takes least is told" "$(head -n 1 "$T/none")" '^no grid fits; the least is taken by --tp [0-9]+ .*: [0-9.]+ GB a GPU of 80; .* would fill [0-9]+ GPUs$'
scalefit plan --layout --json $llama --gpus 1024 --cluster inter-latency=10000 --top 1 >"$T/slow.json"
ok "where messages are slow the formula is the simulation's, within 10 %" perl -MJSON::PP -e 'local $/; my $j = decode_json(<>); my $l = $j->{layouts}[0]; my $f = 0;
    $f += $l->{$_ . "_seconds"} for qw(products attention elementwise tp cp bubble pp); exit(abs($j->{simulated_pipeline_seconds} / $f - 1) > 0.1)' "$T/slow.json"
fails 1 "gpus 1.5: a grid has a whole number" "half a GPU" scalefit plan --layout $llama --gpus 1.5
fails 1 "attention heads, fewer" "a grid that cannot be" scalefit plan --grid 256,1,1,1 $llama
fails 1 "leave none for stage" "a pipeline longer than the model" scalefit plan --grid 1,1,200,1 $llama
fails 1 "there is no 'ram'" "a cluster's property that is not known" scalefit plan --layout --gpus 8 --cluster ram=1 $llama
fails 1 "needs --model-config" "a layout of no model" scalefit plan --layout --gpus 8

shared=$ROOT/../shared/data/scaling
if [ -r "$shared/reference-fits.json" ]; then
    cat >"$T/compare" <<'P'
use strict; use JSON::PP;
my ($data) = @ARGV;
open my $f, '<', "$data/reference-fits.json" or die; local $/; my $all = decode_json(<$f>);
my @bad; my $fits = 0;
sub fit { open my $p, '-|', 'scalefit', @_, '-q', '--json' or die; my $r = decode_json(<$p>); close $p; $fits++; $r }
sub off { my ($name, $got, $want, $relative, $absolute) = @_; push @bad, "$name $got for $want" unless defined $got && abs($got - $want) <= $relative * abs($want) + ($absolute // 0) }
my $tasks = $all->{downstream_olmo_ladder}{tasks};
for my $task (sort keys %$tasks) {
    my $want = $tasks->{$task}; my $chance = $want->{chance} == 0.333333333 ? '0.33333333333333333' : $want->{chance};
    for my $kind (qw(all ladder)) {
        my $g = fit('downstream', '--bootstrap', 0, '--task', $task, '--chance', $chance, '--first', 'flops<1e22', ($kind eq 'ladder' ? ('--where', 'flops<1e22') : ()),
            (map { ('--budget', $_->{flops}) } @{$want->{"prediction_$kind"}}), "$data/olmo-ladder-final.tsv")->{tasks}[0];
        off("$task $kind slope", $g->{step1}{slope}, $want->{step1}{slope}, 0, 1e-7); off("$task $kind intercept", $g->{step1}{intercept}, $want->{step1}{intercept}, 0, 1e-6);
        off("$task $kind sse", $g->{step2}{sse}, $want->{"step2_$kind"}{sse}, 1e-6);
        off("$task $kind $_", $g->{step2}{$_}, $want->{"step2_$kind"}{$_}, 1e-3) for qw(height k x0);
        my @p = grep { !$_->{run} } @{$g->{predictions}}; off("$task $kind prediction", $p[$_]{acc_predicted}, $want->{"prediction_$kind"}[$_]{acc_predicted}, 0, 5e-4) for 0 .. 1;
    }
    my $g = fit('downstream', '--bootstrap', 0, '--task', $task, '--chance', $chance, '--first', 'flops<1e22', '--first', 'chinchilla_multiple>=1', '--first-law', 'size', "$data/olmo-ladder-final.tsv")->{tasks}[0];
    off("$task size", $g->{step1_size}{objective}, $want->{step1_N_D}{optimum}, 1e-6);
    my %p = map { ($_->{run} // '') => $_ } @{$g->{predictions}}; off("$task size $_->[0]", $p{$_->[0]}{nll_predicted}, $_->[1], 1e-4) for ['7B-4T', $want->{step1_N_D}{predicted}[0]], ['13B-5T', $want->{step1_N_D}{predicted}[1]];
}
sub law { my ($name, $g, $want) = @_;
    off("$name sse", $g->{exponential}{sse}, $want->{exponential}{sse}, 1e-6); off("$name linear", $g->{linear}{sse}, $want->{linear}{sse}, 1e-6); off("$name c", $g->{exponential}{c}, $want->{exponential}{c}, 0, 1e-3);
    for (0 .. $#{$want->{exponential}{t}}) { my $w = $want->{exponential}{t}[$_]; off("$name t$_", $g->{exponential}{t}[$_], $w, 0, 1e-3) unless $w < -15 && $g->{exponential}{t}[$_] < -15; off("$name beta$_", $g->{linear}{beta}[$_], $want->{linear}{beta}[$_], 1e-6) } }
my $targets = $all->{mixture_regmix}{targets};
my $g = fit('mixture', '--bootstrap', 0, (map { ('--target', $_) } sort keys %$targets), (map { ('--test', "$data/regmix-$_.tsv") } qw(1m-test 60m-test 1b-test)), "$data/regmix-1m-train.tsv");
law($_, $g->{targets}{$_}, $targets->{$_}) for keys %$targets;
for my $test (@{$g->{tests}}) { my ($set) = $test->{table} =~ /regmix-(.*)\.tsv/; off("$test->{target} $set $_", $test->{$_}, $targets->{$test->{target}}{test}{$set}{$_}, 0, 1e-3) for qw(spearman_exponential spearman_linear rmse_exponential rmse_linear) }
my $mixes = $all->{mixture_3mix}{tables};
for (sort keys %$mixes) { my ($table, $target) = split; law($_, fit('mixture', '--bootstrap', 0, '--target', $target, '--where', 'step=60000', "$data/$table")->{targets}{$target}, $mixes->{$_}) }
my $repeated = $all->{repeated_data}; my $fixed = $repeated->{fixed};
# The valley has several hollows, and the reference's is not the deepest: ours must be no higher, and the reference's among those named.
$g = fit('repeated', '--bootstrap', 0, '--law', join(',', @$fixed{qw(A B E alpha beta)}), "$data/datablations.tsv");
push @bad, 'repeated: objective' if $g->{objective} > $repeated->{optimum} * (1 + 1e-6);
push @bad, 'repeated: the reference is not named' unless grep { abs($_->{R_D} / $repeated->{R_D} - 1) < 1e-3 && abs($_->{R_N} / $repeated->{R_N} - 1) < 1e-3 } {objective => $g->{objective}, %{$g->{params}}}, @{$g->{other_minima}};
$g = fit('repeated', '--bootstrap', 0, "$data/datablations.tsv"); my $joint = $repeated->{joint_tied};
off('joint objective', $g->{objective}, $joint->{optimum}, 1e-6); off("joint $_", $g->{params}{$_}, $joint->{$_}, 1e-3) for qw(A B E alpha R_D R_N);
print "$fits fits", map { "\n$_" } @bad;
P
    is "downstream, mixture and repeated are the references'" "$(perl "$T/compare" "$shared")" "30 fits"
else
    skip "downstream, mixture and repeated beside the references" "there is no ../shared/data"
fi
done_testing
