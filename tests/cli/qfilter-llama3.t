# qfilter --rules llama3 and --lang: n-grams, listed words, divergence of tokens (against the formula in awk), languages.
. "$(dirname "$0")/tap.sh"

reason() { sed -n 's/.*"keep":true.*/keep/p; s/.*"reason":"\([^"]*\)".*/\1/p' | tr '\n' ' '; }
# A log: long lines, no two alike, which repeat most of one another.
awk 'BEGIN {printf "{\"text\":\""; for (i = 0; i < 12; i++) printf "%d error while reading the file %d of the folder in use\\n", i * 7, i * i; print "\"}"}' >"$T/log"
printf '{"text":"A page without any repetition, in which every word stands once or twice."}\n{"text":""}\n' >"$T/page"
is "a log's lines repeat one another, a page's do not" "$(cat "$T/log" "$T/page" | qfilter --rules llama3 --words=space --tag | reason)" "duplicated_5_n_grams keep empty "
is "which other limits allow" "$(qfilter --rules llama3 --words=space --set llama3.dup-5-gram=0 --set llama3.dup-6-gram=0 --set llama3.dup-7-gram=1 --set llama3.dup-8-gram=1 --set llama3.dup-9-gram=1 --set llama3.dup-10-gram=1 --tag "$T/log" | reason)" "keep "
printf 'bad\nvery bad\n' >"$T/words"
printf '{"text":"%s"}\n' 'A bad word, and BAD again, bad.' 'bad bad bad bad' 'badly very badly worded text' >"$T/dirty"
is "more than three listed words" "$(qfilter --rules llama3 --dirty-words "$T/words" --tag "$T/dirty" | reason)" "keep dirty_words keep "
is "more than two" "$(qfilter --rules llama3 --dirty-words "$T/words" --set llama3.max-dirty-words=2 --tag "$T/dirty" | reason)" "dirty_words dirty_words keep "

# Divergence: the counts of `tokenize --ids`, the formula in awk.
for f in README.md man/lmpipe.7 man/pretrain.1; do
    perl -e 'use JSON::PP; local $/; open F, "<:utf8", $ARGV[0]; my $j = JSON::PP->new->utf8; my $n = 0;
        for (split /\n\n+/, <F>) {print $j->encode({id => $ARGV[0] . " " . $n++, text => $_}), "\n"}' "$f"
done >"$T/corpus"
bpe-train -q --vocab-size 600 -o "$T/v" "$T/corpus"
ok "counts" qfilter distribution -q --tokenizer "$T/v" -o "$T/d" "$T/corpus"
ok "counts with one thread" qfilter distribution -q -j 1 --tokenizer "$T/v" -o "$T/d1" "$T/corpus"
same "threads change nothing" "$T/d" "$T/d1"
printf '{"text":"zq zq zq xk"}\n{"text":"the program reads the file and writes the model"}\n' >"$T/two"
tokenize -q --tokenizer "$T/v" --ids "$T/corpus" >"$T/ids"
tokenize -q --tokenizer "$T/v" --ids "$T/two" >>"$T/ids"
sed 's/.*"ids":\[//; s/\].*//' "$T/ids" | awk -F, -v size=600 -v last="$(wc -l <"$T/corpus")" '
    NR <= last {for (i = 1; i <= NF; i++) {count[$i]++; total++}}
    NR > last {delete c; kl = 0; for (i = 1; i <= NF; i++) c[$i]++
        for (t in c) kl += c[t] / NF * log(c[t] / NF / ((count[t] + 1) / (total + size))); printf "%.4f\n", kl}' >"$T/kl"
n=0
while read -r kl; do
    n=$((n + 1))
    sed -n ${n}p "$T/two" >"$T/one"
    run() { qfilter --rules llama3 --token-distribution "$T/d" --tokenizer "$T/v" --set llama3.max-kl="$(awk -v k="$kl" -v x="$1" 'BEGIN {print k + x}')" --tag "$T/one" | reason; }
    is "text $n: $kl nats by the formula lie between limits" "$(run -0.0005)$(run 0.0005)" "token_distribution keep "
done <"$T/kl"
share() { qfilter -q --rules llama3 --set llama3.dup-5-gram=0 --set llama3.dup-6-gram=0 --set llama3.dup-7-gram=0 --set llama3.dup-8-gram=0 --set llama3.dup-9-gram=0 --set llama3.dup-10-gram=0 \
    --token-distribution "$T/d" --tokenizer "$T/v" --set llama3.kl-percentile="$1" "$T/corpus" | wc -l; }
all=$(wc -l <"$T/corpus")
is "by the 90th percentile a tenth goes" "$(awk -v k="$(share 90)" -v n="$all" 'BEGIN {print int((n - k) * 10 / n + 0.5)}')" 1
is "by the 100th none" "$(share 100)" "$all"
bpe-train -q --vocab-size 500 -o "$T/w" "$T/corpus"
fails 1 "$T/d: was counted with another tokenizer" "another tokenizer" qfilter --rules llama3 --token-distribution "$T/d" --tokenizer "$T/w" "$T/two"
echo '{"counts":[1]}' >"$T/bad"
fails 1 "$T/bad: not a file of qfilter distribution" "another file" qfilter --rules llama3 --token-distribution "$T/bad" --tokenizer "$T/v" "$T/two"
fails 2 'belong to --rules llama3' "lists without the rule" qfilter --rules c4 --dirty-words "$T/words" "$T/two"
fails 1 'no tokens' "an empty corpus" qfilter distribution --tokenizer "$T/v" -o "$T/none" /dev/null

# Languages: a classifier of two.
for i in 1 2 3 4 5 6 7 8; do
    echo "__label__en the house and the garden are of the old man number $i"
    echo "__label__de das Haus und der Garten sind von dem alten Mann Nummer $i"
done >"$T/lines"
qfilter train -q --epoch 50 -o "$T/m" "$T/lines"
printf '{"text":"the man and the house"}\n{"text":"der Mann\\nund das Haus"}\n' >"$T/languages"
is "--lang en" "$(qfilter --lang en --lang-model "$T/m" --tag "$T/languages" | reason)" "keep language "
is "--lang en,de" "$(qfilter --lang en,de --lang-model "$T/m" --tag "$T/languages" | reason)" "keep keep "
# The same model by --model; a mistyped label would drop everything.
like "a label with fastText's prefix is the same" "$(for l in en __label__en; do qfilter --model "$T/m" --label $l --tag "$T/languages" | cksum; done | uniq | wc -l)" "^ *1$"
fails 1 "$T/m knows no label 'fr'" "a label that the model does not have" qfilter --model "$T/m" --label fr "$T/languages"
is "a score that none reaches" "$(qfilter --lang en,de --lang-model "$T/m" --min-lang-score 1 --tag "$T/languages" | reason)" "language language "
fails 1 "knows no language 'fr'" "a language that the model does not know" qfilter --lang fr --lang-model "$T/m" "$T/languages"
fails 2 'go together' "--lang without a model" qfilter --lang en "$T/languages"
done_testing
