# Models of fastText's own tool (tests/reference/fasttext_golden.sh): its classes and probabilities; damaged files are refused.
. "$(dirname "$0")/tap.sh"
D=tests/data/fasttext
perl -ne 'chomp; print "{\"text\":\"$_\"}\n"' $D/lines.txt >"$T/lines"
for m in hs.bin ova.bin quantised.ftz pruned.ftz; do
    qfilter classify -q --model $D/$m "$T/lines" | sed 's/.*"class":"\([^"]*\)","class_score":\([0-9.]*\).*/\1\t\2/' >"$T/ours"
    grep "^$m" $D/golden.tsv | cut -f 2,3 | paste - "$T/ours" >"$T/both"
    is "$m: classes and probabilities" "$(awk -F'\t' '{d = $2 - $4; if (d < 0) d = -d; bad += $1 != $3 || (d > 2e-5)} END {print NR, bad + 0}' "$T/both")" "$(wc -l <$D/lines.txt) 0"
    size=$(wc -c <$D/$m)
    said=0
    for share in 1 2 3 5 8 13 21 34 55 80 99; do
        head -c $((size * share / 100)) $D/$m >"$T/cut"
        qfilter classify -q --model "$T/cut" "$T/lines" >"$T/out" 2>"$T/err"
        [ $? -eq 1 ] && grep -q "^qfilter: $T/cut: " "$T/err" && [ ! -s "$T/out" ] && said=$((said + 1))
    done
    is "$m: cut off at eleven places" $said 11
done
# A header's number of n-grams allocates nothing where the file lists those that it has.
perl -e 'local $/; binmode STDIN; binmode STDOUT; my $m = <STDIN>; substr($m, 40, 4) = pack "l<", 2147483647; print $m' <$D/pruned.ftz >"$T/claims"
if nm "$BIN/qfilter" 2>/dev/null | grep -q __asan_init; then
    skip "a pruned model that claims 2^31 n-grams" "the address sanitizer takes addresses"
else
    ok "a pruned model that claims 2^31 n-grams" sh -c "ulimit -v 4000000; qfilter classify -q --threads 1 --model '$T/claims' '$T/lines' >'$T/out'"
fi
# Nor does a rank of a .tiktoken file.
printf 'IQ== 0\n\nIg== 333333333\n' >"$T/v.tiktoken"
fails 1 "v.tiktoken:3: not a line" "a .tiktoken file of two tokens with a rank of 333333333" tokenize --tokenizer "$T/v.tiktoken" --ids "$T/lines"
done_testing
