# Processes that no MPI joins find one another by a file: they train as ranks of mpirun do, on GPUs (the emulation) and without; files
# that an earlier job has left lead nowhere; whoever does not come, comes twice or dies is named.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
. "$(dirname "$0")/difference.sh"
ranks_data
sed 's/"num_hidden_layers": 1/"num_hidden_layers": 2/' "$T/c.json" >"$T/two.json"
train="pretrain -q -j 1 --model-config $T/two.json --data $T/s --seq-len 32 --batch-tokens 256 --micro-batch 1 --lr 3e-4 --seed 3 --save-every 10 --peak-flops 1e12"
trained() { for i in $(seq 1200); do [ -e "$1/latest" ] && return; sleep 0.05; done; }

for n in 2 3; do
    ok "$n processes: every collective and send" meet_all $n "$BIN/../tests/unit/collectives" cpu
done
$train --device cpu --steps 20 --tp 2 --dp 2 -o "$T/threads"
ok "pretrain --tp 2 --dp 2 as four processes" meet_all 4 $train --device cpu --steps 20 --tp 2 -o "$T/four"
same "has the bits of four threads" "$T/threads/final/model.safetensors" "$T/four/final/model.safetensors"
is "and leaves no file behind" "$([ -e "$meet" ] && echo there)" ""
WORLD_SIZE=2 RANK=0 LMPIPE_MEET=$meet $train --device cpu --steps 5 --pp 2 -o "$T/torchrun" 2>"$T/says.0" &
ok "RANK and WORLD_SIZE are understood" env WORLD_SIZE=2 RANK=1 LMPIPE_MEET="$meet" $train --device cpu --steps 5 --pp 2 -o "$T/torchrun"
wait $!
is "on both sides" "$? $([ -e "$T/torchrun/done" ] && echo done)" "0 done"

# Nobody ends ranks that no launcher has started but they themselves. The third speaks where the first and the second are gone.
meet_start 4 $train --device cpu --steps 1000000 --comm-timeout 20 -o "$T/two"
trained "$T/two"
gone=$(meet_process 0)
kill -KILL "$gone" "$(meet_process 1)"
meet_ended 2>/dev/null
is "two ranks killed at once, one of which is the first: the other two end" $failed 4
like "with the first's name" "$(cat "$T/said")" "^pretrain: rank 0 \(host [^ ]+, process $gone\) has died: step [0-9]+, "
is "said once" "$(grep -c '^pretrain:' "$T/said")" 1

cuda=$BIN/../lib/liblmpipe-emulated.so nccl=$BIN/../lib/liblmpipe-nccl-emulated.so
if [ -e "$cuda" ] && [ -e "$nccl" ]; then
    LMPIPE_CUDA=$cuda LMPIPE_NCCL=$nccl
    export LMPIPE_CUDA LMPIPE_NCCL
    ok "two processes over NCCL's code: every collective and send" meet_all 2 "$BIN/../tests/unit/collectives" nccl
    $train --device cpu --steps 4 -o "$T/cpu"
    for grid in "--tp 2 --dp 2" "--pp 2 --dp 2 --shard 2"; do
        ok "--device cuda $grid, one process a GPU" meet_all 4 $train --device cuda --steps 4 $grid -o "$T/cuda$tap_count"
        near "has the losses of one process's CPU" "$T/cpu/log.jsonl" "$T/cuda$((tap_count - 1))/log.jsonl"
    done
    for fault in "KILL 2" "KILL 0" "STOP 1"; do
        victim=${fault#* }
        meet_start 3 $train --device cuda --steps 100000 --comm-timeout 10 -o "$T/$fault"
        trained "$T/$fault"
        victim_process=$(meet_process "$victim")
        kill "-${fault% *}" "$victim_process"
        for r in 0 1 2; do [ $r = "$victim" ] || wait "$(meet_process $r)"; done
        kill -KILL "$victim_process" 2>/dev/null
        meet_ended 2>/dev/null
        result $((!$?)) "SIG$fault of three processes of GPUs ends them all"
        like "with one message" "$(cat "$T/said")" "^pretrain: rank $victim \(host [^ ]+, process $victim_process\) (has died|does not answer): step [0-9]+, "
        is "one" "$(grep -c '^pretrain:' "$T/said")" 1
    done
else
    skip "one process a GPU" "the emulation is not built (make check builds it)"
fi

# What an earlier job has left: one whose first rank is gone, one of another job, something else.
port=$(perl -MSocket -e 'socket($s, PF_INET, SOCK_STREAM, 0); bind($s, sockaddr_in(0, INADDR_ANY)); print((sockaddr_in(getsockname($s)))[0])')
train="$train --device cpu --steps 3"
stale() {
    rm -rf "$T/stale"
    eval "$2"
    LMPIPE_MEET=$meet LMPIPE_RANK=1 LMPIPE_RANKS=2 LMPIPE_JOB=new $train -o "$T/stale" 2>"$T/says.1" &
    second=$!
    sleep 0.3
    LMPIPE_MEET=$meet LMPIPE_RANK=0 LMPIPE_RANKS=2 LMPIPE_JOB=new $train -o "$T/stale" 2>"$T/says.0" && wait $second
    result $? "$1"
}
stale "a file whose first rank is gone is passed over" 'echo "lmpipe-meet-1 job=new number=0123456789abcdef ranks=2 host=localhost port=$port 127.0.0.1" >"$meet"'
stale "and so is one of another job" 'echo "lmpipe-meet-1 job=old number=0123456789abcdef ranks=2 host=localhost port=$port 127.0.0.1" >"$meet"'
stale "and one that is none" 'head -c 2000 /dev/urandom >"$meet"'
echo "lmpipe-meet-1 job=old number=0123456789abcdef ranks=2 host=localhost port=$port 127.0.0.1" >"$meet"
LMPIPE_MEET=$meet LMPIPE_MEET_TIMEOUT=1
export LMPIPE_MEET LMPIPE_MEET_TIMEOUT
fails 1 "meet: the first rank was not found in 1 s: it is of the job 'old' of 2 ranks" "a first rank that does not come, and whose file is there" env LMPIPE_RANK=1 LMPIPE_RANKS=2 $train -o "$T/x"
rm "$meet"
fails 1 "the first rank was not found in 1 s: there is no such file" "a first rank that does not come" env LMPIPE_RANK=1 LMPIPE_RANKS=2 $train -o "$T/x"
fails 1 "meet: rank 1 \(of 2 missing\) has not come in 1 s" "a rank that does not come" env LMPIPE_RANK=0 LMPIPE_RANKS=3 $train -o "$T/x"
is "and the file is gone" "$([ -e "$meet" ] && echo there)" ""
LMPIPE_MEET_TIMEOUT=300 LMPIPE_RANK=0 LMPIPE_RANKS=3 $train -o "$T/x" 2>/dev/null &
first=$!
for twin in 1 2; do LMPIPE_MEET_TIMEOUT=10 LMPIPE_RANK=1 LMPIPE_RANKS=3 $train -o "$T/x" 2>"$T/says.$twin" & done
for i in $(seq 600); do grep -q . "$T/says.1" "$T/says.2" && break; sleep 0.05; done
like "a rank that comes twice is told" "$(cat "$T/says.1" "$T/says.2")" "another process is rank 1 already"
kill $first
wait
is "a first rank that a signal ends takes its file along" "$([ -e "$meet" ] && echo there)" ""
fails 1 "LMPIPE_RANK is set, LMPIPE_RANKS is not" "half of a place" env LMPIPE_RANK=1 $train -o "$T/x"
fails 1 "neither rank nor number" "a place that is none" env LMPIPE_RANK=3 LMPIPE_RANKS=2 $train -o "$T/x"
unset LMPIPE_MEET_TIMEOUT
meet_all 3 $train --pp 3 -o "$T/x" 2>/dev/null
is "what all ranks refuse is said once" "$(grep -c '^pretrain: ' "$T/said") $failed" "1 3"
done_testing
