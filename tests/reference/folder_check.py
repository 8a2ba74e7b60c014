"""Loads a model folder in transformers and prints how far its log-probabilities of a text are from lmeval's.

usage: folder_check.py MODEL TEXT.jsonl LMEVAL   (needs torch, transformers)
"""
import json, math, subprocess, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, text, lmeval = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
nll, count = 0.0, 0
for line in open(text):
    ids = [prefix] + tokenizer.encode(json.loads(line)["text"], add_special_tokens=False)
    with torch.no_grad():
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), -1)
    nll -= logp[range(len(ids) - 1), ids[1:]].sum().item()
    count += len(ids) - 1
out = subprocess.run([lmeval, "--model", folder, "--perplexity", text, "--json"], capture_output=True, text=True, check=True).stdout
ours = math.log(next(json.loads(l)["value"] for l in out.splitlines() if "token_perplexity" in l))
print("transformers %.7f lmeval %.7f nats a token over %d tokens, relative difference %.2g" % (nll / count, ours, count, abs(nll / count / ours - 1)))
sys.exit(abs(nll / count / ours - 1) > 1e-4)
