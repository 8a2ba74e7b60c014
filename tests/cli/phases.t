# Faults in every phase of a job, one after the other: a rank that is killed or stopped while it validates, in a step of dpo or while it saves
# (tests/cli/start.t has the start); a number that goes wrong in one rank, on every kind of grid; a machine that can no more be reached; a rank
# that is slow. One message names the rank, and the job started again ends in the bits of an undisturbed one.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
stop=$BIN/../tests/preload/stop.so nan=$BIN/../tests/preload/nan.so
[ -e "$stop" ] && [ -e "$nan" ] || skip_all "tests/preload/stop.so is not built (make check builds it)"
ranks_chats 24
ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0
export ASAN_OPTIONS
common="-q --device cpu -j 1 --peak-flops 1e12 --lr 3e-4"
pretrain $common --model-config "$T/two.json" --tokenizer "$T/v" --data "$T/s" --seq-len 32 --batch-tokens 128 --steps 2 --save-every 0 -o "$T/base"
P="pretrain $common --model-config $T/two.json --data $T/s --seq-len 32 --batch-tokens 192 --micro-batch 2 --steps 12 --save-every 4 --val $T/s --eval-every 3 --eval-tokens 600"
post="$common --model $T/base --batch-size 6 --max-length 64 --rows 128 --epochs 2 --save-every 2"
timeless() { sed 's/,"tokens_per_second":[^,}]*,"mfu":[^,}]*//; s/,"rank_seconds":\[[^]]*\]//' "$1"; }
LMPIPE_MEET_TIMEOUT=100
export LMPIPE_MEET_TIMEOUT

# Where a number goes wrong. wrong NAME RANKS WHO GRID…: who is named
wrong() {
    name=$1 ranks=$2 who=$3
    shift 3
    rm -rf "$T/nan"
    LD_PRELOAD=$nan meet_start "$ranks" "$@" --save-every 0 --max-skips 0 -o "$T/nan"
    meet_ended 2>/dev/null
    is "$name: the job ends" $failed "$ranks"
    is "with one message" "$(grep -c "^[a-z]*: " "$T/said")" 1
    like "that names the rank" "$(cat "$T/said")" "step 1: loss -?[0-9.na]+, gradient norm -?nan; $who\)"
}
NAN_RANK=1 NAN_AFTER=100
export NAN_RANK NAN_AFTER
own='rank 1 \(host [^ ]+\) has it first, in its loss'
wrong "pretrain --dp 3" 3 "$own" $P --dp 3
wrong "--tp 2" 2 "$own" $P --tp 2
wrong "--cp 2" 2 "$own" $P --cp 2
wrong "--pp 2" 2 "$own" $P --pp 2
wrong "sft --dp 2" 2 "$own" sft $post --dp 2 "$T/chat.jsonl"
wrong "dpo --dp 2" 2 "$own" dpo $post --dp 2 "$T/pairs.jsonl"
wrong "dpo --tp 2" 2 "$own" dpo $post --tp 2 "$T/pairs.jsonl"
NAN_IN=sincos
export NAN_IN
wrong "in its layers, rmtrain --dp 2" 2 'rank 1 \(host [^ ]+\) has it first, in its (loss|gradient)' rmtrain $post --dp 2 "$T/pairs.jsonl"
wrong "in its layers, --dp 2" 2 "$own" $P --dp 2
NAN_RANK=0
wrong "in the first stage" 2 'rank 0 \(host [^ ]+\) has it first, in its passes' $P --pp 2
wrong "in the first stage of one replica" 4 'rank 0 \(host [^ ]+\) has it first, in its passes' $P --pp 2 --dp 2
NAN_RANK=1
wrong "where tensor-parallel ranks cannot tell" 2 'rank 0 \(host [^ ]+\), rank 1 \(host [^ ]+\) have it first, in their loss' $P --tp 2
unset NAN_RANK NAN_AFTER NAN_IN

# disturbed NAME RANKS CALL SIGNAL COMMAND…: rank 1 gets the signal in that call (FUNCTION:NUMBER), and the job goes on
undisturbed() { # RANKS COMMAND…
    rm -rf "$T/whole"
    meet_all "$@" -o "$T/whole"
    timeless "$T/whole/log.jsonl" >"$T/log.1"
}
disturbed() {
    name=$1 ranks=$2 call=$3 signal=$4
    shift 4
    rm -rf "$T/run"
    LD_PRELOAD=$stop STOP_IN=${call%:*} STOP_AT=${call#*:} STOP_RANK=1 STOP_SIGNAL=$signal meet_start "$ranks" "$@" --comm-timeout 3 -o "$T/run"
    failed=0
    for r in $(seq 0 $((ranks - 1))); do [ "$r" = 1 ] || wait "$(meet_process $r)" || failed=$((failed + 1)); done
    kill -KILL "$(meet_process 1)" 2>/dev/null
    wait
    cat "$T"/says.* >"$T/said"
    is "$name, signal $signal: the others end" $failed $((ranks - 1))
    like "with a message that names it" "$(cat "$T/said")" "^[a-z]*: rank 1 \(host [^ ]+, process $(meet_process 1)\) $([ "$signal" = 9 ] && echo has died || echo does not answer): step [0-9]+, (in|after) the "
    is "and one alone" "$(grep '^[a-z]*: ' "$T/said" | tail -n +2)" ""
    meet_all "$ranks" "$@" -o "$T/run" 2>/dev/null
    timeless "$T/run/log.jsonl" >"$T/log.2"
    cmp "$T/log.1" "$T/log.2" >&2 && cmp "$T/whole/final/model.safetensors" "$T/run/final/model.safetensors" >&2
    result $? "started again it ends in the bits and the log of an undisturbed run"
}
# Of three ranks each takes 64 logarithms a step, and more of them in what it validates behind the third.
undisturbed 3 $P --dp 3
for signal in 9 19; do
    disturbed "in a validation" 3 logf:200 $signal $P --dp 3
    disturbed "in a save" 3 fsync:2 $signal $P --dp 3
done
undisturbed 2 dpo $post --dp 2 "$T/pairs.jsonl"
for signal in 9 19; do
    disturbed "dpo, in its reference's pass or a step" 2 logf:70 $signal dpo $post --dp 2 "$T/pairs.jsonl"
    disturbed "dpo, in a save" 2 fsync:2 $signal dpo $post --dp 2 "$T/pairs.jsonl"
done
undisturbed 2 rmtrain $post --tp 2 "$T/pairs.jsonl"
for signal in 9 19; do disturbed "rmtrain, in a save" 2 fsync:2 $signal rmtrain $post --tp 2 "$T/pairs.jsonl"; done

# A rank that is slow in 20 steps on end.
LD_PRELOAD=$stop SLOW_RANK=1 SLOW_MICROSECONDS=1500 meet_start 3 pretrain $common --model-config "$T/two.json" --data "$T/s" --seq-len 32 --batch-tokens 192 --micro-batch 2 --steps 30 --save-every 0 --dp 3 -o "$T/slow"
meet_ended
like "a rank that is slow is named" "$(cat "$T/said")" "^pretrain: warning: rank 1 \(host [^ ]+\) is slow: [0-9.e-]+ s of its own work a step, the median is [0-9.e-]+ s$"
is "once" "$(grep -c 'is slow' "$T/said")" 1
is "and its times are in the log" "$(sed -n '$s/.*"rank_seconds":\[\([^]]*\)\].*/\1/p' "$T/slow/log.jsonl" | awk -F, '{ print ($2 > 1.5 * $1 && $2 > 1.5 * $3) }')" 1

# A machine that is gone: nothing comes from it any more, not even that a connection has ended.
one=lm$$a two=lm$$b
namespaces() {
    [ "$(id -u)" = 0 ] && command -v ip >/dev/null && ip netns add $one 2>/dev/null && ip netns add $two && ip link add v$$a type veth peer name v$$b &&
        ip link set v$$a netns $one && ip link set v$$b netns $two && ip -n $one addr add 10.77.0.1/24 dev v$$a && ip -n $two addr add 10.77.0.2/24 dev v$$b &&
        for n in $one $two; do ip -n $n link set lo up; done && ip -n $one link set v$$a up && ip -n $two link set v$$b up
}
if namespaces; then
    meets() { # COMMAND…: rank 2 on the second machine
        processes=
        for rank in 0 1 2; do
            LMPIPE_MEET=$meet LMPIPE_RANK=$rank LMPIPE_RANKS=3 ip netns exec $([ $rank = 2 ] && echo $two || echo $one) "$@" 2>"$T/says.$rank" &
            processes="$processes $!"
        done
    }
    undisturbed 3 $P --dp 3
    rm -rf "$T/run"
    meets $P --steps 100000 --dp 3 --comm-timeout 3 -o "$T/gone"
    for i in $(seq 600); do [ -e "$T/gone/latest" ] && break; sleep 0.05; done
    ip -n $two link set v$$b down
    meet_ended 2>/dev/null
    is "a machine that cannot be reached: all ranks end" $failed 3
    like "the others name its rank" "$(cat "$T/says.0" "$T/says.1")" "^pretrain: rank 2 \(host [^ ]+, process [0-9]+\) does not answer: step [0-9]+, (in|after) the "
    is "once" "$(cat "$T/says.0" "$T/says.1" | grep -c '^pretrain: ')" 1
    like "and its rank the first, which it does not hear" "$(cat "$T/says.2")" "^pretrain: rank 0 \(host [^ ]+, process [0-9]+\) does not answer: step [0-9]+, "
    ip -n $two link set v$$b up
    meets $P --dp 3 -o "$T/run"
    meet_ended
    timeless "$T/run/log.jsonl" >"$T/log.2"
    same "over the mended link it ends in the log of an undisturbed run" "$T/log.1" "$T/log.2"
else
    skip "a machine that cannot be reached" "no network namespaces here (root, iproute2)"
fi
ip netns del $one 2>/dev/null
ip netns del $two 2>/dev/null
done_testing
