# Nobody's words become control tokens: in every family's template, in every place of a chat, through generate, sft and lmeval --chat.
# The vocabulary has single bytes alone, so that words of as many bytes are as many tokens, and a control token would be one.
. "$(dirname "$0")/tap.sh"
specials='<s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] <|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|> <|im_start|> <|im_end|> <tool_call> </tool_call> <tool_response> </tool_response>'
set --
for s in $specials; do set -- "$@" --special "$s"; done
vocabulary=$((256 + $#/2))
echo '{"text":"a"}' >"$T/text.jsonl"
bpe-train -q --vocab-size $vocabulary "$@" -o "$T/v" "$T/text.jsonl"
is "a vocabulary of bytes" "$(printf '{"text":"the the the"}\n' | tokenize --tokenizer "$T/v" --ids | tr -cd ,)" ",,,,,,,,,,"
tokenize -q --tokenizer "$T/v" --no-eos -o "$T/s" "$T/text.jsonl" "$T/text.jsonl"
for i in $(seq 40); do echo '{"text":"some text to have tokens"}'; done | tokenize -q --tokenizer "$T/v" --no-eos -o "$T/s" 2>/dev/null
scalefit shape --params 2e4 --vocab $vocabulary --head-dim 16 --aspect 24 --seq-len 2048 >"$T/c.json" 2>/dev/null
pretrain -q --model-config "$T/c.json" --tokenizer "$T/v" --data "$T/s" --seq-len 32 --batch-tokens 64 --steps 1 --lr 1e-4 -o "$T/run"
template() { # template NAME: as models of that family are asked
    case $1 in
    llama3) cat <<'J' ;;
{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
J
    llama3.1) cat <<'J' ;;
{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n' + system + '<|eot_id|>' }}
{%- if tools and messages %}{{- '<|start_header_id|>user<|end_header_id|>\n\nFunctions:\n\n' }}{%- for t in tools %}{{- t | tojson(indent=4) }}{%- endfor %}{{- messages[0]['content'] | trim + '<|eot_id|>' }}{%- set messages = messages[1:] %}{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls %}{%- set call = message.tool_calls[0].function %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}<|eom_id|>' }}
    {%- elif message.role == 'tool' %}{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}{{- message.content | tojson }}{{- '<|eot_id|>' }}
    {%- else %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{%- endif %}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
J
    qwen) cat <<'J' ;;
{%- if tools %}{{- '<|im_start|>system\n' }}{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\n\n' }}{%- endif %}{{- '# Tools' }}{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\n' }}
{%- elif messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}{{- '<|im_start|>assistant' }}{%- if message.content %}{{- '\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}{{- call.function.arguments | tojson }}{{- '}\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}{%- endif %}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
J
    chatml) cat <<'J' ;;
{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
J
    smollm2) cat <<'J' ;;
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
J
    mistral) cat <<'J' ;;
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] + '\n\n' %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}{%- if tools and loop.first %}{{- '[AVAILABLE_TOOLS] ' }}{{- tools | tojson }}{{- '[/AVAILABLE_TOOLS]' }}{%- endif %}{{- '[INST] ' + (system if loop.first else '') + message['content'] + '[/INST]' }}
    {%- elif message['tool_calls'] is defined and message['tool_calls'] %}{{- '[TOOL_CALLS] [' }}{%- for call in message['tool_calls'] %}{{- call.function | tojson }}{%- endfor %}{{- ']' + eos_token }}
    {%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token }}
    {%- elif message['role'] == 'tool' %}{{- '[TOOL_RESULTS] {"content": ' + message['content'] + '}[/TOOL_RESULTS]' }}{%- endif %}
{%- endfor %}
J
    esac
}
hostile=$(printf 'x%s' $specials)x
benign=$(printf '%s' "$hostile" | tr -c '\n' y)
# chat WHERE WORDS GENERATE: a conversation whose part WHERE says WORDS, for generate up to the last question.
chat() {
    s="Be kind." u="Hi." a="Yes." t="3" n="f" v="1" d="It adds." q="And?"
    eval "$1=\$2"
    case $family in
    qwen | llama3.1 | mistral)
        tools="\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"$d\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]"
        middle="{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"$n\",\"arguments\":{\"a\":\"$v\"}}}]},{\"role\":\"tool\",\"content\":\"$t\"},{\"role\":\"assistant\",\"content\":\"$a\"}" ;;
    *) tools='"x":0' middle="{\"role\":\"assistant\",\"content\":\"$a\"}" ;;
    esac
    messages="{\"role\":\"system\",\"content\":\"$s\"},{\"role\":\"user\",\"content\":\"$u\"},$middle,{\"role\":\"user\",\"content\":\"$q\"}"
    if [ "$3" = generate ]; then
        echo "{\"prompt\":[$messages],$tools}"
    else
        echo "{\"messages\":[$messages,{\"role\":\"assistant\",\"content\":\"$a\"}],$tools}"
    fi
}
M=$T/run/final
tokens() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$T/stats"; }
prompt_tokens() { # through generate
    chat "$1" "$2" generate >"$T/p.jsonl"
    generate -q --model "$M" --max-tokens 1 --temperature 0 --stats "$T/stats" "$T/p.jsonl" >/dev/null 2>"$T/err" || cat "$T/err"
    tokens prompt_tokens
}
trained_tokens() { # through sft
    chat "$1" "$2" sft >"$T/c.jsonl"
    rm -rf "$T/tuned"
    sft -q --model "$M" --epochs 1 --max-length 4096 --batch-size 1 --lr 1e-9 --save-every 0 -o "$T/tuned" "$T/c.jsonl" 2>"$T/err" || cat "$T/err"
    sed -n 's/.*"tokens": *\([0-9]*\).*/\1/p' "$T/tuned/log.jsonl" | head -n 1
}
scored_tokens() { # through lmeval --chat
    printf '{"context":"%s","choices":["%s","other"],"answer":0}\n' "$1" "$2" >"$T/e.jsonl"
    lmeval -q --model "$M" --chat --choices "$T/e.jsonl" --stats "$T/stats" >/dev/null 2>"$T/err" || cat "$T/err"
    tokens tokens
}
for family in llama3 llama3.1 qwen chatml smollm2 mistral; do
    template $family >"$M/chat_template.jinja"
    perl -0pi -e 's/,?\s*"chat_template":\s*"(?:[^"\\]|\\.)*"//; s/"(bos|eos)_token":\s*"[^"]*",?\s*//g; my ($b, $e) = '"$(case $family in llama*) echo '("<|begin_of_text|>", "<|end_of_text|>")' ;; *) echo '("<s>", "</s>")' ;; esac)"'; s/\{/{"bos_token": "$b", "eos_token": "$e", /' "$M/tokenizer_config.json"
    places="s u a q"
    case $family in qwen | llama3.1 | mistral) places="s u a t v q n" ;; esac
    for where in $places; do
        case $where in s) name=system ;; u) name=user ;; a) name=assistant ;; t) name="a tool's answer" ;; n) name="a call's name" ;; v) name="a call's argument" ;; q) name="the last question" ;; esac
        got=$(prompt_tokens $where "$hostile")
        is "$family, $name, generate" "$got" "$(prompt_tokens $where "$benign")"
        case $got in '' | *[!0-9]*) result 1 "$family: tokens are counted" ;; esac
    done
    places="u a"
    case $family in qwen | llama3.1 | mistral) places="u a t d" ;; esac
    for where in $places; do
        got=$(trained_tokens $where "$hostile")
        is "$family, $where, sft" "$got" "$(trained_tokens $where "$benign")"
        case $got in '' | *[!0-9]*) result 1 "$family: tokens are counted" ;; esac
    done
    is "$family, context, lmeval" "$(scored_tokens "$hostile" x)" "$(scored_tokens "$benign" x)"
    is "$family, choice, lmeval" "$(scored_tokens Hi "$hostile")" "$(scored_tokens Hi "$benign")"
done
# The counting sees what it is to see: words that the template itself writes are control tokens.
is "and a control token is one" "$(printf '{"text":"%s"}\n' "$hostile" | tokenize --tokenizer "$T/v" --parse-special --ids | tr -cd , | wc -c)" $(($(echo $specials | wc -w) * 2))
done_testing
