# Ranks that do not come together: one that is stopped or dies at any moment of the start, never begins, or was started with other options
# or another model than the rest. One message names it, its machine, step and operation, and the job ends: under mpirun and without a launcher.
. "$(dirname "$0")/tap.sh"
. "$(dirname "$0")/ranks.sh"
ranks_data
seconds=8
LMPIPE_MEET_TIMEOUT=$seconds
export LMPIPE_MEET_TIMEOUT
train="pretrain -q --device cpu -j 1 --peak-flops 1e12 --data $T/s --seq-len 32 --batch-tokens 192 --micro-batch 2 --steps 4 --comm-timeout 60 --save-every 0"
P="$train --model-config $T/c.json --lr 3e-4"
preload=$BIN/../tests/preload/stop.so
# Programs under a sanitizer want its library to be the first.
ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0
export ASAN_OPTIONS
now() { date +%s; }
# told NAME PATTERN FILE: one line of the tool's, which is of that form
told() {
    is "$1: one message" "$(grep -c '^pretrain: ' "$3")" 1
    like "that names it" "$(grep '^pretrain: ' "$3")" "^pretrain: $2: step 0, in the start"
}
in_time() { [ $(($(now) - began)) -le $((seconds + 60)) ]; result $? "and the job ends in time"; }

# Without a launcher. Rank 1 asks for its machine's name five times: twice while it looks for the first rank, when it tells where it is, and
# while the watch opens.
meets() { # meets SIGNAL AT: rank 1 gets it; the others' ends in $failed
    began=$(now)
    LD_PRELOAD=$preload STOP_IN=gethostname STOP_RANK=1 STOP_AT=$2 STOP_SIGNAL=$1 meet_start 3 $P -o "$T/meets"
    failed=0
    for r in 0 2; do wait "$(meet_process $r)" || failed=$((failed + 1)); done
    kill -KILL "$(meet_process 1)" 2>/dev/null
    wait
    cat "$T"/says.* >"$T/said"
    is "no launcher: the others end where rank 1 gets signal $1 in its call $2" $failed 2
    in_time
}
if [ -e "$preload" ]; then
    meets 19 2
    told "stopped before it comes" "LMPIPE_MEET: .*: rank 1 \(of 1 missing\) has not come in $seconds s to rank 0 \(host [^ ]+\)" "$T/said"
    meets 19 4
    told "stopped when it has come" "rank 1 \(host [^ ]+, process $(meet_process 1)\) does not answer" "$T/said"
    meets 9 4
    told "killed then" "rank 1 \(host [^ ]+, process $(meet_process 1)\) has died" "$T/said"
    meets 19 5
    told "stopped while the watch opens" "rank 1 \(host [^ ]+, process $(meet_process 1)\) does not answer" "$T/said"
    meets 9 6
    told "killed then" "rank 1 \(host [^ ]+, process $(meet_process 1)\) has died" "$T/said"
else
    skip "ranks without a launcher that stop or die" "tests/preload/stop.so is not built (make check builds it)"
fi
# The file of a start of which the first rank was killed.
LMPIPE_MEET=$meet LMPIPE_RANK=0 LMPIPE_RANKS=2 $P -o "$T/killed" 2>/dev/null &
first=$!
for i in $(seq 600); do [ -e "$meet" ] && break; sleep 0.05; done
kill -KILL $first
wait $first
ok "a start that was killed leaves its file" test -e "$meet"
LMPIPE_MEET_TIMEOUT=100
ok "which the next start does not believe" meet_all 2 $P --dp 2 -o "$T/killed"
LMPIPE_MEET_TIMEOUT=$seconds
# differ OPTIONS OTHER COMMAND…: two ranks of the command, the second with other options; each may have a folder of its own, $T/in.RANK
differ() {
    one=$1 other=$2
    shift 2
    meet_start 2 sh -c 'one=$1 other=$2 t=$3; shift 3
        cd "$t/in.$LMPIPE_RANK" 2>/dev/null
        [ "$LMPIPE_RANK" = 0 ] && exec "$@" $one || exec "$@" $other' differ "$one" "$other" "$T" "$@"
    meet_ended 2>/dev/null
    is "two ranks with ${one:-nothing} and ${other:-nothing more} end" $failed 2
}
# Time enough to meet, even where all is slow: these end at once.
LMPIPE_MEET_TIMEOUT=100
differ "--tp 2" "--tp 1 --dp 2" $P -o "$T/differ"
told "another grid" "rank 1 \(host [^ ]+, process [0-9]+\) was started with --tp 1 --cp 1 --pp 1 --dp 2, rank 0 with --tp 2 --cp 1 --pp 1 --dp 0" "$T/said"
differ "--lr 1e-4" "--lr 2e-4" $train --model-config "$T/c.json" -o "$T/differ"
told "another rate" "rank 1 \(host [^ ]+\) was started with --lr 0.0002, rank 0 with 0.0001" "$T/said"
sed 's/"hidden_size": 32/"hidden_size": 48/' "$T/c.json" >"$T/other.json"
differ "--model-config $T/c.json" "--model-config $T/other.json" $train -o "$T/differ"
told "another model" "rank 1 \(host [^ ]+\) was started with --model-config \".*other.json\", rank 0 with \".*c.json\"" "$T/said"
# The same name, and something else under it: as on machines that do not share their disks.
mkdir "$T/in.0" "$T/in.1"
cp "$T/c.json" "$T/in.0/model.json"
cp "$T/other.json" "$T/in.1/model.json"
differ "" "" $train --model-config model.json -o "$T/differ"
told "another model of the same name" "rank 1 \(host [^ ]+\) has another model configuration than rank 0 \(host [^ ]+\), from the same options" "$T/said"
$P --steps 1 --seed 1 -o "$T/in.0/model"
$P --steps 1 --seed 2 -o "$T/in.1/model"
for shard in 0 3; do
    differ "" "" $train --init model --dp 2 --shard $shard -o "$T/differ"
    told "other weights of the same name (--shard $shard)" "rank 1 \(host [^ ]+\) has other weights than rank 0 \(host [^ ]+\), from the same options" "$T/said"
done
ok "what need not be the same may differ" sh -c '[ "$1" = 2 ]' same "$(meet_start 2 sh -c 'exec "$@" -j $((LMPIPE_RANK + 1))' own $P --dp 2 -o "$T/own"; meet_ended 2>/dev/null; [ $failed = 0 ] && echo 2)"

if [ "$no_mpi" ]; then
    skip "ranks of mpirun that do not come together" "$no_mpi"
    done_testing
fi
# job COMMAND…: three ranks; what they say in $T/said
job() {
    began=$(now)
    timeout -k 5 200 $mpirun -n 3 "$@" >"$T/said" 2>&1
    status=$?
    [ $status -ne 0 ] && [ $status -lt 124 ] || [ $status -eq 137 ]
    result $? "mpirun: the job ends (status $status)"
    in_time
}
second='[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 1 ] &&'
LMPIPE_MEET_TIMEOUT=$seconds
job sh -c "$second kill -STOP \$\$; exec \"\$@\"" stopped $P -o "$T/job"
told "stopped before it begins" "rank 1 \(host [^ ]+, process [0-9]+\) does not answer" "$T/said"
job sh -c "$second exec sleep 1000; exec \"\$@\"" never $P -o "$T/job"
told "it never begins" "rank 1 \(host [^ ]+, process [0-9]+, which runs sleep\) has not come" "$T/said"
if [ -e "$preload" ]; then
    for at in 1 4 7; do # in MPI's own start, and later
        job env LD_PRELOAD="$preload" STOP_IN=gethostname STOP_RANK=1 STOP_AT=$at STOP_SIGNAL=19 $P -o "$T/job"
        told "stopped in its call $at" "rank 1 \(host [^ ]+, process [0-9]+\) does not answer" "$T/said"
    done
fi
# Of a death the launcher hears, and tells in its own words.
LMPIPE_MEET_TIMEOUT=100
job sh -c "$second kill -KILL \$\$; exec \"\$@\"" dead $P -o "$T/job"
is "killed before it begins: the launcher tells" "$(grep -c '^pretrain: ' "$T/said") $(grep -ci 'abort\|signal 9\|killed' "$T/said" | sed 's/[1-9]/1/')" "0 1"
$mpirun -n 1 $P --tp 2 -o "$T/mpmd" : -n 1 $P --dp 2 -o "$T/mpmd" >"$T/said" 2>&1
told "mpirun: another grid" "rank 1 \(host [^ ]+, process [0-9]+\) was started with --tp 1 --cp 1 --pp 1 --dp 2, rank 0 with --tp 2 --cp 1 --pp 1 --dp 0" "$T/said"
$mpirun -n 1 $P --dp 2 -o "$T/mpmd" : -n 1 $P --dp 2 --micro-batch 1 -o "$T/mpmd" >"$T/said" 2>&1
told "mpirun: another option" "rank 1 \(host [^ ]+\) was started with --micro-batch 1, rank 0 with 2" "$T/said"
done_testing
