# qfilter train and classify: the class of held-out documents of the shared corpus, and the same verdicts as fastText's own tool.
. "$(dirname "$0")/tap.sh"
S=../shared/data/corpus
[ -d $S ] || skip_all "../shared is not here"
for c in general math code multilingual; do
    zcat $S/$c.jsonl.gz | perl -ne '($t) = /"text": ?"((?:[^"\\]|\\.)*)"/ or next; $t = substr $t, 0, 1500; $t =~ s/\\u[0-9a-f]{0,4}|\\./ /g; $t =~ s/\\$//;
        $t =~ s/[\xc0-\xff][\x80-\xbf]{0,2}$//; if ($. % 6) { print "__label__'$c' $t\n" } else { print STDERR "{\"text\":\"$t\",\"want\":\"'$c'\"}\n" }' >>"$T/train" 2>>"$T/test.jsonl"
done
ok "qfilter train" qfilter train -q -o "$T/m.bin" "$T/train"
qfilter classify --on-error=skip --model "$T/m.bin" "$T/test.jsonl" >"$T/out" 2>/dev/null
right=$(awk 'match($0, /"want":"[a-z]*"/) {w = substr($0, RSTART + 8, RLENGTH - 9); n++; if (index($0, "\"class\":\"" w "\"")) r++} END {printf "%d", 1000 * r / n}' "$T/out")
ok "at least 95 % of $(wc -l <"$T/out") held-out documents: $right of 1000" test "$right" -ge 950
if command -v fasttext >/dev/null; then
    perl -ne 'print "$1\n" if /"text":"([^"]*)"/' "$T/out" >"$T/lines"
    fasttext predict "$T/m.bin" "$T/lines" | sed 's/__label__//' >"$T/theirs"
    perl -ne 'print "$1\n" if /"class":"([^"]*)"/' "$T/out" >"$T/ours"
    same "fastText's tool loads the model and says the same" "$T/ours" "$T/theirs"
else
    skip "fastText's tool loads the model" "fasttext is not installed"
fi
done_testing
