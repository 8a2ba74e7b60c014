"""Compares lmeval with lm-evaluation-harness on tiny random models: metrics, and how long each takes.

usage: lmeval_check.py BIN [ROWS]         (needs torch, transformers, lm_eval; ROWS: a folder with task-hellaswag.jsonl.gz)
"""
import gzip, json, math, os, subprocess, sys, tempfile, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from lm_eval import evaluator, tasks
from lm_eval.models.huggingface import HFLM

BIN = os.path.abspath(sys.argv[1])
ROWS = sys.argv[2] if len(sys.argv) > 2 else None
BATCH = int(os.environ.get("BATCH", 1))  # the harness itself gives other perplexities where it pads
N = int(os.environ.get("N", 100))
T = tempfile.mkdtemp()
failed = 0


def report(name, value, limit):
    global failed
    failed += not value <= limit
    print(f"{'ok' if value <= limit else 'NOT OK'} - {name}: {value:.2g} (at most {limit:g})", flush=True)


def write(name, rows):
    with open(f"{T}/{name}", "w") as f:
        f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    return f"{T}/{name}"


if ROWS:
    choice_rows = [json.loads(l) for l, _ in zip(gzip.open(f"{ROWS}/task-hellaswag.jsonl.gz", "rt"), range(N))]
else:
    choice_rows = [{"context": f"Rain {i}: the dog {'über' * (i % 3)} ran and", "choices": [f"went {5 * i % 7} home", "slept", f"café {i}", "你好 said it"], "answer": i % 4} for i in range(N)]
choice_rows = [{k: r[k] for k in ("context", "choices", "answer")} for r in choice_rows]
choice_rows[1]["context"] += "  "
choice_rows[2]["context"] += "\u3000"
documents = [{"text": " ".join([r["context"]] + r["choices"] * (1 + i % 9))} for i, r in enumerate(choice_rows)]
documents[0]["text"] = "x\u2003y  z\n"
matches = [{"context": r["context"][:60], "target": "42"} for r in choice_rows[:20]]
choices, texts = write("choices.jsonl", choice_rows), write("texts.jsonl", documents)

folder = f"{T}/m"
subprocess.run([f"{BIN}/bpe-train", "-q", "--vocab-size", "1000", "--chat-template", "-o", folder, texts], check=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
                                                     num_key_value_heads=2, max_position_embeddings=128, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id))
with torch.no_grad():
    for p in model.parameters():
        if p.dim() > 1:
            p.normal_(0, 0.08)
model.save_pretrained(folder)
wrong_target = write("match.jsonl", matches)


def task(name, file, **more):
    return {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": file}}, "test_split": "test", **more}


configs = [
    task("choices", choices, output_type="multiple_choice", doc_to_text="{{context}}", doc_to_choice="{{choices}}", doc_to_target="{{answer}}",
         metric_list=[{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm", "acc_bytes")]),
    task("texts", texts, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
         metric_list=[{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")]),
]


def compare(name):
    lm = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=BATCH)
    for config in configs:
        begin = time.time()
        t = tasks.get_task_dict([config])
        theirs = evaluator.evaluate(lm=lm, task_dict=t, bootstrap_iters=0)["results"][config["task"]]
        theirs_s = time.time() - begin
        option = "--choices" if config["task"] == "choices" else "--perplexity"
        begin = time.time()
        out = subprocess.run([f"{BIN}/lmeval", "--model", folder, option, f"{T}/{config['task']}.jsonl", "--json"], capture_output=True, text=True, check=True).stdout
        ours_s = time.time() - begin
        for line in map(json.loads, out.splitlines()):
            key = f"{line['metric']},none"
            if key in theirs:
                report(f"{name} {config['task']} {line['metric']} ({line['value']:.6g})", abs(line["value"] / theirs[key] - 1), 1e-5)
            error = theirs.get(f"{line['metric']}_stderr,none")
            if line["stderr"] is not None and isinstance(error, float):
                report(f"{name} {config['task']} {line['metric']} stderr", abs(line["stderr"] / error - 1), 1e-4)
        print(f"# {config['task']}: harness {theirs_s:.2f} s, lmeval {ours_s:.2f} s: {theirs_s / ours_s:.1f} times")


compare("plain")
# A tokenizer that puts a token before every text.
path = f"{folder}/tokenizer.json"
j = json.load(open(path))
b = "<|begin_of_text|>"
j["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": b, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                       "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                       "special_tokens": {b: {"id": b, "ids": [tokenizer.convert_tokens_to_ids(b)], "tokens": [b]}}}
json.dump(j, open(path, "w"))
compare("with BOS")
print(f"{failed} comparisons failed")
sys.exit(failed > 0)
