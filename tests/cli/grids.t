# Grids of up to 16 ranks, as threads and under mpirun, train as one process does: the losses of 50 steps within 1e-4, gradient norms
# and held-out losses too. Documents cross the borders of chunks, layers and vocabulary do not divide evenly.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
for i in $(seq 300); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 323 -o "$T/v" "$T/d.jsonl"
tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
config() { ranks_config 323 32 75 "$2" 4 2 8 64 "$1"; } # config TIED LAYERS
config false 5 >"$T/untied.json"
config true 6 >"$T/tied.json"
# Norms of heads, of which ranks have four and three, around one key-value head that both have: their gradients add up beside each other.
ranks_config 323 36 51 2 7 1 6 64 true | sed 's/"llama"/"qwen3"/; s/LlamaFor/Qwen3For/' >"$T/odd.json"
# Eight samples a step, or seven: then ranks have unequal shares. Clipping works in every step.
P="pretrain -q --device cpu --tokenizer $T/v --data a=3:$T/s --data b=1:$T/s --val $T/s --eval-tokens 500 --eval-every 25 --seq-len 48 --micro-batch 1 --lr 3e-4 --warmup 5
   --grad-clip 0.5 --save-every 0 --seed 3 --steps 50"
eight="--batch-tokens 384" seven="--batch-tokens 336" three="--batch-tokens 144"
. "$(dirname "$0")/difference.sh"

for model in untied tied; do
    for samples in eight seven three; do
        eval "size=\$$samples"
        ok "one process, $model, $samples samples a step" $P --model-config "$T/$model.json" $size -o "$T/one-$model-$samples"
    done
done
# grid MODEL SAMPLES OPTION…
grid() {
    model=$1 samples=$2
    shift 2
    eval "size=\$$samples"
    name="$T/run-$tap_count"
    if $P --model-config "$T/$model.json" $size "$@" -o "$name" 2>"$T/.err"; then
        near "$* $model, $samples samples a step" "$T/one-$model-$samples/log.jsonl" "$name/log.jsonl"
    else
        result 1 "$* $model, $samples samples a step: $(cat "$T/.err")"
    fi
}
ok "one process, odd, seven samples a step" $P --model-config "$T/odd.json" $seven -o "$T/one-odd-seven"
grid odd seven --tp 2
grid untied eight --tp 2
grid tied seven --tp 4
grid untied seven --cp 2
grid tied eight --cp 3
grid untied three --cp 4
grid untied eight --pp 2
grid untied seven --pp 5
grid tied three --pp 6
grid tied seven --pp 2 --virtual-stages 3
grid tied eight --pp 2 --virtual-stages 4 --ends-fewer 1
grid tied three --pp 3 --virtual-stages 2
grid untied seven --pp 3 --ends-fewer 1
grid tied seven --dp 3
grid untied seven --tp 2 --cp 2
grid tied eight --tp 2 --pp 2
grid tied seven --tp 2 --dp 2
grid untied eight --cp 2 --pp 2 --virtual-stages 2
grid untied seven --cp 2 --dp 2
grid tied seven --pp 2 --dp 2
grid tied eight --tp 2 --cp 2 --pp 2
grid untied seven --tp 2 --cp 2 --dp 2
grid tied seven --tp 2 --pp 2 --dp 2 --virtual-stages 3
grid untied seven --cp 2 --pp 2 --dp 2
grid tied three --cp 4 --pp 2 --recompute layer
grid untied eight --tp 4 --pp 2 --recompute norms
grid tied seven --tp 2 --cp 2 --pp 2 --dp 2
trace=$T/trace.json
ok "--trace" $P --model-config "$T/tied.json" $eight --pp 2 --cp 2 --trace "$trace" -o "$T/traced"
is "has each pass of a step: two stages of two ranks, eight micro-batches, there and back" "$(grep -c '"cat":"forward"' "$trace") $(grep -c '"cat":"backward"' "$trace")" "32 32"
like "and the bubble beside the formula's" "$(head -n 1 "$trace")" '"bubble":[0-9.]+,"bubble_simulated":[0-9.]+,"bubble_formula":0.1250'
ok "and is JSON" perl -MJSON::PP -0777 -ne 'decode_json($_)' "$trace"

# bf16: roundings of the residual stream's neighbours, so three digits.
$P --model-config "$T/tied.json" $eight --dtype bf16 -o "$T/one-bf16"
ok "bf16, tp 2 cp 2 pp 2" $P --model-config "$T/tied.json" $eight --dtype bf16 --tp 2 --cp 2 --pp 2 -o "$T/bf16"
result "$(awk -v d="$(difference "$T/one-bf16/log.jsonl" "$T/bf16/log.jsonl")" 'BEGIN { print (d > 1e-2) }')" "has one process's losses within 1 % ($(difference "$T/one-bf16/log.jsonl" "$T/bf16/log.jsonl"))"
fails 1 "more than 3 steps were not finite" "ranks skip and stop alike" \
    $P --model-config "$T/tied.json" $eight --tp 2 --cp 2 --pp 2 --lr 1e9 --min-lr 0 --grad-clip 0 --max-skips 3 -o "$T/nan"
ok "the same grid" $P --model-config "$T/tied.json" $seven --tp 2 --cp 2 --pp 2 --virtual-stages 3 -o "$T/bits1"
ok "a second time" $P --model-config "$T/tied.json" $seven --tp 2 --cp 2 --pp 2 --virtual-stages 3 -o "$T/bits2"
same "has the same bits" "$T/bits1/final/model.safetensors" "$T/bits2/final/model.safetensors"
bits() { lmeval --model "$1" --perplexity "$T/s" --max-length 48 --json | sed -n 's/.*bits_per_byte","value":\([0-9.]\{5\}\).*/\1/p'; }
like "it can be evaluated" "$(bits "$T/bits1")" '^[0-9]'
is "and is as good as one process's" "$(bits "$T/bits1")" "$(bits "$T/one-tied-seven")"

# What cannot be.
fails 1 "cp 5: sequences of 48 tokens cannot be cut into 10 chunks" "a length that chunks do not divide" $P --model-config "$T/tied.json" $eight --cp 5 -o "$T/x"
fails 1 "6 layers leave none for stage 0 of 8" "more stages than layers" $P --model-config "$T/tied.json" $eight --pp 4 --virtual-stages 2 -o "$T/x"
fails 1 "there is no pipeline" "virtual stages of no pipeline" $P --model-config "$T/tied.json" $eight --virtual-stages 2 -o "$T/x"
fails 1 "2 key-value heads, fewer than ranks, must divide" "heads that cannot be shared" $P --model-config "$T/tied.json" $eight --tp 3 -o "$T/x"
fails 1 "has 8 samples, fewer than ranks" "more data-parallel ranks than samples" $P --model-config "$T/tied.json" $eight --dp 9 -o "$T/x"

# The CUDA build's way: kernels under the emulation, sends and collectives in NCCL's code over the stand-in. Two ranks of two virtual
# stages send both ways to each other.
cuda=$BIN/../lib/liblmpipe-emulated.so nccl=$BIN/../lib/liblmpipe-nccl-emulated.so
if [ -e "$cuda" ] && [ -e "$nccl" ]; then
    D="pretrain -q --model-config $T/tied.json --data $T/s --val $T/s --eval-tokens 100 --seq-len 32 --batch-tokens 96 --micro-batch 1 --lr 3e-4 --grad-clip 0.5 --seed 3
       --save-every 0 --steps 4"
    $D --device cpu -o "$T/cpu"
    for g in "--tp 2 --cp 2" "--pp 2 --virtual-stages 2"; do
        ok "--device cuda $g under the emulation" env LMPIPE_CUDA="$cuda" LMPIPE_NCCL="$nccl" $D --device cuda $g -o "$T/cuda$tap_count"
        near "has the CPU's losses" "$T/cpu/log.jsonl" "$T/cuda$((tap_count - 1))/log.jsonl"
    done
    # More rows than what ranks say of the vocabulary holds at a time.
    D="$D --seq-len 320 --batch-tokens 320"
    $D --device cpu -o "$T/long"
    ok "--device cuda --tp 2 of 320 rows" env LMPIPE_CUDA="$cuda" LMPIPE_NCCL="$nccl" $D --device cuda --tp 2 -o "$T/cuda-long"
    near "has the CPU's losses" "$T/long/log.jsonl" "$T/cuda-long/log.jsonl"
else
    skip "grids of --device cuda under the emulation" "it is not built (make check builds it)"
fi

if [ "$no_mpi" ]; then
    skip "grids of mpirun" "$no_mpi"
else
    mpi() { n=$1; shift; P_threads=$P; P="$mpirun -n $n $P"; grid "$@"; P=$P_threads; }
    mpi 2 untied seven --pp 2
    mpi 2 tied eight --cp 2
    mpi 4 tied seven --tp 2 --pp 2 --virtual-stages 3
    mpi 8 tied seven --tp 2 --cp 2 --pp 2
fi
done_testing
