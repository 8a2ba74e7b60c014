# What a run will take, told beforehand: pretrain --dry-run for any grid, beside the memory that runs take and scalefit plan.
. "$(dirname "$0")/tap.sh"
for i in $(seq 400); do echo "line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i"; done >"$T/t"
bpe-train -q --text --vocab-size 400 -o "$T/v" "$T/t"
tokenize -q --text --tokenizer "$T/v" -o "$T/s" "$T/t"
scalefit shape -q --params 6e6 --vocab 400 --head-dim 32 --seq-len 256 >"$T/c.json"
P="pretrain -q --device cpu --model-config $T/c.json --seq-len 256 --batch-tokens 2048 --steps 3"
megabytes() { sed -n "s/^$1 *\([0-9.]*\) MB$/\1/p"; }
for how in "--save-every 0" "--save-every 2" "--dtype bf16 --save-every 0" "--recompute layer --save-every 0"; do
    said=$($P $how --dry-run | megabytes "memory in all")
    $P $how --data "$T/s" --stats "$T/stats" -o "$T/run" || break
    took=$(sed 's/.*"peak_bytes":\([0-9]*\).*/\1/' "$T/stats")
    if nm "$BIN/pretrain" 2>/dev/null | grep -q __asan_init; then skip "$how: $said MB are said" "the sanitizer takes memory of its own"; else
    ok "$how: $said MB are said, $((took / 1000000)) taken: within 5 %" awk -v s="$said" -v t="$took" 'BEGIN { r = s * 1e6 / t; exit !(r > 0.95 && r < 1.05) }'
    fi
    scalefit plan --json --model-config "$T/run" >"$T/plan.json"
    $P $how --dry-run | sed -n 's/^\(weights\|gradients\|optimiser states\|activations\|memory in all\) *\([0-9.]*\) MB$/\2/p' >"$T/a"
    sed -n 's/^ *"\(weights\|gradients\|optimizer\|activations\|memory\)_bytes": \([0-9.e+]*\),*$/\2/p' "$T/plan.json" | awk '{ printf "%.1f\n", $1 / 1e6 }' >"$T/b"
    same "scalefit plan says the same of the run" "$T/a" "$T/b"
    rm -rf "$T/run"
done
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
