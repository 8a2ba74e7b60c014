"""The loss of 100 AdamW steps that PyTorch takes from tests/data/models/FAMILY on the bytes of LICENSE modulo 61: 3 samples of 32
tokens a step, warm-up of 10 steps and a cosine from 3e-3 to 3e-4, decay 0.1 of matrices, clipping at 1, as pretrain's defaults have it.

usage: adamw_curve.py FAMILY >tests/data/adamw/FAMILY.tsv   (needs torch, transformers)
"""
import math, sys
import torch
from transformers import AutoModelForCausalLM

STEPS, WARMUP, SAMPLES, LENGTH, PEAK, LOW = 100, 10, 3, 32, 3e-3, 3e-4
model = AutoModelForCausalLM.from_pretrained("tests/data/models/" + sys.argv[1], torch_dtype=torch.float32, attn_implementation="eager")
data = torch.tensor([b % 61 for b in open("LICENSE", "rb").read()])
groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1}, {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), eps=1e-8)
print("# %s, torch %s" % (sys.argv[1], torch.__version__))
sample = 0
for step in range(STEPS):
    rate = PEAK * (step + 1) / WARMUP if step < WARMUP else LOW + (PEAK - LOW) * 0.5 * (1 + math.cos(math.pi * (step + 1 - WARMUP) / (STEPS - WARMUP)))
    for g in optimizer.param_groups:
        g["lr"] = rate
    rows = range(sample, sample + SAMPLES)
    sample += SAMPLES
    tokens = torch.stack([data[r * LENGTH:r * LENGTH + LENGTH] for r in rows])
    labels = torch.stack([data[r * LENGTH + 1:r * LENGTH + LENGTH + 1] for r in rows])
    loss = torch.nn.functional.cross_entropy(model(input_ids=tokens).logits.flatten(0, 1), labels.flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    print("%d\t%.9f" % (step + 1, loss.item()))
