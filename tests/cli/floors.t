# smoke
# No file includes a higher floor, and none but the CUDA kernels know CUDA.
. "$(dirname "$0")/tap.sh"
floor() {
    case $1 in
    cmd/*) echo 7 ;; libcommon/train/* | train/*) echo 6 ;; libcommon/model/* | model/*) echo 5 ;; libcommon/dist/* | dist/*) echo 4 ;;
    libcommon/text/* | libcommon/data/* | libcommon/plot/* | text/* | data/* | plot/*) echo 3 ;; kernels/*) echo 2 ;; libcommon/base/* | libcommon/io/* | base/* | io/*) echo 1 ;;
    *) echo 0 ;;
    esac
}
above() { # prints the includes that go up
    for f in "$@"; do
        mine=$(floor "$f")
        sed -n 's/^#include "\([^"]*\)".*/\1/p' "$f" | while read -r i; do
            [ "$(floor "$i")" -le "$mine" ] || echo "$f includes $i"
        done
    done
}
is "no include goes up a floor" "$(above $(find cmd libcommon kernels -name '*.[ch]' -o -name '*.cc' -o -name '*.cu'))" ""
# Ranks may be threads of one process, so what they run remembers nothing beside its objects, but for what a process has one of:
# its voice, its signals, its unfinished files, the level of its CPU.
remembered() { nm -A -f sysv "$@" 2>/dev/null | awk -F '[:|]' '{ s = $NF; gsub(/ /, "", s); gsub(/[ .0-9]*$/, "", $2); sub(/.*\//, "", $1) } s ~ /^[.]t?(bss|data)/ && s !~ /rel[.]ro|DW[.]ref/ { print $1 ":" $2 }' | sort | tr '\n' ' '; }
if command -v nm >/dev/null && [ -e "${B:-build}/liblmpipe.a" ]; then
    case ${B-} in
    *asan*) skip "kernels and engine have no mutable globals" "the address sanitizer adds its own" ;;
    *)
        objects=$(for f in kernels/*.c kernels/cpu/*.c libcommon/base/*.c libcommon/io/*.c* libcommon/data/*.c libcommon/dist/*.c libcommon/model/*.c libcommon/train/*.c; do echo "${B:-build}/${f%.c*}.o"; done)
        is "kernels and engine have no mutable globals but these" "$(remembered $objects)" \
            "cpu.o:known memory.o:before_exit message.o:voice stop.o:requested temporary.o:installed temporary.o:lock temporary.o:slots "
        ;;
    esac
fi
mkdir -p "$T/x" && cd "$T" && mkdir -p libcommon/base && echo '#include "train/loop.h"' >libcommon/base/bad.c
is "the check sees a bad one" "$(above libcommon/base/bad.c)" "libcommon/base/bad.c includes train/loop.h"
done_testing
