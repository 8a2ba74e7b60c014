"""lmeval on lm-evaluation-harness's own task definitions (those of the installed package), beside the harness, on a tiny random model and on
invented rows in the columns of each data set: the metrics of both. Where Python runs in a definition, lmeval gets the rows that it makes
(--processed), or refuses by name what rows are not enough for.

usage: standard_check.py BIN [TASK…]         (needs torch, transformers, lm_eval, scikit-learn)
"""
import glob, json, math, os, random, re, subprocess, sys, tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
import datasets
import lm_eval.tasks
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

BIN, ONLY = os.path.abspath(sys.argv[1]), sys.argv[2:]
ROOT = os.path.dirname(lm_eval.tasks.__file__)
MODEL = f"{os.path.dirname(os.path.abspath(__file__))}/../data/models/road"
FOLDER = tempfile.mkdtemp()
r = random.Random(3)
WORDS = "the a const int char text number list of file line name long value is holds token size data and per step".split()


def phrase(n=3):
    return " ".join(r.choice(WORDS) for _ in range(n))


def choices(n, labels="ABCDE"):
    texts = []
    while len(texts) < n:
        texts = list(dict.fromkeys(texts + [phrase(r.randint(1, 3))]))
    return {"text": texts, "label": list(labels[:n])}


def arc(i):
    return {"id": str(i), "question": phrase(5) + "?", "choices": choices(4), "answerKey": r.choice("ABCD")}


def letters(n):
    return lambda i: {"question": phrase(5) + "?", "subject": "abstract_algebra", "choices": choices(n)["text"], "answer": r.randrange(n)}


def gsm(i):
    return {"question": f"{phrase(6)} {i}?", "answer": f"{phrase(4)} {i} * 3\n#### {i * 3},{i}00"}


def abcd(**more):
    return lambda i: {**{k: v() for k, v in more.items()}, **{c: phrase(2) + " " + c for c in "ABCD"}}


# Task: the rows of its data set. A name alone is a definition that Python runs in: refused.
TASKS = {
    "arc_easy": arc,
    "arc_challenge": arc,
    "piqa": lambda i: {"goal": phrase(4), "sol1": phrase(3), "sol2": phrase(2) + ".", "label": r.randrange(2)},
    "boolq": lambda i: {"passage": phrase(12), "question": phrase(4), "idx": i, "label": r.randrange(2)},
    "sciq": lambda i: {"question": phrase(4) + "?", "support": " " * (i % 2) + phrase(8), "distractor1": phrase(1) + "x", "distractor2": phrase(2), "distractor3": phrase(3), "correct_answer": phrase(2) + "s"},
    "openbookqa": lambda i: {"question_stem": phrase(5), "choices": choices(4), "answerKey": r.choice("ABCD") + " " * 0},
    "lambada_openai": lambda i: {"text": phrase(12)},
    "lambada_standard": lambda i: {"text": phrase(9)},
    "gsm8k": gsm,
    "gsm8k_cot": gsm,
    "gsm8k_cot_zeroshot": gsm,
    "mgsm_direct_en": lambda i: {"question": f"{phrase(5)} {i}?", "answer": None if i % 2 else "Step-by-Step Answer: so. The answer is 9.", "answer_number": i * 7, "equation_solution": None},
    "mgsm_direct_de": lambda i: {"question": f"Frage: {phrase(5)} {i}?", "answer": None if i % 2 else "Schritt: Die Antwort ist 9.", "answer_number": i * 7, "equation_solution": None},
    "truthfulqa_mc1": lambda i: {"question": phrase(5) + "?", "mc1_targets": {"choices": choices(3 + i % 3)["text"], "labels": [1] + [0] * (2 + i % 3)}},
    "mmlu_abstract_algebra": letters(4),
    "mmlu_abstract_algebra_generative": letters(4),
    # Choices that stand in what the model says: their texts are looked for in it.
    "mmlu_flan_cot_zeroshot_abstract_algebra": lambda i: {**letters(4)(i), "choices": [["the", "an", "t", "e."], ["of", "the of", "s", "A"], ["zq", "qz", "x:", "(B)"]][i % 3]},
    "mmlu_flan_n_shot_generative_abstract_algebra": lambda i: {**letters(4)(i), "choices": [["I", "nt ", "o", "E"], ["line", "f", "is", "i"], ["zq", "qz", "x:", "(B)"]][i % 3]},
    "triviaqa": lambda i: {"question": phrase(4), "answer": {"aliases": [phrase(1), phrase(2)], "value": phrase(1)}},
    "nq_open": lambda i: {"question": phrase(4), "answer": [phrase(1), phrase(2)][: 1 + i % 2]},
    "webqs": None,
    "commonsense_qa": lambda i: {"question": phrase(5), "choices": choices(5), "answerKey": r.choice("ABCDE")},
    "swag": lambda i: {"startphrase": phrase(5), "ending0": phrase(2), "ending1": phrase(3), "ending2": phrase(4), "ending3": phrase(3) + ".", "label": r.randrange(4)},
    "social_iqa": lambda i: {"context": phrase(6), "question": phrase(3) + "?", "answerA": phrase(1) + " a", "answerB": phrase(2), "answerC": phrase(3), "label": str(r.randint(1, 3))},
    "anli_r1": lambda i: {"premise": phrase(6), "hypothesis": phrase(4), "label": r.randrange(3)},
    "cb": None,
    "rte": lambda i: {"sentence1": phrase(6), "sentence2": phrase(4), "label": r.randrange(2)},
    "sst2": lambda i: {"sentence": phrase(6), "label": r.randrange(2)},
    "cola": lambda i: {"sentence": phrase(6), "label": r.randrange(2)},
    "mrpc": lambda i: {"sentence1": phrase(6), "sentence2": phrase(4), "label": r.randrange(2)},
    "qqp": lambda i: {"question1": phrase(6), "question2": phrase(4), "label": r.randrange(2)},
    "qnli": lambda i: {"question": phrase(6), "sentence": phrase(4), "label": r.randrange(2)},
    "blimp_adjunct_island": lambda i: {"sentence_good": phrase(6), "sentence_bad": phrase(6) + " of"},
    "arithmetic_2da": lambda i: {"context": f"Question: What is {i} plus {i + 9}?\nAnswer:", "completion": f" {2 * i + 9}"},
    "asdiv": lambda i: {"body": phrase(6), "question": phrase(4) + "?", "answer": f"{i} (apples)", "solution_type": "x", "formula": "x"},
    "prost": lambda i: {"context": phrase(6), "ex_question": phrase(4) + "?", "A": phrase(1) + "a", "B": phrase(2), "C": phrase(3), "D": phrase(4), "label": r.randrange(4)},
    "belebele_eng_Latn": lambda i: {"flores_passage": phrase(9), "question": phrase(4) + "?", **{f"mc_answer{k}": phrase(k) for k in range(1, 5)}, "correct_answer_num": str(r.randint(1, 4))},
    "ceval-valid_accountant": lambda i: {"question": phrase(4), **{c: phrase(2) + c for c in "ABCD"}, "answer": r.choice("ABCD")},
    "babi": lambda i: {"passage": phrase(9), "question": phrase(3) + "?", "answer": phrase(1)},
    # Python runs in these.
    "hellaswag": lambda i: {"activity_label": phrase(2), "ctx_a": phrase(5) + ".", "ctx_b": phrase(2), "endings": [phrase(2) + " [title] " + phrase(1) + str(k) for k in range(4)], "label": str(r.randrange(4))},
    "winogrande": lambda i: {"sentence": f"{phrase(3)} _ {phrase(4)}.", "option1": phrase(1) + "x", "option2": phrase(2), "answer": r.choice("12")},
    "race": lambda i: {"article": phrase(9), "problems": repr([{"question": phrase(4) + x, "answer": r.choice("ABCD"), "options": choices(4)["text"]} for x in ("?", "  _  .", "?")])},
    "mathqa": lambda i: {"Problem": phrase(5), "options": f"a ) {i} , b ) {i + 1} , c ) 7{i} , d ) x , e ) none", "correct": r.choice("abcde")},
    "copa": lambda i: {"premise": phrase(4) + ".", "choice1": phrase(3).capitalize(), "choice2": phrase(2).capitalize(), "question": r.choice(["cause", "effect"]), "label": r.randrange(2)},
    "wsc": lambda i: {"text": f"A {phrase(4)} it.", "span1_text": "A", "span2_text": "it", "span1_index": 0, "span2_index": 5, "label": r.randrange(2)},
    "eus_exams_es_ejadministrativo": lambda i: {"id": i, "question": phrase(4), "candidates": choices(4)["text"], "answer": r.randrange(4)},
    "tmmluplus_accounting": lambda i: {"question": phrase(4), **{c: phrase(1) + c for c in "ABCD"}, "answer": r.choice("ABCD")},
    "wikitext": None, "truthfulqa_gen": None, "drop": None, "squadv2": None, "ifeval": None,
    # Translations.
    "wmt14-en-fr": lambda i: {"translation": {"en": phrase(5), "fr": phrase(6)}},
    "spanish_bench_flores_en-es": lambda i: {"sentence_eng_Latn": phrase(5), "sentence_spa_Latn": phrase(6)},
}


def definitions():
    found = {}
    for path in glob.glob(f"{ROOT}/**/*.yaml", recursive=True):
        name = re.search(r"""^["']?task["']?:\s*["']?([\w-]+)["']?\s*$""", open(path).read(), re.M)
        if name:
            found.setdefault(name[1], path)
    return found


def processed(config, rows, to):
    """What the definition's Python makes of the rows, as --processed wants it."""
    if callable(config.get("process_docs")):
        rows = list(config["process_docs"](datasets.Dataset.from_list(rows)))
    shots = config.get("fewshot_config") or {}
    functions = {name: config.get(name) for name in ("doc_to_text", "doc_to_target", "doc_to_choice")} | {f"fewshot_config.{k}": v for k, v in shots.items() if k.startswith("doc_to")}
    with open(to, "w") as f:
        for row in rows:
            f.write(json.dumps(dict(row) | {name: fn(row) for name, fn in functions.items() if callable(fn)}) + "\n")


paths = definitions()
lm = HFLM(pretrained=MODEL, device="cpu", dtype="float32", batch_size=1, max_length=1024)
compared = refused = failed = 0
for name, rows in TASKS.items():
    if ONLY and name not in ONLY:
        continue
    if name not in paths:
        print(f"# {name}: this harness has no such definition")
        continue
    config, data, options = load_yaml(paths[name]), {}, []
    python = any(map(callable, list(config.values()) + list((config.get("fewshot_config") or {}).values())))
    tested = config.get("test_split") or config.get("validation_split")
    for split in sorted({config.get(k) for k in ("training_split", "validation_split", "test_split", "fewshot_split")} - {None}):
        data[split] = f"{FOLDER}/{name}-{split}.jsonl"
        given = [rows(i) if rows else {"text": phrase(3)} for i in range(3 if split == tested and config.get("output_type", "generate_until") == "generate_until" else 12)]
        with open(data[split], "w") as f:
            f.writelines(json.dumps(row) + "\n" for row in given)
        if python and rows:
            processed(config, given, f"{data[split]}.processed")
        options += ["--data", f"{split}={data[split]}" + ".processed" * bool(python and rows)]
    run = subprocess.run([f"{BIN}/lmeval", "-q", "--model", MODEL, "--task", paths[name], "--max-length", "1024", "--json", "--bootstrap", "1000", *options, *["--processed"] * python], capture_output=True, text=True)
    if rows is None:
        ok = run.returncode == 1 and re.search(r"\.yaml:\d+: ('\w+' has the tag !function|Python's: the rows need its values)", run.stderr)
        refused += bool(ok)
        failed += not ok
        print(f"{'ok' if ok else 'NOT OK'} - {name}: {run.stderr.strip().removeprefix('lmeval: ')[-110:]}", flush=True)
        continue
    for key in ("dataset_name", "tag", "group"):
        config.pop(key, None)
    config |= {"dataset_path": "json", "dataset_kwargs": {"data_files": data}, "num_fewshot": config.get("num_fewshot", 0)}
    theirs = evaluator.simple_evaluate(model=lm, tasks=[config], bootstrap_iters=1000)["results"][name]
    ours = {f"{o['metric']},{o.get('filter', 'none')}": o for o in map(json.loads, run.stdout.splitlines())}
    bad = [run.stderr.strip()] if run.returncode else []
    for key, value in theirs.items():
        metric, _, kind = key.partition(",")
        if not kind or metric.endswith("_stderr"):
            continue
        error, o = theirs.get(f"{metric}_stderr,{kind}"), ours.get(key)
        near = lambda a, b, e: a is not None and abs(a - b) <= e * max(1, abs(b))
        if not o or not near(o["value"], value, 2e-5) or (isinstance(error, float) and not math.isnan(error) and not near(o["stderr"], error, 2e-4)):
            bad.append(f"{key}: ours {o and (o['value'], o['stderr'])}, theirs {value} ± {error}")
    compared += 1
    failed += bool(bad)
    print(f"{'NOT OK' if bad else 'ok'} - {name}: {'; '.join(bad) if bad else ', '.join(f'{k} {v:.4f}' for k, v in theirs.items() if ',' in k and '_stderr' not in k)}", flush=True)
if not ONLY:
    files = sorted(p for p in glob.glob(f"{ROOT}/**/*.yaml", recursive=True) if isinstance(load_yaml(p, resolve_func=False).get("task"), str))
    for options in [], ["--processed"]:
        runs = [subprocess.run([f"{BIN}/lmeval", "--check", *options, *(f"--task={f}" for f in files[i : i + 1000])], capture_output=True, text=True) for i in range(0, len(files), 1000)]
        taken, said = (sum(text.count("\n") for text in texts) for texts in ([r.stdout for r in runs], [r.stderr for r in runs]))
        failed += taken + said != len(files)
        print(f"# of {len(files)} tasks {taken} are taken {' '.join(options)}")
print(f"{compared} definitions compared, {refused} refused by name, {failed} failed")
sys.exit(failed > 0 or compared == 0)
