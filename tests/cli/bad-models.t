# smoke
# The programs that load models, on bad models and bad records: a clear message, the right status, nothing half written.
. "$(dirname "$0")/tap.sh"
for i in 1 2 3 4 5 6 7 8 9; do printf '{"id":"%s","text":"Line %s: the quick brown fox jumps over the lazy dog and %s more."}\n' $i $i $i; done >"$T/d.jsonl"
bpe-train -q --vocab-size 300 --chat-template -o "$T/v" "$T/d.jsonl"
tokenize -q --tokenizer "$T/v" -o "$T/s" "$T/d.jsonl"
scalefit shape -q --params 4e4 --vocab 300 --head-dim 16 --seq-len 64 >"$T/config.json"
train="--data $T/s --seq-len 16 --batch-tokens 32 --steps 2 --lr 1e-3 -q"
ok "a small model" pretrain --model-config "$T/config.json" --tokenizer "$T/v" $train -o "$T/run"
printf '{"prompt":"a","responses":["b","c"],"scores":[1,0]}\n' >"$T/scored.jsonl"
printf '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n' >"$T/chat.jsonl"
printf '{"prompt":"a","chosen":"b","rejected":"c"}\n' >"$T/pair.jsonl"
printf '{"prompt":"a"}\n' >"$T/prompt.jsonl"
printf '{"context":"a","target":"b"}\n' >"$T/task.jsonl"
ok "a small reward model" rmtrain --model "$T/run" -q -o "$T/rm" "$T/pair.jsonl"

# Each program with its good records; MODEL stands for the model.
calls() {
    cat <<C
sft --model MODEL -q -o $T/out $T/chat.jsonl
dpo --model MODEL -q -o $T/out $T/pair.jsonl
rmtrain --model MODEL -q -o $T/out $T/pair.jsonl
generate --model MODEL -q --max-tokens 2 -o $T/out $T/prompt.jsonl
rejsample --model MODEL --reward $T/rm -q --max-tokens 2 --best -o $T/out $T/prompt.jsonl
lmeval --model MODEL --chat --max-tokens 2 --match $T/task.jsonl
C
}
every() { # every PATTERN NAME MODEL
    calls | sed "s|MODEL|$3|" | while read -r call; do
        rm -rf "$T/out"
        timeout 20 $call >"$T/.out" 2>"$T/.err" </dev/null
        status=$?
        if [ $status -eq 1 ] && grep -Eq -- "$1" "$T/.err" && [ ! -e "$T/out/done" ] && [ ! -f "$T/out" ]; then echo ok; else
            echo "${call%% *}: status $status, $(cat "$T/.err")"
        fi
    done >"$T/every"
    is "$2" "$(grep -vx ok "$T/every")" ""
}
broken() { rm -rf "$T/m" && cp -r "$T/run/final" "$T/m"; }
every 'nowhere' "a missing model" "$T/nowhere"
broken; head -c 1000 "$T/run/final/model.safetensors" >"$T/m/model.safetensors"
every 'model.safetensors' "a truncated weight file" "$T/m"
broken; printf '\377\377\377\377\377\377\377\177{}' >"$T/m/model.safetensors"
every 'model.safetensors' "a header of absurd size" "$T/m"
broken; echo '{"hidden_size": ' >"$T/m/config.json"
every 'config.json' "a malformed config.json" "$T/m"
broken; sed 's/"hidden_size": [0-9]*/"hidden_size": 1000000000/' "$T/run/final/config.json" >"$T/m/config.json"
every 'm: no memory for' "an impossible width" "$T/m"
broken; sed 's/"vocab_size": [0-9]*/"vocab_size": 100/' "$T/run/final/config.json" >"$T/m/config.json"
every 'config.json|model.safetensors|vocab' "weights that are not of the configuration" "$T/m"
broken; bpe-train -q --vocab-size 330 --chat-template -o "$T/v2" "$T/d.jsonl"; cp "$T/v2"/* "$T/m/"
every 'vocab|tokens' "a vocabulary that does not fit the model" "$T/m"
broken; : >"$T/m/chat_template.jinja"
every 'm: the chat template ends an answer with no token of the vocabulary' "a chat template without a word" "$T/m"
broken; echo '{}' >"$T/m/tokenizer.json"
every 'tokenizer.json' "a tokenizer.json that is none" "$T/m"

for call in "sft --model $T/rm $T/chat.jsonl" "sft --model $T/rm --lora 2 $T/chat.jsonl" "sft --model $T/rm --dry-run $T/chat.jsonl" "dpo --model $T/rm $T/pair.jsonl" \
    "dpo --model $T/run --reference $T/rm $T/pair.jsonl"; do
    fails 1 "rm/final: a reward model has no probabilities" "$(echo "$call" | sed 's| /.*/| |'): a reward model" $call -q -o "$T/out"
    ok "and nothing is written" test ! -e "$T/out"
done

if [ "$(id -u)" -ne 0 ] || command -v setpriv >/dev/null; then
    as= && [ "$(id -u)" -ne 0 ] || as="setpriv --reuid=65534 --clear-groups"
    broken && chmod 755 "$T" && chmod 000 "$T/m"
    fails 1 "m/config.json: Permission denied" "a model in a folder that is closed to us" $as "$BIN/generate" --model "$T/m" -q --prompt x
    chmod 755 "$T/m"
else
    skip "a model in a folder that is closed to us" "neither an ordinary user nor setpriv"
fi

# Bad records, program by program: the file and the line are named.
records() { # records NAME GOOD CALL...
    name=$1 good=$2
    shift 2
    fails 1 "nowhere" "$name: a missing file" "$@" nowhere
    fails 1 "is a directory|Is a directory" "$name: a directory" "$@" "$T"
    gzip -c "$good" | head -c 30 >"$T/cut.gz"
    fails 1 "cut.gz: " "$name: truncated gzip" "$@" "$T/cut.gz"
    { cat "$good"; echo '{"prompt":'; } >"$T/bad.jsonl"
    fails 1 "bad.jsonl:2: " "$name: a malformed line" "$@" "$T/bad.jsonl"
    { cat "$good"; echo '{"messages":7,"prompt":7,"chosen":7,"context":7,"target":7}'; } >"$T/type.jsonl"
    fails 1 "type.jsonl:2: " "$name: wrong types" "$@" "$T/type.jsonl"
    { cat "$good"; sed 's/"[abc]"/"\xff"/g' "$good"; } >"$T/utf.jsonl"
    fails 1 "utf.jsonl:2: .*UTF-8" "$name: invalid UTF-8" "$@" "$T/utf.jsonl"
    ok "$name: nothing is left" test ! -e "$T/o/done" -a ! -f "$T/o"
    rm -rf "$T/o"
}
records sft "$T/chat.jsonl" sft --model "$T/run" -q -o "$T/o"
records dpo "$T/pair.jsonl" dpo --model "$T/run" -q -o "$T/o"
records rmtrain "$T/pair.jsonl" rmtrain --model "$T/run" -q -o "$T/o"
records "rmtrain --score" "$T/scored.jsonl" rmtrain --score --model "$T/rm" -q -o "$T/o"
records generate "$T/prompt.jsonl" generate --model "$T/run" -q --max-tokens 2 -o "$T/o"
records rejsample "$T/scored.jsonl" rejsample --best -q -o "$T/o"
records "lmeval --match" "$T/task.jsonl" lmeval --model "$T/run" --chat --max-tokens 2 --match

printf '{"prompt":"a","responses":["b","c"],"scores":[1]}\n' >"$T/short.jsonl"
fails 1 "short.jsonl:1: " "rejsample: fewer scores than answers" rejsample --best "$T/short.jsonl"
for call in "generate --model $T/run --max-tokens 2 -q $T/prompt.jsonl" "rmtrain --score --model $T/rm -q $T/scored.jsonl" \
    "rejsample --best -q $T/scored.jsonl" "lmeval --model $T/run --json --chat --max-tokens 2 --match $T/task.jsonl" "scalefit plan --params 1e9 --tokens 1e10"; do
    fails 1 "No space left" "${call%% *}: a full disk" sh -c "$call >/dev/full"
done
fails 1 "nowhere" "pretrain: a missing shard" pretrain --model-config "$T/config.json" --tokenizer "$T/v" --data "$T/nowhere" --seq-len 16 --batch-tokens 32 --steps 2 -q -o "$T/o"
sed 's/"vocab_size": [0-9]*/"vocab_size": 200/' "$T/config.json" >"$T/narrow.json"
fails 1 "vocab" "pretrain: a vocabulary that does not fit the model" pretrain --model-config "$T/narrow.json" --tokenizer "$T/v" $train -o "$T/o2"
fails 1 "vocab|token" "pretrain: ids past the vocabulary" pretrain --model-config "$T/narrow.json" $train -o "$T/o3"
fails 1 "nowhere" "pretrain: a missing configuration" pretrain --model-config nowhere $train -o "$T/o4"
ok "and nothing is written" test ! -e "$T/o"
new="pretrain --model-config $T/config.json --data $T/s --seq-len 16 --batch-tokens 32 --steps 2 -q"
fails 1 "nowhere: not a folder with a tokenizer.json" "pretrain: a missing vocabulary" $new --tokenizer "$T/nowhere" -o "$T/o"
fails 1 "v2: [0-9]+ tokens, more than the model's vocabulary of 300" "pretrain: a vocabulary that is larger than the model's" $new --tokenizer "$T/v2" -o "$T/o"
fails 1 "=1:.*: there is no name before the =" "pretrain: data without a name" $new --data "=1:$T/s" -o "$T/o"
fails 2 "beta2 must lie in" "pretrain: moments that forget nothing" $new --beta2 1 -o "$T/o"
ok "pretrain: a run that has ended says so again" pretrain --model-config "$T/config.json" --tokenizer "$T/v" $train -o "$T/run"
fails 1 "run: the run was started with --lr 0.001, not 0.002" "but not with other options" pretrain --model-config "$T/config.json" --tokenizer "$T/v" $train --lr 2e-3 -o "$T/run"
fails 1 "rm: the run was started with --epochs 1, not 3" "rmtrain: nor does a reward model" rmtrain --model "$T/run" -q --epochs 3 -o "$T/rm" "$T/pair.jsonl"
fails 2 "steps|tokens" "pretrain: no length given is wrong usage" pretrain --model-config "$T/config.json" --data "$T/s" --seq-len 16 -q -o "$T/o5"
fails 1 "nowhere" "scalefit: a missing table" scalefit isoflop nowhere
is "a closed pipe is silent" "$( (yes '{"prompt":"a"}' | head -n 3000 | generate --model "$T/run" -q --max-tokens 1 | head -n 1 >/dev/null) 2>&1)" ""
done_testing
