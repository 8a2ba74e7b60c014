"""A Llama in plain PyTorch, as the peers of training steps run it: Llama(CONFIG, LENGTH)(tokens, labels) is the loss."""
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        A, K, D = heads
        H, I = c["hidden_size"], c["intermediate_size"]
        self.n1, self.n2 = nn.RMSNorm(H, eps=1e-5), nn.RMSNorm(H, eps=1e-5)
        self.qkv = nn.Linear(H, (A + 2 * K) * D, bias=False)
        self.o = nn.Linear(A * D, H, bias=False)
        self.gate_up = nn.Linear(H, 2 * I, bias=False)
        self.down = nn.Linear(I, H, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        A, K, D = self.heads
        q, k, v = self.qkv(self.n1(x)).split([A * D, K * D, K * D], dim=-1)
        q, k, v = q.view(b, t, A, D).transpose(1, 2), k.view(b, t, K, D).transpose(1, 2), v.view(b, t, K, D).transpose(1, 2)
        turn = lambda y: y * cos + torch.cat((-y[..., D // 2:], y[..., : D // 2]), -1) * sin
        q, k = turn(q).to(v.dtype), turn(k).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=A != K)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, A * D))
        g, u = self.gate_up(self.n2(x)).chunk(2, -1)
        return x + self.down(F.silu(g) * u)


class Llama(nn.Module):
    def __init__(self, c, length):
        super().__init__()
        H, V, A = c["hidden_size"], c["vocab_size"], c["num_attention_heads"]
        D = c.get("head_dim") or H // A
        self.embed = nn.Embedding(V, H)
        self.blocks = nn.ModuleList(Block(c, (A, c["num_key_value_heads"], D)) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(H, eps=1e-5)
        self.head = nn.Linear(H, V, bias=False)
        if c["tie_word_embeddings"]:
            self.head.weight = self.embed.weight
        angle = torch.outer(torch.arange(length).float(), 1e4 ** (-torch.arange(0, D, 2).float() / D))
        angle = torch.cat((angle, angle), -1)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        for p in self.parameters():
            nn.init.normal_(p, std=0.02) if p.dim() > 1 else None

    def loss(self, h, y):
        return F.cross_entropy(self.head(self.norm(h)).flatten(0, 1).float(), y.flatten())

    def forward(self, x, y):
        h = self.embed(x)
        for b in self.blocks:
            h = b(h, self.cos, self.sin)
        return self.loss(h, y)
