# Answers from outside: shared pages, stop texts, orders of the filters, and the chat at a terminal.
. "$(dirname "$0")/tap.sh"
for i in $(seq 60); do echo "{\"text\":\"line $i says hello there and $((i * 7 % 100)) numbers; yes or no, is $i even?\"}"; done >"$T/d.jsonl"
bpe-train -q --vocab-size 320 --chat-template -o "$T/v" "$T/d.jsonl"
tokenize -q --tokenizer "$T/v" --no-eos -o "$T/s" "$T/d.jsonl"
scalefit shape -q --params 2e4 --vocab 320 --head-dim 16 --aspect 24 --eos 319 >"$T/c.json"
ok "a small model" pretrain -q --model-config "$T/c.json" --data "$T/s" --tokenizer "$T/v" --seq-len 64 --batch-tokens 256 --lr 3e-3 --steps 200 -o "$T/m"
M=$T/m
count() { grep -o "\"$2\":[^,}]*" "$1" | cut -d: -f2; }

# The K samples of a prompt hold its full pages once.
words=$(for i in $(seq 60); do printf 'word %s ' "$i"; done)
echo "{\"prompt\":\"$words\"}" >"$T/long.jsonl"
generate -q --model $M --samples 8 --seed 2 --max-tokens 6 --raw --stats "$T/stats" "$T/long.jsonl" >"$T/eight"
full=$(($(count "$T/stats" prompt_tokens) / 64))
ok "a prompt of $full pages and more" [ "$full" -ge 2 ]
is "eight samples share each full page seven times" "$(count "$T/stats" pages_shared)" $((7 * full))
is "and hold that many pages less" "$(($(count "$T/stats" pages_most_unshared) - $(count "$T/stats" pages_most)))" $((7 * full))
generate -q --model $M --samples 8 --seed 2 --max-tokens 6 --raw --batch 3 --memory 1k "$T/long.jsonl" >"$T/three"
same "with room for three answers, or for one, they are the same" "$T/eight" "$T/three"
for type in f32 bf16; do
    for i in 1 2 3 4 5; do echo "{\"prompt\":\"line $i says\"}"; done | generate -q --model $M --dtype $type --samples 3 --seed 2 --max-tokens 9 --batch 15 >"$T/b15"
    for i in 1 2 3 4 5; do echo "{\"prompt\":\"line $i says\"}"; done | generate -q --model $M --dtype $type --samples 3 --seed 2 --max-tokens 9 --batch 1 >"$T/b1"
    same "$type: answers written one by one are those written at once" "$T/b15" "$T/b1"
done

# Tools reach the template, as do calls and their results in a conversation.
cp -rL "$M/final" "$T/tools"
printf '%s' "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{% if loop.first %}{% for t in tools or [] %}{{ t.function.name ~ ' ' }}{% endfor %}{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name ~ c.function.arguments | tojson }}{% endfor %}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}" >"$T/tools/chat_template.jinja"
W="generate -q --model $T/tools --temperature 0 --max-tokens 12"
answer() { grep -o '"response":.*'; }
echo '{"prompt":"line 7 says","tools":[{"type":"function","function":{"name":"hello"}},{"name":"x","function":{"name":"there"}}]}' | $W --stats "$T/s1" | answer >"$T/with"
echo '{"prompt":"hello there line 7 says"}' | $W --stats "$T/s2" | answer >"$T/without"
same "tools of a prompt are in its template" "$T/with" "$T/without"
is "token for token" "$(count "$T/s1" prompt_tokens)" "$(count "$T/s2" prompt_tokens)"
echo '{"prompt":[{"role":"user","content":"is 7 even?"},{"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"even","arguments":{"n":7}}}]},{"role":"tool","content":"no"}]}' | $W --stats "$T/s1" | answer >"$T/with"
echo '{"prompt":[{"role":"user","content":"is 7 even?"},{"role":"assistant","content":"even{\"n\": 7}"},{"role":"tool","content":"no"}]}' | $W --stats "$T/s2" | answer >"$T/without"
same "a call and its result too" "$T/with" "$T/without"
is "token for token" "$(count "$T/s1" prompt_tokens)" "$(count "$T/s2" prompt_tokens)"
# What came before a malformed record is answered, scored and chosen from.
for i in 1 2 3 4 5 6 7; do echo "{\"prompt\":\"Is $i even?\",\"responses\":[\"yes\",\"no\"],\"scores\":[1,0]}"; done >"$T/seven.jsonl"
{ cat "$T/seven.jsonl"; echo '{'; cat "$T/seven.jsonl"; } >"$T/broken.jsonl"
for how in "generate --model $M --max-tokens 3 --temperature 0" "rejsample --best"; do
    $how -q "$T/seven.jsonl" >"$T/want"
    $how -q "$T/broken.jsonl" >"$T/got" 2>"$T/.err"
    is "a malformed record ends ${how%% *}" "$?" 1
    same "but not without the records before it (${how%% *})" "$T/want" "$T/got"
done
malformed() { echo "$2" >"$T/bad.jsonl"; fails 1 "bad.jsonl:1: $3" "malformed: $1" $W "$T/bad.jsonl"; }
malformed "tools that are no list" '{"prompt":"a","tools":{"name":"f"}}' "'tools' must be a list"
malformed "a tool without a name" '{"prompt":"a","tools":[{"function":{"name":"f"}},{"type":"function","function":{}}]}' "tool 2 needs a 'function' with a 'name' that is a string"
malformed "a tool that is a string" '{"prompt":"a","tools":["f"]}' "tool 1 needs a 'function'"
malformed "calls that are no list" '{"prompt":[{"role":"assistant","content":"","tool_calls":"f"}]}' "message 1: 'tool_calls' must be a list"
malformed "a call without a name" '{"prompt":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"function":{"arguments":{}}}]}]}' "message 2: call 1 needs a 'function' with a 'name'"
malformed "arguments that are a list" '{"prompt":[{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":[1]}}]}]}' "message 1: the 'arguments' of call 1 must be an object"
malformed "a role that nobody has" '{"prompt":[{"role":"bot","content":"a"}]}' "message 1 has the unknown role 'bot'"
malformed "a content that is a number" '{"prompt":[{"role":"user","content":5}]}' "message 1 needs a 'role' and a 'content' that are strings"
malformed "no prompt" '{"text":"a"}' "no field 'prompt'"

# End tokens: those of generation_config.json too, by which transformers stops; a model made of this one has them still.
first=$(generate -q --model $M --raw --temperature 0 --max-tokens 1 --prompt "line 7 says" </dev/null)
id=$(printf '%s\n' "$first" | tokenize --tokenizer "$T/v" --text --ids | grep -o '"ids":.*' | tr -dc '0-9,')
cp -rL "$M/final" "$T/ends"
echo "{\"do_sample\":true,\"eos_token_id\":[319,$id]}" >"$T/ends/generation_config.json"
echo '{"prompt":"line 7 says"}' >"$T/prompt.jsonl"
ends="generate -q --model $T/ends --raw --temperature 0 --max-tokens 3 $T/prompt.jsonl"
like "an answer ends at a token that generation_config.json alone names ($id)" "$($ends)" '"finish_reason":"stop","response":""'
pretrain -q --init "$T/ends" --data "$T/s" --seq-len 64 --batch-tokens 64 --lr 1e-4 --steps 1 -o "$T/ends2"
like "and one that is trained on from there keeps it" "$(cat "$T/ends2/final/generation_config.json")" "\"eos_token_id\": .319, $id.\$"
echo '{"eos_token_id":"x"}' >"$T/ends/generation_config.json"
fails 1 "ends/generation_config.json: eos_token_id must be an id or a list of ids" "a malformed one is named" $ends

# A vocabulary rounded up past the tokenizer's tokens.
scalefit shape -q --params 2e4 --vocab 400 --head-dim 16 --aspect 24 --eos 319 >"$T/wide.json"
pretrain -q --model-config "$T/wide.json" --data "$T/s" --tokenizer "$T/v" --seq-len 64 --batch-tokens 64 --lr 0 --steps 1 -o "$T/wide"
ok "an id that has no token has no text" generate -q --model "$T/wide" --raw --temperature 5 --samples 8 --max-tokens 40 -o "$T/wide.out" "$T/prompt.jsonl"

# Stop texts.
G="generate -q --model $M --raw --seed 7 --top-k 2 --max-tokens 40"
$G --prompt "line 7 says" >"$T/whole" </dev/null
whole=$(tr '\n' '~' <"$T/whole")
stop=$(tr '\n' '~' <"$T/whole" | grep -ao '[a-z][a-z ][a-z ][a-z]' | sed -n 4p) # longer than most tokens
before=${whole%%"$stop"*}
line() { tr '\n' '~' | sed 's/~$//'; }
ok "the text has a place to stop at: '$stop'" [ -n "$stop" ]
is "an answer ends before a stop text" "$($G --prompt "line 7 says" --stop "$stop" </dev/null | line)" "$before"
is "the first of several" "$($G --prompt "line 7 says" --stop "never there" --stop "$stop" </dev/null | line)" "$before"
echo '{"prompt":"line 7 says"}' >"$T/p.jsonl"
$G --stop "$stop" "$T/p.jsonl" --stats "$T/stats" >"$T/out"
like "in a record too, which says so" "$(cat "$T/out")" '"finish_reason":"stop","response":"'
ok "and nothing is written after it" [ "$(count "$T/stats" answer_tokens)" -lt 40 ]
is "one that never comes changes nothing" "$($G --prompt "line 7 says" --stop "~~~~" </dev/null | tr '\n' '~')" "$whole"

# Log-probabilities of given answers: those of a greedy answer are its own, and they add up over its tokens.
generate -q --model $M --temperature 0 --max-tokens 5 --samples 2 "$T/p.jsonl" >"$T/two"
generate -q --given --model $M "$T/two" >"$T/given"
like "given answers get their log-probabilities" "$(cat "$T/given")" '"responses":\[.*\],"logprobs":\[(-[0-9.e-]+),-[0-9.e-]+\],"answer_tokens":\[[0-9]+,[0-9]+\]\}$'
is "the same answer twice the same" "$(grep -o '"logprobs":[^]]*' "$T/given" | sed 's/.*\[//' | tr , '\n' | sort -u | wc -l | tr -d ' ')" 1
echo '{"prompt":"line 7 says","response":" hello"}' >"$T/one.jsonl"
echo '{"prompt":"line 7 says hello","response":" there"}' >"$T/next.jsonl"
echo '{"prompt":"line 7 says","response":" hello there"}' >"$T/both.jsonl"
sum() { for f in "$@"; do generate -q --given --raw --model $M "$f"; done | sed 's/.*"logprob":\([^,]*\).*/\1/' | awk '{s += $1} END {printf "%.4f", s}'; }
is "with --raw a text's parts add up" "$(sum "$T/one.jsonl" "$T/next.jsonl")" "$(sum "$T/both.jsonl")"
fails 1 "needs 'prompt' and 'response'" "a record without an answer" generate --given --model $M "$T/p.jsonl"
fails 1 "needs 'prompt' and 'response' or 'responses'" "given answers that are no list" sh -c "echo '{\"prompt\":\"a\",\"response\":\"b\",\"responses\":7}' | generate --given --model $M"
# What would go unheard is refused.
fails 2 "no 'prompt.jsonl' beside it" "files beside --prompt" generate --model $M --prompt x prompt.jsonl
fails 2 "system goes with a chat or --prompt" "a system message for records" sh -c "echo '{\"prompt\":\"x\"}' | generate --model $M --system brief"
fails 2 "without --raw" "or for a raw prompt" generate --model $M --raw --prompt x --system brief
fails 2 "needle-plot goes with --needle" "a plot of no needles" lmeval --model $M --perplexity "$T/s" --needle-plot "$T/x.svg"
fails 2 "answers goes with --match" "answers of nothing" lmeval --model $M --perplexity "$T/s" --answers "$T/x.jsonl"
fails 2 "log-samples goes with --task" "samples of nothing" lmeval --model $M --perplexity "$T/s" --log-samples "$T/x.jsonl"
fails 1 "messages need the chat template" "a conversation with --raw" sh -c "echo '{\"prompt\":[{\"role\":\"user\",\"content\":\"x\"}]}' | generate --model $M --raw"
fails 2 "no --prompt" "given answers of a prompt" generate --given --model $M --prompt x

# Orders of the filters: the same tokens can be left, but tempered at another time.
O="generate -q --model $M --raw --seed 1 --samples 8 --max-tokens 12 --top-p 0.5 --temperature 3"
$O --prompt "line 7 says" >"$T/hf" </dev/null
$O --filter-order=llama.cpp --prompt "line 7 says" >"$T/llama" </dev/null
ok "llama.cpp's order is another" sh -c "! cmp -s $T/hf $T/llama"
generate -q --model $M --raw --seed 1 --samples 8 --max-tokens 12 --top-k 20 --prompt "line 7 says" >"$T/hf" </dev/null
generate -q --model $M --raw --seed 1 --samples 8 --max-tokens 12 --top-k 20 --filter-order=llama.cpp --prompt "line 7 says" >"$T/llama" </dev/null
same "at temperature 1 both are the same" "$T/hf" "$T/llama"

# A chat at a terminal: Ctrl-C ends an answer that would not end, and throws away a line; /system, /reset and Ctrl-D.
if script -qfec true /dev/null </dev/null >/dev/null 2>&1; then
    mkfifo "$T/keys"
    touch "$T/typed"
    typed() { tr -d '\r' <"$T/typed"; }
    appears() { for i in $(seq 400); do [ "$(typed | grep -c "$1")" -ge "${2:-1}" ] && return; sleep 0.05; done; }
    timeout 100 script -qfec "exec generate --model $M --temperature 2 --max-tokens 200000 --max-prompt 200" "$T/typed" <"$T/keys" >/dev/null 2>&1 &
    exec 3>"$T/keys"
    appears 'Ctrl-D the chat'
    printf 'Is 2 even?\n' >&3
    appears 'Is 2 even?'
    for i in $(seq 100); do [ "$(wc -c <"$T/typed")" -gt 400 ] && break; sleep 0.05; done
    printf '\003' >&3
    sleep 0.2
    printf '/system Be brief\n' >&3
    appears 'a new conversation'
    is "Ctrl-C ends the answer and not the program" "$(typed | grep -c 'a new conversation')" 1
    printf '/unknown' >&3
    appears '/unknown'
    printf '\003' >&3
    sleep 0.2
    if ldd "$BIN/generate" 2>/dev/null | grep -Eq 'libedit|libreadline'; then
        printf '/reet\033[D\033[Ds\n' >&3 # two keys to the left, and the letter that lacks
        appears 'a new conversation' 2
        is "a line is edited" "$(typed | grep -c 'a new conversation')" 2
        printf '\033[A\n' >&3
        appears 'a new conversation' 3
        is "and comes again from the history" "$(typed | grep -c 'a new conversation')" 3
    else
        skip "a line is edited" "built without libedit and readline"
    fi
    is "Ctrl-C throws a line away" "$(typed | grep -c 'commands are')" 0
    printf '/unknown\n' >&3
    appears 'commands are'
    like "an unknown command is explained" "$(typed)" 'commands are /reset'
    printf '\004' >&3
    exec 3>&-
    wait $!
    is "a chat ends well" $? 0
else
    skip "a chat at a terminal" "no script(1), or no terminal to be had"
fi
done_testing
