# smoke
# tokenize: how a tokenizer.json cuts text before merging. Ids are those of Hugging Face tokenizers 0.23.3, by which the table was made.
. "$(dirname "$0")/tap.sh"
bytes='{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}'
words='{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}'
cut() { printf '{"type":"Split","pattern":{"Regex":"%s"},"behavior":"%s","invert":%s}' "$1" "$2" "$3"; }
tokenizer() { # tokenizer STEPS: the pre-tokenizers, with commas between
    cat >"$T/tokenizer.json" <<J
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Sequence","pretokenizers":[$1]},
"post_processor":null,"decoder":null,"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"vocab":{"1":0,"2":1,"a":2,"b":3,"Ġ":4,"Ċ":5,"12":6,"1212":7,"aa":8,"aab":9,"a1":10,"Ċa":11,"2Ġ":12,"Ġa":13},
"merges":[["1","2"],["12","12"],["a","a"],["aa","b"],["a","1"],["Ċ","a"],["2","Ġ"],["Ġ","a"]]}}
J
}
ids() { tokenizer "$1"; printf '%s\n' '{"text":"1212 aab12\naab2 12121a1"}' | tokenize --tokenizer "$T" --ids | sed 's/.*\[//; s/\].*//'; }
refused() { tokenizer "$2"; fails 1 "$T/tokenizer.json: .*$3" "$1" tokenize --tokenizer "$T" --ids /dev/null; }
is "Digits one by one, then words: SmolLM2" "$(ids "{\"type\":\"Digits\",\"individual_digits\":true},$words")" "0,1,0,1,4,9,0,1,5,9,1,4,0,1,0,1,0,2,0"
is "Digits that stand together" "$(ids "{\"type\":\"Digits\",\"individual_digits\":false},$words")" "7,4,9,6,5,9,1,4,7,0,2,0"
is "Split, removed and inverted: matches alone" "$(ids "$(cut '[a-z]+|[0-9]' Removed true),$bytes")" "0,1,0,1,9,0,1,9,1,0,1,0,1,0,2,0"
is "Split, isolated and inverted" "$(ids "$(cut '[a-z]+|[0-9]' Isolated true),$bytes")" "0,1,0,1,4,9,0,1,5,9,1,4,0,1,0,1,0,2,0"
is "a match of nothing cuts" "$(ids "$(cut '(?=(\\\\d{2})+(?!\\\\d))' Isolated false),$bytes")" "7,4,9,6,5,9,12,7,0,10"
is "x* does, between any two characters" "$(ids "$(cut 'x*' Isolated false),$bytes")" "0,1,0,1,4,2,2,3,0,1,5,2,2,3,1,4,0,1,0,1,0,2,0"
is "^ and \$ stand at lines" "$(ids "$(cut '^a|2$' Isolated false),$bytes")" "7,4,9,0,1,5,2,2,3,12,7,0,10"
is "{1,2}+ repeats the interval" "$(ids "$(cut '\\\\d{1,2}+' Isolated false),$bytes")" "7,4,9,6,5,9,12,7,0,10"
is "{2,}+ and {0,1}+ too" "$(ids "$(cut 'a{2,}+|1{0,1}+' Isolated false),$bytes")" "0,1,0,1,4,8,3,0,1,5,8,3,1,4,0,1,0,1,0,2,0"
is "a class beside a POSIX class" "$(ids "$(cut '[[:digit:]\\\\s]+' Isolated false),$bytes")" "7,4,9,6,5,9,1,4,7,0,2,0"
is "a bracket that begins with one" "$(ids "$(cut '[]a]|[^]1]' Isolated false),$bytes")" "0,1,0,1,4,2,2,3,0,1,5,2,2,3,1,4,0,1,0,1,0,2,0"
is "add_prefix_space" "$(ids "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}")" "4,7,4,9,6,5,9,1,4,7,0,2,0"
is "before every piece where text is cut before" "$(ids "$(cut '[0-9]+' Isolated false),{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":false}")" "4,7,4,9,4,6,4,5,9,4,1,4,4,7,0,13,4,0"
is "Split by a text" "$(ids "{\"type\":\"Split\",\"pattern\":{\"String\":\"b1\"},\"behavior\":\"Isolated\",\"invert\":false},$bytes")" "7,4,8,3,0,1,5,9,12,7,0,10"
tokenizer "$(cut '(?:[a-z](?: [a-z])*)+' Isolated false),$bytes"
is "a group that repeats 100,000 times" "$(head -c 100000 /dev/zero | tr '\0' a | tokenize --tokenizer "$T" --text --ids | tr -cd , | wc -c | tr -d ' ')" 49999
refused "sets within a set are refused" "$(cut '[a-z&&[^b]]' Isolated false),$bytes" "a set within a set"
refused "and so is {2,3}+" "$(cut 'a{2,3}+' Isolated false),$bytes" "[{]2,3[}][+] is not supported"
refused "a step behind ByteLevel" "$words,{\"type\":\"Digits\",\"individual_digits\":true}" "Digits behind ByteLevel"
refused "no ByteLevel" "$(cut ' ' Isolated false)" "no pre-tokenizer ByteLevel"
like "a script's name takes its own characters, not the marks beside them" \
    "$(echo '{"text":"東、東、"}' | bpe-train --vocab-size 300 --pattern '\p{Han}+' -o "$T/han" 2>&1)" " 2 different pieces"
tokenizer "$words"
sed -i 's/"type":"BPE",//' "$T/tokenizer.json"
is "a model without a type, as GPT-2's file has it, is BPE if it has merges" "$(echo 1212 | tokenize --tokenizer "$T" --text --ids)" '{"ids":[7]}'
sed -i 's/"merges"/"scores"/' "$T/tokenizer.json"
fails 1 "the model '' is not BPE" "and is none without" tokenize --tokenizer "$T" --ids /dev/null
done_testing
