# pretrain: nothing is allocated once training goes; --profile says where the time went.
. "$(dirname "$0")/tap.sh"
for i in $(seq 200); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 320 -o "$T/v" "$T/d.jsonl"
tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 24 >"$T/c.json"
sed 's/"model_type": "llama"/"model_type": "mistral", "sliding_window": 24/; s/LlamaForCausalLM/MistralForCausalLM/' "$T/c.json" >"$T/window.json"
P="pretrain -q --data $T/s --seq-len 64 --batch-tokens 256 --micro-batch 2 --save-every 0"
allocations() { # allocations STEPS OPTION…: how often the process allocates, in $own how often the program itself does
    steps=$1
    shift
    rm -rf "$T/run"
    LD_PRELOAD=$BIN/../tests/preload/allocations.so ALLOCATIONS=$T/count $P --steps "$steps" -o "$T/run" "$@"
    read -r all own <"$T/count"
}
if nm "$BIN/pretrain" 2>/dev/null | grep -q __asan_init; then
    skip "nothing is allocated in training" "the sanitizer has its own allocator"
else
    for how in "-j 1 --dtype f32" "-j 1 --dtype bf16 --recompute layer" "-j 1 --model-config $T/window.json"; do
        case $how in *config*) ;; *) how="--model-config $T/c.json $how" ;; esac
        allocations 3 $how
        few=$all
        ok "the counter counts" test "$few" -gt 100
        # A block a step would be 37 more; a thread of the C library's or OpenMP's may take one when it comes late.
        allocations 40 $how
        ok "40 steps allocate no more than 3 (${how##*/})" test "$all" -lt $((few + 10))
    done
    allocations 60 -j 2 --model-config "$T/c.json"
    ok "nor do they with threads" test "$all" -lt $((few + 20))
    scalefit shape --params 6e4 --vocab 320 --head-dim 16 --aspect 8 >"$T/four.json" # layers
    for how in "--dp 2 --shard 3" "--tp 2 --cp 2" "--pp 2 --virtual-stages 2" "--tp 2 --cp 2 --pp 2 --dp 2 --shard 2 --batch-tokens 1024"; do
        allocations 3 --model-config "$T/four.json" --dtype bf16 $how
        few=$all
        allocations 20 --model-config "$T/four.json" --dtype bf16 $how
        ok "nor do ranks that are threads ($how)" test "$few" -gt 100 -a "$all" -lt $((few + 12))
    done
    LMPIPE_CUDA=$(cd "$BIN/.." && pwd)/lib/liblmpipe-emulated.so
    export LMPIPE_CUDA
    for type in f32 bf16; do
        [ -e "$LMPIPE_CUDA" ] || break
        how="--device cuda -j 1 --batch-tokens 64 --micro-batch 1 --dtype $type --model-config $T/c.json"
        allocations 2 $how
        few=$own
        allocations 4 $how
        ok "nor do steps on a GPU, of the host or of the GPU ($type)" test "$few" -gt 100 -a "$own" -eq "$few"
    done
    unset LMPIPE_CUDA
fi
out=$($P --steps 3 --model-config "$T/c.json" --profile -o "$T/p")
for name in 'product, forward' 'product, of weights' 'attention, backward' 'rmsnorm' 'adamw' 'all operations'; do
    like "the profile has $name" "$out" "$name +[0-9]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9]+"
done
like "and the roof" "$out" 'roof: [0-9]+ GFLOP/s f32, [0-9]+ bf16, [0-9.]+ GB/s'
$P --steps 3 --model-config "$T/c.json" -o "$T/q"
same "and changes no bit" "$T/p/final/model.safetensors" "$T/q/final/model.safetensors"
done_testing
