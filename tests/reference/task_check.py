"""lmeval's tasks against lm-evaluation-harness: the definitions in a folder, on a model folder, with and without a chat template, more
few-shot examples and a limit. Metrics at four digits of the harness's table and within 1e-6, items' log-likelihoods within 1e-4.

usage: task_check.py BIN [MODEL [TASKS]]           compare live; MODEL random:SEED: random weights, the vocabulary of tests/data/models/road
       task_check.py --write MODEL TASKS           write TASKS/golden.tsv and TASKS/golden-items.tsv
       task_check.py --data TASKS                  write the documents of tests/data/tasks
(needs torch, transformers, lm_eval, scikit-learn)
"""
import glob, json, math, os, random, subprocess, sys, tempfile


def write_data(folder):
    r = random.Random(7)
    words = "the a const int char text number list of file line name long value is holds token size data and per step".split()
    phrase = lambda n: " ".join(r.choice(words) for _ in range(n))
    def question(i):
        place = i * 7 % 4
        return {"question": f"  What {phrase(3)}? " + " " * (i % 2), "choices": {"text": [phrase(1 + (i + k) % 3) + ["", " é", "'s", " 你好"][k] for k in range(4)], "label": list("ABCD")},
                "answerKey": "ABCD"[place], "place": place, "subject": r.choice(words)}
    def write(name, rows):
        with open(f"{folder}/{name}", "w") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write("train.jsonl", [question(i) for i in range(30)])
    write("questions.jsonl", [question(i) for i in range(12)])
    write("fill.jsonl", [{"before": f"The {phrase(3)} is ", "option1": phrase(1), "option2": phrase(2) + "s", "after": " " + phrase(2) + ".", "answer": i * 5 % 3 % 2} for i in range(14)])
    lines = [json.loads(l)["text"] for l in open(f"{os.path.dirname(os.path.abspath(__file__))}/../data/models/road/heldout.jsonl")]
    write("texts.jsonl", [{"text": "  ".join(lines[(i * k) % len(lines)] for k in range(1, 2 + i % 5)) + "\u3000end" * (i % 2) + "\n" * (i % 3)} for i in range(11)])
    for name, n in (("numbers.jsonl", 9), ("numbers-train.jsonl", 30)):
        write(name, [{"question": phrase(4) + f" {i}", "answer": f"so it is\n#### {i * 3},{i}00."} for i in range(n)])
    write("several.jsonl", [{"question": phrase(4), "answers": [phrase(1), phrase(2).upper() + "!"][: 1 + (i > -1)]} for i in range(8)])


if sys.argv[1] == "--data":
    write_data(sys.argv[2])
    sys.exit()

HERE = os.path.dirname(os.path.abspath(__file__))
WRITE = sys.argv[1] == "--write"
BIN = None if WRITE else os.path.abspath(sys.argv[1])
RANDOM = sys.argv[2][7:] if len(sys.argv) > 2 and sys.argv[2].startswith("random:") else None
MODEL = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 and not RANDOM else f"{HERE}/../data/models/road")
TASKS = os.path.abspath(sys.argv[3] if len(sys.argv) > 3 else f"{HERE}/../data/tasks")
if RANDOM:
    # Another model of the same vocabulary, with larger weights.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    torch.manual_seed(int(RANDOM))
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                                                         max_position_embeddings=96, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.2)
    MODEL = tempfile.mkdtemp()
    model.save_pretrained(MODEL)
    tokenizer.save_pretrained(MODEL)
os.chdir(TASKS)
import yaml
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM

WAYS = {
    "plain": ([], {}),
    "five": (["--num-fewshot", "5", "--limit", "6"], {"num_fewshot": 5, "limit": 6}),
    "chat": (["--chat", "--system", "Be brief."], {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": "Be brief."}),
    "one-turn": (["--chat", "--fewshot-in-one-turn"], {"apply_chat_template": True, "fewshot_as_multiturn": False}),
}
lm = HFLM(pretrained=MODEL, device="cpu", dtype="float32", batch_size=1)
names = sorted(os.path.basename(f)[:-5] for f in glob.glob("*.yaml") if not f.startswith("_"))


def of_harness(name, more):
    config = load_yaml(f"{name}.yaml")
    return evaluator.simple_evaluate(model=lm, tasks=[config], log_samples=True, bootstrap_iters=2000, **more)


def load_yaml(path):
    own = yaml.safe_load(open(path))
    base = load_yaml(own.pop("include")) if "include" in own else {}
    return {**base, **own}


def logprobs(sample):
    lls = [r[0][0] if isinstance(r[0], (list, tuple)) else r[0] for r in sample["resps"]]
    return [float(x) for x in lls] if not isinstance(lls[0], str) else lls


failed = compared = 0
golden, items = [], []
for name in names:
    for way, (options, more) in WAYS.items():
        if way != "plain" and name in ("rolling", "last-word", "binary"):
            continue
        try:
            result = of_harness(name, more)
        except Exception as e:
            print(f"# {name} {way}: the harness fails: {type(e).__name__} {e}")
            continue
        theirs = result["results"][name]
        samples = sorted(result["samples"][name], key=lambda s: s["doc_id"])
        if WRITE:
            for key, value in sorted(theirs.items()):
                metric, _, kind = key.partition(",")
                if kind and not metric.endswith("_stderr"):
                    error = theirs.get(f"{metric}_stderr,{kind}")
                    golden.append([name, way, metric, kind, repr(float(value)), repr(float(error)) if isinstance(error, float) else "-"])
            for s in samples:
                if s["filter"] == samples[0]["filter"]:
                    items.append([name, way, str(s["doc_id"])] + [x.encode("unicode_escape").decode() if isinstance(x, str) else f"{x:.6f}" for x in logprobs(s)])
            continue
        log = tempfile.mktemp()
        run = subprocess.run([f"{BIN}/lmeval", "-q", "--model", MODEL, "--task", f"{name}.yaml", "--json", "--bootstrap", "2000", "--log-samples", log, *options], capture_output=True, text=True)
        if run.returncode:
            failed += 1
            print(f"NOT OK - {name} {way}: {run.stderr.strip()}")
            continue
        ours = {f"{o['metric']},{o.get('filter', 'none')}": o for o in map(json.loads, run.stdout.splitlines())}
        worst = 0
        for key, o in ours.items():
            metric, _, kind = key.partition(",")
            value, error = theirs[key], theirs[f"{metric}_stderr,{kind}"]
            near = 2e-5 if "perplexity" in metric or "bits" in metric else 1e-6  # exp(1e-5 of log-likelihood)
            same = abs(o["value"] - value) <= near * max(1, abs(value)) and (near > 1e-6 or f"{o['value']:.4f}" == f"{value:.4f}")
            if isinstance(error, float) and not math.isnan(error):
                same = same and o["stderr"] is not None and abs(o["stderr"] - error) <= 10 * near * max(1, abs(error))
            else:
                same = same and o["stderr"] is None
            compared += 1
            failed += not same
            if not same:
                print(f"NOT OK - {name} {way} {key}: ours {o['value']} ± {o['stderr']}, theirs {value} ± {error}")
        missing = [k for k in theirs if "," in k and "_stderr," not in k and k not in ours]
        failed += len(missing)
        if missing:
            print(f"NOT OK - {name} {way}: missing {missing}")
        lines = list(map(json.loads, open(log)))
        first = [s for s in samples if s["filter"] == samples[0]["filter"]]
        for s, line in zip(first, lines):
            want = logprobs(s)
            if isinstance(want[0], str):
                worst = max(worst, float(line["response"] != want[0]))
            else:
                got = line["loglikelihoods"] + line.get("unconditional", []) if name != "rolling" else [sum(line["loglikelihoods"])]
                # The harness adds up a text's tokens in f32, whose last place is 3e-5 of 500.
                worst = max([worst] + [abs(a - b) / (1 if name != "rolling" else max(1, abs(b) / 100)) for a, b in zip(got, want)] + [float("inf")] * (len(want) > len(got)))
        compared += 1
        failed += not (worst <= 1e-4 and len(first) == len(lines))
        print(f"{'ok' if worst <= 1e-4 else 'NOT OK'} - {name} {way}: items' log-likelihoods or answers: {worst:.2g}", flush=True)
if WRITE:
    for file, rows in (("golden.tsv", golden), ("golden-items.tsv", items)):
        with open(file, "w") as f:
            f.writelines("\t".join(row) + "\n" for row in rows)
    sys.exit()
# A group of groups, tasks and their weights.
from lm_eval.tasks import TaskManager
group = "several_kinds"
result = evaluator.simple_evaluate(model=lm, tasks=[group], task_manager=TaskManager(include_path=TASKS, include_defaults=False), bootstrap_iters=100)
theirs = {**result["groups"], **{k: v for k, v in result["results"].items() if k.startswith(group)}}
run = subprocess.run([f"{BIN}/lmeval", "-q", "--model", MODEL, "--task", "_group.yaml", "--json", "--bootstrap", "100"], capture_output=True, text=True, check=True)
ours = {(o["task"], f"{o['metric']},{o.get('filter', 'none')}"): o for o in map(json.loads, run.stdout.splitlines())}
for name, metrics in theirs.items():
    for key, value in metrics.items():
        metric, _, kind = key.partition(",")
        if kind and not metric.endswith("_stderr"):
            o, error = ours.get((name, key)), metrics.get(f"{metric}_stderr,{kind}")
            same = o and abs(o["value"] - value) < 1e-6 and abs(o["stderr"] - error) < 1e-6
            compared += 1
            failed += not same
            print(f"{'ok' if same else 'NOT OK'} - group {name} {key}: ours {o and (o['value'], o['stderr'])}, theirs {value} ± {error}")
print(f"{compared} compared, {failed} failed")
sys.exit(failed > 0 or compared == 0)
