"""lmeval's filters and metrics of given answers (--responses) against lm-evaluation-harness: multi_choice_regex and the other filters,
exact_match and its arguments, BLEU, chrF, chrF++ and TER with their bootstrap errors; and TER on texts whose words are moved about.

usage: answers_check.py BIN [SEED…]     compare live, other documents and answers with each seed (default 1 2 3)
       answers_check.py --write FOLDER  write the documents, answers and golden values of tests/data/answers
(needs lm_eval, sacrebleu)
"""
import json, math, os, random, subprocess, sys, tempfile

import yaml
from lm_eval import evaluator
from lm_eval.api.model import LM

LATIN = "the cat sat on a mat in Paris, U.S. it's 3.14 1,000 well-known (see below) “quoted” end. e.g. a&b &amp;lt; 5-4 x--y ... ,. -\nz <skipped>ed 'tis".split(" ")
OTHER = "der Größe Straße naïve été ΟΔΟΣ ΣΑΣ σας İstanbul 你好 世界。 テスト １２３ Ω é \u00a0x\u2003y 😀 мир 「引用」 ﬁ".split(" ")


def sentence(r, n):
    return r.choice([" ", " ", "  ", "\t"]).join(r.choice(LATIN if r.random() < 0.8 else OTHER) for _ in range(n))


def disturbed(r, text):
    """An answer near what was wanted: words dropped, doubled, replaced, stretches moved."""
    words = text.split(" ")
    for _ in range(r.randrange(6)):
        if not words:
            break
        at, way = r.randrange(len(words)), r.randrange(5)
        if way == 0:
            del words[at]
        elif way == 1:
            words.insert(at, r.choice(words))
        elif way == 2:
            words[at] = r.choice(LATIN + OTHER)
        else:
            n = r.randint(1, 5)
            piece, words[at : at + n] = words[at : at + n], []
            to = r.randint(0, len(words))
            words[to:to] = piece
    text = " ".join(words)
    return text.upper() if r.random() < 0.1 else text + r.choice(["", "", " ", "\n", "!"])


def translations(r, n):
    rows, answers = [], []
    for i in range(n):
        wanted = sentence(r, r.choice([0, 1, 3, 6, 12, 30]) or 1) if i % 17 else "x"
        if i == 5:
            wanted = sentence(r, 90)
        rows.append({"question": f"q{i}", "answer": wanted})
        answers.append("" if i % 23 == 7 else sentence(r, r.randint(1, 12)) if i % 11 == 3 else disturbed(r, wanted))
    return rows, answers


CHOICES = ["Guilty", "Guilty of Romance", "not guilty", "Paris", "the cat", "a+b (c)", "U.S.", "42", "  spaced  ", "Straße", "你好", "it's", "A", "B", "x|y", "“Paris”", "No.", "no", "1,000", "cat\nsat"]


def choices(r, n):
    rows, answers = [], []
    for i in range(n):
        texts = r.sample(CHOICES, r.randint(2, 6)) if i % 9 else [r.choice(CHOICES)] * 2 + ["Z"]
        letters = "ABCDEF"[: len(texts)]
        said = r.choice(texts)
        answers.append(r.choice([
            f"The answer is ({r.choice(letters)}).", f"The answer is {r.choice(letters)}.", f"the answer is ({r.choice(letters)}) or ({r.choice(letters)})", f"I think {said}.", said.upper(), f"“{said}”, {r.choice(texts)}",
            f"So: {r.choice(letters)}", f"So:\n {r.choice(letters)} (not {r.choice(letters)})", f"so:{r.choice('GHZ')}", "nothing", "", f"{said[:-1]}", f" {said.lower()} {r.choice(texts)} The answer is (Z).", f"{said.strip()}!?: {r.choice(letters)}",
        ]))
        rows.append({"question": f"q{i}", "choices": texts, "answer": f"({r.choice(letters)})"})
    return rows, answers


def pipeline(name, *filters):
    return {"name": name, "filter": [*filters, {"function": "take_first"}]}


def multi(pattern, **more):
    return {"function": "multi_choice_regex", "regex_pattern": pattern, **more}


TASKS = {
    "translate": (translations, {"metric_list": [{"metric": m} for m in ("bleu", "chrf", "chrf++", "ter", "bypass", "exact_match")],
                                 "filter_list": [pipeline("plain"), pipeline("small", {"function": "remove_whitespace"}, {"function": "lowercase"})]}),
    "letters": (choices, {
        "metric_list": [{"metric": "exact_match", "ignore_case": True}],
        "filter_list": [
            pipeline("paren", multi(r"(\([A-Z]\))")), pipeline("last", multi(r"(\([A-Z]\))", group_select=-1, ignore_case=True, ignore_punctuation=True)),
            pipeline("two", multi(r"answer is \(?([A-Z])\)?|answer is (x)?")), pipeline("none", multi("(@@)", fallback="[no]")),
            pipeline("case", multi("(@@)", ignore_case=True)), pipeline("marks", multi("(@@)", ignore_case=True, ignore_punctuation=True, regexes_to_ignore=["[,$]", "(?i)\\bthe\\b"])),
            pipeline("later", multi("(@@)", group_select=-1)), pipeline("flan", multi(r"(?<=answer is )(.*)(?=.)"), {"function": "lowercase"}), pipeline("regex", {"function": "regex", "regex_pattern": r"answer is \(?([A-Z])|: (\w)"}),
            pipeline("map", {"function": "regex", "regex_pattern": r"\(([A-F])\)"}, {"function": "map", "mapping_dict": {"A": "(A)", "B": "(B)", "C": "3"}, "default_value": "?"}),
        ]}),
}


class Given(LM):
    """Says what it was given, by the document's number."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def generate_until(self, requests, **_):
        return [self.answers[q.doc_id] for q in requests]

    def loglikelihood(self, requests, **_):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def definition(name, file):
    return {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": file}}, "output_type": "generate_until", "test_split": "test",
            "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}", **TASKS[name][1]}


def write(path, rows):
    with open(path, "w") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def reference(name, folder, answers):
    """{(metric, filter): (value, error)}, [[what each filter made of each answer]]."""
    result = evaluator.simple_evaluate(model=Given(answers), tasks=[definition(name, f"{folder}/{name}.jsonl")], log_samples=True, bootstrap_iters=1000)
    theirs = result["results"][name]
    numbers = {}
    for key, value in theirs.items():
        metric, _, kind = key.partition(",")
        if kind and not metric.endswith("_stderr"):
            error = theirs[f"{metric}_stderr,{kind}"]
            numbers[metric, kind] = (float(value), error if isinstance(error, float) else None)
    filtered = {}
    for s in result["samples"][name]:
        filtered.setdefault(s["filter"], {})[s["doc_id"]] = s["filtered_resps"][0]
    return numbers, filtered


def prepare(folder, seed, n):
    out = {}
    for name, (make, _) in TASKS.items():
        rows, answers = make(random.Random(f"{seed} {name}"), n)
        write(f"{folder}/{name}.jsonl", rows)
        write(f"{folder}/{name}-responses.jsonl", [{"response": a} for a in answers])
        with open(f"{folder}/{name}.yaml", "w") as f:
            yaml.safe_dump(definition(name, f"{name}.jsonl"), f, sort_keys=False, allow_unicode=True, width=150)
        out[name] = answers
    return out


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        folder = os.path.abspath(sys.argv[2])
        golden = open(f"{folder}/golden.tsv", "w")
        for name, answers in prepare(folder, "golden", 120).items():
            numbers, filtered = reference(name, folder, answers)
            for (metric, kind), (value, error) in sorted(numbers.items()):
                print(name, metric, kind, repr(value), "-" if error is None or math.isnan(error) else repr(error), sep="\t", file=golden)
            if name == "letters":
                write(f"{folder}/letters-filtered.jsonl", [{k: str(v[i]) for k, v in filtered.items()} for i in range(len(answers))])
        sys.exit()
    binary, failed, compared = os.path.abspath(sys.argv[1]), 0, 0
    for seed in sys.argv[2:] or ["1", "2", "3"]:
        folder = tempfile.mkdtemp()
        for name, answers in prepare(folder, seed, 150).items():
            numbers, filtered = reference(name, folder, answers)
            run = subprocess.run([f"{binary}/lmeval", "--task", f"{name}.yaml", "--responses", f"{name}-responses.jsonl", "--json", "--bootstrap", "1000", "--log-samples", "log"], cwd=folder, capture_output=True, text=True)
            ours = {(o["metric"], o.get("filter", "none")): o for o in map(json.loads, run.stdout.splitlines())}
            bad = [run.stderr.strip()] if run.returncode else []
            for key, (value, error) in numbers.items():
                o = ours.get(key)
                near = lambda a, b: a is not None and abs(a - b) <= 1e-9 * max(1, abs(b))
                compared += 1
                if not o or not near(o["value"], value) or (near(o["stderr"], error) is False if error is not None and not math.isnan(error) else o["stderr"] is not None):
                    bad.append(f"{key}: ours {o and (o['value'], o['stderr'])}, theirs {value} ± {error}")
            for i, line in enumerate(map(json.loads, open(f"{folder}/log"))) if not run.returncode else []:
                for kind in filtered:
                    compared += 1
                    if line[kind]["answer"] != str(filtered[kind][i]):
                        bad.append(f"{kind} of {answers[i]!r}: ours {line[kind]['answer']!r}, theirs {filtered[kind][i]!r}")
            failed += len(bad)
            print(f"{'NOT OK' if bad else 'ok'} - {name}, seed {seed}: {'; '.join(bad[:5]) if bad else ', '.join(f'{m},{k} {v:.4f}' for (m, k), (v, _) in numbers.items())}", flush=True)
    print(f"{compared} compared, {failed} failed")
    sys.exit(failed > 0 or compared == 0)
