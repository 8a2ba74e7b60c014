"""lm-evaluation-harness's side of tests/bench/tasks: makes the model, or evaluates a task and prints seconds and one metric.

usage: peer_tasks.py model FOLDER HIDDEN LAYERS        (FOLDER has a tokenizer)
       peer_tasks.py run FOLDER TASK.yaml BATCH        seconds of the evaluation alone, without imports and loading; first metric
"""
import os, sys, time

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

folder = sys.argv[2]
if sys.argv[1] == "model":
    tokenizer = AutoTokenizer.from_pretrained(folder)
    h = int(sys.argv[3])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), hidden_size=h, intermediate_size=h * 8 // 3, num_hidden_layers=int(sys.argv[4]),
        num_attention_heads=h // 64, num_key_value_heads=max(1, h // 128), max_position_embeddings=1024, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, initializer_range=0.05)).save_pretrained(folder)
    sys.exit()
import yaml
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM

lm = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=int(sys.argv[4]))
config = yaml.safe_load(open(sys.argv[3]))
begin = time.time()
results = evaluator.simple_evaluate(model=lm, tasks=[config], bootstrap_iters=100)["results"][config["task"]]
print(f"{time.time() - begin:.3f} {[v for k, v in results.items() if ',' in k][0]:.4f}")
