# Adapters: PEFT's folder gives PEFT's loss and gradient, packing and stopping change nothing, folders that do not fit are named.
. "$(dirname "$0")/tap.sh"
D=tests/data/posttrain
field() { sed -n "$1p" "$2" | grep -o "\"$3\":[^,}]*" | cut -d: -f2; }
near() { awk -v a="$2" -v b="$3" -v t="$4" 'BEGIN {d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b; exit !(a != "" && d <= t * m)}'; status=$?; result $status "$1"; [ $status -eq 0 ] || echo "# $2, not $3" >&2; }
differ() { name=$1; cmp -s "$2" "$3"; [ $? -eq 1 ]; result $? "$name"; }
golden() { awk -v n=lora -v f="$1" '$1 == n {print $f}' $D/golden.tsv; }
still="-q --epochs 1 --lr 0 --min-lr 0 --grad-clip 0 --batch-size 100 --max-length 2048 --save-every 0"
ok "training goes on from PEFT's adapter" sft --model $D/model --adapter $D/adapter --lora 4 $still -o "$T/on" $D/chat.jsonl
near "with PEFT's loss" "$(field 1 "$T/on/log.jsonl" loss)" "$(golden 2)" 1e-5
near "and its gradient's norm" "$(field 1 "$T/on/log.jsonl" grad_norm)" "$(golden 3)" 2e-5
ok "its ranks and scales are kept" grep -q '"model.layers.1.mlp.down_proj": 9' "$T/on/final/adapter_config.json"
sft --model $D/model --adapter $D/adapter $still -o "$T/whole" $D/chat.jsonl
near "added to the weights it has the same loss" "$(field 1 "$T/whole/log.jsonl" loss)" "$(golden 2)" 1e-5

# A run: --merge, both ways to name it, what is saved.
train="--epochs 3 --batch-size 5 --lr 3e-3 --max-length 2048 --lora 3 --lora-targets all-linear --lora-dropout 0.3 --neftune 5"
ok "sft --lora" sft --model $D/model $train --save-every 2 --keep 0 -o "$T/a" $D/chat.jsonl
like "it says how much is trained" "$(cat "$T/.err")" '^sft: 2304 of [0-9]+ parameters are trained'
sft -q --model $D/model $train --merge -o "$T/merged" $D/chat.jsonl
generate -q --model "$T/merged" --temperature 0 --max-tokens 8 $D/pairs.jsonl >"$T/g1"
generate -q --model $D/model --adapter "$T/a" --temperature 0 --max-tokens 8 $D/pairs.jsonl >"$T/g2"
generate -q --model "$T/a" --temperature 0 --max-tokens 8 $D/pairs.jsonl >"$T/g3"
generate -q --model $D/model --temperature 0 --max-tokens 8 $D/pairs.jsonl >"$T/g4"
same "--merge answers as --adapter does" "$T/g1" "$T/g2"
same "the run stands for its model with the adapter" "$T/g1" "$T/g3"
differ "and not for the model alone" "$T/g1" "$T/g4"
sed -n 's/.*"content": *"\([^"]*\)".*/{"id":"x","text":"\1"}/p' $D/chat.jsonl >"$T/text.jsonl"
near "lmeval --adapter" "$(lmeval --model $D/model --adapter "$T/a" --json --perplexity "$T/text.jsonl" | sed -n '1s/.*"value":\([^,]*\).*/\1/p')" \
    "$(lmeval --model "$T/merged" --json --perplexity "$T/text.jsonl" | sed -n '1s/.*"value":\([^,]*\).*/\1/p')" 1e-6

# Stopped and resumed: the bits of a run never stopped.
cp -r "$T/a" "$T/b"
rm -r "$T/b/final" "$T/b/done" "$T/b/step-00000012" "$T/b/step-00000010" "$T/b/step-00000008"
ln -sfn step-00000006 "$T/b/latest"
sft -q --model $D/model $train --save-every 2 --keep 0 -o "$T/b" $D/chat.jsonl
same "a resumed run ends with the same bits" "$T/a/final/adapter_model.safetensors" "$T/b/final/adapter_model.safetensors"
# Draws belong to a record and its place, not to a batch.
sft -q --model $D/model $train --save-every 0 --rows 400 -o "$T/c" $D/chat.jsonl
for s in 1 2 12; do near "step $s: dropout and noise do not depend on --rows" "$(field $s "$T/c/log.jsonl" loss)" "$(field $s "$T/a/log.jsonl" loss)" 1e-4; done
sft -q --model $D/model $(echo "$train" | sed 's/--lora-dropout 0.3 --neftune 5//') --save-every 0 -o "$T/d" $D/chat.jsonl
differ "they change something" "$T/a/final/adapter_model.safetensors" "$T/d/final/adapter_model.safetensors"
sft -q --model $D/model $train --save-every 0 --recompute layer -o "$T/e" $D/chat.jsonl
same "recomputed layers draw the same" "$T/a/final/adapter_model.safetensors" "$T/e/final/adapter_model.safetensors"
sft -q --model $D/model $train --average-every 2 --decay-share 0.5 -o "$T/f" $D/chat.jsonl
ok "averaged adapters are an adapter" generate -q --model "$T/f/average" --max-tokens 2 --prompt x
# In bf16, with dropout and without, on the CPU and by the CUDA kernels: near f32.
cuda=$BIN/../lib/liblmpipe-emulated.so
for how in "--lora 3" "--lora 3 --lora-dropout 0.3"; do
    R="sft -q --model $D/model --epochs 1 --batch-size 5 --lr 3e-4 --max-length 2048 --lora-targets all-linear --save-every 0 $how"
    $R --device cpu -o "$T/f32" $D/chat.jsonl
    for d in cpu cuda; do
        if [ $d = cuda ] && ! [ -e "$cuda" ]; then
            skip "$how in bf16 by the CUDA kernels" "the emulation is not built"
            continue
        fi
        LMPIPE_CUDA=$cuda $R --dtype bf16 --device $d -o "$T/bf16" $D/chat.jsonl
        for k in loss grad_norm; do near "$how in bf16 on $d: the last step's $k" "$(field '$' "$T/bf16/log.jsonl" $k)" "$(field '$' "$T/f32/log.jsonl" $k)" 1e-2; done
        rm -rf "$T/bf16"
    done
    rm -rf "$T/f32"
done

# The other tools.
pairs="-q --epochs 2 --batch-size 6 --lr 1e-2 --max-length 2048 --lora 4 --save-every 0"
ok "dpo --lora" dpo --model $D/model $pairs -o "$T/dpo" $D/pairs.jsonl
near "its reference is the model it begins with" "$(dpo -q --model "$T/a" --nll-weight 0 $still -o "$T/dpo0" $D/pairs.jsonl; field 1 "$T/dpo0/log.jsonl" loss)" 0.6931471805599453 1e-12
ok "rmtrain --lora" rmtrain --model $D/model $pairs -o "$T/rm" $D/pairs.jsonl
ok "rmtrain --lora --merge" rmtrain --model $D/model $pairs --merge -o "$T/rmm" $D/pairs.jsonl
score() { rmtrain -q --score --max-length 2048 "$@" | sed 's/.*"scores"://; s/\(\.[0-9]\{4\}\)[0-9]*/\1/g'; }
sed 's/.*"prompt":\(.*\),"chosen":\(.*\),"rejected":\(\[[^]]*\]\).*/{"prompt":\1,"responses":[\2,\3]}/; s/"prompt": \(.*\), "chosen": \(.*\), "rejected": \(\[[^]]*\]\).*/"prompt": \1,"responses":[\2,\3]}/' $D/pairs.jsonl >"$T/candidates"
score --model $D/model --adapter "$T/rm" "$T/candidates" >"$T/s1"
score --model "$T/rmm" "$T/candidates" >"$T/s2"
is "a reward model's adapter scores as the merged model" "$(grep -c . "$T/s1")" "$(grep -c . "$D/pairs.jsonl")"
same "with the same numbers" "$T/s1" "$T/s2"

# What does not fit.
bad() { # bad NAME SED PATTERN
    rm -rf "$T/bad" && cp -r $D/adapter "$T/bad"
    sed "$2" $D/adapter/adapter_config.json >"$T/bad/adapter_config.json"
    fails 1 "$3" "$1" generate -q --model $D/model --adapter "$T/bad" --prompt x
}
bad "another kind" 's/"LORA"/"IA3"/' 'bad/adapter_config.json: peft_type is not LORA'
bad "DoRA" 's/"use_dora": false/"use_dora": true/' 'use_dora is not supported'
bad "a start that changes the model" 's/"init_lora_weights": true/"init_lora_weights": "pissa"/' "init_lora_weights 'pissa' is not supported"
bad "a pattern that is an expression" 's/layers.1.mlp.down_proj/layers.*down/' "alpha_pattern 'layers.\*down'"
bad "a field that nobody knows" 's/"use_dora": false/"use_surprise": true/' "bad/adapter_config.json: the field 'use_surprise' is not known"
bad "an alpha that is a text" 's/"lora_alpha": [0-9.]*/"lora_alpha": "16"/' 'bad/adapter_config.json: lora_alpha must be a number'
bad "a rank that is none" 's/"r": [0-9]*/"r": 0/' 'bad/adapter_config.json: r is 0, which is no rank'
bad "a scale that is neither true nor false" 's/"use_rslora": true/"use_rslora": "yes"/' 'bad/adapter_config.json: use_rslora must be true or false'
bad "another rank than the tensors'" 's/"r": [0-9]*/"r": 5/; /rank_pattern/,/}/d' "adapter_model.safetensors: '.*lora_A.weight' has the rank [0-9]*, adapter_config.json says 5"
fails 1 "does not fit the model" "an adapter of a wider model" generate -q --model tests/data/models/llama3 --adapter $D/adapter --raw --prompt x
cp $D/adapter/adapter_config.json "$T/bad"
head -c 3000 $D/adapter/adapter_model.safetensors >"$T/bad/adapter_model.safetensors"
fails 1 "adapter_model.safetensors" "half a file" generate -q --model $D/model --adapter "$T/bad" --prompt x
perl -0777 -pe 's/"dtype":"F32"/"dtype":"I32"/' $D/adapter/adapter_model.safetensors >"$T/bad/adapter_model.safetensors"
fails 1 "bad/adapter_model.safetensors: '.*' has the dtype I32" "matrices of whole numbers" generate -q --model $D/model --adapter "$T/bad" --prompt x
{ head -c -4 $D/adapter/adapter_model.safetensors; printf '\000\000\300\177'; } >"$T/bad/adapter_model.safetensors"
fails 1 "bad/adapter_model.safetensors: '.*' holds a NaN" "a NaN is the adapter's, not the model's" generate -q --model $D/model --adapter "$T/bad" --prompt x
rm "$T/bad/adapter_config.json" && mkfifo "$T/bad/adapter_config.json"
fails 1 "bad/adapter_config.json: not a regular file" "a pipe that nobody writes to is not waited for" timeout -k 1 20 generate -q --model $D/model --adapter "$T/bad" --prompt x
fails 1 "no adapter_config.json" "no adapter" generate -q --model $D/model --adapter $D/model --prompt x
fails 1 "its base model 'model' is not a folder here" "an adapter whose model is elsewhere" generate -q --model $D/adapter --prompt x
fails 1 "rank 4, with which training goes on" "another rank" sft -q --model $D/model --adapter $D/adapter --lora 8 -o "$T/no" $D/chat.jsonl
fails 1 "'w_proj' is none of q_proj" "an unknown layer" sft -q --model $D/model --lora 8 --lora-targets q_proj,w_proj -o "$T/no" $D/chat.jsonl
fails 2 "merge goes with --lora" "--merge alone" sft -q --model $D/model --merge -o "$T/no" $D/chat.jsonl
done_testing
