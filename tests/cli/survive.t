# Runs survive: SIGKILL at random moments, damaged checkpoints, a full disk, steps that are not finite, signals. KILLS=50 (10) kills
# as often; KILL_SEED chooses the moments.
. "$(dirname "$0")/tap.sh"
KILLS=${KILLS:-10}
random=${KILL_SEED:-$$}
echo "# KILLS=$KILLS KILL_SEED=$random"
for i in $(seq 300); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 320 --chat-template -o "$T/v" "$T/d.jsonl"
tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 24 --eos 319 >"$T/c.json" 2>/dev/null
P="pretrain -q --device cpu --model-config $T/c.json --data $T/s --val $T/s --eval-tokens 2000 --eval-every 25 --tokenizer $T/v --seq-len 64 --batch-tokens 256
   --lr 3e-3 --warmup 5 --seed 3"

below() { # a random number below $1, in $number
    random=$(((random * 1103515245 + 12345) % 2147483648))
    number=$((random / 65536 % $1))
}
now() { date +%s%3N; }
timeless() { sed 's/,"tokens_per_second":[^,}]*,"mfu":[^,}]*//; s/,"rank_seconds":\[[^]]*\]//' "$1"; }
equal() { # equal FOLDER REFERENCE: weights, states and log
    cmp "$1/final/model.safetensors" "$2/final/model.safetensors" >&2 || return 1
    cmp "$1/latest/trainer/optimizer.safetensors" "$2/latest/trainer/optimizer.safetensors" >&2 || return 1
    timeless "$1/log.jsonl" >"$T/log.1"
    timeless "$2/log.jsonl" >"$T/log.2"
    cmp "$T/log.1" "$T/log.2" >&2
}
# killed NAME KILLS COMMAND...: the command, given -o, is killed so often, in as many runs as that takes; each run that ends must be
# equal to one that nobody killed.
killed() {
    name=$1 want=$2
    shift 2
    begin=$(now)
    "$@" -o "$T/whole" >&2
    span=$((($(now) - begin) * 2 / 3 + 1))
    kills=0 runs=0 wrong=0
    : >"$T/said"
    while [ "$kills" -lt "$want" ]; do
        "$@" -o "$T/killed" 2>>"$T/said" &
        pid=$!
        below $span
        sleep "$((number / 1000)).$(printf %03d $((number % 1000)))"
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null
        status=$?
        if [ $status -eq 137 ]; then
            kills=$((kills + 1))
        elif [ $status -eq 0 ]; then
            runs=$((runs + 1))
            equal "$T/killed" "$T/whole" || wrong=$((wrong + 1))
            rm -rf "$T/killed"
            span=$((span * 3 / 4 + 1))
        else
            wrong=$((wrong + 1))
            break
        fi
    done
    "$@" -o "$T/killed" 2>>"$T/said" || wrong=$((wrong + 1))
    [ ! -s "$T/said" ] || { cat "$T/said" >&2; wrong=$((wrong + 1)); } # no checkpoint may be lost
    equal "$T/killed" "$T/whole" || wrong=$((wrong + 1))
    [ -z "$(ls -A "$T/killed" | grep '[.]tmp-')" ] || wrong=$((wrong + 1))
    is "$name: $want kills in $((runs + 1)) runs end in the unkilled run's bits and log" $wrong 0
    rm -rf "$T/killed" "$T/whole"
}
killed "pretrain" "$KILLS" $P --steps 150 --save-every 3
killed "pretrain, two ranks" $(((KILLS + 4) / 5)) $P --steps 60 --dp 2 --save-every 3

for i in $(seq 60); do
    a=$([ $((i % 2)) = 0 ] && echo yes || echo no) b=$([ $((i % 2)) = 0 ] && echo no || echo yes)
    echo "{\"messages\":[{\"role\":\"user\",\"content\":\"Is $i even?\"},{\"role\":\"assistant\",\"content\":\"$a\"}]}" >&3
    echo "{\"id\":\"$i\",\"prompt\":\"Is $i even?\",\"chosen\":\"$a\",\"rejected\":\"$b\"}" >&4
done 3>"$T/chat.jsonl" 4>"$T/pairs.jsonl"
$P --steps 5 -o "$T/base"
Q="-q --device cpu --batch-size 8 --max-length 64 --rows 512 --save-every 2 --lr 1e-3"
killed "sft" $(((KILLS + 2) / 3)) sft --model "$T/base" --epochs 6 --val "$T/chat.jsonl" --eval-every 5 $Q "$T/chat.jsonl"
killed "sft with patience" $(((KILLS + 4) / 5)) sft --model "$T/base" --epochs 9 --val "$T/chat.jsonl" --eval-every 3 --patience 4 $Q "$T/chat.jsonl"
killed "dpo" $(((KILLS + 4) / 5)) dpo --model "$T/base" --epochs 4 $Q "$T/pairs.jsonl"
killed "rmtrain" $(((KILLS + 4) / 5)) rmtrain --model "$T/base" --epochs 4 $Q "$T/pairs.jsonl"

# Damage to the newest checkpoint: it is named, and the one before leads to the same end.
$P --steps 60 --save-every 20 --keep 3 -o "$T/good"
is "--keep keeps the newest" "$(cd "$T/good" && ls -d step-*)" "step-00000020
step-00000040
step-00000060"
damaged=0 count=0
for file in config.json generation_config.json tokenizer.json chat_template.jinja model.safetensors trainer/optimizer.safetensors trainer/state.json trainer/checksums.json; do
    for how in truncated flipped gone; do
        rm -rf "$T/bad"
        cp -a "$T/good" "$T/bad"
        rm -rf "$T/bad/final" "$T/bad/done"
        f=$T/bad/step-00000060/$file
        size=$(stat -c %s "$f")
        case $how in
        truncated) below "$size"; truncate -s "$number" "$f" ;;
        flipped) below "$size"; perl -e 'open F, "+<", $ARGV[0]; seek F, $ARGV[1], 0; read F, $c, 1; seek F, $ARGV[1], 0; print F chr(ord($c) ^ 1 << $ARGV[2])' "$f" "$number" $((number % 8)) ;;
        gone) rm "$f" ;;
        esac
        count=$((count + 1))
        if $P --steps 60 --save-every 20 --keep 3 -o "$T/bad" 2>"$T/bad.err" && equal "$T/bad" "$T/good" && grep -q "step-00000060/.*going on from the checkpoint before" "$T/bad.err"; then
            :
        else
            echo "# $file $how at $number of $size: $(cat "$T/bad.err")" >&2
            damaged=$((damaged + 1))
        fi
    done
done
for how in "ln -s /dev/zero" mkfifo; do
    for file in model.safetensors trainer/optimizer.safetensors trainer/state.json trainer/checksums.json; do
        rm -rf "$T/bad"
        cp -a "$T/good" "$T/bad"
        rm -rf "$T/bad/final" "$T/bad/done" "$T/bad/step-00000060/$file"
        $how "$T/bad/step-00000060/$file"
        count=$((count + 1))
        timeout 60 $P --steps 60 --save-every 20 --keep 3 -o "$T/bad" 2>"$T/bad.err" && equal "$T/bad" "$T/good" && grep -q "step-00000060/$file: not a regular file.*going on from the checkpoint before" "$T/bad.err" && continue
        echo "# $file: $how: $(cat "$T/bad.err")" >&2
        damaged=$((damaged + 1))
    done
done
is "a newest checkpoint that is truncated, flipped in one bit, lacks a file or has a device or a pipe in its place is named and the one before used ($count ways)" $damaged 0
rm -rf "$T/bad"
cp -a "$T/good" "$T/bad"
rm -rf "$T/bad/final" "$T/bad/done"
echo '{}' >"$T/bad/step-00000060/trainer/checksums.json"
like "sums that name no file are damaged too" "$($P --steps 60 --save-every 20 --keep 3 -o "$T/bad" 2>&1)" "checksums.json: damaged \(no sum of trainer/state.json\); going on from the checkpoint before"
rm -rf "$T/bad"
cp -a "$T/good" "$T/bad"
rm -rf "$T/bad/final" "$T/bad/done"
ln -s step-00000060 "$T/bad/.tmp-latest"
is "a link that a kill left over takes nothing with it" "$($P --steps 60 --save-every 20 --keep 3 -o "$T/bad" 2>&1)" ""
rm -rf "$T/bad"
cp -a "$T/good" "$T/bad"
rm -rf "$T/bad/final" "$T/bad/done"
for s in 20 40 60; do truncate -s 100 "$T/bad/step-000000$s/model.safetensors"; done
fails 1 "no checkpoint is whole" "where all are damaged, the run says so and overwrites none" $P --steps 60 --save-every 20 --keep 3 -o "$T/bad"
rm -rf "$T/bad"
cp -a "$T/good" "$T/bad"
rm -rf "$T/bad/final" "$T/bad/done"
cp "$T/c.json" "$T/c.keep"
sed 's/"rope_theta": [0-9.]*/"rope_theta": 777.5/' "$T/c.keep" >"$T/c.json"
fails 1 "started with a model of .rope_theta.: 10000.0, not .rope_theta.: 777.5" "a configuration that has changed under its name is refused" $P --steps 60 --save-every 20 --keep 3 -o "$T/bad"
cp "$T/c.keep" "$T/c.json"
$P --steps 60 --save-every 7 --keep 2 --keep-every 21 -o "$T/every"
is "--keep-every keeps its multiples too" "$(cd "$T/every" && ls -d step-* | tr '\n' ' ')" "step-00000021 step-00000042 step-00000056 step-00000060 "

# Steps that are not finite.
fails 1 "more than 4 steps were not finite" "after --max-skips steps that are not finite a run stops" $P --steps 60 --save-every 2 --lr 1e9 --min-lr 0 --grad-clip 0 --max-skips 4 -o "$T/nan"
is "four were skipped and said, the fifth ends it" "$(grep -c 'the step is skipped' "$T/.err") $(grep -c 'were not finite (step [0-9]*: loss' "$T/.err")" "4 1"
ok "and its last checkpoint is whole" test -e "$T/nan/latest/trainer/checksums.json"

# A disk that fills up while a run goes on, then has room again. The log lies on it too.
mkdir "$T/small"
if mount -t tmpfs -o size=4m none "$T/small" 2>/dev/null; then
    trap 'umount "$T/small"; rm -rf "$T"' EXIT
    $P --steps 2000 --save-every 50 -o "$T/large"
    dd if=/dev/zero of="$T/small/filler" bs=1k count=3900 2>/dev/null
    $P --steps 2000 --save-every 50 -o "$T/small/run" 2>"$T/full.err" &
    pid=$!
    for i in $(seq 3000); do kill -0 $pid 2>/dev/null || break; grep -q "checkpoint.*" "$T/full.err" && grep -q "the log goes on" "$T/full.err" && break; sleep 0.02; done
    rm "$T/small/filler"
    wait $pid
    is "a full disk does not end a run" $? 0
    like "the checkpoint is missed by name" "$(cat "$T/full.err")" "step.*No space left on device; going on without this checkpoint"
    like "the log waits for room" "$(cat "$T/full.err")" "log.jsonl: No space left on device; the log goes on when there is room"
    ok "and bits and log are those of a run with room" equal "$T/small/run" "$T/large"
    rm -rf "$T/small/run"
    dd if=/dev/zero of="$T/small/filler" bs=1k count=4030 2>/dev/null
    fails 1 "final.*No space left on device" "a disk that stays full refuses the final model" $P --steps 60 --save-every 20 --keep 3 -o "$T/small/run"
    is "and leaves nothing half written" "$(ls -A "$T/small/run" | grep tmp)" ""
    rm "$T/small/filler"
    ok "which the same command makes when there is room" $P --steps 60 --save-every 20 --keep 3 -o "$T/small/run"
    ok "with the same bits" cmp "$T/small/run/final/model.safetensors" "$T/good/final/model.safetensors"
    rm -rf "$T/small/run"
    dd if=/dev/zero of="$T/small/filler" bs=1k count=3880 2>/dev/null
    ok "a disk with room for the final model alone gets it" $P --steps 60 --save-every 20 --keep 3 -o "$T/small/run"
    umount "$T/small"
    trap 'rm -rf "$T"' EXIT
else
    skip "a disk that fills up" "no tmpfs can be mounted here"
fi

# Signals.
for signal in TERM USR1; do
    for tool in "$P --steps 100000 --save-every 10" "sft --model $T/base --epochs 10000 $Q $T/chat.jsonl" "dpo --model $T/base --epochs 10000 $Q $T/pairs.jsonl" \
        "rmtrain --model $T/base --epochs 10000 $Q $T/pairs.jsonl"; do
        rm -rf "$T/stop"
        $tool -o "$T/stop" 2>/dev/null &
        pid=$!
        for i in $(seq 500); do [ -e "$T/stop/latest" ] && break; sleep 0.02; done
        kill -$signal $pid
        wait $pid
        is "${tool%% *}: SIG$signal saves and exits with 75" "$? $(tail -n 1 "$T/stop/log.jsonl" | sed 's/^{"step":\([0-9]*\),.*/\1/')" "75 $(readlink "$T/stop/latest" | sed 's/step-0*//')"
    done
done
done_testing
