# What a run will take, told beforehand: pretrain --dry-run for any grid, beside the memory that runs take and scalefit plan.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
. "$(dirname "$0")/ahead.sh"
for i in $(seq 400); do echo "line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i"; done >"$T/t"
bpe-train -q --text --vocab-size 400 -o "$T/v" "$T/t"
tokenize -q --text --tokenizer "$T/v" -o "$T/s" "$T/t"
scalefit shape -q --params 3e6 --vocab 400 --head-dim 32 --aspect 24 --seq-len 256 >"$T/c.json"
P="pretrain -q --device cpu --model-config $T/c.json --seq-len 256 --batch-tokens 1024 --micro-batch 2 --steps 2"
megabytes() { sed -n "s/^\(weights\|gradients\|optimiser states\|activations\|memory in all\|all ranks, threads of a process\) *\([0-9.]*\) MB$/\2/p"; }
# memory OPTION…: ranks are threads
memory() {
    $P "$@" --dry-run --stats "$T/said" >"$T/table"
    $P "$@" --data "$T/s" --stats "$T/took" -o "$T/run" || { result 1 "$*"; return; }
    fits "$*" "$(number peak_bytes "$T/said")" "$(number peak_bytes "$T/took")"
    scalefit plan --json --model-config "$T/run" >"$T/plan.json"
    megabytes <"$T/table" >"$T/a"
    sed -n 's/^ *"\(weights\|gradients\|optimizer\|activations\|memory\|threads\)_bytes": \([0-9.e+]*\),*$/\2/p' "$T/plan.json" | awk '{ printf "%.1f\n", $1 / 1e6 }' >"$T/b"
    same "scalefit plan says the same of the run" "$T/a" "$T/b"
    rm -rf "$T/run"
}
memory --save-every 0
memory --save-every 1
memory --dtype bf16 --save-every 0
memory --recompute norms --save-every 0
memory --recompute layer --dtype bf16 --save-every 0
memory --average-every 1 --schedule wsd
memory --dp 2 --save-every 0
memory --dp 2 --shard 0
memory --dp 2 --shard 2 --save-every 0
memory --dp 2 --shard 3 --dtype bf16 --save-every 0
memory --tp 2 --save-every 0
memory --cp 2 --save-every 0
memory --pp 2 --save-every 0
memory --pp 2 --virtual-stages 2 --micro-batch 1
memory --pp 2 --tp 2 --recompute norms --save-every 0
# Large tables, and a deep narrow model.
scalefit shape -q --params 3e6 --vocab 12000 --head-dim 64 --aspect 96 --seq-len 256 --no-tied >"$T/c.json"
memory --save-every 0
# Rooms of shared gradients and weights are reached in the first steps.
memory --dtype bf16 --dp 2 --shard 3 --save-every 0 --steps 3
# Two tables that threads draw, passes of few tokens, an output layer that is packed once.
ranks_config 12000 128 256 3 4 2 32 256 false >"$T/c.json"
memory --dp 2 --seq-len 64 --micro-batch 1 --save-every 0
memory --tp 2 --save-every 0
ranks_config 8000 256 256 2 6 2 32 256 true >"$T/c.json"
memory --save-every 0
memory --seq-len 128 --micro-batch 1 --save-every 0
memory --dp 2 --shard 2 --save-every 0 --steps 12
memory --dp 2 --shard 3 --micro-batch 1 --save-every 0 --steps 12
memory --dp 2 --shard 3 --average-every 1 --save-every 0 --steps 12
scalefit shape -q --params 2e6 --vocab 400 --head-dim 16 --aspect 8 --seq-len 256 >"$T/c.json"
memory --recompute layer --save-every 0
memory --tp 2 --pp 2 --micro-batch 1 --save-every 0
scalefit shape -q --params 3e6 --vocab 400 --head-dim 32 --aspect 24 --seq-len 256 >"$T/c.json"
# Processes: the first rank of each.
case $(mpirun --version 2>/dev/null) in *"Open MPI"*) ;; *) no_mpi=${no_mpi:-"measured with Open MPI alone"} ;; esac
if [ "$no_mpi" ]; then
    skip "memory of mpirun's ranks" "$no_mpi"
else
    for how in "--dp 2" "--dp 2 --shard 3" "--tp 2" "--cp 2" "--pp 2 --dtype bf16"; do
        $P $how --save-every 0 --dry-run --stats "$T/said" >"$T/table"
        $mpirun -n 2 $P $how --save-every 0 --data "$T/s" --stats "$T/took" -o "$T/run"
        fits "mpirun: $how" "$(number rank_peak_bytes "$T/said")" "$(number peak_bytes "$T/took")"
        rm -rf "$T/run"
    done
fi
# Grids: nothing is started, whatever their size.
llama='{"model_type":"llama","vocab_size":128256,"hidden_size":16384,"intermediate_size":53248,"num_hidden_layers":126,"num_attention_heads":128,"num_key_value_heads":8,
    "max_position_embeddings":8192,"rms_norm_eps":1e-5,"rope_theta":500000,"hidden_act":"silu","tie_word_embeddings":false}'
echo "$llama" >"$T/405b.json"
L="pretrain --dry-run --device cpu --model-config $T/405b.json --steps 1 --seq-len 8192 --batch-tokens 16777216 --dtype bf16"
$L --tp 8 --pp 16 --dp 128 --virtual-stages 8 --ends-fewer 1 >"$T/said"
like "16,384 ranks of Llama 3 405B" "$(cat "$T/said")" 'ranks +16384'
like "with the parameters of a rank" "$(cat "$T/said")" 'parameters of a rank +3[01][0-9]{8}'
like "the bubble" "$(cat "$T/said")" 'bubble, idle over busy time +11\.7 %'
for kind in "--tp all-gather" "--tp reduce-scatter" "--pp send" "--pp back send" "data reduce-scatter"; do like "bytes sent: $kind" "$(cat "$T/said")" "sent a step: $kind +[0-9.]* MB"; done
fails 1 "attention heads, fewer than ranks" "too many tensor-parallel ranks" $L --tp 256
fails 1 "leave none for stage" "too many stages" $L --pp 127
fails 1 "equal chunks" "chunks that do not come out even" $L --cp 3
fails 1 "fewer than ranks" "more replicas than samples" $L --dp 4096
$L --grid auto --ranks 512 --device cuda >"$T/said" 2>"$T/chosen"
like "--grid auto chooses for any number of ranks" "$(cat "$T/chosen")" '^pretrain: --grid auto: --tp [0-9]+ --cp [0-9]+ --pp [0-9]+ --dp [0-9]+ --virtual-stages'
like "and tells what they take" "$(cat "$T/said")" 'ranks +512'
fails 1 "no grid of 4 ranks fits" "no grid fits" $L --grid auto --ranks 4 --device cuda
is "--grid auto trains alone where no launcher is" "$(pretrain --device cpu --model-config "$T/c.json" --seq-len 256 --batch-tokens 2048 --steps 1 --save-every 0 --data "$T/s" --grid auto -o "$T/alone" 2>&1 | sed -n 's/.*\(--tp 1 --cp 1 --pp 1 --dp 1\).*/\1/p')" "--tp 1 --cp 1 --pp 1 --dp 1"
done_testing
