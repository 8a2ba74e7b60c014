# Sourced by the command-line tests: TAP helpers. $BIN is the folder of the programs, $T a fresh folder that goes away,
# $ROOT the project's root (also the working folder). End a test with `done_testing`.
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
cd "$ROOT" || exit 1
BIN=$(cd "${B:-build}/bin" 2>/dev/null && pwd) || { echo "1..0 # SKIP nothing is built"; exit 0; }
PATH=$BIN:$PATH
LC_ALL=C
export PATH LC_ALL
# Sizes that no memory holds: malloc says so to the programs under a sanitizer too.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}allocator_may_return_null=1"
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
tap_count=0
tap_failed=0

result() { # result STATUS NAME
    tap_count=$((tap_count + 1))
    if [ "$1" -eq 0 ]; then
        printf 'ok %s - %s\n' "$tap_count" "$2" # echo would take a backslash for an escape
    else
        tap_failed=$((tap_failed + 1))
        printf 'not ok %s - %s\n' "$tap_count" "$2"
    fi
}
# ok NAME COMMAND...: the command succeeds
ok() { name=$1; shift; "$@" >"$T/.out" 2>"$T/.err"; s=$?; result $s "$name"; [ $s -eq 0 ] || cat "$T/.err" >&2; }
# is NAME GOT WANTED: two strings are equal
is() { [ "$2" = "$3" ]; s=$?; result $s "$1"; [ $s -eq 0 ] || printf '# got: %s\n# wanted: %s\n' "$2" "$3" >&2; }
# like NAME GOT PATTERN: a string matches an extended regular expression
like() { printf '%s\n' "$2" | grep -Eq -- "$3"; s=$?; result $s "$1"; [ $s -eq 0 ] || printf '# got: %s\n# pattern: %s\n' "$2" "$3" >&2; }
# same NAME FILE FILE: two files have the same bytes
same() { cmp "$2" "$3" >&2; result $? "$1"; }
# fails STATUS PATTERN NAME COMMAND...: exits with that status and says something like PATTERN on standard error
fails() {
    want=$1 pattern=$2 name=$3
    shift 3
    # After wrong usage a tool leaves freeing to its exit: no leak that a sanitizer should report.
    [ "$want" -eq 2 ] && leaks=0 || leaks=1
    (
        ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=$leaks"
        export ASAN_OPTIONS
        "$@" >"$T/.out" 2>"$T/.err"
    )
    got=$?
    # A sanitizer that stops a program leaves it with 1 too.
    if [ $got -eq "$want" ] && grep -Eq -- "$pattern" "$T/.err" && ! grep -Eq 'ERROR: AddressSanitizer|: runtime error: ' "$T/.err"; then
        result 0 "$name"
    else
        result 1 "$name"
        printf '# status %s (wanted %s), message: %s\n' "$got" "$want" "$(cat "$T/.err")" >&2
    fi
}
skip() { tap_count=$((tap_count + 1)); echo "ok $tap_count - $1 # SKIP $2"; }
skip_all() { echo "1..0 # SKIP $1"; exit 0; }
done_testing() { echo "1..$tap_count"; [ $tap_failed -eq 0 ]; exit $?; }
