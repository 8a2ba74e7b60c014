"""What the post-training comparisons share: rows, tiny models, ids and masks by transformers, the tools' gradients.

The scripts take BIN [ROWS]: the programs, and a folder with chat, preference and ranking files (without: made rows). Gradients are
read from outside: one AdamW step with eps 1 moves a weight by lr*g/(|g| + 1).
"""
import gzip, json, os, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

BIN = os.path.abspath(sys.argv[1])
ROWS = sys.argv[2] if len(sys.argv) > 2 else None
GOLDEN = os.environ.get("GOLDEN")
T = tempfile.mkdtemp()
LR = 1000.0
failures = 0


def report(name, value, limit):
    global failures
    failures += not value <= limit
    print(f"{'ok' if value <= limit else 'NOT OK'} - {name}: {value:.2g} (at most {limit:g})", flush=True)


def tool(name, *arguments, **more):
    r = subprocess.run([f"{BIN}/{name}", *map(str, arguments)], capture_output=True, text=True, **more)
    if r.returncode:
        sys.exit(f"{name} {' '.join(map(str, arguments))}: {r.returncode}: {r.stderr}")
    return r.stdout


def write(name, rows):
    path = f"{T}/{name}"
    with open(path, "w") as f:
        f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    return path


def rows(name, n, longest=1500):
    """The first n rows that are not too long for a quick look, or made ones."""
    if ROWS:
        out = []
        for line in gzip.open(f"{ROWS}/{name}.jsonl.gz", "rt"):
            r = json.loads(line)
            if len(line) <= longest:
                out.append(r)
            if len(out) == n:
                return out
        return out
    words = "the cat and a dog sat under an old tree while rain fell; 12 + 30 = 42? Über café 你好".split()
    say = lambda i, k: " ".join(words[(i * 7 + j * (k + 1)) % len(words)] for j in range(3 + (i * 5 + k) % 9))
    if name.startswith("chat"):
        return [{"messages": ([{"role": "system", "content": f"Rule {i}. "}] if i % 3 == 0 else []) +
                 [m for t in range(1 + i % 3) for m in ({"role": "user", "content": say(i, t) + "?"}, {"role": "assistant", "content": say(i + 1, t + 2)})]}
                for i in range(n)]
    answer = lambda i, k: [{"role": "assistant", "content": say(i, k)}]
    if name.startswith("pref"):
        return [{"prompt": [{"role": "user", "content": say(i, 1)}], "chosen": answer(i, 2), "rejected": answer(i, 3)} for i in range(n)]
    return [{"prompt": [{"role": "user", "content": say(i, 1)}], "responses": [answer(i, k + 2) for k in range(2 + i % 4)]} for i in range(n)]


chats = [c for f in ("chat-dialogue", "chat-instruct", "chat-gsm8k") for c in rows(f, 6)]
pairs = rows("preference-train", 12)
for i, p in enumerate(pairs):
    p["margin"] = i % 3 * 0.5
rankings = rows("ranking-train", 6, 4000)
text = write("text.jsonl", [{"text": m["content"]} for c in chats for m in c["messages"]])
chat_file, pair_file, ranking_file = write("chat.jsonl", chats), write("pairs.jsonl", pairs), write("rankings.jsonl", rankings)


def model_make(family, template):
    folder = f"{T}/{family}-{template}"
    tool("bpe-train", "-q", "--vocab-size", 300 if GOLDEN else 600, "--pattern", "llama3", f"--chat-template={template}", "-o", folder, text)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    c = dict(vocab_size=len(tokenizer), hidden_size=24 if GOLDEN else 48, intermediate_size=48 if GOLDEN else 96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=2048, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    config = {"llama": lambda: LlamaConfig(**c, tie_word_embeddings=False), "tied": lambda: LlamaConfig(**c, tie_word_embeddings=True),
              "mistral": lambda: MistralConfig(**c, sliding_window=None), "qwen2": lambda: Qwen2Config(**c, tie_word_embeddings=True),
              "qwen3": lambda: Qwen3Config(**c, head_dim=16)}[family]()
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.12)
            elif p.abs().sum() == 0:
                p.normal_(0, 0.1)
    model.save_pretrained(folder)
    return folder, tokenizer


def encode(tokenizer, template, messages, whole=False):
    """Ids and the mask of an assistant's tokens, by transformers' template and the tokens that open and close a turn. whole: with the token
    in which the header ends and the words begin, where one does both."""
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    special = tokenizer.convert_tokens_to_ids
    header = tokenizer.encode("assistant\n", add_special_tokens=False) if template == "chatml" else None
    mask, inside, i = [0] * len(ids), False, 0
    turn = 0
    if template == "llama3":
        starts = [k for k, t in enumerate(ids) if t == special("<|start_header_id|>")]
        end, skip = special("<|eot_id|>"), special("<|end_header_id|>")
    else:
        starts = [k for k, t in enumerate(ids) if t == special("<|im_start|>")]
        end, skip = special("<|im_end|>"), None
    for m, k in zip(messages, starts):
        if m["role"] != "assistant":
            continue
        if template == "llama3":
            j = ids.index(skip, k) + 1
            j += 1 if tokenizer.decode([ids[j]]).startswith("\n\n") else 2
        else:
            j, seen = k + 1, ""
            while "\n" not in seen:
                seen += tokenizer.decode([ids[j]])
                j += 1
            j -= whole and not seen.endswith("assistant\n")
        while ids[j] != end:
            mask[j] = 1
            j += 1
        mask[j] = 2
    return ids, mask


def last_only(mask, prompt_length):
    return [m if i >= prompt_length else 0 for i, m in enumerate(mask)]


def logprobs(model, ids):
    t = torch.tensor([ids])
    return torch.log_softmax(model(t).logits[0, :-1], -1).gather(-1, t[0, 1:, None])[:, 0]


def sft_loss(model, tokenizer, template, chats):
    """The mean over the assistant's tokens of all chats."""
    total = count = 0
    for c in chats:
        ids, mask = encode(tokenizer, template, c["messages"], True)
        w = torch.tensor([float(m > 0) for m in mask[1:]])
        total = total - (logprobs(model, ids) * w).sum()
        count += w.sum()
    return total / count


def answers_of(tokenizer, template, prompt, answer):
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    answer = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    ids, mask = encode(tokenizer, template, prompt + answer)
    n = len(encode(tokenizer, template, prompt)[0])
    return ids, last_only(mask, n)


def gradient(run, start):
    """The tools' gradient from the weights before and after their step."""
    after, out = load_file(f"{run}/final/model.safetensors"), {}
    for name, before in start.items():
        u = (before.double() - after[name].double()) / LR
        out[name] = u / (1 - u.abs())
    return out


def compare(name, run, model, start, limit):
    ours = gradient(run, start)
    worst = 0
    for key, p in model.named_parameters():
        if key not in ours:
            continue
        g = torch.zeros_like(p).double() if p.grad is None else p.grad.double()
        worst = max(worst, ((ours[key] - g).norm() / g.norm().clamp_min(1e-12)).item())
    report(f"{name}: every gradient", worst, limit)


STEP = ["-q", "--epochs", 1, "--lr", LR, "--schedule", "constant", "--eps", 1, "--weight-decay", 0, "--grad-clip", 0, "--save-every", 0, "--max-length", 2048]


def log_of(run):
    return [json.loads(line) for line in open(f"{run}/log.jsonl")]


def finish():
    print(f"{failures} comparisons failed")
    sys.exit(failures > 0)
