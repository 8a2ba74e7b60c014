"""Which number does a model give where a document has several names? With transformers, on documents of pipelines/needles:

    perl pipelines/needles 80 3500 993 <quickstart/small-1/split/general.test.jsonl | python needles_check.py MODEL 1024

Each "The magic number of NAME is" whose name was said before asks; the right digit has to be the likeliest of the ten. MODEL is a
final folder, 1024 the tokens that are kept of a document. By the distance, in tokens, from where the number was said last."""
import json
import re
import sys

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

folder, room = sys.argv[1], int(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
digits = [tokenizer.encode(str(d)).ids[-1] for d in range(10)]
asked, right = {}, {}
for line in sys.stdin:
    text = json.loads(line)["text"]
    said = list(re.finditer(r"The magic number of (\w+) is (\d)\.", text))
    if len({m.group(1) for m in said}) < 3:
        continue
    encoding = tokenizer.encode(text)
    with torch.no_grad():
        logits = model(torch.tensor([encoding.ids[:room]])).logits[0]
    last = {}
    for m in said:
        at = encoding.char_to_token(m.start(2))
        if at >= room:
            break
        if m.group(1) in last:
            quarter = 4 * (at - last[m.group(1)] - 1) // room
            asked[quarter] = asked.get(quarter, 0) + 1
            right[quarter] = right.get(quarter, 0) + (int(logits[at - 1, digits].argmax()) == int(m.group(2)))
        last[m.group(1)] = at
for quarter in sorted(asked):
    print(f"up to {(quarter + 1) * room // 4} tokens: {right[quarter]} of {asked[quarter]}, {right[quarter] / asked[quarter]:.2f}")
print(f"all: {sum(right.values())} of {sum(asked.values())}, {sum(right.values()) / sum(asked.values()):.2f}")
