"""transformers' side of tests/bench/generate and tests/bench/score.
peer_generate.py make TOKENIZER LAYERS HIDDEN DIR [reward]: a random Llama with that tokenizer's vocabulary; a reward model.
peer_generate.py run DIR PROMPTS.jsonl TOKENS SAMPLES DTYPE: greedy (or with SAMPLES > 1 drawn) answers of TOKENS tokens with the KV cache, all
prompts in one batch; prints tokens a second of the better of two runs, loading left out.
peer_generate.py score DIR SCORED.jsonl DTYPE: scores of the responses; prints tokens a second of the best of two runs of batches of 8 and of 32, and the
greatest difference from the file's scores."""
import json, os, shutil, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

torch.set_num_threads(len(os.sched_getaffinity(0)))
if sys.argv[1] == "make":
    source, layers, hidden, to = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    torch.manual_seed(1)
    t = AutoTokenizer.from_pretrained(source)
    reward = len(sys.argv) > 6
    (LlamaForSequenceClassification if reward else LlamaForCausalLM)(LlamaConfig(**({"num_labels": 1, "pad_token_id": t.eos_token_id} if reward else {}), vocab_size=len(t), hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_hidden_layers=layers, num_attention_heads=hidden // 64,
                                 num_key_value_heads=max(1, hidden // 192), head_dim=64, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
                                 eos_token_id=t.eos_token_id)).save_pretrained(to)
    for f in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if os.path.exists(f"{source}/{f}"):
            shutil.copy(f"{source}/{f}", to)
    sys.exit()
if sys.argv[1] == "score":
    folder, scored, dtype = sys.argv[2:5]
    m = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32).eval()
    t = AutoTokenizer.from_pretrained(folder)
    rows = [(t.apply_chat_template([{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": a}], return_dict=False), s)
            for r in map(json.loads, open(scored)) for a, s in zip(r["responses"], r["scores"])]
    rows.sort(key=lambda r: len(r[0]))
    best, off = 0, 0
    for size in (8, 32, 8, 32):
        begin = time.time()
        for i in range(0, len(rows), size):
            part = [r[0] for r in rows[i:i + size]]
            n = max(map(len, part))
            with torch.inference_mode():
                got = m(torch.tensor([p + [m.config.pad_token_id] * (n - len(p)) for p in part]),
                        attention_mask=torch.tensor([[1] * len(p) + [0] * (n - len(p)) for p in part])).logits[:, 0].tolist()
            off = max([off] + [abs(a - r[1]) for a, r in zip(got, rows[i:i + size])])
        best = max(best, sum(len(r[0]) for r in rows) / (time.time() - begin))
    print("%.1f %.1e" % (best, off))
    sys.exit()
folder, prompts, new, samples, dtype = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]
m = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32).eval()
t = AutoTokenizer.from_pretrained(folder)
t.padding_side, t.pad_token = "left", t.eos_token
texts = [t.apply_chat_template([{"role": "user", "content": json.loads(l)["prompt"]}], tokenize=False, add_generation_prompt=True) for l in open(prompts)]
x = t(texts, return_tensors="pt", padding=True, add_special_tokens=False)
x.pop("token_type_ids", None)
best = 0
turn, start = 0, time.time()
while turn < 2 or (turn < 6 and time.time() - start < 3):
    turn += 1
    begin = time.time()
    with torch.inference_mode():
        m.generate(**x, do_sample=samples > 1, top_k=0, num_return_sequences=samples, min_new_tokens=new, max_new_tokens=new, pad_token_id=t.pad_token_id)
    best = max(best, len(texts) * samples * new / (time.time() - begin))
print("%.1f" % best)
