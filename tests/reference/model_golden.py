"""Tiny random models of each family, and what PyTorch and transformers compute with them: logits, loss, gradients.

usage: model_golden.py OUT   (needs torch, transformers, safetensors)
Writes OUT/FAMILY/{config.json,model.safetensors,golden.safetensors}; golden holds tokens, logits, loss and one gradient a
parameter. tests/unit/model.c compares.
"""
import json, os, sys
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, AutoModelForCausalLM

torch.manual_seed(0)
base = dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, pad_token_id=None)
families = {
    "llama2": LlamaConfig(**{**base, "num_key_value_heads": 4}, rms_norm_eps=1e-5, tie_word_embeddings=False),
    "llama3": LlamaConfig(**base, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)),
    "mistral": MistralConfig(**base, sliding_window=7, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**base, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**base, head_dim=8, tie_word_embeddings=True),
}
out = sys.argv[1]
for name, config in families.items():
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * (0.1 if p.dim() == 1 else 0.25) + (1.0 if p.dim() == 1 else 0.0))
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)
    tokens = torch.randint(0, 61, (2, 20))
    result = model(input_ids=tokens, labels=tokens)
    result.loss.backward()
    golden = {"tokens": tokens.int(), "logits": result.logits.detach(), "loss": result.loss.detach().reshape(1)}
    for key, p in model.named_parameters():
        golden["grad." + key] = p.grad
    save_file({k: v.contiguous() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"))
    path = os.path.join(folder, "generation_config.json")
    if os.path.exists(path):
        os.remove(path)
    print(name, float(result.loss))
