# --grid auto chooses under mpirun: a grid of all its ranks, the one that --dry-run names, with the losses of a run that is told so.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_data
. "$(dirname "$0")/difference.sh"
P="pretrain --device cpu --model-config $T/c.json --data $T/s --steps 4 --save-every 0 --lr 3e-4 --seed 3"
chosen() { sed -n 's/.*--grid auto: \(--tp .*\)/\1/p' "$1"; }
product() { chosen "$1" | awk '{ print $2 * $4 * $6 * $8 }'; }
told() { sed -n '1s/.*"rank_seconds":\[\([^]]*\)\].*/\1/p' "$1" | tr ',' '\n' | grep -c .; }
if [ "$no_mpi" ]; then
    skip "--grid auto under mpirun" "$no_mpi"
    done_testing
    exit 0
fi
# auto N TOOL-AND-OPTIONS…: what N ranks choose, twice the same, and that all take part
auto() {
    n=$1
    shift
    rm -rf "$T/run"
    ok "$n ranks choose" timeout 120 $mpirun -n "$n" "$@" --grid auto -o "$T/run"
    cp "$T/.err" "$T/said"
    is "one of them says what: a grid of $n" "$(grep -c -e '--grid auto' "$T/said") $(product "$T/said")" "1 $n"
    is "and all are in it" "$(told "$T/run/log.jsonl")" "$n"
}
for n in 2 4; do
    auto $n $P --seq-len 64 --batch-tokens 512
    $P --seq-len 64 --batch-tokens 512 --grid auto --ranks $n --dry-run >"$T/dry" 2>"$T/ahead"
    is "--dry-run names the same" "$(chosen "$T/ahead")" "$(chosen "$T/said")"
    rm -rf "$T/told"
    ok "a run that is told so" timeout 120 $mpirun -n $n $P --seq-len 64 --batch-tokens 512 $(chosen "$T/said") -o "$T/told"
    same "has the same weights to the bit" "$T/told/final/model.safetensors" "$T/run/final/model.safetensors"
done
auto 2 $P --seq-len 64 --batch-tokens 64
is "a step of one sequence has no replicas" "$(chosen "$T/said" | grep -c -e '--dp 1 ')" 1
auto 2 $P --seq-len 63 --batch-tokens 63
is "nor chunks where it does not fall into four" "$(chosen "$T/said" | grep -c -e '--cp 1 .*--dp 1 ')" 1
fails 1 "no grid of 3 ranks divides this model" "ranks that divide nothing" timeout 120 $mpirun -n 3 $P --seq-len 64 --batch-tokens 64 --grid auto -o "$T/none"
awk 'BEGIN { for (i = 0; i < 12; i++) printf "{\"messages\":[{\"role\":\"user\",\"content\":\"line %d\"},{\"role\":\"assistant\",\"content\":\"says that %d\"}]}\n", i, i * 7 }' >"$T/chat.jsonl"
bpe-train -q --vocab-size 320 --chat-template -o "$T/cv" "$T/d.jsonl"
pretrain -q --device cpu --model-config "$T/c.json" --tokenizer "$T/cv" --data "$T/s" --seq-len 64 --batch-tokens 512 --steps 1 --save-every 0 -o "$T/base"
auto 2 sft --device cpu --model "$T/base" --max-length 64 --batch-size 4 --lr 1e-4 "$T/chat.jsonl"
done_testing
