# Ranks that are processes, each with a GPU, over NCCL itself: the losses of one process. Where there are fewer GPUs than ranks they share
# one: each sees a list of GPUs of its own spelling, so that it takes the first of it, and NCCL believes each on another machine.
. "$(dirname "$0")/../cli/tap.sh"
. "$ROOT/tests/cli/ranks.sh"
LMPIPE_NCCL=$(cd "$BIN/../lib" && pwd)/liblmpipe-nccl.so
[ -e "$LMPIPE_NCCL" ] || skip_all "built without NCCL"
gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | wc -l)
if [ "$gpus" = 0 ]; then
    result 1 "a GPU"
    done_testing
fi
LMPIPE_CUDA=$(dirname "$LMPIPE_NCCL")/liblmpipe-cuda.so NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo}
export LMPIPE_CUDA LMPIPE_NCCL NCCL_SOCKET_IFNAME
ranks_data
ranks_config 320 64 96 4 4 2 16 64 true >"$T/four.json"
D="pretrain -q --model-config $T/four.json --data $T/s --val $T/s --eval-tokens 100 --eval-every 10 --seq-len 32 --batch-tokens 256 --micro-batch 1 --lr 3e-4 --grad-clip 0.5
   --seed 3 --save-every 0 --steps 20 --peak-flops 1e12"
losses() { sed -n 's/.*"loss":\([0-9.e+-]*\),"lr".*/\1/p' "$1/log.jsonl"; }
near() { # near FOLDER X: its losses differ by at most X of one CPU process's
    losses "$1" >"$T/a"
    losses "$T/cpu" | paste "$T/a" - | awk -v x="$2" 'NF != 2 || $1 - $2 > x * $2 || $2 - $1 > x * $2 {print "# " $0; bad = 1} END {exit bad || NR != 20}' >&2
}
cat >"$T/share" <<'SHARE'
CUDA_VISIBLE_DEVICES=$((LMPIPE_RANK % $1)),-$((LMPIPE_RANK + 1)) NCCL_HOSTID=rank$LMPIPE_RANK
export CUDA_VISIBLE_DEVICES NCCL_HOSTID
shift
exec "$@"
SHARE
# ranks N FOLDER ARGUMENTS…: a process a rank
ranks() {
    n=$1 folder=$2
    shift 2
    rm -f "$meet"
    share=
    [ "$gpus" -ge "$n" ] || share="sh $T/share $gpus"
    meet_all "$n" $share timeout -k 5 60 $D --device cuda "$@" -o "$T/$folder"
}
$D --device cpu -o "$T/cpu"
result $? "one process on the CPU"
while read -r n name allowed arguments; do
    ranks "$n" "$name" $arguments
    result $? "$n ranks, $arguments"
    near "$T/$name" "$allowed"
    result $? "have the losses of one process"
done <<'GRIDS'
1 one 1e-4
2 dp 1e-4 --dp 2
2 sharded 1e-4 --dp 2 --shard 3
2 tp 1e-4 --tp 2
2 cp 1e-4 --cp 2
2 pp 1e-4 --pp 2 --virtual-stages 2
4 all 1e-4 --tp 2 --pp 2
2 bf16 3e-3 --dp 2 --dtype bf16
GRIDS
ranks 2 again --pp 2 --virtual-stages 2
same "and the same bits a second time" "$T/pp/final/model.safetensors" "$T/again/final/model.safetensors"
done_testing
