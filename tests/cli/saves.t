# A rank that is killed while it saves leaves the checkpoint before whole: on grids, with shared states, gradients and weights, of pretrain
# and of post-training. Each rank dies in one of its calls that make a save last or seen; the next start warns of nothing and ends in
# the bits and the log of a run that nobody killed.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
preload=$BIN/../tests/preload/stop.so
[ -e "$preload" ] || skip_all "tests/preload/stop.so is not built (make check builds it)"
ranks_chats 24
common="-q --device cpu -j 1 --peak-flops 1e12 --save-every 2"
P="pretrain $common --model-config $T/two.json --data $T/s --seq-len 32 --batch-tokens 128 --micro-batch 1 --lr 3e-4 --steps 8"
pretrain -q --device cpu --model-config "$T/two.json" --tokenizer "$T/v" --data "$T/s" --seq-len 32 --batch-tokens 128 --lr 3e-4 --steps 2 -o "$T/base"
Q="$common --model $T/base --batch-size 6 --max-length 64 --rows 128 --epochs 2 --lr 3e-4"
# Programs under a sanitizer want its library to be the first.
ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0
export ASAN_OPTIONS
timeless() { sed 's/,"tokens_per_second":[^,}]*,"mfu":[^,}]*//; s/,"rank_seconds":\[[^]]*\]//' "$1"; }

# saves RANKS COMMAND…: each of the ranks dies in some of its calls
LMPIPE_MEET_TIMEOUT=100
export LMPIPE_MEET_TIMEOUT
saves() {
    n=$1
    shift
    rm -rf "$T/whole"
    meet_all "$n" "$@" -o "$T/whole" 2>/dev/null || echo "# an undisturbed run fails" >&2
    timeless "$T/whole/log.jsonl" >"$T/log.1"
    wrong=0 within=0 kills=0
    for victim in 0 $((n - 1)); do
        # The first rank alone renames, the file in which ranks meet too; others have few files to make last.
        for call in $([ $victim = 0 ] && echo fsync:6 fsync:9 fsync:14 rename:3 rename:5 rename:8 || echo fsync:1 fsync:2 fsync:4); do
            rm -rf "$T/run"
            LD_PRELOAD=$preload STOP_IN=${call%:*} STOP_AT=${call#*:} STOP_RANK=$victim STOP_SIGNAL=9 meet_start "$n" "$@" --comm-timeout 20 -o "$T/run"
            meet_ended 2>/dev/null
            [ -e "$T/run/done" ] || kills=$((kills + 1))
            [ -n "$(ls -A "$T/run" | grep '[.]tmp-')" ] && within=$((within + 1))
            meet_all "$n" "$@" -o "$T/run" 2>/dev/null || wrong=$((wrong + 1))
            timeless "$T/run/log.jsonl" >"$T/log.2"
            if [ -s "$T/said" ] || ! cmp "$T/whole/final/model.safetensors" "$T/run/final/model.safetensors" >&2 || ! cmp "$T/log.1" "$T/log.2" >&2 ||
                ! cmp "$T/whole/latest/model.safetensors" "$T/run/latest/model.safetensors" >&2 || ls -A "$T/run" | grep -q '[.]tmp-'; then
                wrong=$((wrong + 1))
                echo "# rank $victim in $call: $(cat "$T/said")" >&2
            fi
        done
    done
    is "$1 $(echo "$*" | sed "s/.*epochs 2 --lr 3e-4//; s/.*--steps 8//; s,$T/,,g"): runs that do not go on in the same bits after a kill in a save" $wrong 0
    [ $kills -ge 6 ] && [ $within -ge 3 ]
    result $? "$kills were killed, $within while a folder was written"
}
saves 2 $P --dp 2 --shard 1
saves 2 $P --dp 2 --shard 2
saves 2 $P --dp 2 --shard 3
saves 4 $P --tp 2 --pp 2
saves 2 sft $Q --dp 2 --shard 3 "$T/chat.jsonl"
saves 2 dpo $Q --tp 2 "$T/pairs.jsonl"
saves 2 rmtrain $Q --dp 2 --shard 1 "$T/pairs.jsonl"
done_testing
