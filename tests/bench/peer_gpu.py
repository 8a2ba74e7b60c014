"""PyTorch's side of `make bench-gpu`, in rows named as those of gpu.c: products, attention (the faster of flash and cuDNN), AdamW, and whole
training steps of the same models (attention likewise, autocast for bf16, fused AdamW, clipping; as it is, and with compiled layers)."""
import sys, time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from llama import Llama

torch.manual_seed(1)
gpu = torch.device("cuda")
T = 16384


def row(name, kind, seconds, more=""):
    print("%-26s %-5s %10.3f ms %s" % (name, kind, seconds * 1e3, more), flush=True)


def timed(f):
    """seconds: as many in a row as fill 0.05 s, the best of three rows"""
    f()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    f()
    torch.cuda.synchronize()
    count, best = max(1, int(0.05 / (time.perf_counter() - begin))), 1e9
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(count):
            f()
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - begin) / count)
    return best


def normal(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device=gpu).to(dtype)


def products(dtype, kind):
    x, w, y = normal(8192, 8192, dtype=dtype), normal(8192, 8192, dtype=dtype), normal(8192, 8192, dtype=dtype)
    row("product 8192³", kind, timed(lambda: torch.mm(x, w.t(), out=y)))
    for name, i, o in (("qkv", 4096, 6144), ("o", 4096, 4096), ("gate and up", 4096, 28672), ("down", 14336, 4096)):
        x, w, y = normal(T, i, dtype=dtype), normal(o, i, dtype=dtype), normal(T, o, dtype=dtype)
        row("product " + name, kind, timed(lambda: torch.mm(x, w.t(), out=y)))


def attention(length, d):
    kv = 1024 // d
    heads = 2 * kv
    q = normal(T // length, length, heads, d).transpose(1, 2).requires_grad_()
    k, v = (normal(T // length, length, kv, d).transpose(1, 2).requires_grad_() for _ in range(2))
    dout = normal(T // length, length, heads, d).transpose(1, 2)
    best = [(1e9, ""), (1e9, "")]
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                forward = timed(lambda: F.scaled_dot_product_attention(q.detach(), k.detach(), v.detach(), is_causal=True, enable_gqa=heads != kv))
                out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv)
                backward = timed(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
        except RuntimeError as e:
            print("# %s, head %d: %s" % (backend.name, d, str(e).split("\n")[0]), file=sys.stderr)
            continue
        name = backend.name.split("_")[0].lower()
        best = [min(best[0], (forward, name)), min(best[1], (backward, name))]
        print("# attention %d, head %d by %s: %.3f, %.3f ms" % (length, d, name, forward * 1e3, backward * 1e3), file=sys.stderr)
    flops = 2 * T * length * heads * d
    row("attention %d, head %d" % (length, d), "bf16", best[0][0], "%s %.1f TFLOP/s" % (best[0][1], flops / best[0][0] * 1e-12))
    row("  backward %d, head %d" % (length, d), "bf16", best[1][0], "%s %.1f TFLOP/s" % (best[1][1], 2.5 * flops / best[1][0] * 1e-12))


def adamw():
    p = nn.Parameter(torch.randn(256 << 20, device=gpu))
    p.grad = torch.randn(256 << 20, device=gpu)
    o = torch.optim.AdamW([p], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    row("adamw", "f32", timed(o.step))


def training(name, kind, sizes, batch, length, compiled):
    h, f, layers, heads, kv, d = sizes
    c = {"vocab_size": 32000, "hidden_size": h, "intermediate_size": f, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
         "head_dim": d, "tie_word_embeddings": True}
    with gpu:
        m = Llama(c, length)
    if compiled:
        for b in m.blocks:
            b.compile()
        m.loss = torch.compile(m.loss)
    o = torch.optim.AdamW(m.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    x = torch.randint(0, 32000, (batch, length + 1), device=gpu)
    times = []
    while len(times) < 4 or (len(times) < 12 and sum(times) < 3):
        begin = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16, enabled=kind == "bf16"):
            loss = m(x[:, :-1], x[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        o.step()
        o.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    memory = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    row(name, kind, min(times[2:]), "%s, %.1f GB" % ("compiled" if compiled else "eager", memory))


print("# PyTorch %s" % torch.__version__, file=sys.stderr)
products(torch.bfloat16, "bf16")
products(torch.float32, "f32")
adamw()
for d in (64, 80, 96, 128):
    for length in (512, 2048, 16384):
        attention(length, d)
torch.cuda.empty_cache()
models = (("training 120M, 16 × 1024", (768, 2048, 12, 12, 4, 64), 16, 1024), ("training 1.1B, 8 × 2048", (2048, 5632, 22, 32, 4, 64), 8, 2048),
          ("training 3.1B, 2 × 2048", (3072, 8192, 28, 24, 8, 128), 2, 2048))
for compiled in (False, True):
    for (name, sizes, batch, length), kind in [(models[0], "bf16"), (models[1], "bf16"), (models[2], "bf16"), (models[0], "f32")]:
        try:
            training(name, kind, sizes, batch, length, compiled)
        except Exception as e:
            print("# %s %s: %s" % (name, kind, str(e).split("\n")[0]), file=sys.stderr)
        torch.cuda.empty_cache()
