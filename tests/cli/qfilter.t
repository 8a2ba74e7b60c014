# smoke
# qfilter's rules at their thresholds: the verdict, and the text that is left.
. "$(dirname "$0")/tap.sh"

copies() { awk -v s="$1" -v n="$2" 'BEGIN {for (i = 0; i < n; i++) printf "%s%s", i ? " " : "", s}'; }
# lines TEXT COUNT: that many copies, each with \n behind (as JSON writes it)
lines() { awk -v s="$1" -v n="$2" 'BEGIN {for (i = 0; i < n; i++) printf "%s\\n", s}' | sed 's/\\n$//'; }
# verdict RULE TEXT OPTION…: the reason, or keep
verdict() {
    rule=$1 text=$2
    shift 2
    printf '{"text":"%s"}\n' "$text" | qfilter --tag --rules "$rule" "$@" | sed -n 's/.*"keep":true.*/keep/p; s/.*"reason":"\([^"]*\)".*/\1/p'
}
quality() { is "gopher-quality: $1" "$(verdict gopher-quality "$2")" "$3"; }
base="the of $(copies alpha 48)"
quality "49 words are too few" "$(copies alpha 49)" gopher_short_doc
quality "50 with two stop words are enough" "$base" keep
quality "stop words are told by case" "The of $(copies alpha 48)" gopher_enough_stop_words
quality "short words" "the of $(copies ab 48)" gopher_below_avg_threshold
quality "long words" "the of $(copies abcdefghijkl 48)" gopher_above_avg_threshold
quality "5 hashes to 55 words" "$base$(copies ' #' 5 | tr -s ' ')" keep
quality "6 hashes to 56 words" "$base$(copies ' #' 6 | tr -s ' ')" gopher_too_many_hashes
quality "5 ellipses to 55 words" "$(copies ... 5) $base" keep
quality "6 ellipses to 56 words" "$(copies ... 6) $base" gopher_too_many_ellipsis
quality "10 of 10 lines with bullets" "$(lines '- alpha beta gamma the of' 10)" gopher_too_many_bullets
quality "9 of 10 lines with bullets" "$(lines '- alpha beta gamma the of' 9)\\nalpha beta gamma the of" keep
quality "3 of 10 lines end in an ellipsis" "$(lines 'alpha beta gamma the of' 7)\\n$(lines 'alpha beta gamma the of…' 3)" keep
quality "4 of 10 lines end in an ellipsis" "$(lines 'alpha beta gamma the of' 6)\\n$(lines 'alpha beta gamma the of…' 4)" gopher_too_many_end_ellipsis
quality "40 of 50 words with a letter" "the of $(copies alpha 38) $(copies 7 10)" keep
quality "39 of 50 words with a letter" "the of $(copies alpha 37) $(copies 7 11)" gopher_below_alpha_threshold
is "a threshold that is set" "$(verdict gopher-quality "the of $(copies alpha 10)" --set gopher-quality.min-doc-words=12)" keep
is "of 0, a threshold is off" "$(verdict gopher-quality "alpha beta" --set gopher-quality.min-doc-words=0 --set gopher-quality.min-stop-words=0)" keep

repetition() { name=$1 text=$2 want=$3; shift 3; is "gopher-repetition: $name" "$(verdict gopher-repetition "$text" "$@")" "$want"; }
repetition "an empty text" "" empty
repetition "two stop words and 48 others" "$base" top_2_gram
repetition "newlines at both ends give equal empty lines" '\nalpha\n' dup_line_frac
ten=$(for i in 1 2 3 4 5 6 7 1 2 3; do printf 'line%s abcd\\n' $i; done)
repetition "3 of 10 lines again: 30 of 109 characters" "${ten%\\n}" dup_line_char_frac
repetition "a paragraph three times" 'a b\n\na b\n\na b' dup_para_frac
repetition "three words" 'a b c' top_2_gram
five='aa bb cc dd ee aa bb cc dd ee'
repetition "five words twice" "$five" top_2_gram
repetition "the same without top n-grams" "$five" duplicated_5_n_grams --set gopher-repetition.top-2-gram=0 --set gopher-repetition.top-3-gram=0 --set gopher-repetition.top-4-gram=0
# Joined without blanks, two cuts of the same letters are one.
repetition "n-grams are compared by their letters" 'ab c d e f g a bc d e f g' duplicated_6_n_grams --words=space --set gopher-repetition.top-2-gram=0 \
    --set gopher-repetition.top-3-gram=0 --set gopher-repetition.top-4-gram=0 --set gopher-repetition.dup-5-gram=0

good='We use the words here.\\nThey are as good as any.\\nThe third one is good.\\nA fourth one is good.\\nAnd this is the fifth.'
c4() { printf '{"text":"%s"}\n' "$1" | qfilter --rules c4 --tag ${2:+--set} $2 | sed 's/{"text":"\(.*\)","quality":{"keep":true}}/\1/; s/.*"reason":"\([^"]*\)".*/\1/'; }
is "c4: a line without an end mark goes, brace and all" "$(c4 "$(printf '%b' "$good")\\nif x { y")" "$(printf '%b' "$good")"
is "c4: a brace in a line that stays drops the document" "$(c4 "$(printf '%b' "$good")\\nWe use x { y today.")" curly_bracket
is "c4: citations go" "$(c4 'See [12] the facts [edit].' c4.min-num-sentences=-1)" 'See  the facts .'
is "c4: ends of lines" "$(c4 'He said so...\nNow hello world.\n\"Yes it is.\"' c4.min-num-sentences=-1)" 'Now hello world.\n\"Yes it is.\"'
is "c4: lines of two words go" "$(c4 'Hello world.\nNow hello world.' c4.min-num-sentences=-1)" 'Now hello world.'
is "c4: four sentences are too few" "$(c4 "$(lines 'Four words a line.' 4)")" too_few_sentences
is "c4: five are enough" "$(c4 "$(lines 'Four words a line.' 5)")" "$(lines 'Four words a line.' 5)"
is "c4: sentences are counted as spaCy ends them" "$(c4 'One is here. Two is here! Is three here? Dr. No is four... And on. Five.')" 'One is here. Two is here! Is three here? Dr. No is four... And on. Five.'
is "c4: an ellipsis or an abbreviation ends none" "$(c4 'One is here. Two is here! Is three here? Dr. No is four... and on.')" too_few_sentences
is "c4: policies and scripts" "$(c4 'Read our Privacy Policy now.\nTurn on JavaScript to see this.\nThis stays as it is.\nUse cooKies as you like.' c4.min-num-sentences=-1)" 'This stays as it is.'
is "c4: lorem ipsum" "$(c4 'Lorem Ipsum dolor sit amet.' c4.min-num-sentences=-1)" lorem_ipsum
is "c4: a word of 1001 letters takes its line along" "$(c4 "So $(awk 'BEGIN {while (i++ < 1001) printf "x"}') is long.\\nThis one is not." c4.min-num-sentences=-1)" 'This one is not.'
is "c4: by sentences" "$(c4 'This one stays here. But this one... Not so. This one stays too!' c4.split-paragraph=0 | head -c 9)" too_few_s

fineweb() { is "fineweb: $1" "$(verdict fineweb "$2" --set fineweb.char-duplicates-ratio=1 --set fineweb.new-line-ratio=9 $4 $5 $6 $7)" "$3"; }
long='this line has more than thirty characters in it'
fineweb "2 of 25 lines end in a mark" "$(lines "$long" 23)\\n$(lines "$long." 2)" line_punct_ratio
fineweb "3 of 25 lines" "$(lines "$long" 22)\\n$(lines "$long." 3)" keep
fineweb "a quotation mark behind the stop does not count" "$(lines "$long" 22)\\n$(lines "$long." 2)\\n$long.\\\"" line_punct_ratio
thirty=$(awk 'BEGIN {while (i++ < 29) printf "x"; print "."}')
fineweb "two of three lines of 30 characters" "$thirty\\n$thirty\\nx$thirty" keep
fineweb "three of four" "$thirty\\n$thirty\\n$thirty\\nx$thirty" short_line_ratio
is "fineweb: repeated lines" "$(verdict fineweb "$(lines "$long." 3)")" char_dup_ratio
is "fineweb: lists" "$(verdict fineweb 'abcdefghijklmnopqrstuvwxyzabcdefgh.\nbbcdefghijklmnopqrstuvwxyzabcdefgh.')" keep
is "fineweb: a newline to each three words and more" "$(verdict fineweb 'abcdefghijklmnopqrstuvwxyzabcdefgh.\nbbcdefghijklmnopqrstuvwxyzabcdefgh.\ncbcdefghijklmnopqrstuvwxyzabcdefgh.')" list_ratio
is "fineweb: nothing but blanks" "$(verdict fineweb ' \n\t')" empty

pii() { is "pii: $1" "$(printf '{"text":"%s"}\n' "$1" | qfilter --pii=mask)" "{\"text\":\"$2\"}"; }
pii 'bob@x.io 10.0.0.1 8.8.8.8' 'email@example.com 10.0.0.1 22.214.171.124'
pii 'a.b@c.de, d@e.fg' 'email@example.com, firstname.lastname@example.org'
pii 'email@example@example.com' 'email@email@example.com'
pii 'email@example email@-example.com email@example..com' 'email@example email@-example.com email@example..com'
pii 'email@[1.2.3.4] email@[1.2.3.tag:] email@123.123.123.123' 'email@example.com firstname.lastname@example.org email@example.com'
pii 'あいうえお@example.com' 'あいうえお@example.com'
pii '.3.3.3.0 256.1.1.1 08.8.8.8 192.168.1.1' '.22.214.171.124 2126.96.36.199 08.8.8.8 192.168.1.1'

is "--words: space, uax29 and en count differently" "$(for k in space uax29 en; do verdict gopher-quality "the of don't well-known 3.5" --words=$k --set gopher-quality.min-doc-words=6 --set gopher-quality.max-non-alpha-words-ratio=0; done | tr '\n' ' ')" "gopher_short_doc keep keep "
printf 'bad\ntwo words\ng-string\n' >"$T/bad"
bad() { printf '{"text":"%s"}\n' "$1" | qfilter --bad-words "$T/bad" --tag | grep -c '"keep":true'; }
is "--bad-words: whole words and phrases, whatever the case" "$(bad 'A BAD thing') $(bad 'badly') $(bad 'Two words.') $(bad 'two  words') $(bad 'a G-string!') $(bad 'bad')" "0 1 0 1 0 0"
done_testing
