# What sft, dpo and rmtrain will take, told by --dry-run for any grid: the bytes of a whole run by group and kind, evaluations, the reference's
# pass and merging included, which the run's own counters and MPI's profiling interface find to the byte; and the memory.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
. "$(dirname "$0")/ahead.sh"
ranks_data
ranks_answers 60 "$T/sft.jsonl" "$T/dpo.jsonl" "$T/rmtrain.jsonl"
bpe-train -q --vocab-size 320 --chat-template -o "$T/v" "$T/d.jsonl"
# model NAME CONFIG: a folder that post-training takes
model() { pretrain -q --device cpu --model-config "$2" --tokenizer "$T/v" --data "$T/s" --seq-len 32 --batch-tokens 32 --steps 1 --save-every 0 --peak-flops 1e11 -o "$T/$1" || echo "# no model $1" >&2; }
for tied in true false; do
    ranks_config 320 32 64 4 4 2 8 128 $tied >"$T/c.json"
    model $tied "$T/c.json"
done
M=$T/true
Q="-q --device cpu --batch-size 9 --max-length 96 --rows 192 --save-every 0 --lr 3e-5 --peak-flops 1e11"
# grid TOOL OPTION…: the held-out records are looked at twice, behind the last step too
grid() {
    tool=$1
    shift
    P="$tool --model $M $Q --epochs 0.5 --val $T/$tool.jsonl --eval-every 2 $* $T/$tool.jsonl"
    rm -rf "$T/run"
    $P --dry-run --stats "$T/plan.json" >"$T/table" 2>&1 && $launch $P --stats "$T/took.json" -o "$T/run" 2>"$T/.err"
    sends "$tool $(echo "$*" | sed "s,$T/,,g")"
}
for tool in sft dpo rmtrain; do
    grid $tool --tp 2
    sends_some
    grid $tool --cp 2 --pp 2 --recompute layer
    grid $tool --dp 5 --shard 0
    grid $tool --dp 3 --shard 3
    grid $tool --pp 2 --virtual-stages 2 --dp 2 --shard 2
    grid $tool --tp 2 --cp 2 --pp 2 --dp 2 --lora 4
    grid $tool --dp 2 --shard 3 --lora 4 --lora-targets all-linear --lora-dropout 0.2
    grid $tool --tp 4 --dtype bf16 --lora 4 --lora-targets o_proj,down_proj --recompute norms
done
grid sft --dp 2 --shard 3 --lora 4 --lora-targets gate_proj,v_proj --merge --recompute layer
grid sft --pp 2 --cp 2 --shard 3 --neftune 5 --average-every 2
grid dpo --tp 2 --reference "$T/false"
grid dpo --tp 2 --loss simpo
grid rmtrain --tp 2 --dp 2 --layout row
M=$T/false
grid sft --pp 2 --tp 2 --dp 2 --shard 1
grid dpo --pp 2 --dp 2 --shard 3 --recompute layer
# Where one step is all there is, the table has it.
M=$T/true
for tool in sft dpo; do
    $tool --model "$M" $Q --batch-size 60 --loss simpo --tp 2 --dp 2 --dry-run --stats "$T/plan.json" "$T/$tool.jsonl" >"$T/table" 2>"$T/.err" ||
        $tool --model "$M" $Q --batch-size 60 --tp 2 --dp 2 --dry-run --stats "$T/plan.json" "$T/$tool.jsonl" >"$T/table"
    table_sends "$tool: the table has a step's" "$T/table"
done
if [ "$no_mpi" ]; then
    skip "bytes of mpirun's ranks" "$no_mpi"
else
    counted 4 sft --tp 2 --dp 2
    counted 2 dpo --pp 2
    counted 4 rmtrain --cp 2 --dp 2 --shard 3
    counted 2 sft --dp 2 --shard 3 --lora 4
fi

# Memory, of models large enough for it to be theirs.
scalefit shape -q --params 8e6 --vocab 320 --head-dim 32 --aspect 24 --seq-len 256 >"$T/c.json"
model small "$T/c.json"
cp -a "$T/small" "$T/other"
# memory KEY RANKS TOOL OPTION…: within 5 %
memory() {
    key=$1 ranks=$2 tool=$3
    shift 3
    P="$tool --model $T/small $Q --epochs 0.1 --batch-size 30 --rows 512 $* $T/$tool.jsonl"
    rm -rf "$T/run"
    $P --dry-run --stats "$T/said" >"$T/table" && $([ $ranks = 0 ] || echo $mpirun -n $ranks) $P --stats "$T/took" -o "$T/run"
    fits "$([ $ranks = 0 ] || echo mpirun: )$tool $(echo "$*" | sed "s,$T/,,g")" "$(number $key "$T/said")" "$(number peak_bytes "$T/took")"
}
if [ "$sanitized" ]; then
    skip "memory" "the sanitizer takes memory of its own"
else
    memory peak_bytes 0 sft
    memory peak_bytes 0 sft --lora 8
    memory peak_bytes 0 sft --lora 8 --dp 2 --shard 3
    memory peak_bytes 0 dpo --pp 2
    memory peak_bytes 0 dpo --dtype bf16 --dp 2 --shard 3
    memory peak_bytes 0 dpo --reference "$T/other" --lora 8
    memory peak_bytes 0 rmtrain --cp 2
    memory peak_bytes 0 rmtrain --tp 2 --lora 8 --lora-targets all-linear
    case $(mpirun --version 2>/dev/null) in *"Open MPI"*) ;; *) no_mpi=${no_mpi:-"measured with Open MPI alone"} ;; esac
    if [ "$no_mpi" ]; then
        skip "memory of mpirun's ranks" "$no_mpi"
    else
        memory rank_peak_bytes 2 sft --dp 2
        memory rank_peak_bytes 2 dpo --tp 2
        memory rank_peak_bytes 2 rmtrain --lora 8 --dp 2 --shard 3
    fi
fi
fails 1 "leave none for stage" "what cannot be" sft --model "$T/true" $Q --pp 7 --dry-run "$T/sft.jsonl"
done_testing
