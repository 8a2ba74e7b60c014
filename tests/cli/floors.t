# smoke
# No file includes a higher floor, or one that its own may not use; tools and headers keep apart; and only the files that are named
# for it know CUDA, MPI, NCCL and instruction sets.
. "$(dirname "$0")/tap.sh"
floor() {
    case $1 in
    cmd/*) echo 7 ;; libcommon/train/* | train/*) echo 6 ;; libcommon/model/* | model/*) echo 5 ;; libcommon/dist/* | dist/*) echo 4 ;;
    libcommon/text/* | libcommon/data/* | libcommon/plot/* | text/* | data/* | plot/*) echo 3 ;; kernels/*) echo 2 ;; libcommon/base/* | libcommon/io/* | base/* | io/*) echo 1 ;;
    */*) echo unknown ;; # a folder that has no floor
    *) echo 0 ;; # beside the file itself
    esac
}
above() { # prints the includes that go up, or from text, data and plot to the kernels, or from dist to text, data and plot
    for f in "$@"; do
        mine=$(floor "$f")
        sed -n 's/^#include "\([^"]*\)".*/\1/p' "$f" | while read -r i; do
            its=$(floor "$i")
            case $mine$its in
            32 | 43 | *unknown) echo "$f includes $i" ;;
            *) [ "$its" -le "$mine" ] || echo "$f includes $i" ;;
            esac
        done
    done
}
sources=$(find cmd libcommon kernels -name '*.[ch]' -o -name '*.cc' -o -name '*.cu')
is "every include is of a floor that the file may use" "$(above $sources)" ""
is "no tool includes another's files" "$(for f in cmd/*/*.[ch]; do grep -Hno '^#include "cmd/[^"]*"' "$f"; grep -Hn '^#include "\.\./' "$f"; done)" ""
is "no two headers include each other" "$(for f in $(find cmd libcommon kernels -name '*.h'); do
    sed -n 's/^#include "\([^"]*\)".*/\1/p' "$f" | while read -r i; do
        for g in "$i" "libcommon/$i" "$(dirname "$f")/$i"; do [ -e "$g" ] && grep -q "^#include \"${f#libcommon/}\"\|^#include \"$(basename "$f")\"" "$g" && echo "$f and $g"; done
    done
done)" ""
# A > between quotes or in awk is easily a file's name, and a new file easily committed.
if git ls-files --error-unmatch Makefile >/dev/null 2>&1; then
    is "nothing stands beside the folders but what belongs there" "$(git ls-files | sed 's|/.*||' | sort -u | tr '\n' ' ')" \
        ".ci .clang-format .editorconfig .gitignore LICENSE Makefile README.md cmd kernels libcommon man pipelines tests "
else
    skip "nothing stands beside the folders but what belongs there" "no git checkout"
fi
# knows HEADERS: files that include one of these system headers
knows() { grep -lE "^#include <($1)" $sources | sort | tr '\n' ' '; }
is "only kernels/cuda and the NCCL file know CUDA" "$(knows 'cuda|cublas|nccl' | tr ' ' '\n' | grep -v '^kernels/cuda/\|^libcommon/dist/nccl/')" ""
is "only one file knows MPI" "$(knows 'mpi\.h')" "libcommon/dist/mpi/mpi.c "
is "only files named for it hold instruction-set code" "$(knows '[a-z]*intrin\.h' | tr ' ' '\n' | grep -v '_avx[0-9a-z]*\.c$')" ""
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
mkdir -p libcommon/dist libcommon/text && echo '#include "data/shard.h"' >libcommon/dist/bad.c && printf '#include "kernels/ops.h"\n#include "other/x.h"\n' >libcommon/text/bad.c
is "and floors that do not know each other" "$(above libcommon/*/bad.c | wc -l)" 4
done_testing
