# Files that lie: configurations, weights, shards, vocabularies, option files, records; and runs that are disturbed.
. "$(dirname "$0")/tap.sh"
for i in 1 2 3 4 5 6 7 8 9; do printf '{"id":"%s","text":"Line %s: the quick brown fox jumps over the lazy dog and %s more."}\n' $i $i $i; done >"$T/d.jsonl"
bpe-train -q --vocab-size 300 --chat-template -o "$T/v" "$T/d.jsonl"
tokenize -q --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
scalefit shape -q --params 4e4 --vocab 300 --head-dim 16 --seq-len 64 >"$T/config.json"
train="pretrain --model-config $T/config.json --tokenizer $T/v --data $T/s --seq-len 16 --batch-tokens 32 --lr 1e-3"
$train -q --steps 2 -o "$T/run" || exit 1
printf '{"prompt":"a"}\n' >"$T/prompt.jsonl"
ask="generate --model $T/m -q --max-tokens 1 $T/prompt.jsonl"

# ---- config.json ----
config() { # config KEY VALUE PATTERN: the value is refused, with the file's name
    rm -rf "$T/m"
    cp -r "$T/run/final" "$T/m"
    tr '\n' ' ' <"$T/run/final/config.json" | sed "s/ *\"$1\": *[^,}]*,*//; s/, *}/ }/; s/^{/{\"$1\": $2,/" >"$T/m/config.json"
    fails 1 "m/config.json: .*$3" "config.json: $1 $2" $ask
}
for key in vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim; do
    config $key 0 "no size"
    config $key -8 "no size"
    config $key 1.5 "whole number"
    config $key 9223372036854775808 "whole number"
    config $key 4294967296 "no size"
    config $key '"64"' "whole number"
done
tr '\n' ' ' <"$T/run/final/config.json" | sed 's/"\(vocab\|hidden\|intermediate\)_size": *[0-9]*/"\1_size": 2147483647/g' >"$T/m/config.json"
fails 1 "config.json: absurd sizes" "config.json: sizes whose product passes 64 bits" $ask
config eos_token_id '"x"' "an id or a list"
config eos_token_id '[1.5]' "an id or a list"
config bos_token_id 99999999999 "bos_token_id is 99999999999, which is no id"
config pad_token_id -2 "no id"
config eos_token_id '[1,2,3,4,5,6,7,8,9]' "more than 8"
config rope_scaling '"llama3"' "must be an object"
config rope_scaling '{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1}' "rise"
config rope_scaling '{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":1e300}' "size"
config rope_scaling '{"rope_type":7}' "rope type"
config rms_norm_eps 0 "positive"
config rope_theta 1e400 "number"
config hidden_act '"gelu"' "not supported"
config hidden_act 7 "not supported"
config layer_types '"x"' "a list"
config partial_rotary_factor '"x"' "not supported"
config surprise 1 "surprise.*not known"
tr '\n' ' ' <"$T/run/final/config.json" | sed 's/^{/{"attention_dropout": 0.25,/' >"$T/m/config.json"
ok "config.json: attention_dropout changes no answer" $ask
fails 1 "config.json: attention_dropout is 0.25.*in training" "but is refused in training" \
    pretrain --init "$T/m" --data "$T/s" --seq-len 16 --batch-tokens 32 --lr 1e-3 --steps 2 -q -o "$T/dropped"
ok "and nothing is written" test ! -e "$T/dropped"

# ---- weights ----
le() { printf "\\$(printf %o $(($1 % 256)))\\$(printf %o $(($1 / 256)))\\0\\0\\0\\0\\0\\0"; }
weights() { # weights NAME HEADER PATTERN [ZEROS]: a model.safetensors of that header and so many bytes
    { le ${#2}; printf '%s' "$2"; head -c "${4:-0}" /dev/zero; } >"$T/m/model.safetensors"
    fails 1 "model.safetensors: .*$3" "model.safetensors: $1" $ask
}
rm -rf "$T/m" && cp -r "$T/run/final" "$T/m"
weights "no JSON" '{"a' "unclosed|malformed"
weights "a list" '[]' "not a safetensors file"
weights "an entry that is none" '{"a":7}' "no dtype"
weights "an unknown dtype" '{"a":{"dtype":"F9","shape":[1],"data_offsets":[0,4]}}' "F9" 4
weights "a shape with a hole" '{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}' "bad shape" 4
weights "a shape past 64 bits" '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}' "absurd"
weights "offsets past the end" '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' "outside" 4
weights "offsets that fall" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}' "outside" 4
weights "another size than its shape" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}' "shape says" 8
weights "an overlap" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' "overlaps" 4
weights "a gap" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}' "hole" 8
weights "bytes of nobody" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' "file holds" 8
weights "a name twice" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' "twice" 4
weights "metadata that are no object" '{"__metadata__":7}' "no object"
weights "metadata that are no strings" '{"__metadata__":{"format":{"a":1}}}' "'format' in __metadata__"
weights "a shape of another model" '{"model.embed_tokens.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}' "has the shape \\[1, 1\\], the configuration implies \\[300, " 4
weights "a tensor of another model" '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' "no place" 4
size=$(wc -c <"$T/run/final/model.safetensors")
for value in '\300\177' '\200\177' '\200\377'; do
    { head -c $((size - 4)) "$T/run/final/model.safetensors"; printf "\\000\\000$value"; } >"$T/m/model.safetensors"
    fails 1 "model.safetensors: '.*' holds a NaN or an infinity" "a NaN or infinite weight $value is named" $ask
done
whole="$T/run/final/model.safetensors"
rm -rf "$T/m" && cp -r "$T/run/final" "$T/m"
perl -0777 -pe 's/"model.embed_tokens.weight"/"lm_head.weight"           /' "$whole" >"$T/m/model.safetensors"
is "a tied model under the output layer's name is the same model" "$($ask)" "$(generate --model "$T/run" -q --max-tokens 1 "$T/prompt.jsonl")"
mv "$T/m/model.safetensors" "$T/m/a.safetensors" && cp "$whole" "$T/m/b.safetensors"
echo '{"weight_map":{"lm_head.weight":"a.safetensors","model.norm.weight":"b.safetensors"}}' >"$T/m/model.safetensors.index.json"
fails 1 "index.json: 'lm_head.weight' should be in .*b.safetensors, but is not" "an index that names the wrong file" \
    sh -c "sed -i s/a.safetensors/b.safetensors/ '$T/m/model.safetensors.index.json'; $ask"
sed -i 's/b.safetensors/a.safetensors/' "$T/m/model.safetensors.index.json"
sed -i 's/"model.norm.weight":"a/"model.norm.weight":"b/' "$T/m/model.safetensors.index.json"
fails 1 "b.safetensors: the tensor '.*' stands in .*a.safetensors too" "a tensor in two files" $ask
rm "$T/m"/*.safetensors* && mkfifo "$T/m/model.safetensors" "$T/pipe.bin" "$T/pipe.idx"
fails 1 "model.safetensors: not a regular file" "a pipe that nobody writes to is not waited for" timeout -k 1 20 $ask
rm "$T/m/config.json" && mkfifo "$T/m/config.json"
fails 1 "m/config.json: not a regular file" "nor one in the configuration's" timeout -k 1 20 $ask
rm -rf "$T/m" && cp -r "$T/run/final" "$T/m"
for file in config.json generation_config.json tokenizer_config.json chat_template.jinja; do
    mv "$T/m/$file" "$T/kept" && ln -s ../blobs/nowhere "$T/m/$file"
    fails 1 "m/$file: a link whose end can't be reached: No such file" "$file: a link that leads nowhere is no file that the model does without" $ask
    rm "$T/m/$file" && mv "$T/kept" "$T/m/$file"
done
echo '[]' >"$T/m/tokenizer_config.json"
fails 1 "m/tokenizer_config.json: not a JSON object" "a tokenizer_config.json that is a list" $ask
cp "$T/run/final/tokenizer_config.json" "$T/m/" && printf '\377' >>"$T/m/chat_template.jinja"
fails 1 "m/chat_template.jinja: invalid UTF-8" "a chat template that is no UTF-8" $ask
rm "$T/m/tokenizer.json" "$T/m/chat_template.jinja"
fails 1 "m/tokenizer.json: No such file" "no tokenizer.json" $ask
fails 1 "pipe.idx: not a regular file" "nor one in a shard's place" timeout -k 1 20 mixshard -q x=1:"$T/pipe" --tokens 16 --seq-len 8 -o "$T/mixed"

# ---- shards ----
shard() { # shard NAME OFFSET BYTES PATTERN: the index with some bytes replaced
    cp "$T/s.bin" "$T/x.bin"
    { head -c "$2" "$T/s.idx"; printf "$3"; tail -c +$(($2 + 1 + $(printf "$3" | wc -c))) "$T/s.idx"; } >"$T/x.idx"
    fails 1 "x.idx: |x.bin: |/x: " "shard: $1" mixshard -q x=1:"$T/x" --tokens 16 --seq-len 8 -o "$T/mixed"
    ok "and nothing appears" test ! -e "$T/mixed/train.bin"
}
shard "another magic" 0 XX
shard "another version" 9 '\002'
shard "an unknown type" 17 '\077'
shard "a type of another width" 17 '\004'
shard "2^56 sequences" 25 '\001'
shard "more documents than there are" 26 '\377'
shard "a negative length" 34 '\377\377\377\377'
shard "a length past the tokens" 34 '\377\377\377\077'
shard "a pointer past the tokens" 78 '\377\377\377\177'
shard "a negative pointer" 70 '\377\377\377\377\377\377\377\377'
cp "$T/s.idx" "$T/x.idx" && head -c 20 "$T/s.bin" >"$T/x.bin"
fails 1 "/x" "shard: tokens that are cut" mixshard -q x=1:"$T/x" --tokens 16 --seq-len 8 -o "$T/mixed"
cp "$T/s.bin" "$T/x.bin" && head -c 60 "$T/s.idx" >"$T/x.idx"
fails 1 "/x" "shard: an index that is cut" mixshard -q x=1:"$T/x" --tokens 16 --seq-len 8 -o "$T/mixed"

. tests/cli/shard.sh
yes 5 | head -n 100 | shard_write "$T/single"
fails 1 "single: no document has two tokens" "shard: documents of one token, which have nothing to learn" $train --data "$T/single" --steps 2 -q -o "$T/singles"
ok "and no run appears" test ! -e "$T/singles"

# ---- vocabularies ----
tokenizer() { # tokenizer NAME SED-SCRIPT
    rm -rf "$T/w" && mkdir "$T/w" && cp "$T/v/tokenizer_config.json" "$T/w/"
    tr '\n' ' ' <"$T/v/tokenizer.json" | sed "$2" >"$T/w/tokenizer.json"
    if cmp -s "$T/v/tokenizer.json" "$T/w/tokenizer.json"; then result 1 "tokenizer.json: $1 (not made)"; return; fi
    fails 1 "w/tokenizer.json: " "tokenizer.json: $1" tokenize --tokenizer "$T/w" --ids "$T/d.jsonl"
}
tokenizer "no model" 's/"model" *:/"modem":/'
tokenizer "another type" 's/"type" *: *"BPE"/"type": "WordPiece"/'
tokenizer "no vocab" 's/"vocab" *:/"vocad":/'
tokenizer "a vocab that is a list" 's/"vocab" *: *{[^}]*}/"vocab": []/'
tokenizer "an id twice" 's/"\\"": *[0-9]*/"\\"": 5/'
tokenizer "a negative id" 's/"a": *[0-9]*/"a": -7/'
tokenizer "an absurd id" 's/"a": *[0-9]*/"a": 2000000000/'
tokenizer "an id that is no number" 's/"a": *[0-9]*/"a": "x"/'
tokenizer "merges of an unknown token" 's/"merges" *: *\[/"merges": [["qq", "zz"], /'
tokenizer "merges of one part" 's/"merges" *: *\[/"merges": [["a"], /'

# ---- --config ----
option_file() { printf '%s' "$2" >"$T/o.json"; fails 2 "o.json: .*$3" "--config: $1" $train --config "$T/o.json" -q -o "$T/c"; }
option_file "malformed" '{"steps": ' "malformed|unclosed|JSON"
option_file "a list" '[1]' "not a JSON object"
option_file "an unknown option" '{"stepz": 1}' "unknown option 'stepz'"
option_file "a text for a number" '{"steps": "many"}' "whole number"
option_file "a number for a text" '{"val": 7}' "must be a string"
option_file "a number for a flag" '{"verbose": 1}' "true or false"
option_file "a list for a number" '{"steps": [1]}' "plain value"
option_file "an object" '{"steps": {}}' "plain value"
option_file "a key twice" '{"steps": 1, "steps": 2}' "twice"
option_file "a fraction of a step" '{"steps": 1.5}' "whole number"
option_file "out of range" '{"threads": 5000}' "must lie in"
fails 2 "nowhere" "--config: a missing file" $train --config "$T/nowhere" -o "$T/c"
echo '{"steps": 500, "lr": 0.5, "quiet": true}' >"$T/o.json"
ok "the command line wins over --config" $train --config "$T/o.json" --steps 2 -o "$T/c"
like "and the merged options are kept" "$(tr -d '\n' <"$T/c/options.json")" '"lr": 0.001.*"steps": 2,|"steps": 2,.*"lr": 0.001'

ok "a run's own options are such a file" $train --config "$T/c/options.json" -o "$T/c2"
same "and give the same run" "$T/c/final/model.safetensors" "$T/c2/final/model.safetensors"

# ---- malformed records, skipped ----
skips() { # skips NAME GOOD BAD CALL…
    name=$1
    printf '%s\n%s\n%s\n' "$2" "$3" "$2" >"$T/records.jsonl"
    shift 3
    fails 1 "records.jsonl:2: " "$name: a malformed record fails" "$@" "$T/records.jsonl"
    rm -rf "$T/o"
    ok "$name: --on-error=skip goes on" "$@" --on-error=skip "$T/records.jsonl"
    like "$name: and counts it" "$(cat "$T/.err")" "1 malformed record skipped, the first: .*records.jsonl:2: "
    rm -rf "$T/o"
}
chat='{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'
pair='{"prompt":"a","chosen":"b","rejected":"c"}'
skips sft "$chat" '{"messages":7}' sft --model "$T/run" -q -o "$T/o"
skips "sft (role)" "$chat" '{"messages":[{"role":7,"content":"a"}]}' sft --model "$T/run" -q -o "$T/o"
skips dpo "$pair" '{"prompt":"a","chosen":"b","rejected":7}' dpo --model "$T/run" -q -o "$T/o"
skips "sft (an empty answer)" "$chat" '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":""}]}' sft --model "$T/run" -q -o "$T/o"
skips "dpo (unpaired)" "$pair" '{"prompt":"a","chosen":"b"}' dpo --model "$T/run" -q -o "$T/o"
skips "dpo (an empty answer)" "$pair" '{"prompt":"a","chosen":"b","rejected":""}' dpo --model "$T/run" -q -o "$T/o"
skips "rmtrain (a ranking of one)" "$pair" '{"prompt":"a","responses":["b"]}' rmtrain --model "$T/run" -q -o "$T/o"
skips "rmtrain (an empty answer)" "$pair" '{"prompt":"a","responses":["b",""]}' rmtrain --model "$T/run" -q -o "$T/o"
printf '%s\n' "$pair" '{"prompt":"a","chosen":"b","rejected":"b"}' >"$T/equal.jsonl"
like "equal answers are told" "$(dpo --model "$T/run" --lr 0 --progress never -o "$T/equal" "$T/equal.jsonl" 2>&1)" '1 records have equal answers of which one is preferred, the first: .*equal.jsonl:2'
perl -e 'print "{\"prompt\":\"", "a " x 2000, "\",\"chosen\":\"b\",\"rejected\":\"c\"}\n"' >"$T/long.jsonl"
for tool in dpo rmtrain; do
    fails 1 "long.jsonl:1: no records to learn from: no answer within --max-length" "$tool: a prompt longer than the context" $tool --model "$T/run" -q -o "$T/long-$tool" "$T/long.jsonl"
done
skips rmtrain "$pair" '{"prompt":"a","chosen":"b","rejected":"c","margin":"x"}' rmtrain --model "$T/run" -q -o "$T/o"
skips generate '{"prompt":"a"}' '{"prompt":7}' generate --model "$T/run" -q --max-tokens 1 -o "$T/o"
rmtrain --model "$T/run" -q -o "$T/rm" "$T/records.jsonl" 2>/dev/null || { echo "$pair" >"$T/p" && rmtrain --model "$T/run" -q -o "$T/rm" "$T/p"; }
skips "rmtrain --score" '{"prompt":"a","responses":["b","c"]}' '{"prompt":"a","responses":"b"}' rmtrain --score --model "$T/rm" -q -o "$T/o"
skips rejsample '{"prompt":"a","responses":["b","c"],"scores":[1,0]}' '{"prompt":"a","responses":["b"],"scores":["x"]}' rejsample --best -q -o "$T/o"
skips tokenize '{"ids":[1,2]}' '{"ids":[1,"x"]}' tokenize --tokenizer "$T/v" --decode -o "$T/o"

# ---- runs that are disturbed ----
$train -q --steps 100000 -o "$T/long" &
pid=$!
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -e "$T/long/options.json" ] && break; sleep 0.1; done
fails 1 "another process" "a second process in the run's folder is refused" $train -q --steps 100000 -o "$T/long"
sleep 0.3
kill -s TERM $pid
wait $pid
is "SIGTERM: status 75" $? 75
ok "SIGTERM: the step is whole" test -e "$T/long/latest/model.safetensors" -a ! -e "$T/long/done"
fails 1 "was started with --lr" "another learning rate is refused by name" $train -q --steps 100000 --lr 2e-3 -o "$T/long"
done_testing
