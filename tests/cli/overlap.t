# What goes on beside a step's passes, by its timeline (--trace): gradients begin to come together while earlier layers are still passed
# backward, with every --shard, on CPUs, under mpirun and on the emulated device over the stand-in NCCL; with --shard 3 the next unit's weights
# come while one is in use. And nothing of it begins before it may.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_data
ranks_config 320 64 160 6 4 2 16 256 false >"$T/m.json"
P="pretrain -q --model-config $T/m.json --data $T/s --seq-len 128 --batch-tokens 1024 --micro-batch 2 --lr 3e-4 --steps 2 --save-every 0 --peak-flops 1e11 -j 1"
cat >"$T/check.pl" <<'EOP'
# check.pl SHARD STAGES TRACE: what is wrong with it; else nothing
use JSON::PP;
my ($shard, $stages, $path) = @ARGV;
open my $f, '<', $path or die;
local $/;
my $t = decode_json(<$f>);
my (%passes, %reduce, %gather, $threads, $begun);
for (@{$t->{traceEvents}}) { $threads = $_->{tid} + 1 if ($_->{cat} // '') eq 'forward' && $_->{tid} >= $threads }
for (@{$t->{traceEvents}}) {
    my $cat = $_->{cat} // next;
    my $rank = "$_->{pid} " . $_->{tid} % $threads;
    push @{$passes{$rank}}, $_ if $cat eq 'forward' || $cat eq 'backward';
    push @{$reduce{$rank}}, $_ if $cat eq 'reduce';
    push @{$gather{$rank}}, $_ if $cat eq 'gather';
}
for my $rank (sort keys %passes) {
    my @p = sort { $a->{ts} <=> $b->{ts} } @{$passes{$rank}};
    my ($last) = grep { $_->{cat} eq 'backward' } reverse @p;
    my $end = $last->{ts} + $last->{dur};
    my @r = sort { $a->{ts} <=> $b->{ts} } @{$reduce{$rank} // []};
    my %units = map { $_->{args}{unit} => 1 } @r;
    my $inside = grep { $_->{args}{given} < $end } @r;
    my $early = grep { $_->{args}{given} < $last->{ts} } @r;
    $begun += grep { $_->{ts} < $end } @r;
    print "rank $rank reduces nothing; " unless @r;
    print "rank $rank begins $inside of ", scalar(@r), " reductions before the last backward pass ends; " if $inside < keys(%units) - 2;
    print "rank $rank: a reduction is under way before it may begin; " if grep { $_->{ts} + 0.2 < $_->{args}{given} } @r;
    # Whole gradients come together once, in the last pass alone; shared ones in every pass.
    print "rank $rank reduces ", scalar(@r), " times of ", scalar(keys %units), " units; " if $shard < 2 && @r != keys %units;
    print "rank $rank begins $early reductions before the last backward pass; " if $shard < 2 && $stages == 1 && $early;
    print "rank $rank: of shared gradients nothing comes together in earlier passes; " if $shard > 1 && @p > 2 * $stages && !$early;
    print "rank $rank gathers; " if $shard < 3 && $gather{$rank};
    next if $shard < 3;
    # A layer's weights begin to come in the pass before what needs them: with six layers there are always several within a pass.
    for my $pass (@p) {
        my @in = grep { $_->{ts} >= $pass->{ts} && $_->{ts} < $pass->{ts} + $pass->{dur} } @{$gather{$rank}};
        print "rank $rank gathers ", scalar(@in), " times in $pass->{name}; " if @in < 2 / $stages;
        # One at a time, and so no more than three units stand whole.
        my @sorted = sort { $a->{ts} <=> $b->{ts} } @in;
        for (1 .. $#sorted) { print "rank $rank gathers two at a time; " if $sorted[$_]{ts} + 0.2 < $sorted[$_ - 1]{ts} + $sorted[$_ - 1]{dur} }
    }
}
# Perfetto leaves out a box that begins within another of its row and ends behind it.
my %row;
for (sort { $a->{ts} <=> $b->{ts} } grep { $_->{ph} eq 'X' } @{$t->{traceEvents}}) {
    my $before = $row{"$_->{pid} $_->{tid}"};
    print "$_->{name} begins within $before->{name} of its row; " if $before && $_->{ts} + 0.2 < $before->{ts} + $before->{dur};
    $row{"$_->{pid} $_->{tid}"} = $_;
}
# The threads beside must get a CPU, which a busy machine may not have for them.
print "late" unless $begun;
EOP
# overlap NAME SHARD STAGES COMMAND…
overlap() {
    name=$1 shard=$2 stages=$3
    shift 3
    for i in 1 2 3 4 5; do
        rm -rf "$T/run"
        "$@" --shard "$shard" --trace "$T/trace.json" -o "$T/run" >/dev/null 2>"$T/.err" || { is "$name, --shard $shard runs" "$(cat "$T/.err")" ""; return; }
        wrong=$(perl "$T/check.pl" "$shard" "$stages" "$T/trace.json")
        [ "$wrong" = late ] || break
    done
    is "$name, --shard $shard: reductions begin before the last backward pass ends" "$wrong" ""
}
for shard in 0 1 2 3; do
    overlap "threads, dp 2" $shard 1 $P --device cpu --dp 2
done
overlap "threads, tp 2, cp 2" 1 1 $P --device cpu --tp 2 --cp 2
overlap "threads, pp 2 of 3 virtual stages, dp 2" 1 2 $P --device cpu --pp 2 --virtual-stages 3 --dp 2
overlap "threads, pp 2, dp 2" 3 2 $P --device cpu --pp 2 --dp 2
if [ "$no_mpi" ]; then
    skip "mpirun's ranks" "$no_mpi"
else
    overlap "mpirun, dp 2" 1 1 $mpirun -n 2 $P --device cpu --dp 2
    overlap "mpirun, dp 2" 3 1 $mpirun -n 2 $P --device cpu --dp 2
fi
LMPIPE_CUDA=$(cd "$BIN/../lib" && pwd)/liblmpipe-emulated.so
LMPIPE_NCCL=$(dirname "$LMPIPE_CUDA")/liblmpipe-nccl-emulated.so
export LMPIPE_CUDA LMPIPE_NCCL
if [ -e "$LMPIPE_CUDA" ] && [ -e "$LMPIPE_NCCL" ]; then
    S="$P --seq-len 32 --batch-tokens 128"
    overlap "the emulated device, dp 2" 0 1 $S --device cuda --dp 2
    overlap "the emulated device, dp 2" 1 1 $S --device cuda --dp 2
    overlap "the emulated device, dp 2" 3 1 $S --device cuda --dp 2
else
    skip "the emulated device" "not built"
fi
done_testing
