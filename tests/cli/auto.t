# --grid auto chooses a grid that can be run, of what is given; under mpirun one of all its ranks, the one that --dry-run names, with the losses of a
# run that is told so. That its grid is the fastest by the cost model is tests/unit/cost's; by the clock, make bench-parallel ONLY=auto.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_data
. "$(dirname "$0")/difference.sh"
P="pretrain --device cpu --model-config $T/c.json --data $T/s --steps 4 --save-every 0 --lr 3e-4 --seed 3"
chosen() { sed -n 's/.*--grid auto: \(--tp .*\)/\1/p' "$1"; }
product() { chosen "$1" | awk '{ print $2 * $4 * $6 * $8 }'; }
told() { sed -n '1s/.*"rank_seconds":\[\([^]]*\)\].*/\1/p' "$1" | tr ',' '\n' | grep -c .; }

# As threads: what it chooses can be run, by models and numbers of ranks that divide badly, with stretches of steps that differ, and where some
# of the grid is given.
runs() { # NAME RANKS OPTION…: what N ranks choose trains a step
    name=$1 n=$2
    shift 2
    rm -rf "$T/run"
    "$@" --grid auto --ranks "$n" -o "$T/run" 2>"$T/said"
    is "$name: $n ranks" "$? $(product "$T/said") $(told "$T/run/log.jsonl")" "0 $n $([ "$n" -gt 1 ] && echo "$n" || echo 0)"
}
ranks_config 323 48 75 5 4 4 12 64 true >"$T/odd.json"
ranks_config 321 36 50 3 6 2 6 64 false >"$T/few.json"
O="pretrain --device cpu --data $T/s --steps 1 --save-every 0 --lr 3e-4"
for n in 3 5 8; do runs "four heads, five layers" "$n" $O --model-config "$T/odd.json" --seq-len 48 --batch-tokens 336; done
for n in 2 6 7; do runs "six heads, three layers" "$n" $O --model-config "$T/few.json" --seq-len 42 --batch-tokens 294; done
runs "heads that are cut unevenly, nothing else can be" 3 $O --model-config "$T/odd.json" --seq-len 50 --batch-tokens 50 --pp 1
like "by --tp" "$(chosen "$T/said")" '^--tp 3 '
runs "a step of one sample, later of eight" 2 $O --model-config "$T/odd.json" --seq-len 64 --batch-tokens 64 --batch-ramp 64:512 --steps 3
like "has no replicas" "$(chosen "$T/said")" '--dp 1 '
runs "samples of 30 tokens, later of 60" 2 $O --model-config "$T/odd.json" --seq-len 30 --batch-tokens 60 --length-ramp 60:60 --steps 2
for given in "--tp 2" "--dp 2" "--cp 2" "--pp 2 --dp 2" "--virtual-stages 2" "--shard 3 --pp 2"; do
    runs "given $given" 4 $O --model-config "$T/odd.json" --seq-len 48 --batch-tokens 384 $given
    like "it stays" "$(chosen "$T/said") --shard 3 " "$(echo "$given" | sed 's/--shard 3 //') "
done
runs "given --ends-fewer 1" 4 $O --model-config "$T/odd.json" --seq-len 48 --batch-tokens 384 --ends-fewer 1
like "it stays" "$(chosen "$T/said")" '--pp [24] .*--ends-fewer 1$'
fails 1 "no grid of 4 ranks does for all steps with the options given" "what is given leaves no grid" $O --model-config "$T/odd.json" --seq-len 48 --batch-tokens 384 --grid auto --ranks 4 --tp 3 -o "$T/none"
fails 2 "--ranks goes with --grid auto" "--ranks without it" $O --model-config "$T/odd.json" --seq-len 48 --batch-tokens 384 --ranks 4 -o "$T/none"
fails 1 "--ends-fewer 1: there is no pipeline" "a layer fewer at the ends of no pipeline" $O --model-config "$T/odd.json" --seq-len 48 --batch-tokens 384 --ends-fewer 1 -o "$T/none"
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
