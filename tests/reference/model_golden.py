"""Tiny random models of each family, and what PyTorch and transformers compute with them: logits, loss, gradients.

usage: model_golden.py OUT [--random SEED]   (needs torch, transformers, safetensors)
Writes OUT/FAMILY/{config.json,model*.safetensors,golden.safetensors}; golden holds tokens [2,20], logits, loss and one gradient a
parameter, computed in f32 from the weights as they were saved. tests/unit/model.c compares. --random draws shapes that no test in
the tree has, and weights until PyTorch's f32 tells the gradients to some digits.
"""
import copy, json, os, random, sys, unittest.mock
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, AutoModelForCausalLM

torch.manual_seed(0)
base = dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, pad_token_id=None)
scaling = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)


def fixed():
    """FAMILY, configuration, dtype on disk, largest file."""
    yield "llama2", LlamaConfig(**{**base, "num_key_value_heads": 4}, rms_norm_eps=1e-5, tie_word_embeddings=False), "float32", None
    yield "llama3", LlamaConfig(**base, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True, rope_scaling=scaling), "float32", None
    yield "mistral", MistralConfig(**base, sliding_window=7, tie_word_embeddings=False), "float32", None
    yield "qwen2", Qwen2Config(**base, tie_word_embeddings=False), "float32", None
    yield "qwen3", Qwen3Config(**base, head_dim=8, tie_word_embeddings=True), "float32", None
    yield "smollm2", LlamaConfig(**{**base, "hidden_size": 18, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 48},
                                 rope_theta=100000.0, rope_interleaved=False, tie_word_embeddings=True), "bfloat16", None
    yield "tinyllama", LlamaConfig(**{**base, "num_key_value_heads": 1}, rms_norm_eps=1e-5, tie_word_embeddings=False), "float16", "6KB"
    yield "qwen2-windows", Qwen2Config(**{**base, "num_hidden_layers": 3, "hidden_size": 16}, use_sliding_window=True, sliding_window=5,
                                       max_window_layers=1, tie_word_embeddings=True), "float32", None


def drawn(seed):
    r = random.Random(seed)
    for family in ("llama2", "llama31", "llama32", "smollm2", "tinyllama", "mistral", "nemo", "qwen2", "qwen25", "qwen3"):
        kv, group, dim = r.choice([1, 2, 3]), r.choice([1, 2, 4]), r.choice([2, 4, 6, 8, 16, 32, 40, 72])
        heads = kv * (1 if family == "llama2" else group)
        shape = dict(vocab_size=r.randint(40, 300), hidden_size=heads * dim, intermediate_size=r.randint(9, 130), num_hidden_layers=r.randint(1, 5),
                     num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=64, pad_token_id=None,
                     rms_norm_eps=r.choice([1e-5, 1e-6]), rope_theta=r.choice([1e4, 5e5, 1e6]), tie_word_embeddings=r.random() < 0.5)
        llama3 = dict(scaling, factor=r.choice([8.0, 32.0]), original_max_position_embeddings=r.choice([8, 16, 32]))
        if family in ("llama31", "llama32"):
            config = LlamaConfig(**shape, rope_scaling=llama3)
        elif family in ("llama2", "smollm2", "tinyllama"):
            config = LlamaConfig(**shape, attention_bias=r.random() < 0.3, mlp_bias=r.random() < 0.3)
        elif family == "mistral":
            config = MistralConfig(**shape, sliding_window=r.choice([None, 3, 9]))
        elif family == "nemo":
            config = MistralConfig(**{**shape, "hidden_size": r.choice([12, 20, 28])}, head_dim=dim, sliding_window=None)
        elif family in ("qwen2", "qwen25"):
            window = r.random() < 0.5
            config = Qwen2Config(**shape, use_sliding_window=window, sliding_window=6, max_window_layers=r.randint(0, 3))
        else:
            config = Qwen3Config(**{**shape, "hidden_size": r.choice([12, 20, 28])}, head_dim=dim, attention_bias=r.random() < 0.3)
        yield family, config, r.choice(["float32", "float16", "bfloat16"]), r.choice([None, "20KB"])


def respell(path, r):
    """config.json as transformers 4 wrote it, or with a rope_theta beside rope_parameters that does not count, or as it is."""
    config = json.load(open(path))
    rope = config.pop("rope_parameters")
    way = r.choice(["old", "type", "both", "scaling", "new"])
    if way in ("old", "type"):
        config["rope_theta"] = rope.pop("rope_theta")
        if way == "type":
            rope["type"] = rope.pop("rope_type")
        config["rope_scaling"] = rope if rope != {"rope_type": "default"} else None
    else:
        config["rope_scaling" if way == "scaling" else "rope_parameters"] = rope
        if way == "both":
            config["rope_theta"] = 123.0
    with open(path, "w") as f:
        json.dump(config, f)


def lost(model, tokens):
    """How far PyTorch's own gradients in f32 are from those in f64: keys' biases nearly cancel out at times, which then tests f32, not us."""
    exact = copy.deepcopy(model).double()
    exact.zero_grad()
    with unittest.mock.patch.object(torch, "float32", torch.float64):  # what transformers computes in f32 whatever the weights: norms, softmax
        logits = exact(input_ids=tokens).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    return max(((a.grad - b.grad).norm() / b.grad.norm()).item() for a, b in zip(model.parameters(), exact.parameters()))


def write(out, name, config, dtype, largest, respelt=None):
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    with torch.no_grad():
        for p in model.parameters():
            # Products of wide rows are kept as large as those of 64: sharper attention loses digits in f32, in PyTorch's own too.
            steep = 0.1 if p.dim() == 1 else 0.25 * min(1, (64 / p.shape[-1]) ** 0.5)
            p.copy_(torch.randn_like(p) * steep + (1.0 if p.dim() == 1 else 0.0))
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    stored = getattr(torch, dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(stored).float())
    # A copy: to() would round RoPE's frequencies too, which are no weights.
    copy.deepcopy(model).to(stored).save_pretrained(folder, **({"max_shard_size": largest} if largest else {}))
    if respelt:
        respell(os.path.join(folder, "config.json"), respelt)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    tokens = torch.randint(0, config.vocab_size, (2, 20))
    result = model(input_ids=tokens, labels=tokens)
    result.loss.backward()
    golden = {"tokens": tokens.int(), "logits": result.logits.detach(), "loss": result.loss.detach().reshape(1)}
    for key, p in model.named_parameters():
        golden["grad." + key] = p.grad
    if respelt and lost(model, tokens) > 1e-5:
        return write(out, name, config, dtype, largest, respelt)
    save_file({k: v.contiguous() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"))
    path = os.path.join(folder, "generation_config.json")
    if os.path.exists(path):
        os.remove(path)
    print(name, dtype, float(result.loss))


if __name__ == "__main__":
    seed = int(sys.argv[3]) if sys.argv[2:3] == ["--random"] else None
    for name, config, dtype, largest in fixed() if seed is None else drawn(seed):
        write(sys.argv[1], name, config, dtype, largest, seed is not None and random.Random(seed))
