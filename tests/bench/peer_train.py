"""PyTorch's side of tests/bench/train: peer_train.py CONFIG.json SEQ BATCH MICRO DTYPE STEPS MODE
A Llama of the configuration in plain PyTorch (scaled_dot_product_attention, fused AdamW, clipping), trained on random tokens. MODE is
eager, or compile (torch.compile). Prints tokens a second (the median of the steps after the first two), the peak of resident memory in
MB less what importing takes, and MODE. peer_train.py memory COMMAND…: runs a program and prints the peak of its memory."""
import json, os, resource, statistics, subprocess, sys, time

if sys.argv[1] == "memory":
    subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL)
    print("%.1f" % (resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6))
    sys.exit()
import torch
from torch import nn

from llama import Llama

path, seq, batch, micro, dtype, steps, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], int(sys.argv[6]), sys.argv[7]
c = json.load(open(path))
torch.set_num_threads(len(os.sched_getaffinity(0)))


def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


imported = resident()
torch.manual_seed(1)
m = Llama(c, seq)
step_of = torch.compile(m) if mode == "compile" else m
o = torch.optim.AdamW(m.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
times = []
for i in range(steps):
    x = torch.randint(0, c["vocab_size"], (batch, seq + 1))
    begin = time.time()
    for j in range(0, batch, micro):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = step_of(x[j: j + micro, :-1], x[j: j + micro, 1:]) * (min(micro, batch - j) / batch)
        loss.backward()
    nn.utils.clip_grad_norm_(m.parameters(), 1.0)
    o.step()
    o.zero_grad(set_to_none=True)
    times.append(time.time() - begin)
print("%.1f %.1f %s" % (batch * seq / statistics.median(times[2:]), resident() - imported, mode))
