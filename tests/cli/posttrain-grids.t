# sft, dpo and rmtrain on grids of ranks give the losses, norms and held-out scores of one process.
. "$(dirname "$0")/tap.sh"
for i in $(seq 40); do
    a=$([ $((i % 2)) = 0 ] && echo yes || echo no) b=$([ $((i % 2)) = 0 ] && echo no || echo yes)
    echo "{\"messages\":[{\"role\":\"user\",\"content\":\"Is $i even?\"},{\"role\":\"assistant\",\"content\":\"$a, of course\"}]}" >&3
    echo "{\"id\":\"$i\",\"prompt\":\"Is $((i * i)) even?\",\"chosen\":\"$a\",\"rejected\":\"$b, if you think of it\"}" >&4
    echo "{\"prompt\":\"Is $i even?\",\"responses\":[\"$a\",\"$a or $b\",\"$b\"]}" >&5
done 3>"$T/chat.jsonl" 4>"$T/pairs.jsonl" 5>"$T/ranks.jsonl"
Q="-q --device cpu --epochs 2 --batch-size 9 --max-length 96 --rows 192 --eval-every 3 --save-every 4 --keep 0 --lr 3e-5"
M=tests/data/posttrain/model

# The largest relative difference of the numbers of two logs that do not tell the time; other keys: 1.
difference() {
    awk -v RS='[{},\n]+' -F: '
        FNR == 1 { file++; n = 0 }
        /^"/ && $1 !~ /tokens_per_second|mfu|rank_seconds|final/ {
            n++
            if (file == 1) { name[n] = $1; value[n] = $2; count = n; next }
            d = $2 - value[n]; d = d < 0 ? -d : d; size = value[n] < 0 ? -value[n] : value[n]
            if (size > 1e-3) d /= size; else d *= 10
            if (name[n] != $1 || ($1 ~ /step|"tokens"/ && d)) d = 1
            if (d > most) most = d
        }
        END { print (file == 2 && n == count && n > 15 ? most + 0 : 1) }' "$1" "$2"
}
near() { d=$(difference "$2/log.jsonl" "$3/log.jsonl" 2>/dev/null); awk -v d="${d:-1}" 'BEGIN { exit !(d <= 1e-4) }'; result $? "$1 (largest relative difference $d)"; }
grids() { # grids NAME COMMAND...
    name=$1
    shift
    "$@" --threads 1 -o "$T/$name"
    for g in "--dp 2" "--tp 2" "--tp 2 --dp 2" "--dp 5"; do
        rm -rf "$T/grid"
        "$@" $g -o "$T/grid" || echo "# $name $g fails" >&2
        near "$name $g" "$T/$name" "$T/grid"
    done
}
grids sft sft --model $M --val "$T/chat.jsonl" $Q "$T/chat.jsonl"
grids dpo dpo --model $M --val "$T/pairs.jsonl" $Q "$T/pairs.jsonl"
grids dpo-reference dpo --model $M --reference tests/data/posttrain/reference $Q "$T/pairs.jsonl"
grids rmtrain rmtrain --model $M --val "$T/ranks.jsonl" $Q "$T/ranks.jsonl"
sft --model $M --lora 4 --lora-dropout 0.2 $Q --threads 1 -o "$T/lora" "$T/chat.jsonl"
sft --model $M --lora 4 --lora-dropout 0.2 $Q --dp 3 -o "$T/lora3" "$T/chat.jsonl"
near "sft --lora with dropout, --dp 3" "$T/lora" "$T/lora3"
fails 2 "not with --tp" "adapters on tensor-parallel ranks are refused" sft --model $M --lora 4 $Q --tp 2 -o "$T/loratp" "$T/chat.jsonl"
# The best model is kept and taken at the end; what one grid saved another goes on with.
grids patience sft --model $M --val "$T/chat.jsonl" $Q --patience 2 --average-every 2 "$T/chat.jsonl"
rm -rf "$T/grid/final" "$T/grid/done" "$T/grid"/step-*10
ok "sft goes on with another grid's checkpoint" sft --model $M --val "$T/chat.jsonl" $Q --patience 2 --average-every 2 --tp 2 -o "$T/grid" "$T/chat.jsonl"
near "with the losses of one process" "$T/patience" "$T/grid"
fails 1 "cannot read standard input" "several ranks and standard input" sh -c "sft --model $M $Q --dp 2 -o '$T/stdin' <'$T/chat.jsonl'"
if command -v mpirun >/dev/null && [ -e "$BIN/../lib/liblmpipe-mpi.so" ]; then
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM
    ok "mpirun -n 4 dpo --tp 2" mpirun --oversubscribe --bind-to none -n 4 dpo --model $M --val "$T/pairs.jsonl" $Q --tp 2 -o "$T/mpi" "$T/pairs.jsonl"
    near "has the losses of one process" "$T/dpo" "$T/mpi"
else
    skip "ranks as processes" "no mpirun, or built without MPI"
fi
done_testing
