"""Compares `rejsample --agreement` with SciPy and scikit-learn: Kendall's W from Friedman's statistic, Cohen's kappa over pairs of answers.

usage: agreement_check.py rejsample      (needs scipy, sklearn)
"""
import itertools, json, random, subprocess, sys, tempfile
from scipy.stats import friedmanchisquare, rankdata
from sklearn.metrics import cohen_kappa_score

random.seed(5)
names = ["ann", "bob", "cy"]
judged, ws = {n: {} for n in names}, []
with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
    for item in range(40):
        n = random.randint(3, 7)
        quality = [random.gauss(0, 1) for _ in range(n)]
        for name in names:
            seen = [round(q + random.gauss(0, 0.7)) for q in quality]  # rounding gives ties
            order = sorted(range(n), key=lambda i: -seen[i])
            ranks = rankdata([-seen[i] for i in order], "dense").tolist()
            f.write(json.dumps({"prompt": f"item {item}", "responses": [f"answer {i}" for i in order], "ranks": [int(r) for r in ranks], "annotator": name}) + "\n")
            judged[name][item] = [-s for s in seen]
        if any(len(set(judged[n_][item])) > 1 for n_ in names):
            k = len(judged[names[0]][item])
            ws.append(friedmanchisquare(*zip(*[judged[n_][item] for n_ in names])).statistic / (len(names) * (k - 1)))
    f.flush()
    out = subprocess.run([sys.argv[1], "--agreement", f.name], capture_output=True, text=True, check=True).stdout
want = [f"Kendall's W {sum(ws) / len(ws):.4f}"]
sign = lambda a, b: (a > b) - (a < b)
for a, b in itertools.combinations(names, 2):
    x, y = ([sign(j[i][p], j[i][q]) for i in range(40) for p in range(len(j[i])) for q in range(len(j[i])) if p != q] for j in (judged[a], judged[b]))
    want.append(f"Cohen's kappa {cohen_kappa_score(x, y):.4f} of {a} and {b}")
print(out)
missing = [w for w in want if w not in out]
print(f"{len(want) - len(missing)} of {len(want)} figures equal", *missing, sep="; ")
sys.exit(bool(missing))
