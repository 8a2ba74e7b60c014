"""What transformers computes with a model that lmpipe trained (tests/data/models/road): the log-probability of every token of
held-out text, and the greedy answer to a chat. tests/cli/road.t compares.

usage: road_golden.py MODEL TEXT.jsonl >tests/data/models/road/golden.tsv   (needs torch, transformers)
"""
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], torch_dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
with torch.no_grad():
    for line in open(sys.argv[2]):
        d = json.loads(line)
        ids = [prefix] + tokenizer.encode(d["text"], add_special_tokens=False)
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), -1)
        print("nll\t%s\t%d\t%.9f" % (d["id"], len(ids) - 1, -logp[range(len(ids) - 1), ids[1:]].sum().item()))
    for prompt in ("Which language is this?", "Say the number 7."):
        text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        out = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=prefix)
        print("answer\t%s\t%s" % (prompt, json.dumps(tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True))))
