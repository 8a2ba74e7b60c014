# smoke
# What every program does alike: --help, --version, unknown options, missing files, manual pages.
. "$(dirname "$0")/tap.sh"
for t in dedup qfilter bpe-train tokenize mixshard pretrain scalefit sft dpo rmtrain rejsample generate lmeval; do
    ok "$t --help" "$t" --help
    is "$t --help fits a screen" "$("$t" --help | awk '{gsub(/…/, ".")} length > 80 {wide++} END {print (NR > 30 || wide) ? "no" : "yes"}')" yes
    ok "$t --help=all" "$t" --help=all
    is "$t --version" "$("$t" --version)" "$t (lmpipe) 0.1.0"
    fails 2 "unknown option '--nonsense'" "$t: an unknown option is wrong usage" "$t" --nonsense
    fails 1 'No space left' "$t: a full disk is told" sh -c "$t --help >/dev/full"
    if command -v mandoc >/dev/null; then
        is "$t.1 is clean mdoc" "$(mandoc -Tlint -W warning "man/$t.1" 2>&1)" ""
    else
        skip "$t.1 is clean mdoc" "mandoc is not installed"
    fi
done
# As PROGRAM_PREFIX=lm- installs them.
ln -s "$BIN/scalefit" "$T/lm-scalefit"
fails 2 "^lm-scalefit: unknown option" "messages bear the installed name" "$T/lm-scalefit" plan --none
like "and so does the hint" "$(cat "$T/.err")" "^lm-scalefit: try 'lm-scalefit --help'"
is "scalefit grid names the programs as they are installed" "$("$T/lm-scalefit" grid -q --budget 1e15:1e6 --vocab 1000 | grep '^program_prefix')" "program_prefix = lm-"
is "without a prefix too" "$(scalefit grid -q --budget 1e15:1e6 --vocab 1000 | grep '^program_prefix')" "program_prefix = "
done_testing
