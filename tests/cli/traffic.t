# What ranks send: pretrain --dry-run tells the bytes of a whole run by group and kind, validations included, and the run's own counters
# and MPI's profiling interface find the very numbers.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
. "$(dirname "$0")/ahead.sh"
ranks_data
config() { ranks_config 320 32 64 "$2" 4 "$3" 8 64 "$1"; } # config TIED LAYERS KEY-VALUE-HEADS
config false 5 4 >"$T/untied.json"
config true 6 2 >"$T/tied.json"
# Seven samples a step in passes of two; two evaluations, the last one behind the last step; a checkpoint.
P="pretrain -q --device cpu --data $T/s --seq-len 64 --batch-tokens 448 --micro-batch 2 --lr 3e-4 --steps 5 --save-every 3"
V="--val a:$T/s --val b:$T/s --eval-tokens 500 --eval-every 2"
# grid MODEL OPTION…
grid() {
    model=$1
    shift
    $P --model-config "$T/$model.json" "$@" --dry-run --stats "$T/plan.json" >"$T/said" 2>&1 && $launch $P --model-config "$T/$model.json" "$@" --stats "$T/took.json" -o "$T/run" 2>"$T/.err"
    sends "$(echo "$*" | sed "s|--val .*every 2|and validations|"), $model"
    sends_some
    rm -rf "$T/run"
}
for shard in 0 1 2 3; do
    grid untied --dp 3 --shard $shard
    grid tied --cp 2 --pp 2 --dp 2 --shard $shard $V
done
grid untied --tp 2 $V
grid tied --tp 4 --dp 2 $V --dtype bf16
grid untied --tp 2 --cp 2 --recompute layer $V
grid tied --pp 2 --virtual-stages 3 --recompute norms $V
grid tied --pp 3 --ends-fewer 1 --tp 2 $V
grid untied --tp 2 --cp 2 --pp 2 --dp 2 $V
# Steps grow, samples shorten, validations fall on both sides.
grid untied --tp 2 --dp 2 --shard 3 --batch-ramp 900:896 --length-ramp 1300:32 $V
# One step's bytes stand in the table, to the byte.
$P --model-config "$T/untied.json" --tp 2 --dp 2 --steps 1 --dry-run --stats "$T/plan.json" >"$T/said"
table_sends "the table has a step's" "$T/said"

if [ "$no_mpi" ]; then
    skip "bytes of mpirun's ranks" "$no_mpi"
else
    counted 4 untied --dp 4 --shard 0 $V
    counted 2 tied --tp 2 $V
    counted 4 tied --cp 2 --dp 2 --shard 3 $V
    counted 4 untied --cp 2 --dp 2 --shard 2
    counted 4 tied --tp 4 $V
    counted 2 tied --pp 2 --virtual-stages 3 $V
    counted 8 tied --tp 2 --cp 2 --pp 2 $V
fi
done_testing
