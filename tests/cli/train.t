# smoke
# pretrain: resumes with the same bits after a kill, refuses what does not fit; then the whole post-training on a tiny model.
. "$(dirname "$0")/tap.sh"
for i in $(seq 200); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 320 --chat-template -o "$T/v" "$T/d.jsonl"
tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 24 --eos 319 >"$T/c.json"
P="pretrain -q --model-config $T/c.json --data $T/s --val $T/s --eval-tokens 2000 --tokenizer $T/v --seq-len 64 --batch-tokens 256 --lr 3e-3 --warmup 5 --save-every 10 --seed 3"
ok "pretrain" $P --steps 60 -o "$T/a"
$P --steps 60 -o "$T/b" &
pid=$!
for i in $(seq 100); do [ -e "$T/b/latest" ] && break; sleep 0.02; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
ok "pretrain goes on after SIGKILL" $P --steps 60 -o "$T/b"
same "with the same bits" "$T/a/final/model.safetensors" "$T/b/final/model.safetensors"
is "and one unbroken log" "$(grep -c . "$T/b/log.jsonl")" 60
like "whose last line is final" "$(tail -n 1 "$T/a/log.jsonl")" '"val_loss":[0-9.]+,"final":true'
timeless() { sed 's/,"tokens_per_second":[^,}]*,"mfu":[^,}]*//' "$1"; }
$P --steps 60 --log - -o "$T/standard" >"$T/log"
is "--log -: metrics on standard output" "$(timeless "$T/log" | cksum)" "$(timeless "$T/a/log.jsonl" | cksum)"
is "and in no file" "$(cd "$T/standard" && ls | grep -c log)" 0
rm -r "$T/b/final"
ok "a run whose final model is gone has not ended" $P --steps 60 -o "$T/b"
same "and makes it again" "$T/a/final/model.safetensors" "$T/b/final/model.safetensors"
loss_of() { sed -n 's/.*"step":'"$2"',.*"loss":\([0-9.]*\).*/\1/p' "$1/log.jsonl"; }
near() { # near NAME A B SHARE: |a - b| <= share of b
    is "$1 ($2, $3)" "$(awk -v a="$2" -v b="$3" -v s="$4" 'BEGIN {d = a - b; print (a > 0 && (d < 0 ? -d : d) <= s * b) ? "near" : "far"}')" near
}
$P --steps 60 --recompute layer -o "$T/layer"
same "layers computed again give the same bits" "$T/a/final/model.safetensors" "$T/layer/final/model.safetensors"
$P --steps 60 --dtype bf16 --save-dtype bf16 -o "$T/bf16"
bytes() { wc -c <"$1/model.safetensors"; }
ok "the final model takes half the bytes, a checkpoint all" test "$(bytes "$T/bf16/final")" -lt "$(($(bytes "$T/bf16/latest") * 6 / 10))"
like "and says so" "$(cat "$T/bf16/final/config.json")" '"torch_dtype": "bfloat16"'
like "and is a model" "$(lmeval --model "$T/bf16/final" --max-length 64 --perplexity "$T/s" --json)" '"metric":"bits_per_byte","value":[0-9.]+'
near "bf16 learns like f32" "$(loss_of "$T/bf16" 60)" "$(loss_of "$T/a" 60)" 0.01
LMPIPE_CPU=avx2 $P --steps 60 --dtype bf16 -o "$T/bf16-avx2"
near "and the same without the CPU's bf16 instructions" "$(loss_of "$T/bf16-avx2" 60)" "$(loss_of "$T/bf16" 60)" 0.002
$P --steps 4000 -o "$T/t" &
pid=$!
for i in $(seq 100); do [ -e "$T/t/latest" ] && break; sleep 0.02; done
kill -TERM $pid
wait $pid
is "SIGTERM saves and exits with 75" $? 75
fails 1 "the run was started with --lr 0.003, not 0.001" "a changed option is refused by name" $P --steps 4000 --lr 1e-3 -o "$T/t"
printf xxxxxxxx | dd of="$T/t/latest/model.safetensors" bs=1 seek=2000 conv=notrunc 2>/dev/null
$P --steps 4000 -o "$T/t" 2>"$T/damage" &
pid=$!
for i in $(seq 400); do grep -q damaged "$T/damage" && break; sleep 0.05; done
kill $pid 2>/dev/null
wait $pid
like "a damaged checkpoint is named and the one before taken" "$(cat "$T/damage")" "damaged"
fails 1 "the vocabulary has 100" "ids outside the vocabulary" sh -c "sed 's/\"vocab_size\": 320/\"vocab_size\": 100/; s/319/99/' $T/c.json >$T/c100.json; pretrain -q --model-config $T/c100.json --data $T/s --seq-len 64 --steps 2 -o $T/x"
fails 1 "num_attention_heads is 0" "a configuration with no heads" sh -c "sed 's/\"num_attention_heads\": [0-9]*/\"num_attention_heads\": 0/' $T/c.json >$T/c0.json; pretrain -q --model-config $T/c0.json --data $T/s --seq-len 64 --steps 2 -o $T/x"

for i in $(seq 40); do
    echo "{\"messages\":[{\"role\":\"user\",\"content\":\"Is $i even?\"},{\"role\":\"assistant\",\"content\":\"$([ $((i % 2)) = 0 ] && echo yes || echo no)\"}]}"
done >"$T/chat.jsonl"
for i in $(seq 40); do
    a=$([ $((i % 2)) = 0 ] && echo yes || echo no) b=$([ $((i % 2)) = 0 ] && echo no || echo yes)
    echo "{\"id\":\"$i\",\"prompt\":\"Is $i even?\",\"chosen\":\"$a\",\"rejected\":\"$b\"}"
done >"$T/pairs.jsonl"
Q="-q --batch-size 8 --max-length 64 --rows 512 --save-every 0"
ok "sft" sft --model "$T/a" --epochs 8 --lr 3e-3 $Q -o "$T/sft" "$T/chat.jsonl"
ok "sft in bf16" sft --model "$T/a" --epochs 2 --lr 3e-3 --dtype bf16 $Q -o "$T/sft16" "$T/chat.jsonl"
ok "dpo in bf16" dpo --model "$T/sft16" --reference "$T/a" --epochs 1 --lr 1e-4 --dtype bf16 $Q -o "$T/dpo16" "$T/pairs.jsonl"
ok "rmtrain in bf16" rmtrain --model "$T/sft16" --epochs 1 --lr 1e-4 --dtype bf16 $Q -o "$T/rm16" "$T/pairs.jsonl"
ok "dpo" dpo --model "$T/sft" --epochs 1 --lr 1e-4 $Q -o "$T/dpo" "$T/pairs.jsonl"
like "whose first loss is ln 2 and whose margin is 0" "$(head -n 1 "$T/dpo/log.jsonl")" '"rewards/accuracies":0,"rewards/margins":0,'
ok "rmtrain" rmtrain --model "$T/sft" --epochs 8 --lr 1e-3 $Q -o "$T/rm" "$T/pairs.jsonl"
generate --model "$T/sft" --samples 4 --max-tokens 8 --seed 1 "$T/pairs.jsonl" >"$T/cand.jsonl"
like "generate adds responses" "$(head -n 1 "$T/cand.jsonl")" '"responses":\["[^"]*","[^"]*","[^"]*","[^"]*"\]\}$'
rmtrain --score --model "$T/rm" "$T/cand.jsonl" >"$T/scored.jsonl"
like "rmtrain --score adds scores" "$(head -n 1 "$T/scored.jsonl")" '"scores":\[-?[0-9.e-]+,'
ok "rejsample --best" rejsample -q --best -o "$T/best.jsonl" "$T/scored.jsonl"
rejsample -q --model "$T/sft" --reward "$T/rm" --samples 4 --max-tokens 8 --pairs "$T/pairs.jsonl" >"$T/p.jsonl"
ok "rejsample --pairs draws by itself" test -f "$T/p.jsonl"
like "lmeval" "$(lmeval --model "$T/a" --max-length 64 --perplexity "$T/s" --json)" '"metric":"bits_per_byte","value":[0-9.]+'
fails 1 "not a reward model" "a causal model is no reward model" rmtrain --score --model "$T/sft" "$T/cand.jsonl"
fails 1 "pairs.jsonl:1: no field 'messages'" "records of the wrong kind" sft --model "$T/a" $Q -o "$T/y" "$T/pairs.jsonl"
like "lmeval in bf16" "$(lmeval --model "$T/a" --max-length 64 --perplexity "$T/s" --json --dtype bf16)" '"metric":"bits_per_byte","value":[0-9.]+'
answers() { generate --model "$T/sft" --max-tokens 8 --temperature 0 "$@" "$T/pairs.jsonl"; }
is "generate in bf16 gives f32's answers, or most" "$(answers >"$T/g1"; answers --dtype bf16 >"$T/g2"; [ "$(comm -12 "$T/g1" "$T/g2" 2>/dev/null | wc -l)" -ge 30 ] && echo most)" most
ok "rejsample in bf16" rejsample -q --model "$T/sft" --reward "$T/rm" --samples 4 --max-tokens 8 --best --dtype bf16 -o "$T/p16.jsonl" "$T/pairs.jsonl"
ok "rmtrain --score in bf16" rmtrain --score --model "$T/rm" --dtype bf16 -o "$T/scored16.jsonl" "$T/cand.jsonl"
done_testing
