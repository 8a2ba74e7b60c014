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
