"""Checks `dedup --fuzzy` against exact Jaccard similarities of every pair, found by brute force through an index of shingles.

    python3 tests/reference/dedup_check.py DEDUP DOCUMENTS.jsonl THRESHOLD [OPTION...]

Demands: of the pairs with J >= THRESHOLD + 0.05 at most 1 % keep both; each removed document names a kept document whose J is
what `similarity` says and at least THRESHOLD; documents kept stand in their order, byte for byte.
"""
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict

dedup, path, threshold, *options = sys.argv[1:]
threshold = float(threshold)
n = int(options[options.index("--ngram") + 1]) if "--ngram" in options else 5


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return frozenset(" ".join(words[i:i + n]) for i in range(len(words) - n + 1))


lines = open(path, "rb").read().splitlines()
documents = [json.loads(l) for l in lines]
sets = [shingles(d["text"]) for d in documents]
names = [d.get("id", f"{path}:{i + 1}") for i, d in enumerate(documents)]
assert len(set(names)) == len(names), "the check needs different ids"
place = {x: i for i, x in enumerate(names)}
index, pairs = defaultdict(list), []
for i, s in enumerate(sets):
    shared = Counter()
    for x in s:
        shared.update(index[x])
        index[x].append(i)
    for k, both in shared.items():
        j = both / (len(s) + len(sets[k]) - both)
        if j >= threshold + 0.05:
            pairs.append((k, i))
with tempfile.TemporaryDirectory() as folder:
    out = subprocess.run([dedup, "--fuzzy", "--threshold", str(threshold), "--removed", folder + "/r", *options, path], check=True, capture_output=True).stdout.splitlines()
    removed = [json.loads(l) for l in open(folder + "/r")]
gone = {}
for r in removed:
    assert r["removed"]["method"] == "fuzzy"
    gone[place[r.get("id")]] = r["removed"]
assert out == [l for i, l in enumerate(lines) if i not in gone], "the documents kept"
worst = 0
for i, r in gone.items():
    k = place[r["match"]]
    assert r["kept"] == r["match"] and k not in gone and k < i, (names[i], r)
    j = len(sets[i] & sets[k]) / len(sets[i] | sets[k])
    assert j >= threshold and abs(j - r["similarity"]) < 1e-9, (names[i], r, j)
missed = [p for p in pairs if p[0] not in gone and p[1] not in gone]
print(f"{len(documents)} documents, {len(gone)} removed, {len(pairs)} pairs with J >= {threshold + 0.05:.2f}, {len(missed)} kept both")
sys.exit(len(missed) > 0.01 * len(pairs))
