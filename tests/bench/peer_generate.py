"""transformers' side of tests/bench/generate.
peer_generate.py make TOKENIZER LAYERS HIDDEN DIR: a random Llama with that tokenizer's vocabulary.
peer_generate.py run DIR PROMPTS.jsonl TOKENS SAMPLES DTYPE: greedy (or with SAMPLES > 1 drawn) answers of TOKENS tokens with the KV cache, all
prompts in one batch; prints tokens a second of the better of two runs, loading left out."""
import json, os, shutil, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(len(os.sched_getaffinity(0)))
if sys.argv[1] == "make":
    source, layers, hidden, to = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    torch.manual_seed(1)
    t = AutoTokenizer.from_pretrained(source)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(t), hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_hidden_layers=layers, num_attention_heads=hidden // 64,
                                 num_key_value_heads=max(1, hidden // 192), head_dim=64, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
                                 eos_token_id=t.eos_token_id)).save_pretrained(to)
    for f in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if os.path.exists(f"{source}/{f}"):
            shutil.copy(f"{source}/{f}", to)
    sys.exit()
folder, prompts, new, samples, dtype = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]
m = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32).eval()
t = AutoTokenizer.from_pretrained(folder)
t.padding_side, t.pad_token = "left", t.eos_token
texts = [t.apply_chat_template([{"role": "user", "content": json.loads(l)["prompt"]}], tokenize=False, add_generation_prompt=True) for l in open(prompts)]
x = t(texts, return_tensors="pt", padding=True, add_special_tokens=False)
x.pop("token_type_ids", None)
best = 0
for _ in range(2):
    begin = time.time()
    with torch.inference_mode():
        m.generate(**x, do_sample=samples > 1, top_k=0, num_return_sequences=samples, min_new_tokens=new, max_new_tokens=new, pad_token_id=t.pad_token_id)
    best = max(best, len(texts) * samples * new / (time.time() - begin))
print("%.1f" % best)
