"""scalefit against SciPy on tables of runs: the parametric law by both objectives and the time of its bootstrap, downstream sigmoids,
mixture laws, repeated data.

    python3 tests/reference/scaling_check.py SCALEFIT FOLDER [SAMPLES]

FOLDER holds chinchilla.tsv, olmo-ladder-final.tsv, regmix-1m-train.tsv and datablations.tsv (measured by others; what they are
stands in tests/reference/README.md). SciPy gets its best case: gradients by hand, whole arrays, and for the bootstrap the same two
starts (the full fit and Hoffmann's constants). Both run on as many CPUs as there are, SciPy one process each.
"""
import json
import multiprocessing
import os
import subprocess
import sys
import time
import numpy as np
from scipy.optimize import curve_fit, least_squares, minimize
from scipy.special import erf

np.seterr(all="ignore")  # starts far off overflow
scalefit, folder = sys.argv[1], sys.argv[2]
samples = int(sys.argv[3]) if len(sys.argv) > 3 else 4000
bad = []


def run(*arguments):
    return json.loads(subprocess.run([scalefit, *arguments, "--json", "-q"], check=True, capture_output=True, text=True).stdout)


def table(name):
    rows = [line.rstrip("\n").split("\t") for line in open(f"{folder}/{name}")]
    return {c: np.array([r[i] for r in rows[1:]]) for i, c in enumerate(rows[0])}


def numbers(t, *columns):
    return [t[c].astype(float) for c in columns]


def close(name, got, want, relative):
    if not abs(got - want) <= relative * abs(want):
        bad.append(f"{name}: {got!r}, SciPy has {want!r}")


DELTA = 1e-3


def huber(x, n, d, log_loss):
    a, b, e, alpha, beta = x
    terms = np.stack([a - alpha * n, b - beta * d, np.full_like(n, e)])
    top = terms.max(0)
    parts = np.exp(terms - top)
    total = parts.sum(0)
    off = top + np.log(total) - log_loss
    slope = np.clip(off, -DELTA, DELTA)
    g = slope * parts / total
    return (slope * (off - slope / 2)).sum(), np.array([g[0].sum(), g[1].sum(), g[2].sum(), -(g[0] * n).sum(), -(g[1] * d).sum()])


HOFFMANN = np.array([np.log(406.4), np.log(410.7), np.log(1.69), 0.34, 0.28])


def fit(start, data):
    return minimize(huber, start, args=data, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000})


def resample(job):
    seed, full, data = job
    rows = np.random.default_rng(seed).integers(len(data[0]), size=len(data[0]))
    drawn = tuple(v[rows] for v in data)
    return min((fit(s, drawn) for s in (full, HOFFMANN)), key=lambda f: f.fun).x


chinchilla = table("chinchilla.tsv")
used = chinchilla["used"] == "1"
params, flops, loss = (v[used] for v in numbers(chinchilla, "params", "flops", "loss"))
data = (np.log(params), np.log(flops / (6 * params)), np.log(loss))
best = min((fit(HOFFMANN + s, data) for s in np.random.default_rng(0).normal(0, 0.1, (30, 5))), key=lambda f: f.fun)
ours = run("parametric", "--bootstrap", "0", "--where", "used=1", f"{folder}/chinchilla.tsv")
if ours["objective"] > best.fun * (1 + 1e-6):
    bad.append(f"objective {ours['objective']}, SciPy has {best.fun}")
close("alpha", ours["params"]["alpha"], best.x[3], 1e-3)

likelihood = run("parametric", "--bootstrap", "0", "--objective", "likelihood", "--where", "used=1", f"{folder}/chinchilla.tsv")
z = np.sqrt(2 * np.pi) * erf(DELTA / np.sqrt(2)) + 2 * np.exp(-DELTA**2 / 2) / DELTA


def scaled(x):
    n, d, l = data
    r = np.abs(np.log(np.exp(x[0] - x[3] * n) + np.exp(x[1] - x[4] * d) + np.exp(x[2])) - l) / np.exp(x[5])
    return len(n) * (x[5] + np.log(z)) + np.where(r < DELTA, r * r / 2, DELTA * (r - DELTA / 2)).sum()


p = likelihood["params"]
x = np.array([np.log(p["A"]), np.log(p["B"]), np.log(p["E"]), p["alpha"], p["beta"], likelihood["log_scale"]])
close("likelihood's value", likelihood["objective"], scaled(x), 1e-9)
better = minimize(scaled, x, method="Nelder-Mead", options={"maxiter": 20000, "xatol": 1e-10, "fatol": 1e-10})
if likelihood["objective"] > better.fun + 1e-6 * abs(better.fun):
    bad.append(f"likelihood {likelihood['objective']}, SciPy goes on to {better.fun}")

cpus = len(os.sched_getaffinity(0))
part = min(samples, 100 * cpus)
with multiprocessing.Pool(cpus) as pool:
    pool.map(resample, [(s, best.x, data) for s in range(2 * cpus)])
    begin = time.perf_counter()
    drawn = np.array(pool.map(resample, [(s, best.x, data) for s in range(part)], chunksize=5))
    theirs = (time.perf_counter() - begin) * samples / part
# What scalefit's starts take is timed alone and taken off: SciPy's bootstrap begins after the full fit too.
begin = time.perf_counter()
run("parametric", "--bootstrap", "0", "--where", "used=1", f"{folder}/chinchilla.tsv")
starts = time.perf_counter() - begin
begin = time.perf_counter()
ours = run("parametric", "--bootstrap", str(samples), "--where", "used=1", f"{folder}/chinchilla.tsv")
seconds = time.perf_counter() - begin - starts
close("deviation of alpha", ours["bootstrap"]["alpha"]["sd"], drawn[:, 3].std(ddof=1), 0.25)

ladder = table("olmo-ladder-final.tsv")
for task, chance in (("arc_challenge_test", 0.25), ("hellaswag_val", 0.25), ("openbookqa_test", 0.25)):
    nll, accuracy = numbers(ladder, f"{task}_bpb", f"{task}_acc")
    curve, _ = curve_fit(lambda v, h, k, x0: chance + h / (1 + np.exp(-k * (v - x0))), nll, accuracy, [0.5, -8, 1], bounds=([0, -50, 0], [1 - chance, 0, 3]))
    step = run("downstream", "--bootstrap", "0", "--task", task, "--chance", str(chance), f"{folder}/olmo-ladder-final.tsv")["tasks"][0]["step2"]
    for name, want in zip(("height", "k", "x0"), curve):
        close(f"{task} {name}", step[name], want, 1e-3)

regmix = table("regmix-1m-train.tsv")
shares = np.stack([regmix[c].astype(float) for c in regmix if c.startswith("w_")], 1)
shares /= shares.sum(1, keepdims=True)
for target in ("loss_pile_cc", "loss_github"):
    (y,) = numbers(regmix, target)
    start = np.concatenate([[y.min() - 0.1], np.linalg.lstsq(shares, np.log(y - y.min() + 0.1), rcond=None)[0]])
    found = least_squares(lambda v: v[0] + np.exp(shares @ v[1:]) - y, start, jac=lambda v: np.hstack([np.ones((len(y), 1)), np.exp(shares @ v[1:])[:, None] * shares]), xtol=1e-14, ftol=1e-14)
    ours_mix = run("mixture", "--bootstrap", "0", "--target", target, f"{folder}/regmix-1m-train.tsv")["targets"][target]["exponential"]
    if ours_mix["sse"] > 2 * found.cost * (1 + 1e-6):
        bad.append(f"{target}: {ours_mix['sse']}, SciPy has {2 * found.cost}")

N, D, U, L = numbers(table("datablations.tsv"), "params", "tokens", "unique_tokens", "loss")
U = np.minimum(U, D)


def repeats(x, log_a=None, log_b=None, log_e=None, alpha=None):
    if log_a is None:
        log_a, log_b, log_e, alpha = x[:4]
        x = x[4:]
    rd, rn = np.exp(x)
    un = np.minimum(N, np.exp((log_a - log_b) / alpha) * U)
    d = U * (1 + rd * -np.expm1(-(D / U - 1) / rd))
    n = un * (1 + rn * -np.expm1(-(N / un - 1) / rn))
    off = np.log(np.exp(log_e) + np.exp(log_a) / n**alpha + np.exp(log_b) / d**alpha) - np.log(L)
    r = np.abs(off)
    return np.where(r < DELTA, r * r / 2, DELTA * (r - DELTA / 2)).sum()


law = (6.255414, 7.3049974, 0.6254804, 0.3526596)
ours_fixed = run("repeated", "--bootstrap", "0", "--law", ",".join(repr(float(v)) for v in (*np.exp(law[:3]), law[3], law[3])), f"{folder}/datablations.tsv")
close("repeated data's value", ours_fixed["objective"], repeats(np.log([ours_fixed["params"]["R_D"], ours_fixed["params"]["R_N"]]), *law), 1e-9)
found = min((minimize(repeats, [i, j], args=law, method="Nelder-Mead", options={"fatol": 1e-13}).fun for i in range(0, 6) for j in range(-1, 4)))
if ours_fixed["objective"] > found * (1 + 1e-6):
    bad.append(f"repeated data: {ours_fixed['objective']}, SciPy has {found}")

for line in bad:
    print(line)
print(f"{samples} samples of the parametric fit on {cpus} CPUs: {seconds:.2f} s, SciPy in {cpus} processes {theirs:.0f} s ({part} samples measured), "
      f"{theirs / seconds:.0f} times; in one {theirs * cpus / seconds:.0f} times; the full fit's {starts:.2f} s not counted on either side")
print("scalefit and SciPy agree" if not bad else f"{len(bad)} differences")
sys.exit(bool(bad))
