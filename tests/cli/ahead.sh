# Sourced after tap.sh by tests of what --dry-run tells beforehand: it is compared with what a run took. Both write --stats.
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$2"; } # number KEY STATS
sanitized=
nm "$BIN/pretrain" 2>/dev/null | grep -q __asan_init && sanitized=yes
# fits NAME SAID TOOK: bytes of memory, within 5 %
fits() {
    if [ "$sanitized" ]; then
        skip "$1" "the sanitizer takes memory of its own"
    else
        ok "$1: $((${2:-0} / 1000000)) MB are said, $((${3:-0} / 1000000)) taken: within 5 %" awk -v s="${2:-0}" -v t="${3:-0}" 'BEGIN { r = t > 0 ? s / t : 0; exit !(r > 0.95 && r < 1.05) }'
    fi
}
sent() { tr ',{}' '\n\n\n' <"$1" | grep '^"\(sent\|steps"\|tokens\|flops\)' | grep -v "host_gather" | sort; }
# sends NAME: $T/plan.json has what $T/took.json has; both are left in $T/plan and $T/took, a line each
sends() {
    sent "$T/plan.json" >"$T/plan"
    sent "$T/took.json" >"$T/took"
    same "${launch:+mpirun: }$1: steps, tokens, FLOPs and $(grep -c sent_ "$T/plan") kinds of bytes" "$T/plan" "$T/took"
}
sends_some() { is "and there are such bytes" "$(grep -c sent_ "$T/plan" | sed 's/[1-9][0-9]*/some/')" some; }
# table_sends NAME TABLE: what --dry-run printed of a step is what it planned for a run of one
table_sends() {
    is "$1" "$(sed -n 's/^sent a step: [^ ]* [^ ]* *\([0-9]*\)\.\([0-9]*\) MB$/\1\2/p' "$2" | awk '{ n += $1 } END { print n }')" \
        "$(tr ',' '\n' <"$T/plan.json" | sed -n 's/^"sent_.*:\([0-9]*\)}*$/\1/p' | awk '{ n += $1 } END { print n }')"
}
# counted RANKS ARGUMENT…: of the test's `grid` under $launch: what the first rank hands to MPI is what was planned, and what the hosts said
# to one another
counted() {
    launch="$mpirun -n $1 env LD_PRELOAD=$BIN/../tests/preload/mpi_bytes.so MPI_BYTES=$T/bytes"
    shift
    grid "$@"
    is "counted by MPI's profiling interface" "$(cat "$T/bytes.0")" \
        "$({ sed 's/.*://' "$T/plan" | paste - "$T/plan" | grep sent_; tr ',' '\n' <"$T/took.json" | sed -n 's/.*host_gather":\([0-9]*\).*/\1/p'; } | awk '{ n += $1 } END { printf "%.0f", n }')"
    launch=
}
