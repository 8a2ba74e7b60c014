#!/bin/sh
# smoke
# scalefit grid: the Makefile that it writes trains budgets times sizes, goes on where it was broken off, and isoflop reads its logs.
. "$(dirname "$0")/tap.sh"
rules="--vocab 4096 --seq-len 512"
scalefit grid -q $rules --budget 1e17 --rule deepseek >"$T/a.mk"
is "a budget has seven sizes" "$(grep -c 'options = ' "$T/a.mk")" 7
# numbers FILE COLUMN: of the table of runs, 2 budget, 3 params, 6 tokens, 7 batch, 8 steps, 9 rate
numbers() { awk -v c="$2" '/^# +[0-9.e+]+-/ { print $(c + 1) }' "$1"; }
like "around 20 tokens a parameter, a factor of 1.5 apart" "$(numbers "$T/a.mk" 3 | awk 'NR > 1 { r = $1 / last; if (r < 1.4 || r > 1.6) bad = 1 } { last = $1 } NR == 4 { middle = $1 / sqrt(1e17 / 120) } END { print bad + 0, (middle > 0.95 && middle < 1.05) }')" "^0 1$"
like "DeepSeek's batch, in whole sequences, and rate" "$(numbers "$T/a.mk" 7 | head -n 1) $(numbers "$T/a.mk" 9 | head -n 1)" "^$(awk 'BEGIN { b = 0.292 * 1e17 ^ 0.3271; print int(b / 512 + 0.5) * 512 }') 0\.002338"
scalefit grid -q --vocab 4096 --seq-len 2048 --budget 1e21:5e8 --rule step >"$T/b.mk"
is "the step law's" "$(numbers "$T/b.mk" 7) $(numbers "$T/b.mk" 9)" "$(awk -v n="$(numbers "$T/b.mk" 3)" -v d="$(numbers "$T/b.mk" 6)" -v h="$(awk '/^# +[0-9.e+]+-/ { print $5 }' "$T/b.mk")" 'BEGIN { printf "%d %.4g", int(0.58 * d ^ 0.571 / 2048 + 0.5) * 2048, 1.79 * (n - 4096 * h) ^ -0.713 * d ^ 0.307 }')"
is "tokens spend the budget, attention counted" "$(awk '/^# +[0-9.e+]+-/ { c = (6 * $4 + 6 * $6 * $5 * 512) * $7; if (c / $3 < 0.99 || c / $3 > 1.01) print }' "$T/a.mk")" ""
like "sizes that round to one shape are trained once" "$(scalefit grid --vocab 64 --seq-len 32 --head-dim 16 --aspect 24 --budget 1e12:2e4,2.001e4,4e4 --rule width 2>&1 >/dev/null)" "rounds to the shape of 20000"
like "a rate out of its rule's reach is told" "$(scalefit grid --vocab 64 --seq-len 32 --head-dim 16 --budget 1e12:2e4 2>&1 >/dev/null)" "rule width is for small models"
fails 1 "less than 20 steps" "a budget of no steps" scalefit grid -q $rules --budget 1e8:1e6
fails 1 "neither FLOPS nor" "a size that is none" scalefit grid -q $rules --budget 1e15:1e6,x
fails 2 "needs --budget" "no budget" scalefit grid $rules
fails 2 "not a positive number" "a budget of nothing" scalefit grid $rules --budget 0

if [ -e "$B/bin/pretrain" ] && command -v make >/dev/null; then
    for i in $(seq 200); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/a.jsonl"
    bpe-train -q --vocab-size 300 -o "$T/v" "$T/a.jsonl"
    tokenize --tokenizer "$T/v" -o "$T/a" "$T/a.jsonl"
    scalefit grid -q --tokenizer "$T/v" --head-dim 16 --aspect 24 --seq-len 32 --rule width --budget 4e9:9e3,2e4 --budget 8e9:9e3,2e4,4e4 --train "--device cpu --data '$T/a' --val $T/a --eval-tokens 512" -o "$T/grid.mk"
    like "the tokenizer says the vocabulary and its end" "$(cat "$T/grid.mk")" "shape = --vocab 300 .*--eos 299"
    is "make knows the runs" "$(make -n -f "$T/grid.mk" OUT="$T/g" runs | grep -c '^pretrain')" 5
    # One run is broken off after its first checkpoint.
    run=$(sed -n 's/^    \([^ ]*\).*/\1/p' "$T/grid.mk" | head -n 1)
    ok "make trains one, whatever the make around it calls SIZE" make -s -f "$T/grid.mk" OUT="$T/g" SIZE=small SEQ=9 "$T/g/$run/done"
    cp "$T/g/$run/final/model.safetensors" "$T/whole"
    first=$(ls -d "$T/g/$run"/step-* | head -n 1)
    rm -rf "$T/g/$run/done" "$T/g/$run/final"
    for s in "$T/g/$run"/step-*; do [ "$s" = "$first" ] || rm -rf "$s"; done
    ln -sfn "${first##*/}" "$T/g/$run/latest"
    ok "and the others, at once" make -s -j3 -f "$T/grid.mk" OUT="$T/g" runs
    same "a run that was broken off ends in the same bits" "$T/g/$run/final/model.safetensors" "$T/whole"
    like "isoflop reads the logs" "$(scalefit isoflop "$T"/g/*/log.jsonl 2>&1)" "budget 4[.0-9]*e\+09 FLOPs is not used: fewer than three sizes"
    make -s -f "$T/grid.mk" OUT="$T/g" "$T/g/extended" >"$T/said" 2>&1
    like "a budget whose best stands at an end is given one size more" "$(cat "$T/said")" "budget 4e\+09 FLOPs: its (smallest|largest) size is the best; [0-9]+ parameters are added"
    is "which is trained" "$(ls -d "$T"/g/4e+09-*/done | wc -l)" 3
    is "nothing is done twice" "$(make -n -f "$T/grid.mk" OUT="$T/g" "$T/g/extended" | grep -c '^pretrain')" 0
    printf 'step\tparams\tflops\ttokens\tloss\n1\t100\t8e9\t1\t3\n' >"$T/other.tsv"
    fails 1 "no run of 4e\+09 FLOPs" "logs that lack a budget" scalefit grid -q --vocab 300 --budget 4e9 "$T/other.tsv"
else
    skip "a grid is trained" "no make"
fi
done_testing
