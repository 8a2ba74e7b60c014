"""Writes tests/data/chat.json: templates that use what chat templates use, and what transformers makes of them.

usage: chat_golden.py >tests/data/chat.json          (needs transformers)
       chat_golden.py JINJA ROWS TEMPLATE...         (JINJA: build/tests/unit/chat; compares live, ROWS a chat file in JSON Lines)

The second form renders the rows with each template file both ways.
"""
import json, subprocess, sys
from transformers.utils.chat_template_utils import _compile_jinja_template

TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds <two> & \"more\" é", "parameters": {"type": "object", "properties": {"a": {"type": "number", "default": 1.0}, "b": {"enum": [1, -2.5, None, True]}}}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2.5, "x\ny"]}}}]}
CHATS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "\u00a0 Wo?\u3000\n"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nDort. "}, {"role": "user", "content": "你好"}, {"role": "assistant", "content": "\n\nok\n"}],
    [{"role": "user", "content": "1+2?"}, CALL, {"role": "tool", "content": "3"}, {"role": "tool", "content": "{\"n\": 3}"}, {"role": "assistant", "content": "It is 3."}, {"role": "user", "content": "Thanks </think> bye"}],
    [],
]
TEMPLATES = {
    "headers": "{{- bos_token }}\n{%- for m in messages %}\n    {{- '<|h|>' + m['role'] + '<|/h|>\\n\\n' + m['content'] | trim + '<|e|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|h|>assistant<|/h|>\\n\\n' -}}\n{%- endif %}\n",
    "tools": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages and messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
        {{- tool.function | tojson(indent=4) }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages and messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' ~ messages[0]['content'] ~ '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, open=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and message.role == "user" and message.content is string and not (message.content.startswith('<x>') and message.content.endswith('</x>')) %}
        {%- set ns.open = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' ~ (call.arguments | tojson) ~ '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""",
    "brackets": """{{ bos_token }}{% if messages and messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system = false %}{% endif %}
{% for message in loop_messages if message.content %}
  {% if loop.index0 == 0 and system %}
    {% set content = '<<S>>\\n' + system + '\\n<</S>>\\n\\n' + message['content'] %}
  {% else %}
    {% set content = message['content'] %}
  {% endif %}
  {% if message['role'] == 'user' %}
{{ '[INST] ' + content.strip() + ' [/INST]' }}
  {% elif message['role'] in ['assistant', 'model'] %}
{{ ' ' + content.strip() + ' ' + eos_token }}{% else %}
{# nothing #}
    {% continue %}
  {% endif %}
{% endfor %}
""",
    "parts": """{% macro show(m, sep=': ') %}{{ m.role | upper }}{{ sep }}{{ m.get('content', '')[:4] }}…{{ m.content[-3:] }}{% endmacro %}
{%- set names = [] %}{%- for m in messages %}{%- set names = names + [m.role] %}{%- endfor -%}
{{ names | length }} {{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ range(3) | list | last }}
{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ show(m) }}{{ show(m, sep='=') }}{% if loop.index is odd %} odd{% else %} even{% endif %}{{ ' first' if loop.first }}{% if m.tool_calls is defined %} {{ m.tool_calls[0].function.arguments.items() | list | length }}{% for k, v in m.tool_calls[0].function.arguments | items %} {{ k }}={{ v | tojson }}{% endfor %}{% endif %}
{% else %}
nobody
{% endfor %}
{%+ if true and not false or none %}{{ 7 // 2 }} {{ -7 % 3 }} {{ 2 * 3 + 1 }} {{ 1 / 2 }} {{ 'a' 'b' }} {{ "q'" + 'd"' }} {{ 'x' ~ 1 ~ none ~ true ~ 2.5 }}{%- endif %}

{% set block %}<{{ missing }}{{ missing | default('d') }}>{% endset %}{{ block | trim }}{{ 'a,b,,c'.split(',') | join('|') }}{{ 'A b'.lower() | replace('b', 'cc') | title }}
{% for i in range(2, 9, 3) %}{% if i == 8 %}{% break %}{% endif %}{{ i }}{% endfor %} {{ 'in' if 'ser' in 'user' and 'q' not in ['r'] else 'out' }}   {#- gone -#}   {% raise %}""".replace("   {% raise %}", ""),
}


def inputs(chats):
    for chat, tools in chats:
        for generation in (False, True):
            yield {"messages": chat, "tools": tools, "documents": None, "add_generation_prompt": generation, "bos_token": "<s>", "eos_token": "</s>"}


def render(template, variables):
    try:
        return template.render(**variables)
    except Exception as e:
        return None


if len(sys.argv) == 1:
    out = []
    for name, text in TEMPLATES.items():
        template = _compile_jinja_template(text)
        cases = [(c, t) for c in CHATS for t in ((None, TOOLS) if name == "tools" else (None,))]
        out.append({"name": name, "template": text, "cases": [{"variables": v, "text": template.render(**v)} for v in inputs(cases)]})
    json.dump(out, sys.stdout, ensure_ascii=False, indent=1)
else:
    binary, rows = sys.argv[1:3]
    chats = [(r["messages"], r.get("tools")) for r in map(json.loads, open(rows))]
    out, refused = [], 0
    for file in sys.argv[3:]:
        text = open(file, newline="").read()
        template = _compile_jinja_template(text)
        out.append({"name": file, "template": text, "cases": [{"variables": v, "text": t} for v in inputs(chats) if (t := render(template, v)) is not None]})
    json.dump(out, open(rows + ".golden", "w"), ensure_ascii=False)
    r = subprocess.run([binary, rows + ".golden"], capture_output=True, text=True)
    print("\n".join(l for l in r.stdout.splitlines() if not l.startswith("ok")))
    print(sum(len(o["cases"]) for o in out), "renders of", len(out), "templates compared")
    sys.exit(r.returncode)
