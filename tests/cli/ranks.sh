# Sourced after tap.sh by tests of several ranks: $mpirun, $no_mpi (why there is none), a small model and its data, the processes
# of a job's ranks.
no_mpi=
command -v mpirun >/dev/null || no_mpi="no mpirun here (Debian: openmpi-bin)"
[ -e "$BIN/../lib/liblmpipe-mpi.so" ] || no_mpi="built without MPI (Debian: libopenmpi-dev)"
# What MPI's libraries do not free is not ours to find: ranks that are threads show what we do not. Objects that are loaded first are wanted.
mpirun=mpirun
nm "$BIN/pretrain" 2>/dev/null | grep -q __asan_init && mpirun="env ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0:verify_asan_link_order=0 mpirun"
if [ -z "$no_mpi" ] && mpirun --version 2>/dev/null | grep -q "Open MPI"; then
    mpirun="$mpirun --oversubscribe --bind-to none"
    [ "$(id -u)" = 0 ] && mpirun="$mpirun --allow-run-as-root"
fi
# $T/c.json, $T/v and the shard $T/s
ranks_data() {
    for i in $(seq 300); do echo "{\"id\":\"$i\",\"text\":\"line $i says that $((i * 7 % 100)) and $((i * 13 % 100)) are numbers, and so is $i\"}"; done >"$T/d.jsonl"
    bpe-train -q --vocab-size 320 -o "$T/v" "$T/d.jsonl"
    tokenize --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
    scalefit shape --params 2e4 --vocab 320 --head-dim 16 --aspect 24 --eos 319 >"$T/c.json" 2>/dev/null
}
# rank_process JOB RANK: the process of a rank of the mpirun JOB, nothing where there is none
rank_process() {
    for p in $(ps -o pid= --ppid "$1"); do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -qx "\(OMPI_COMM_WORLD_RANK\|PMI_RANK\)=$2" && echo "$p"
    done
}
# Ranks without a launcher, which meet in $meet.
meet=$T/meet
# meet_start RANKS COMMAND…: one process a rank; their numbers in $processes, what rank N says in $T/says.N
meet_start() {
    ranks=$1
    shift
    processes=
    for rank in $(seq 0 $((ranks - 1))); do
        LMPIPE_MEET=$meet LMPIPE_RANK=$rank LMPIPE_RANKS=$ranks "$@" 2>"$T/says.$rank" &
        processes="$processes $!"
    done
}
# Waits for them; succeeds where all have.
meet_ended() {
    failed=0
    for p in $processes; do wait "$p" || failed=$((failed + 1)); done
    cat "$T"/says.* >"$T/said"
    [ $failed = 0 ] || cat "$T/said" >&2
    [ $failed = 0 ]
}
meet_all() { meet_start "$@"; meet_ended; }
meet_process() { echo "$processes" | cut -d ' ' -f $(($1 + 2)); }
