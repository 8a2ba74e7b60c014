# The timeline of a step (--trace) of pretrain, sft, dpo and rmtrain on grids of threads and of mpirun: every pass follows what it needs by one clock, and the simulation of the
# schedule (cost_simulate), given each pass's own time, ends no later than the step did and, where the machine is not too busy, not much
# earlier.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_chats 24
ranks_config 320 128 352 6 4 2 32 256 true >"$T/m.json"
pretrain="pretrain --progress=never --device cpu --model-config $T/m.json --data $T/s --seq-len 256 --batch-tokens 1792 --micro-batch 1 --lr 3e-4 --steps 3 --save-every 0 --peak-flops 1e11 -j 1"
P=$pretrain
cat >"$T/check.pl" <<'EOP'
# check.pl STAGES CHUNKS TRACE: what is wrong with it; else nothing
use JSON::PP;
my ($stages, $chunks, $path) = @ARGV;
open my $f, '<', $path or die;
local $/;
my $t = decode_json(<$f>);
my ($beside, %pass, $count) = (0);
for (@{$t->{traceEvents}}) { $beside = $_->{tid} + 1 if ($_->{cat} // '') eq 'forward' && $_->{tid} >= $beside }
$beside /= $stages;
for (@{$t->{traceEvents}}) {
    next unless ($_->{cat} // '') =~ /^(forward|backward)$/;
    my $at = $_->{args}{chunk} * $stages + int($_->{tid} / $beside);
    $pass{"$_->{pid} $_->{cat}"}{$_->{tid} % $beside}{$_->{args}{micro_batch}}{$at} = $_;
    $count++;
}
my ($last, $slack) = ($stages * $chunks - 1, 0.2); # microseconds that printing rounds away
my $end = sub { $_[0]{ts} + $_[0]{dur} - $slack };
for my $p (sort keys %pass) {
    my ($pid, $kind) = split / /, $p;
    for my $b (keys %{$pass{$p}}) {
        for my $m (keys %{$pass{$p}{$b}}) {
            my $x = $pass{$p}{$b}{$m};
            print "$p $m has ", scalar(keys %$x), " passes; " if keys %$x != $last + 1;
            for my $at (0 .. $last) {
                my $before = $kind eq 'forward' ? ($at > 0 && $x->{$at - 1}) : $at < $last ? $x->{$at + 1} : $pass{"$pid forward"}{$b}{$m}{$at};
                print "$p $m at stage $at begins at $x->{$at}{ts} before what it needs ends; " if $before && $x->{$at}{ts} < $end->($before);
            }
        }
    }
}
my $o = $t->{otherData};
print "no passes" unless $count;
print "simulated $o->{seconds_simulated} s, longer than the $o->{seconds} s measured" if $o->{seconds_simulated} > $o->{seconds} + 2e-6 || !($o->{seconds_simulated} > 0);
print "bubble simulated $o->{bubble_simulated}, measured $o->{bubble}" if $o->{bubble_simulated} > $o->{bubble} + 2e-4;
EOP
value() { sed -n "1s/.*\"$1\":\([0-9.]*\).*/\1/p" "$T/trace.json"; }
# timeline RANKS STAGES CHUNKS OPTION…; RANKS 0: threads
timeline() {
    ranks=$1 stages=$2 chunks=$3 wrong= nearest=0
    shift 3
    launch=
    [ "$ranks" = 0 ] || launch="$mpirun -n $ranks"
    # A machine that does other things too delays whoever waits: the best of three steps counts.
    for i in 1 2 3; do
        $launch $P "$@" --trace "$T/trace.json" -o "$T/run" 2>"$T/.err" || { wrong=$(cat "$T/.err"); break; }
        rm -rf "$T/run"
        wrong=$wrong$(perl "$T/check.pl" "$stages" "$chunks" "$T/trace.json")
        nearest=$(awk -v n="$nearest" -v s="$(value seconds_simulated)" -v m="$(value seconds)" 'BEGIN { r = s / m; print (r > n ? r : n) }')
        [ -z "$wrong" ] && awk -v n="$nearest" 'BEGIN { exit !(n < 0.8) }' || break
    done
    is "$* ${launch:+under mpirun}: passes in order, the simulation within the step" "$wrong" ""
    ok "and not far from it: $nearest of its time" awk -v n="$nearest" 'BEGIN { exit !(n > 0.2) }'
}
timeline 0 2 1 --pp 2
is "the formula's bubble stands beside: 1/7" "$(value bubble_formula)" 0.1429
timeline 0 2 3 --pp 2 --virtual-stages 3
timeline 0 4 1 --pp 4
timeline 0 2 1 --pp 2 --tp 2
timeline 0 2 1 --pp 2 --dp 2
timeline 0 1 1 --dp 2
timeline 0 1 1 --tp 2
timeline 0 1 1 --cp 2
# Post-training, of which dpo and rmtrain pass forward alone before they pass there and back.
pretrain -q --device cpu --model-config "$T/m.json" --tokenizer "$T/v" --data "$T/s" --seq-len 64 --batch-tokens 64 --steps 1 --save-every 0 --peak-flops 1e11 -o "$T/base"
post="--progress=never --device cpu --model $T/base --batch-size 12 --max-length 64 --rows 64 --epochs 1.5 --lr 3e-4 --save-every 0 --peak-flops 1e11 -j 1"
forward() { grep -c '"cat":"forward"' "$T/trace.json"; }
backward() { grep -c '"cat":"backward"' "$T/trace.json"; }
for tool in sft dpo rmtrain; do
    data=$T/$([ $tool = sft ] && echo chat || echo pairs).jsonl
    P="$tool $post $data"
    timeline 0 2 1 --pp 2
    is "$tool: every pass back has its forward, $([ $tool = sft ] && echo one || echo two)" "$(forward)" $(($(backward) * ($([ $tool = sft ] && echo 1 || echo 2))))
    timeline 0 2 1 --pp 2 --tp 2
    timeline 0 1 1 --dp 2 --shard 3
    [ "$no_mpi" ] || timeline 2 1 1 --cp 2
done
P=$pretrain
if [ "$no_mpi" ]; then
    skip "timelines of mpirun's ranks" "$no_mpi"
else
    timeline 2 2 1 --pp 2
    timeline 2 2 3 --pp 2 --virtual-stages 3
    timeline 4 4 1 --pp 4
    timeline 4 2 1 --pp 2 --cp 2
    timeline 2 1 1 --tp 2
fi
done_testing
