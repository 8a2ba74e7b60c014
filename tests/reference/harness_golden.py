"""Writes tests/data/harness.json: what lm-evaluation-harness's pieces make of texts: templates (utils.apply_template), Python's
random numbers (random.Random: sample, choices), regular expressions (re.findall, re.sub).

usage: harness_golden.py > tests/data/harness.json      (needs lm_eval)
"""
import json, random, re
from lm_eval import utils

docs = [
    {"question": "  What is\n2+2? ", "choices": {"text": ["it's 3", 'say "4"', "both ' and \"", "tab\tä\u00a0\u200b😀"], "label": ["A", "B", "C", "D"]}, "answerKey": "B",
     "text": "the end of the last word", "opción": "ö", "label": 2, "flag": True, "none": None, "x": 1.5, "sol1": "a", "sol2": "ÄÖ b", "ctx": "A [title] b. [substeps] c  d"},
]
templates = [
    "Question: {{question}}\nAnswer:", "{{question.strip()}}\nA. {{choices.text[0]}}", "{{choices.label.index(answerKey)}}", "{{choices.text}}", "{{choices}}",
    "{{text.split(' ')[:-1]|join(' ')}}", "{{' '+text.split(' ')[-1]}}", "{{[sol1, sol2]}}", "{{label}}", "{{flag}}{{none}}{{x}}", "a\n", "{% if label == 2 %}\n yes\n{% endif %}\n",
    "  {% for c in choices.text %}\n{{loop.index}}. {{c}}\n  {% endfor %}x", "{{ctx|regex_replace('\\\\[.*?\\\\]', '')}}", "{{ctx|regex_replace('([a-z])\\\\. ', '\\\\1! ')}}",
    "{{sol2.lower()}} {{sol1|upper}} {{text|capitalize}}", "{{missing is defined}} {{missing|default('none')}}", "{{missing}}", "{{choices.missing}}", "{{choices['label'][1]}}",
    "{{text[4:7]}}{{text[-4:]}}", "{{'yes' if flag else 'no'}}", "{{[0,1][label-1]}}", "{{text.find('end')}} {{text.count('t')}}", "{{choices.text|length}}",
    "{%- set s = text.split(' ') -%} {{ s[0] }} {{- s[1] }}", "{{ (text ~ label)|replace('the', 'a') }}", "{{ {'a': 1, 'b': [none, true]} }}", "{# comment #}\n{{label}}",
    "{{ ['a', 'b'].index('c') }}", "{{range(3)|list}}", "{{opción}} {% if opción == 'ö' %}sí{% endif %}", "{{label * 2 + 1}} {{7 // 2}} {{7 % 4}} {{1 / 2}}",
]
out = {"docs": docs, "templates": [], "samples": [], "choices": [], "findall": [], "sub": []}
for t in templates:
    try:
        out["templates"].append([t, utils.apply_template(t, docs[0])])
    except Exception as e:
        out["templates"].append([t, None])
for seed, shape in [(0, [(5, 3), (21, 5), (22, 5)]), (1234, [(100, 5), (1000, 6), (40, 40), (90, 8), (10042, 11)]), (2**40 + 7, [(7, 7), (3000000000, 4)])]:
    r = random.Random(seed)
    out["samples"].append([seed, [[n, k, r.sample(range(n), k)] for n, k in shape]])
    r = random.Random(seed)
    out["choices"].append([seed, r.choices(range(10), k=8)])
texts = ["So 3 + 4 = 7.\n#### 1,234.50\n#### -7", "The answer is (B). No, (C)!", "no number", "$5 or 12", "ａ１２ ٣ x\u00a0y\x1cz é_", "aaa", "", "abxd", "a\n", "[x] {,2} ]"]
patterns = [r"#### (\-?[0-9\.\,]+)", r"(-?[$0-9.,]{2,})|(-?[0-9]+)", r"\(([A-D])\)", r"(?s).*#### ", r"\.$", r"\d+", r"\w+", r"\s", r"[^\w\s]", r"x*", r"a{,2}", r"\bB", r"(?i)THE", r"\Z", r"[]x]", r"$",
            r"(a)|(b)|(?P<n>d)", r"(?<=a)b", r"[^\W\d]+"]
for p in patterns:
    for t in texts:
        out["findall"].append([p, t, [list(m) if isinstance(m, tuple) else [m] for m in re.findall(p, t)]])
        out["sub"].append([p, t, re.sub(p, "-", t)])
json.dump(out, open("/dev/stdout", "w"), ensure_ascii=False, indent=0)
