# Post-training from outside: losses against PyTorch's golden values, packing, templates, masks, samples that do not depend on
# their neighbours, and the two halves of rejsample.
. "$(dirname "$0")/tap.sh"
for i in $(seq 60); do echo "{\"text\":\"line $i says hello there and $((i * 7 % 100)) numbers; yes or no, is $i even?\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 320 --chat-template -o "$T/v" "$T/d.jsonl"
tokenize -q --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
scalefit shape -q --params 2e4 --vocab 320 --head-dim 16 --aspect 24 --eos 319 >"$T/c.json"
ok "a small model" pretrain -q --model-config "$T/c.json" --data "$T/s" --tokenizer "$T/v" --seq-len 64 --batch-tokens 256 --lr 3e-3 --steps 40 -o "$T/m"
for i in $(seq 21); do
    echo "{\"messages\":[{\"role\":\"system\",\"content\":\"Rule $i\"},{\"role\":\"user\",\"content\":\"Is $i even?\"},{\"role\":\"assistant\",\"content\":\"$([ $((i % 2)) = 0 ] && echo yes, it is || echo no)\"},{\"role\":\"user\",\"content\":\"Sure?\"},{\"role\":\"assistant\",\"content\":\"I am $((i * 3))\"}]}"
done >"$T/chat.jsonl"
field() { sed -n "$1p" "$2" | grep -o "\"$3\":[^,}]*" | cut -d: -f2; }
near() { awk -v a="$2" -v b="$3" -v t="$4" 'BEGIN {d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b; exit !(a != "" && d <= t * m)}'; status=$?; result $status "$1"; [ $status -eq 0 ] || echo "# $2, not $3" >&2; }

# A step is a mean over its tokens, however they are packed.
for rows in 128 700 4096; do
    sft -q --model "$T/m" --epochs 2 --lr 1e-3 --batch-size 8 --rows $rows --max-length 128 --save-every 0 -o "$T/sft$rows" "$T/chat.jsonl"
done
is "an epoch ends with a step of what is left: 21 records by 8 are 3 steps" "$(grep -c . "$T/sft128/log.jsonl")" 6
for step in 1 3 6; do
    near "step $step: the loss does not depend on --rows (700)" "$(field $step "$T/sft700/log.jsonl" loss)" "$(field $step "$T/sft128/log.jsonl" loss)" 2e-6
    near "step $step: nor does the gradient (4096)" "$(field $step "$T/sft4096/log.jsonl" grad_norm)" "$(field $step "$T/sft128/log.jsonl" grad_norm)" 1e-5
done
like "cut chats are counted" "$(sft --model "$T/m" --epochs 1 --max-length 60 --lr 0 --save-every 0 -o "$T/cut" "$T/chat.jsonl" 2>&1)" "21 examples cut at 60 tokens"
# Templates are read from the model's folder.
cp -r "$T/m/final" "$T/t"
printf '%s' "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|start_header_id|>assistant<|end_header_id|>' + m.content + eos_token }}{% else %}{{ m.role | upper ~ ': ' ~ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>' }}{% endif %}" >"$T/t/chat_template.jinja"
ok "another template" sft -q --model "$T/t" --epochs 1 --lr 1e-3 --max-length 128 --save-every 0 -o "$T/other" "$T/chat.jsonl"
ok "travels with the model" cmp "$T/t/chat_template.jinja" "$T/other/final/chat_template.jinja"
# A token in which the header ends and the answer begins is trained, as transformers' assistant masks have it.
straddled() { # straddled HEADER WORDS: the loss of a chat whose header and answer are that
    printf '%s' "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'assistant>$1' + m.content + '<|eot_id|>' }}{% else %}{{ 'user>' + m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'assistant>$1' }}{% endif %}" >"$T/t/chat_template.jinja"
    printf '{"messages":[{"role":"user","content":"Is it"},{"role":"assistant","content":"%s"}]}\n' "$2" >"$T/straddled.jsonl"
    rm -rf "$T/straddled"
    sft -q --model "$T/t" --epochs 1 --lr 0 --min-lr 0 --save-every 0 -o "$T/straddled" "$T/straddled.jsonl"
    field 1 "$T/straddled/log.jsonl" loss
}
is "the word is one token" "$(printf ' there\n' | tokenize -q --tokenizer "$T/v" --text --ids | grep -c ,)" 0
is "a token over header and answer is trained" "$(straddled ' th' ere)" "$(straddled '' ' there')"
echo "{{ messages | shuffle }}" >"$T/t/chat_template.jinja"
fails 1 "t: chat template, line 1: the filter 'shuffle' is not known" "an unknown construct is refused by name" sft -q --model "$T/t" -o "$T/no" "$T/chat.jsonl"
fails 1 "message 1 has tool_calls" "calls that a template would lose are refused" sh -c "echo '{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[]}]}' | sft -q --model $T/m -o $T/no"

# PyTorch's losses and gradients (tests/reference/posttrain_check.py made them).
D=tests/data/posttrain
still="-q --epochs 1 --lr 0 --min-lr 0 --grad-clip 0 --batch-size 100 --max-length 2048 --save-every 0"
golden() { # golden NAME COMMAND...
    name=$1
    shift
    "$@" -o "$T/g-$name" 2>"$T/.err" || cat "$T/.err" >&2
    near "$name: PyTorch's loss" "$(field 1 "$T/g-$name/log.jsonl" loss)" "$(awk -v n="$name" '$1 == n {print $2}' $D/golden.tsv)" 1e-5
    near "$name: and norm of the gradient" "$(field 1 "$T/g-$name/log.jsonl" grad_norm)" "$(awk -v n="$name" '$1 == n {print $3}' $D/golden.tsv)" 2e-5
}
golden sft sft --model $D/model $still $D/chat.jsonl
golden dpo-keep dpo --model $D/model --reference $D/reference $still --nll-weight 0 --keep-endings $D/pairs.jsonl
golden dpo-masked dpo --model $D/model --reference $D/reference $still --nll-weight 0.2 $D/pairs.jsonl
golden dpo-ipo dpo --model $D/model --reference $D/reference $still --nll-weight 0 --keep-endings --loss ipo $D/pairs.jsonl
golden rm-pairs rmtrain --model $D/model $still --center 0.01 $D/pairs.jsonl
golden rm-rankings rmtrain --model $D/model $still --center 0.01 $D/rankings.jsonl
# Answers in one row, in an order that the seed draws: PyTorch's losses of all orders.
sed -n 2p $D/rankings.jsonl >"$T/one.jsonl"
rmtrain --model $D/model $still --layout row --epochs 30 --batch-size 1 -o "$T/row" "$T/one.jsonl"
# The score's head is that of seed 0.
awk -F'"loss":' 'NR == FNR {if ($1 ~ /^rm-row/) {split($1, f, "\t"); want[n++] = f[2]} next}
    {split($2, a, ","); hit = -1; for (i = 0; i < n; i++) {d = a[1] / want[i] - 1; if (d < 2e-6 && d > -2e-6) hit = i} if (hit < 0) bad++; else seen[hit] = 1}
    END {for (h in seen) k++; print bad + 0, k, n}' $D/golden.tsv "$T/row/log.jsonl" >"$T/orders"
is "--layout row: each epoch has the loss of one order, and all orders come" "$(cat "$T/orders")" "0 6 6"
rmtrain --model $D/model ${still#-q} --max-length 60 --layout row -o "$T/apart" $D/rankings.jsonl 2>"$T/.err"
like "rankings too long for a row are told" "$(cat "$T/.err")" "[1-5] of 5 rankings do not fit one row of 60 tokens"

# TRL's trainers, every number that they log (tests/reference/trl_check.py).
trl() { # trl NAME COMMAND...
    name=$1 wrong=
    shift
    "$@" -o "$T/t-$name" 2>"$T/.err" || cat "$T/.err" >&2
    while IFS="$(printf '\t')" read -r n key want; do
        [ "$n" = "$name" ] || continue
        got=$(field 1 "$T/t-$name/log.jsonl" "$([ "$key" = num_tokens ] && echo tokens || echo "$key")")
        awk -v a="$got" -v b="$want" 'BEGIN {d = a - b; if (d < 0) d = -d; if (b < 0) b = -b; exit !(a != "" && d <= 2e-5 * (b + 0.05))}' || wrong="$wrong $key:$got:$want"
    done <$D/trl.tsv
    is "$name: TRL's numbers" "$wrong" ""
}
trl sft-bfd-2048 sft --model $D/model $still $D/chat.jsonl
for how in bfd-96 bfd-split-96 bfd-split-37; do
    trl sft-$how sft --model $D/model $still --packing "${how%-*}" --max-length "${how##*-}" --rows 200 $D/chat.jsonl
done
for loss in sigmoid hinge ipo robust sigmoid_norm apo_zero nca_pair; do
    trl dpo-$loss dpo --model $D/model --reference $D/reference $still --nll-weight 0 --keep-endings --loss $loss $D/pairs.jsonl
done
trl dpo-sigmoid-sft dpo --model $D/model --reference $D/reference $still --nll-weight 0.2 --keep-endings $D/pairs.jsonl
trl dpo-ipo-sft dpo --model $D/model --reference $D/reference $still --nll-weight 1.5 --keep-endings --loss ipo $D/pairs.jsonl
trl dpo-orpo dpo --model $D/model $still --nll-weight 0 --beta 2 --keep-endings --loss orpo $D/pairs.jsonl
trl dpo-simpo dpo --model $D/model $still --nll-weight 0 --beta 2 --keep-endings --loss simpo $D/pairs.jsonl
trl reward rmtrain --model $D/model $still --center 0.01 $D/pairs.jsonl
trl reward-50 rmtrain --model $D/model $still --center 0.01 --max-length 50 $D/pairs.jsonl
like "chats that were split are told" "$(sft --model $D/model ${still#-q} --packing bfd-split --max-length 37 -o "$T/split" $D/chat.jsonl 2>&1)" "18 chats longer than 37 tokens .--max-length. split into 42 pieces, 15 more without an answer left out; the first: $D/chat.jsonl:1"

# dpo
for i in $(seq 12); do
    a=$([ $((i % 2)) = 0 ] && echo yes || echo no) b=$([ $((i % 2)) = 0 ] && echo "no, never $i" || echo "yes always")
    echo "{\"id\":\"$i\",\"prompt\":\"Is $i even?\",\"chosen\":\"$a\",\"rejected\":\"$b\"}"
done >"$T/pairs.jsonl"
for loss in sigmoid hinge ipo ipo_sum robust cdpo sigmoid_norm apo_zero nca_pair; do
    dpo -q --model "$T/m" --epochs 6 --lr 2e-3 --batch-size 5 --rows 200 --loss $loss --nll-weight 0 --max-length 128 --save-every 0 --val "$T/pairs.jsonl" -o "$T/dpo-$loss" "$T/pairs.jsonl" 2>"$T/.err" || cat "$T/.err" >&2
    is "dpo --loss $loss learns its pairs" "$(field 18 "$T/dpo-$loss/log.jsonl" val_rewards/accuracies)" 1
done
for loss in orpo simpo; do
    dpo -q --model "$T/m" --epochs 6 --lr 2e-3 --batch-size 5 --rows 200 --loss $loss --beta 2 --max-length 128 --save-every 0 --val "$T/pairs.jsonl" -o "$T/dpo-$loss" "$T/pairs.jsonl" 2>"$T/.err" || cat "$T/.err" >&2
    is "dpo --loss $loss learns its pairs" "$(field 18 "$T/dpo-$loss/log.jsonl" val_rewards/accuracies)" 1
done
fails 1 "the loss simpo has none" "a reference that is not asked" dpo -q --model "$T/m" --reference "$T/m" --loss simpo -o "$T/no" "$T/pairs.jsonl"
# The reference's sums in a file: taken by whoever has the same model, data, template and truncation.
R="dpo -q --model $T/m --reference $T/m/latest --epochs 1 --batch-size 5 --save-every 0 --reference-file $T/sums.json"
$R --max-length 128 -o "$T/r1" "$T/pairs.jsonl"
sed 's/\[-[0-9.]*/[-5/' "$T/sums.json" >"$T/changed.json"
cp "$T/changed.json" "$T/sums.json"
$R --max-length 128 -o "$T/r2" "$T/pairs.jsonl"
same "the file is read where its key fits" "$T/changed.json" "$T/sums.json"
sed 's/\[-[0-9.]*/["x"/' "$T/sums.json" >"$T/none.json"
cp "$T/none.json" "$T/sums.json"
$R --max-length 128 -o "$T/r4" "$T/pairs.jsonl"
is "sums that are no numbers are computed again" "$(grep -c '"x"' "$T/none.json" "$T/sums.json" | sed 's/.*://' | tr '\n' ' ')" "1 0 "
cp "$T/changed.json" "$T/sums.json"
$R --max-length 128 --keep-endings -o "$T/r3" "$T/pairs.jsonl" 2>/dev/null
like "another choice of tokens computes them again" "$(cmp "$T/changed.json" "$T/sums.json" 2>&1)" differ
# What is wrong with a record is said with its place.
bad() { printf '%s\n' "$2" >"$T/bad.jsonl"; fails 1 "$3" "$1" $4 --model "$T/m" -o "$T/no" "$T/bad.jsonl"; }
bad "an unpaired preference" '{"prompt":"a","completion":"b","label":true}' 'bad.jsonl:1: no field' dpo
bad "an empty answer" '{"prompt":"a","chosen":"b","rejected":""}' 'bad.jsonl:1: answer 2 is empty' dpo
is "blanks are an answer" "$(echo '{"prompt":"a","chosen":"b","rejected":"  "}' | dpo -q --model "$T/m" --epochs 1 --lr 1e-4 -o "$T/blank" 2>&1)" ""
bad "a ranking of one" '{"prompt":"a","responses":["b"]}' "bad.jsonl:1: 'responses' must be a list of at least two answers" rmtrain
bad "answers that are numbers" '{"prompt":"a","responses":[1,2]}' "bad.jsonl:1: answer 1 must be a string" rmtrain
bad "a prompt without messages" '{"prompt":[],"chosen":"b","rejected":"c"}' "bad.jsonl:1: 'prompt' holds no message" dpo
bad "a margin that is none" '{"prompt":"a","chosen":"b","rejected":"c","margin":1e308}' "bad.jsonl:1: 'margin' must lie within" rmtrain
bad "NaN" '{"prompt":"a","chosen":"b","rejected":"c","margin":NaN}' "bad.jsonl:1: malformed JSON" rmtrain
bad "ties alone" '{"prompt":"a","responses":["b","c"],"ranks":[1,1]}' "bad.jsonl:1: no records to learn from" rmtrain
bad "answers behind --max-length" '{"prompt":"a very long prompt that is longer than what is allowed","chosen":"b","rejected":"c"}' "bad.jsonl:1: no records to learn from: no answer within --max-length" "dpo --max-length 10"
bad "an answer of several messages" '{"prompt":"a","chosen":"b","rejected":[{"role":"assistant","content":"c"},{"role":"user","content":"d"}]}' "bad.jsonl:1: answer 2 is a list of 2 messages" dpo
bad "a chat without messages" '{"messages":[]}' "bad.jsonl:1: 'messages' must be a list of at least one message" sft
bad "messages that are a text" '{"messages":"hello"}' "bad.jsonl:1: 'messages' must be a list" sft
bad "tools that are no list" '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"tools":"x"}' "bad.jsonl:1: 'tools' must be a list" sft
near "its first loss is ln 2" "$(field 1 "$T/dpo-sigmoid/log.jsonl" loss)" 0.69314718055994530942 1e-15
is "and its first margin 0" "$(field 1 "$T/dpo-sigmoid/log.jsonl" rewards/margins)" 0

# Samples: a prompt's answers do not depend on the batch; the two halves pipe.
rmtrain -q --model "$T/m" --epochs 4 --lr 1e-3 --max-length 128 --save-every 0 -o "$T/rm" "$T/pairs.jsonl"
G="generate -q --model $T/m --samples 6 --max-tokens 12 --seed 5 --top-p 0.9"
$G --batch 48 "$T/pairs.jsonl" >"$T/k48"; $G --batch 6 "$T/pairs.jsonl" >"$T/k6"
same "answers do not depend on --batch" "$T/k48" "$T/k6"
$G --batch 6 --prompt "Is 1 even?" >"$T/k1"
is "nor on where the prompt comes from" "$(sed -n 1p "$T/k6" | grep -o '"responses":.*' | grep -o '"[^"]*"' | sed 1d | wc -l)" "$(wc -l <"$T/k1" | tr -d ' ')"
rmtrain --score --model "$T/rm" --max-length 256 "$T/k6" >"$T/scored"
rejsample -q --best "$T/scored" >"$T/best-piped"
rejsample -q --model "$T/m" --reward "$T/rm" --samples 6 --max-tokens 12 --seed 5 --top-p 0.9 --best "$T/pairs.jsonl" >"$T/best-own"
same "generate | rmtrain --score | rejsample gives what rejsample gives alone" "$T/best-piped" "$T/best-own"
rejsample -q --pairs "$T/scored" >"$T/p-piped"
rejsample -q --model "$T/m" --reward "$T/rm" --samples 6 --max-tokens 12 --seed 5 --top-p 0.9 --pairs "$T/pairs.jsonl" >"$T/p-own"
same "pairs too" "$T/p-piped" "$T/p-own"
cat >"$T/hand.jsonl" <<'J'
{"id":1,"prompt":"a","responses":["x","y","x","","z"],"scores":[1,3,9,7,3]}
{"prompt":"b","responses":["x","y"],"scores":[2,2]}
{"prompt":"c","responses":["x","y"],"scores":[2,2.5],"finish_reasons":["stop","length"]}
{"prompt":[{"role":"user","content":"d"}],"responses":["x"],"scores":[1]}
{"prompt":"e","responses":[],"scores":[]}
J
is "the best of ties is the first, empty, doubled and cut answers are left out" "$(rejsample -q --best "$T/hand.jsonl" | grep -o '"assistant","content":"[^"]*"' | cut -d'"' -f6 | tr '\n' ' ')" "y x x x "
is "pairs need two scores" "$(rejsample -q --pairs "$T/hand.jsonl" | grep -o '"scores":.*')" '"scores":[3,1]}'
is "--min-margin" "$(rejsample -q --pairs --min-margin 2.5 "$T/hand.jsonl" | wc -l | tr -d ' ')" 0

# Calibration: the table of a ranking's pairs, from the scores that --score gives.
for i in $(seq 40); do echo "{\"prompt\":\"Is $i even?\",\"responses\":[\"no, never $i\",\"yes\",\"no\",\"I am $i\"]}"; done >"$T/four.jsonl"
rmtrain --score --model "$T/rm" "$T/four.jsonl" | sed 's/.*"scores":\[//; s/\].*//' >"$T/four.scores"
awk -F, 'function add(b, p, r) {n[b]++; s[b] += p; w[b] += r}
    {for (i = 1; i <= NF; i++) for (j = i + 1; j <= NF; j++) {d = $i - $j; p = 1 / (1 + exp(d < 0 ? d : -d)); b = int((p - 0.5) * 20); add(b > 9 ? 9 : b, p, d > 0); add(10, p, d > 0)}}
    END {for (b = 0; b <= 10; b++) if (n[b]) printf "%.2f %d %.4f %.4f\n", b < 10 ? 0.5 + b / 20 : 0.5, n[b], s[b] / n[b], w[b] / n[b]}' "$T/four.scores" >"$T/want"
rmtrain --calibration --model "$T/rm" -o "$T/table" "$T/four.jsonl" 2>"$T/.err"
is "--calibration: pairs, predicted and observed shares are those of the scores" "$(sed 1d "$T/table" | awk '{print $1, $3, $4, $5}')" "$(cat "$T/want")"
like "and what they come to is told" "$(cat "$T/.err")" "240 pairs of 40 records: accuracy 0[.][0-9]*, calibration error 0"

# Scores in batches are those of single records.
rmtrain --score --model "$T/rm" --max-length 256 "$T/pairs.jsonl" 2>"$T/.err"
for i in 1 7 12; do sed -n ${i}p "$T/k6" | rmtrain --score --model "$T/rm" --max-length 256; done >"$T/single"
is "a score does not depend on what else is scored" "$(cat "$T/single")" "$(sed -n '1p;7p;12p' "$T/scored")"
like "texts that were cut are told" "$(rmtrain --score --model "$T/rm" --max-length 8 "$T/k6" 2>&1 >/dev/null)" "texts were cut at 8 tokens"
generate -q --model "$T/m" --prompt 'Is 1 even?' --samples 2 --max-tokens 3 --stats "$T/stats" >"$T/two"
like "--stats counts --prompt too" "$(cat "$T/stats")" '^.{1}"prompts":1,.*"answers":2,.*"seconds":'
is "one prompt after the other at standard input" "$(printf 'Is 1 even?\nIs 2 even?\n' | generate -q --model "$T/m" --text --temperature 0 --max-tokens 3 | grep -c '"finish_reason":"[a-z]*","response":"')" 2

# Two epochs of dpo beside the longer answer, as a recipe.
LENGTH=128 LR=2e-3 EPOCHS=6 DPO="--batch-size 5" PATH="$BIN:$PATH" sh pipelines/preferences "$T/m" "$T/pairs.jsonl" "$T/pairs.jsonl" "$T/pref" "$T/chat.jsonl" >"$T/out" 2>&1
like "pipelines/preferences: twelve pairs, whose better answer is the shorter one, are learned" "$(grep ^all "$T/out")" "^all  *12 *0[.]0[0-9]* .* 1[.]000 *0[.]000"
is "and the rule is beaten" "$(tail -n 1 "$T/out")" "dpo beats the longer answer"

done_testing
