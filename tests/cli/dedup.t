# smoke
# dedup: what is kept, what is removed and why, in any memory and with any number of threads.
. "$(dirname "$0")/tap.sh"
words() { # words FIRST COUNT: different words
    awk -v a="$1" -v n="$2" 'BEGIN {for (i = 0; i < n; i++) printf "%sw%d", i ? " " : "", a + i}'
}
document() { printf '{"id":"%s","text":"%s"}\n' "$1" "$2"; }
names() { sed 's/^{"id":"\([^"]*\)".*/\1/' | tr '\n' ' ' | sed 's/ $//'; echo; }
removed() { sed 's/.*"removed"://; s/}$//'; }

# 100 different words have 96 shingles; with the last k words others the similarity is (96 - k) / (96 + k).
{
    document a "$(words 0 100)"
    document b "$(words 0 95) $(words 500 5)"
    document c "$(words 0 85) $(words 600 15)"
    document d "$(words 3000 100)"
} >"$T/j"
is "--threshold 0.9 takes J = 91/101" "$(dedup --fuzzy --threshold 0.9 "$T/j" | names)" "a c d"
is "--threshold 0.91 does not" "$(dedup --fuzzy --threshold 0.91 "$T/j" | names)" "a b c d"
is "--threshold 0.72 takes J = 81/111" "$(dedup --fuzzy --threshold 0.72 --removed "$T/r" "$T/j" | names; removed <"$T/r")" 'a d
{"method":"fuzzy","kept":"a","match":"a","similarity":0.900990099009901}
{"method":"fuzzy","kept":"a","match":"a","similarity":0.7297297297297297}'
is "--ngram 3 --bands 40 --rows 3" "$(dedup --fuzzy --ngram 3 --threshold 0.73 --bands 40 --rows 3 --removed "$T/r" "$T/j" | names; tail -n 1 "$T/r" | removed)" 'a d
{"method":"fuzzy","kept":"a","match":"a","similarity":0.7345132743362832}'
fails 2 "go together" "--bands alone is wrong usage" dedup --fuzzy --bands 4 "$T/j"
fails 1 "more than 256 hashes" "too many hashes are told" dedup --fuzzy --bands 100 --rows 100 "$T/j"

{
    document 1 "one two three four"
    document 2 "one two three four"
    document 3 "alpha beta gamma delta epsilon"
    document 4 "ALPHA, beta; Gamma -- delta... epsilon!"
    document 5 ""
    document 6 ""
    document 7 "Η ΟΔΟΣ ΤΗΣ ΠΟΛΗΣ ΕΙΝΑΙ ΜΕΓΑΛΗ"
    document 8 "η οδος της πολης ειναι μεγαλη"
    document 9 "東京 は 日本 の 首都 です"
    document 10 "東京 は 日本 の 首都 です。"
} >"$T/short"
is "fewer than five words never match; case and marks do not count, in any script" "$(dedup --fuzzy "$T/short" | names)" "1 2 3 5 6 7 9"
is "--exact compares bytes, empty texts too" "$(dedup --exact "$T/short" | names)" "1 3 4 5 7 8 9 10"

printf '{"id":"x","text":"a b"}\r\n{"id":"y","text":"a b"}\r\n{"id":"x","text":"c"}' >"$T/crlf"
is "CR LF, an id twice, a last line without newline" "$(dedup --exact --removed "$T/r" "$T/crlf" | od -c | tr -d ' \n0-9' ; wc -l <"$T/r" | tr -d ' ')" \
    '{"id":"x","text":"ab"}\r\n{"id":"x","text":"c"}\n1'

cat >"$T/url" <<'U'
{"id":"1","url":"http://a/","text":"one"}
{"id":"2","url":"http://a/","text":"two"}
{"id":"3","text":"one"}
{"id":"4","url":"http://b/","text":"one"}
{"id":"5","url":"http://b/","text":"five"}
{"id":"6","text":"six"}
U
is "--url" "$(dedup --url "$T/url" | names)" "1 3 4 6"
is "--url --exact is one after the other" "$(dedup --url --exact "$T/url" | names)" "$(dedup --url "$T/url" | dedup --exact | names)"
is "--exact --url is the other way round" "$(dedup --exact --url "$T/url" | names)" "1 5 6"
is "kept stays in the output, match is what was compared" "$(dedup --url --exact --removed "$T/r" "$T/url" >/dev/null; sed -n '$p' "$T/r" | removed)" '{"method":"url","kept":"1","match":"4"}'

line() { awk -v n="$1" 'BEGIN {for (i = 1; i <= n; i++) printf "{\"id\":\"%d\",\"text\":\"menu\\n own %d \"}\n", i, i}'; }
is "a line 6 times stays" "$(line 6 | dedup --lines | grep -c menu)" 6
is "a line 7 times goes, all of it" "$(line 7 | dedup --lines | grep -c menu)" 0
is "--keep-first leaves one" "$(line 7 | dedup --lines --keep-first | grep menu | names)" 1
is "--bucket counts in stretches of documents" "$(line 14 | dedup --lines --bucket 6 | grep -c menu)" 14
is "--bucket, where one of them is over" "$(line 14 | dedup --lines --bucket 7 --max-line-count 6 | grep -c menu)" 0
is "blanks around a line do not count" "$( (line 6; document z ' menu\t\n own z') | dedup --lines | grep -c menu)" 0
is "a text of which nothing is left is removed" "$( (line 6; document z menu) | dedup --lines --removed "$T/r" | names; removed <"$T/r")" '1 2 3 4 5 6
{"method":"lines"}'
is "--paragraphs cuts what stood before, anywhere" "$(printf '%s\n' '{"text":"A\nb\n\nC"}' '{"text":"C\n \nD\n\n\nA\nb\n"}' '{"text":"A\r\nb\r\n\r\nE"}' | dedup --paragraphs)" \
    '{"text":"A\nb\n\nC"}
{"text":"D\n\n\n"}
{"text":"A\r\nb\r\n\r\nE"}'
is "fields around the text stay byte for byte" "$(printf '%s\n' '{"text":"A"}' '{ "n":[1, 2],"text":"A\n\nB" , "x":1.0 }' | dedup --paragraphs | tail -n 1)" '{ "n":[1, 2],"text":"B" , "x":1.0 }'

# Real text: the sources, each also with its words in other lines and case, and cut short.
for f in README.md man/*.[17] kernels/*.h libcommon/*/*.h cmd/*/*.c; do
    perl -e 'use JSON::PP; my $j = JSON::PP->new->utf8->canonical; local $/; open F, "<:utf8", $ARGV[0]; my $t = <F>;
        print $j->encode({id => $ARGV[0], text => $t}), "\n"; (my $u = uc $t) =~ s/\s+/ /g; print $j->encode({text => $u}), "\n";
        print $j->encode({text => substr($t, 0, int(0.93 * length $t)), url => "http://x/" . length($t) % 9}), "\n"' "$f"
done >"$T/real"
gzip -c "$T/real" >"$T/real.gz"
for options in "--fuzzy" "--exact" "--url --exact --fuzzy --threshold 0.7" "--lines" "--paragraphs" "--fuzzy --lines --exact --paragraphs --url"; do
    # shellcheck disable=SC2086
    dedup $options --memory 1G -j 1 --removed "$T/r1" --stats "$T/s" -o "$T/k1" "$T/real"
    # shellcheck disable=SC2086
    dedup $options --memory 64k -j 3 --removed "$T/r2" --stats "$T/s2" --tmp "$T" - <"$T/real" >"$T/k2"
    same "$options: a tiny memory gives the same documents" "$T/k1" "$T/k2"
    # Documents without an id are called by their file.
    sed "s|$T/real:|stdin:|g" "$T/r1" >"$T/r3"
    same "$options: and the same removed records" "$T/r3" "$T/r2"
    case $options in
    --exact) ;; # its table is small enough
    *) like "$options: it did spill" "$(sed 's/.*"spills"/"spills"/' "$T/s") $(sed 's/.*"spills"/"spills"/' "$T/s2")" '"spills":0,.*"spills":[1-9]' ;;
    esac
done
is "nothing is left in --tmp" "$(ls "$T" | grep -c '^dedup-')" 0
is "several files, compressed, are one input" "$(dedup --exact "$T/j" "$T/real.gz" "$T/real" | wc -l)" "$(cat "$T/j" "$T/real" | dedup --exact | wc -l)"
fails 1 "cannot|No such|dedup-XXXXXX" "a --tmp that is not there" dedup --fuzzy --tmp "$T/none" "$T/j"
fails 1 "stdin:2: no field 'text'" "a malformed record of a spooled input is named" sh -c "printf '{\"text\":\"a\"}\n{\"id\":1}\n' | dedup --lines"
fails 1 "standard input is named twice" "standard input can be read once" sh -c "dedup --lines - - <$T/j"
if [ "$(uname -m)" = x86_64 ]; then
    for level in scalar avx2; do
        LMPIPE_CPU=$level dedup --fuzzy --threshold 0.7 -o "$T/k1" "$T/real"
        dedup --fuzzy --threshold 0.7 -o "$T/k2" "$T/real"
        same "$level and the widest instructions agree" "$T/k1" "$T/k2"
    done
fi

# The shared documents with pairs of known similarity.
S=../shared/data/dedup
if [ -d $S ]; then
    for t in 0.7 0.8 0.9; do
        dedup --fuzzy --threshold $t --removed "$T/r" -o "$T/k1" "$S/dedup-docs.jsonl.gz"
        sed 's/^{"id": *"\([^"]*\)".*/\1/' "$T/r" >"$T/gone"
        zcat "$S/dedup-truth.tsv.gz" | awk -F'\t' -v t=$t 'NR == FNR {gone[$1] = 1; next} FNR > 1 && $4 >= t + 0.05 {n++; both += !gone[$1] && !gone[$2]}
            FNR > 1 && $4 > t - 0.05 {near[$1] = near[$2] = 1} END {for (i in gone) {r++; far += !near[i]}
            print (n > 100 && both <= n / 100), (r > 100 && far <= r / 100)}' "$T/gone" - >"$T/out"
        is "$t: pairs of the shared documents are found, and no others" "$(cat "$T/out")" "1 1"
    done
else
    skip "the shared documents" "../shared is not here"
fi
done_testing
