# Grids of ranks, as threads and under mpirun, give the losses of one process; what one grid has saved another goes on from; the model
# that any grid writes is the same file.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
for i in $(seq 300); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 323 -o "$T/v" "$T/d.jsonl"
tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
# Widths and layers that do not divide evenly; samples of 60 tokens, in which documents end anywhere.
config() { # config TIED MODEL_TYPE
    echo "{\"model_type\":\"$2\",\"vocab_size\":323,\"hidden_size\":48,\"intermediate_size\":75,\"num_hidden_layers\":5,\"num_attention_heads\":8,
\"num_key_value_heads\":2,\"head_dim\":8,\"max_position_embeddings\":128,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"initializer_range\":0.05,
\"tie_word_embeddings\":$1,\"hidden_act\":\"silu\",\"bos_token_id\":322,\"eos_token_id\":322}"
}
config false llama >"$T/untied.json"
config true qwen3 >"$T/tied.json"
P="pretrain -q --device cpu --data $T/s --val $T/s --eval-tokens 600 --eval-every 10 --seq-len 60 --batch-tokens 480 --micro-batch 2 --lr 3e-4 --warmup 5
   --grad-clip 0.5 --seed 3 --save-every 8 --keep 0"

. "$(dirname "$0")/difference.sh"
# grid CONFIG OPTIONS...: a run of that grid has the losses of one process
grid() {
    config=$1
    shift
    run=$T/$config$(echo "$*" | tr -d ' -')
    $P --model-config "$T/$config.json" --steps 20 "$@" -o "$run" || echo "# $* fails" >&2
    near "$config: $*" "$T/$config/log.jsonl" "$run/log.jsonl"
}

for c in untied tied; do $P --model-config "$T/$c.json" --steps 20 --threads 1 -o "$T/$c"; done
grid untied --tp 2
grid untied --tp 4
grid untied --tp 8
grid untied --tp 2 --dp 2
grid untied --tp 2 --dp 3
grid tied --tp 2
grid tied --tp 4 --dp 2
grid tied --tp 2 --pp 2 --cp 2
cp -a "$T/untiedtp2dp2" "$T/first"
rm -rf "$T/untiedtp2dp2"
grid untied --tp 2 --dp 2
same "the same grid gives the same bits" "$T/first/final/model.safetensors" "$T/untiedtp2dp2/final/model.safetensors"
for how in "--dtype bf16" "--recompute norms" "--recompute layer --dtype bf16"; do
    # bf16 rounds what ranks add up: compared with itself on one rank, loosely.
    rm -rf "$T/one" "$T/two"
    $P --model-config "$T/untied.json" --steps 6 --save-every 0 --threads 1 $how -o "$T/one"
    $P --model-config "$T/untied.json" --steps 6 --save-every 0 --tp 2 --dp 2 $how -o "$T/two"
    d=$(awk -F'"loss":' '{ split($2, a, ","); v[FILENAME != f0 && f0 != "" ? 2 : 1, FNR] = a[1]; if (!f0) f0 = FILENAME } END { for (i = 1; i <= 6; i++) { d = v[2, i] / v[1, i] - 1; d = d < 0 ? -d : d; if (d > m) m = d } print m + 0 }' "$T/one/log.jsonl" "$T/two/log.jsonl")
    case $how in *bf16*) limit=1e-2 ;; *) limit=1e-4 ;; esac
    awk -v d="$d" -v l="$limit" 'BEGIN { exit !(d <= l) }'
    result $? "$how: --tp 2 --dp 2 stays near one process ($d)"
done

# The files. Nothing is learned at a rate of 0, so that all grids end with the initial weights.
for c in untied tied; do
    Z="$P --model-config $T/$c.json --tokenizer $T/v --steps 1 --lr 0 --save-every 0"
    $Z -o "$T/zero"
    for g in "--tp 2" "--tp 4 --dp 2" "--dp 3" "--pp 5" "--tp 2 --cp 2 --pp 2"; do
        rm -rf "$T/grid"
        $Z $g -o "$T/grid"
        same "$c: the model of $g is one file with the bytes of one process's" "$T/zero/final/model.safetensors" "$T/grid/final/model.safetensors"
    done
    ok "$c: beside the same configuration and vocabulary" diff -r "$T/zero/final" "$T/grid/final"
    rm -rf "$T/zero"
done

# Another grid goes on from step 16.
move() { # move FROM TO-OPTIONS...
    from=$1
    shift
    rm -rf "$T/move"
    cp -a "$T/$from" "$T/move"
    rm -rf "$T/move/final" "$T/move/done" "$T/move/step-00000020"
    $P --model-config "$T/${from%%tp*}.json" --steps 20 "$@" -o "$T/move" || echo "# $* fails" >&2
    near "$* goes on with what $from saved" "$T/${from%%tp*}/log.jsonl" "$T/move/log.jsonl"
}
move untiedtp2dp2 --dp 1
move untiedtp2dp2 --tp 4
move untiedtp2dp2 --pp 4
move untiedtp2dp2 --cp 2 --dp 2
move untiedtp2dp3 --tp 2 --dp 2
move untied --tp 2 --dp 2
move tiedtp4dp2 --dp 4
move tiedtp4dp2 --tp 2
move tiedtp4dp2 --pp 2 --tp 2
move tiedtp2pp2cp2 --dp 1
move tiedtp2pp2cp2 --tp 2 --dp 2

# A part of the newest checkpoint is damaged, or a whole rank's is gone.
for how in flipped gone; do
    rm -rf "$T/move"
    cp -a "$T/untiedtp2dp2" "$T/move"
    rm -rf "$T/move/final" "$T/move/done"
    f=$T/move/step-00000020/trainer/optimizer-00003.safetensors
    [ $how = gone ] && rm "$f" || printf xxxxxxxx | dd of="$f" bs=1 seek=2000 conv=notrunc 2>/dev/null
    like "a rank's part that is $how is named" "$($P --model-config "$T/untied.json" --steps 20 --tp 2 --dp 2 -o "$T/move" 2>&1)" "optimizer-00003.safetensors.*going on from the checkpoint before"
    same "and the checkpoint before leads to the same bits ($how)" "$T/untiedtp2dp2/final/model.safetensors" "$T/move/final/model.safetensors"
done

# Grids that cannot be had.
R="$P --steps 2 --model-config $T/untied.json -o $T/refused"
fails 1 "8 attention heads" "more tensor-parallel ranks than heads" $R --tp 9
fails 1 "do not divide evenly; take --shard 1" "gradients cut among ranks whose widths differ" $P --model-config "$T/untied.json" --steps 2 --tp 2 --dp 2 --shard 3 -o "$T/x"
fails 1 "2 key-value heads" "key-value heads that do not go into the ranks" $R --tp 3

# Ranks as processes.
if [ "$no_mpi" ]; then
    skip "ranks as processes" "$no_mpi"
else
    MPI="$mpirun -n"
    ok "mpirun -n 4 --tp 2" $MPI 4 $P --model-config "$T/untied.json" --steps 20 --tp 2 -o "$T/mpi"
    same "has the bits of threads" "$T/untiedtp2dp2/final/model.safetensors" "$T/mpi/final/model.safetensors"
    same "in its checkpoints too" "$T/untiedtp2dp2/latest/trainer/optimizer-00002.safetensors" "$T/mpi/latest/trainer/optimizer-00002.safetensors"
    # One rank is killed, whatever it is doing: mostly saving, since every step is saved.
    $MPI 4 $P --model-config "$T/untied.json" --steps 20 --tp 2 --save-every 1 -o "$T/killed" 2>/dev/null &
    pid=$!
    for i in $(seq 500); do [ -e "$T/killed/latest" ] && break; sleep 0.02; done
    victim=$(ps -eo pid=,args= | awk -v d="$T/killed" '$0 ~ d && $2 ~ /pretrain$/ { print $1 }' | sed -n 3p)
    [ -z "$victim" ] || kill -9 "$victim" 2>/dev/null
    wait $pid
    ok "a run of which a rank was killed goes on" $P --model-config "$T/untied.json" --steps 20 --tp 2 --dp 2 --save-every 1 -o "$T/killed"
    near "with the losses of one process" "$T/untied/log.jsonl" "$T/killed/log.jsonl"
fi

# The CUDA build's way: kernels under the emulation, NCCL's code over the stand-in.
cuda=$BIN/../lib/liblmpipe-emulated.so nccl=$BIN/../lib/liblmpipe-nccl-emulated.so
if [ -e "$cuda" ] && [ -e "$nccl" ]; then
    D="pretrain -q --model-config $T/tied.json --data $T/s --val $T/s --eval-tokens 60 --eval-every 2 --seq-len 31 --batch-tokens 124 --micro-batch 2 --lr 3e-4 --grad-clip 0.5 --seed 3 --steps 4"
    $D --device cpu -o "$T/cpu"
    ok "--device cuda --tp 2 --dp 2 under the emulation" env LMPIPE_CUDA="$cuda" LMPIPE_NCCL="$nccl" $D --device cuda --tp 2 --dp 2 -o "$T/cuda"
    near "with the CPU's losses" "$T/cpu/log.jsonl" "$T/cuda/log.jsonl"
else
    skip "--device cuda --tp 2" "the emulation is not built"
fi
done_testing
