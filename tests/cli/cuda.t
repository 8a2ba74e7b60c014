# The programs on the CUDA device, its kernels run on this host by tests/emulation, or with the argument `gpu` on a GPU: the losses and
# answers of the CPU.
. "$(dirname "$0")/tap.sh"
LMPIPE_CUDA=$(cd "$BIN/../lib" && pwd)/liblmpipe-$([ "${1:-}" = gpu ] && echo cuda || echo emulated).so
[ -e "$LMPIPE_CUDA" ] || skip_all "${LMPIPE_CUDA##*/} is not built"
export LMPIPE_CUDA
LC_ALL=C sed 's/lmpipe interface [0-9]/lmpipe interface x/' "$LMPIPE_CUDA" >"$T/other.so"
fails 1 "device cuda: .*other.so is of another build than this program" "kernels of other headers are refused" \
    env LMPIPE_CUDA="$T/other.so" pretrain --device cuda --model-config x --data x --steps 1 -o "$T/x"
told=$(LMPIPE_CUDA=$T/other.so lmeval --model "$T/none" --perplexity "$T/none" 2>&1)
like "and --device auto says that it takes the CPU" "$told" "lmeval: no GPU is used: device cuda: .*other.so is of another build"
told=$(LMPIPE_CUDA=$T/other.so lmeval -q --model "$T/none" --perplexity "$T/none" 2>&1)
ok "but not with --quiet" test -n "$told" -a "${told#*no GPU}" = "$told"
for i in $(seq 200); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 320 --chat-template -o "$T/v" "$T/d.jsonl"
tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
# Two layers, two query heads a key head, tied weights; and the same with what other families have: QK-norm, biases, a window, not tied.
scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 12 --eos 319 >"$T/plain.json" 2>/dev/null
sed 's/"model_type": "llama"/"model_type": "qwen3"/; s/"LlamaForCausalLM"/"Qwen3ForCausalLM"/; s/"attention_bias": false/"attention_bias": true/
    s/"tie_word_embeddings": true/"tie_word_embeddings": false/; s/"mlp_bias": false,//; s/"head_dim": 16/"head_dim": 24, "use_sliding_window": true, "max_window_layers": 0, "sliding_window": 20/' "$T/plain.json" >"$T/more.json"
losses() { sed -n 's/.*"loss":\([0-9.e+-]*\),"lr".*/\1/p' "$1/log.jsonl"; }
near() { # near FILE FILE X: numbers, one a line, that differ by at most X of the second
    paste "$1" "$2" | awk -v x="$3" 'NF != 2 || $1 - $2 > x * $2 || $2 - $1 > x * $2 {print "# " $0; bad = 1} END {exit bad || NR != 20}' >&2
}
for c in plain more bf16; do
    dtype=f32 allowed=1e-4
    # Rounded to bf16 in another order, one step's difference moves the next.
    [ $c != bf16 ] || { dtype=bf16 allowed=1e-3; cp "$T/plain.json" "$T/bf16.json"; }
    for d in cpu cuda; do
        ok "pretrain on $d, $c" pretrain -q --device $d --dtype $dtype --model-config "$T/$c.json" --data "$T/s" --tokenizer "$T/v" --seq-len 64 --batch-tokens 128 --lr 3e-3 --warmup 5 \
            --seed 3 --steps 20 --save-every 0 --peak-flops 1e12 -o "$T/$c-$d"
        losses "$T/$c-$d" >"$T/$c-$d.txt"
    done
    near "$T/$c-cuda.txt" "$T/$c-cpu.txt" $allowed
    result $? "20 steps on cuda have the losses of the CPU, $c"
    for d in cpu cuda; do
        generate --device $d --dtype $dtype --model "$T/$c-cpu" --raw --prompt "line 7 says" --max-tokens 12 --temperature 0 >"$T/$d.out" 2>"$T/err" || cat "$T/err" >&2
    done
    same "generate on cuda gives the CPU's answer, $c" "$T/cpu.out" "$T/cuda.out"
done
for i in $(seq 8); do
    a=$([ $((i % 2)) = 0 ] && echo yes || echo no) b=$([ $((i % 2)) = 0 ] && echo no || echo yes)
    echo "{\"id\":\"$i\",\"prompt\":\"Is $i even?\",\"chosen\":\"$a\",\"rejected\":\"$b\"}"
done >"$T/pairs.jsonl"
for d in cpu cuda; do
    Q="-q --device $d --batch-size 4 --max-length 64 --rows 256 --save-every 0 --epochs 1 --lr 1e-3 --peak-flops 1e12"
    ok "dpo on $d" dpo --model "$T/plain-cpu" $Q -o "$T/dpo-$d" "$T/pairs.jsonl"
    ok "rmtrain on $d" rmtrain --model "$T/plain-cpu" $Q -o "$T/rm-$d" "$T/pairs.jsonl"
    ok "dpo with adapters on $d" dpo --model "$T/more-cpu" $Q --lora 4 --lora-targets all-linear --lora-dropout 0.2 -o "$T/lora-$d" "$T/pairs.jsonl"
    generate --device $d --model "$T/more-cpu" --adapter "$T/lora-cpu" --temperature 0 --max-tokens 8 --prompt "Is 3 even?" >"$T/adapted-$d"
    echo '{"prompt":"Is 3 even?","responses":["yes","no"]}' | rmtrain --score --device $d --model "$T/rm-cpu" | sed 's/.*"scores":\[\(-*[0-9]*\.[0-9]\{4\}\)[0-9]*,\(-*[0-9]*\.[0-9]\{4\}\).*/\1 \2/' >"$T/scores-$d"
done
same "generate --adapter" "$T/adapted-cpu" "$T/adapted-cuda"
for t in dpo rm lora; do
    is "$t: the last loss" "$(losses "$T/$t-cuda" | tail -n 1 | cut -c 1-6)" "$(losses "$T/$t-cpu" | tail -n 1 | cut -c 1-6)"
done
like "rmtrain --score" "$(cat "$T/scores-cpu")" '^-?[0-9.]+ -?[0-9.]+$'
same "rmtrain --score gives the CPU's scores" "$T/scores-cpu" "$T/scores-cuda"
if [ -x "$BIN/../tests/bench/gpu" ]; then
    ok "the measuring program runs" "$BIN/../tests/bench/gpu" small
    like "and trains" "$(tail -n 1 "$T/.out")" 'training .* tokens/s .* loss 4\.'
else
    skip "the measuring program" "not built"
fi
done_testing
