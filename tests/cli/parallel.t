# Ranks as threads and ranks of mpirun give the losses of one process; a run goes on with another number of ranks.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
for i in $(seq 300); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 320 -o "$T/v" "$T/d.jsonl"
tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 24 --eos 319 >"$T/c.json" 2>/dev/null
# Seven samples a step: ranks have unequal shares. Clipping at 0.5 works in every step.
P="pretrain -q --device cpu --model-config $T/c.json --data a=3:$T/s --data b=1:$T/s --val $T/s --eval-tokens 2000 --eval-every 10 --seq-len 64 --batch-tokens 448
   --micro-batch 2 --lr 3e-3 --warmup 5 --grad-clip 0.5 --save-every 5 --seed 3"
. "$(dirname "$0")/difference.sh"

ok "one process" $P --steps 20 -o "$T/one"
for n in 2 4; do
    ok "--dp $n: ranks as threads" $P --steps 20 --dp $n -o "$T/threads$n"
    near "with the losses and norms of one" "$T/one/log.jsonl" "$T/threads$n/log.jsonl"
    $P --steps 20 --dp $n -o "$T/again$n"
    same "and the same bits each time" "$T/threads$n/final/model.safetensors" "$T/again$n/final/model.safetensors"
done
is "a log has each step once" "$(grep -c '"step"' "$T/threads4/log.jsonl")" 20
fails 1 "a step has 7 samples, fewer than ranks" "more ranks than samples" $P --steps 20 --dp 8 -o "$T/many"

# What ranks share of states, gradients and weights changes the order of additions at most, and a run may change it.
for shard in 0 1 2 3; do
    ok "--dp 3 --shard $shard" $P --steps 20 --lr 3e-4 --dp 3 --shard $shard -o "$T/shard$shard"
    near "with the losses of --shard 0" "$T/shard0/log.jsonl" "$T/shard$shard/log.jsonl"
done
same "nothing shared and states shared: the same bits" "$T/shard0/final/model.safetensors" "$T/shard1/final/model.safetensors"
same "gradients shared and weights too: the same bits" "$T/shard2/final/model.safetensors" "$T/shard3/final/model.safetensors"
$P --steps 400 --lr 3e-4 --dp 3 --shard 3 -o "$T/reshard" &
pid=$!
for i in $(seq 600); do [ -e "$T/reshard/latest" ] && break; sleep 0.02; done
kill -TERM $pid
wait $pid
is "a run that shares weights stops with 75" $? 75
ok "and goes on without sharing, in one process" $P --steps 400 --lr 3e-4 -o "$T/reshard"

# Another number of ranks after a stop.
$P --steps 20 --dp 4 -o "$T/move" &
pid=$!
for i in $(seq 200); do [ -e "$T/move/latest" ] && break; sleep 0.02; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
ok "a run of four ranks that was killed goes on with two" $P --steps 20 --dp 2 -o "$T/move"
near "with the losses of one" "$T/one/log.jsonl" "$T/move/log.jsonl"
$P --steps 100000 --dp 4 -o "$T/stop" &
pid=$!
for i in $(seq 200); do [ -e "$T/stop/latest" ] && break; sleep 0.02; done
kill -TERM $pid
wait $pid
is "SIGTERM stops all ranks with 75" $? 75
fails 1 "more than 3 steps were not finite" "ranks skip and stop alike" $P --steps 40 --dp 4 --lr 1e9 --min-lr 0 --grad-clip 0 --max-skips 3 -o "$T/nan"

# The CUDA build's way: kernels under the emulation, NCCL's code over the stand-in, four ranks in one process.
cuda=$BIN/../lib/liblmpipe-emulated.so nccl=$BIN/../lib/liblmpipe-nccl-emulated.so
if [ -e "$cuda" ] && [ -e "$nccl" ]; then
    S="--steps 4 --val $T/s --eval-tokens 128"
    D="pretrain -q --model-config $T/c.json --data $T/s --seq-len 32 --batch-tokens 160 --micro-batch 1 --lr 3e-3 --warmup 2 --grad-clip 0.5 --seed 3 $S"
    $D --device cpu -o "$T/cpu"
    ok "--device cuda --dp 4 under the emulation" env LMPIPE_CUDA="$cuda" LMPIPE_NCCL="$nccl" $D --device cuda --dp 4 -o "$T/cuda"
    is "its first loss is the CPU's to five digits" "$(sed -n '1s/.*"loss":\([0-9.]\{7\}\).*/\1/p' "$T/cuda/log.jsonl")" "$(sed -n '1s/.*"loss":\([0-9.]\{7\}\).*/\1/p' "$T/cpu/log.jsonl")"
    near "and all its losses and norms" "$T/cpu/log.jsonl" "$T/cuda/log.jsonl"
    fails 1 "NCCL: .*nothing.so" "without NCCL several GPUs are refused" env LMPIPE_CUDA="$cuda" LMPIPE_NCCL="$T/nothing.so" $D --device cuda --dp 2 -o "$T/nonccl"
    fails 1 "this machine has 8 GPUs, rank 8 on it needs one of its own" "more ranks than GPUs" env LMPIPE_CUDA="$cuda" LMPIPE_NCCL="$nccl" $D --batch-tokens 320 --device cuda --dp 9 -o "$T/nine"
else
    skip "--device cuda --dp 4 under the emulation" "it is not built (make check builds it)"
fi

# The same binary without MPI, and with it.
fails 1 "one of 4 that a launcher started: MPI: .*nothing.so" "a launcher's process without MPI says what is missing" \
    env OMPI_COMM_WORLD_SIZE=4 LMPIPE_MPI="$T/nothing.so" $P --steps 20 -o "$T/lonely"
if [ "$no_mpi" ]; then
    skip "ranks of mpirun" "$no_mpi"
else
    for n in 2 3; do
        ok "mpirun -n $n: every collective and send" $mpirun -n $n "$BIN/../tests/unit/collectives" cpu
    done
    for n in 2 4; do
        ok "mpirun -n $n" $mpirun -n $n $P --steps 20 -o "$T/mpi$n"
        same "with the bits of $n threads" "$T/threads$n/final/model.safetensors" "$T/mpi$n/final/model.safetensors"
        near "and the losses of one" "$T/one/log.jsonl" "$T/mpi$n/log.jsonl"
    done
    fails 1 "the job has 4 ranks, the grid --tp 1 --cp 1 --pp 1 --dp 3 has 3" "a grid of another size than the job" $mpirun -n 4 $P --steps 20 --dp 3 -o "$T/three"
    $mpirun -n 2 $P --steps 100000 -o "$T/mpistop" 2>/dev/null &
    pid=$!
    for i in $(seq 300); do [ -e "$T/mpistop/latest" ] && break; sleep 0.02; done
    kill -USR1 $pid
    wait $pid
    is "SIGUSR1 to mpirun stops the job with 75" $? 75
    is "and one process goes on" "$(timeout --preserve-status 2 $P --steps 100000 -o "$T/mpistop" >/dev/null; echo $?)" 75
fi
done_testing
