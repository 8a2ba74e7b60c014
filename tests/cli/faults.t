# A rank that dies, hangs or has a NaN ends its job with one message that names it; the job goes on from its checkpoint, bit for bit.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_data
train="pretrain -q --device cpu -j 1 --model-config $T/c.json --data $T/s --seq-len 32 --batch-tokens 192 --micro-batch 2 --lr 3e-4 --save-every 10 --seed 3"

$train --steps 40 --dp 3 -o "$T/times"
is "a log has each rank's seconds of each step" "$(grep -c '"rank_seconds":\[[0-9.e-]*,[0-9.e-]*,[0-9.e-]*\]' "$T/times/log.jsonl")" 40
if [ "$no_mpi" ]; then
    skip "ranks that die or hang" "$no_mpi"
    done_testing
fi
# The loss of the second rank goes wrong in one step, and in all.
bad() { $mpirun -n 3 env LD_PRELOAD="$BIN/../tests/preload/nan.so" NAN_RANK=1 NAN_AFTER=3000 $train "$@"; }
fails 1 "step [0-9]+: loss nan, gradient norm nan; rank 1 \(host .+\) has it first, in its loss\)" "a NaN names its rank" bad --steps 100 --max-skips 0 -o "$T/nan"
is "in one message" "$(grep -c '^pretrain: ' "$T/.err")" 1
bad --steps 60 --max-skips 100 -o "$T/skip" 2>"$T/err"
like "a step that is skipped names it too" "$(cat "$T/err")" "warning: step [0-9]+: .* is skipped; rank 1 \(host .+\) has it first, in its loss"

# fault SIGNAL RANK: sends it to a rank of a job that has saved a step, and waits for the end
fault() {
    before=$(readlink "$T/run/latest")
    $mpirun -n 3 $train --steps 1000000 --comm-timeout 2 -o "$T/run" >"$T/out" 2>&1 &
    job=$!
    for i in $(seq 600); do [ "$(readlink "$T/run/latest")" != "$before" ] && break; sleep 0.05; done
    process=$(rank_process $job "$2")
    kill "-$1" "$process"
    wait $job
    status=$?
    [ $status -ne 0 ]
    result $? "SIG$1 of rank $2 ends the job (status $status)"
    is "with one message" "$(grep -c '^pretrain: ' "$T/out")" 1
}
fault KILL 1
like "that names rank, host, process, step and operation" "$(cat "$T/out")" "^pretrain: rank 1 \(host [^ ]+, process $process\) has died: step [0-9]+, (in|after) the .+"
fault STOP 2
like "and so does one that does not answer" "$(cat "$T/out")" "^pretrain: rank 2 \(host [^ ]+, process $process\) does not answer: step [0-9]+, (in|after) the .+; rank [01] has waited"
is "every rank leaves its last operations" "$(head -qn 1 "$T"/run/flight-[01].jsonl | grep -c '"operation":')" 2
fault STOP 0
like "the second rank speaks for the first" "$(cat "$T/out")" "^pretrain: rank 0 \(host [^ ]+, process $process\) does not answer: step [0-9]+, .*; rank 1 has waited"

# What all ranks know is said once; what one knows with its number.
fails 1 "layers leave none for stage" "what all ranks refuse" $mpirun -n 3 $train --steps 10 --pp 3 -o "$T/refused"
is "is said once" "$(grep -c '^pretrain: ' "$T/.err")" 1
ranks_config 323 32 75 1 2 1 16 64 true >"$T/uneven.json"
fails 1 "take --shard 1" "slices that do not agree" $mpirun -n 4 $train --model-config "$T/uneven.json" --steps 10 --tp 2 --dp 2 --shard 2 -o "$T/refused"
is "are told once" "$(grep -c '^pretrain: ' "$T/.err")" 1
full() { $mpirun -n 3 sh -c 'trap "" XFSZ; [ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 1 ] && ulimit -f 8; exec "$@"' full $train --steps 20 -o "$T/full"; }
fails 1 "^pretrain: rank 1: .*/full/.tmp-final/.*: File too large" "a rank whose disk is full is named" full
is "once, and once for each checkpoint that was missed" "$(grep -c '^pretrain: rank' "$T/.err") $(grep -c '^pretrain: warning: rank 1: .*; going on without' "$T/.err")" "1 2"

# The restart loop, around a job that somebody kills.
sh pipelines/restart $mpirun -n 3 $train --steps 1500 --comm-timeout 5 -o "$T/loop" >"$T/out" 2>&1 &
loop=$!
for i in $(seq 600); do [ -e "$T/loop/latest" ] && break; sleep 0.05; done
for i in $(seq 200); do
    victim=$(for child in $(ps -o pid= --ppid $loop); do rank_process "$child" 1; done)
    [ "$victim" ] && break
    sleep 0.05
done
kill -KILL "$victim"
wait $loop
is "pipelines/restart runs a job again until it is done" "$? $([ -e "$T/loop/done" ] && echo done) $(grep -c '^restart: ' "$T/out")" "0 done 1"
ok "an undisturbed run" $mpirun -n 3 $train --steps 1500 -o "$T/whole"
same "has the bits of the one that was killed" "$T/loop/final/model.safetensors" "$T/whole/final/model.safetensors"
RESTARTS=2 sh pipelines/restart sh -c 'exit 3' -o "$T/nothing" 2>"$T/err"
is "and gives up where nothing moves" "$? $(grep -c 'giving up' "$T/err")" "3 1"
done_testing
