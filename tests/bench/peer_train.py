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
import torch.nn.functional as F
from torch import nn

path, seq, batch, micro, dtype, steps, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], int(sys.argv[6]), sys.argv[7]
c = json.load(open(path))
torch.set_num_threads(len(os.sched_getaffinity(0)))
H, V, L = c["hidden_size"], c["vocab_size"], c["num_hidden_layers"]
A, K = c["num_attention_heads"], c["num_key_value_heads"]
D = c.get("head_dim") or H // A


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.RMSNorm(H, eps=1e-5), nn.RMSNorm(H, eps=1e-5)
        self.qkv = nn.Linear(H, (A + 2 * K) * D, bias=False)
        self.o = nn.Linear(A * D, H, bias=False)
        self.gate_up = nn.Linear(H, 2 * c["intermediate_size"], bias=False)
        self.down = nn.Linear(c["intermediate_size"], H, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.n1(x)).split([A * D, K * D, K * D], dim=-1)
        q, k, v = q.view(b, t, A, D).transpose(1, 2), k.view(b, t, K, D).transpose(1, 2), v.view(b, t, K, D).transpose(1, 2)
        turn = lambda y: y * cos + torch.cat((-y[..., D // 2:], y[..., : D // 2]), -1) * sin
        q, k = turn(q).to(v.dtype), turn(k).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=A != K)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, A * D))
        g, u = self.gate_up(self.n2(x)).chunk(2, -1)
        return x + self.down(F.silu(g) * u)


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, H)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.norm = nn.RMSNorm(H, eps=1e-5)
        self.head = nn.Linear(H, V, bias=False)
        if c["tie_word_embeddings"]:
            self.head.weight = self.embed.weight
        angle = torch.outer(torch.arange(seq).float(), 1e4 ** (-torch.arange(0, D, 2).float() / D))
        angle = torch.cat((angle, angle), -1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, x, y):
        h = self.embed(x)
        for b in self.blocks:
            h = b(h, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(h)).flatten(0, 1).float(), y.flatten())


def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


imported = resident()
torch.manual_seed(1)
m = Llama()
for p in m.parameters():
    nn.init.normal_(p, std=0.02) if p.dim() > 1 else None
step_of = torch.compile(m) if mode == "compile" else m
o = torch.optim.AdamW(m.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
times = []
for i in range(steps):
    x = torch.randint(0, V, (batch, seq + 1))
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
