"""scalefit against SciPy on tables of runs: the parametric law by both objectives with its bootstrap, downstream sigmoids, mixture laws,
repeated data.

    python3 tests/reference/scaling_check.py SCALEFIT FOLDER

FOLDER holds chinchilla.tsv, olmo-ladder-final.tsv, regmix-1m-train.tsv and datablations.tsv (measured by others; what they are
stands in tests/reference/README.md). tests/bench/fits
tells the times.
"""
import json
import multiprocessing
import os
import subprocess
import sys
import numpy as np
from scipy.optimize import curve_fit, least_squares, minimize
from scipy.special import erf
from scaling_common import DELTA, HOFFMANN, chinchilla, fit, numbers, resample, table

np.seterr(all="ignore")  # starts far off overflow
scalefit, folder = sys.argv[1], sys.argv[2]
bad = []


def run(*arguments):
    return json.loads(subprocess.run([scalefit, *arguments, "--json", "-q"], check=True, capture_output=True, text=True).stdout)


def close(name, got, want, relative):
    if not abs(got - want) <= relative * abs(want):
        bad.append(f"{name}: {got!r}, SciPy has {want!r}")


data = chinchilla(f"{folder}/chinchilla.tsv")
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
with multiprocessing.Pool(cpus) as pool:
    drawn = np.array(pool.map(resample, [(seed, best.x, data, "BFGS") for seed in range(200)], chunksize=5))
ours = run("parametric", "--bootstrap", "4000", "--where", "used=1", f"{folder}/chinchilla.tsv")
close("deviation of alpha", ours["bootstrap"]["alpha"]["sd"], drawn[:, 3].std(ddof=1), 0.25)

ladder = table(f"{folder}/olmo-ladder-final.tsv")
for task, chance in (("arc_challenge_test", 0.25), ("hellaswag_val", 0.25), ("openbookqa_test", 0.25)):
    nll, accuracy = numbers(ladder, f"{task}_bpb", f"{task}_acc")
    curve, _ = curve_fit(lambda v, h, k, x0: chance + h / (1 + np.exp(-k * (v - x0))), nll, accuracy, [0.5, -8, 1], bounds=([0, -50, 0], [1 - chance, 0, 3]))
    step = run("downstream", "--bootstrap", "0", "--task", task, "--chance", str(chance), f"{folder}/olmo-ladder-final.tsv")["tasks"][0]["step2"]
    for name, want in zip(("height", "k", "x0"), curve):
        close(f"{task} {name}", step[name], want, 1e-3)

regmix = table(f"{folder}/regmix-1m-train.tsv")
shares = np.stack([regmix[c].astype(float) for c in regmix if c.startswith("w_")], 1)
shares /= shares.sum(1, keepdims=True)
for target in ("loss_pile_cc", "loss_github"):
    (y,) = numbers(regmix, target)
    start = np.concatenate([[y.min() - 0.1], np.linalg.lstsq(shares, np.log(y - y.min() + 0.1), rcond=None)[0]])
    found = least_squares(lambda v: v[0] + np.exp(shares @ v[1:]) - y, start, jac=lambda v: np.hstack([np.ones((len(y), 1)), np.exp(shares @ v[1:])[:, None] * shares]), xtol=1e-14, ftol=1e-14)
    ours_mix = run("mixture", "--bootstrap", "0", "--target", target, f"{folder}/regmix-1m-train.tsv")["targets"][target]["exponential"]
    if ours_mix["sse"] > 2 * found.cost * (1 + 1e-6):
        bad.append(f"{target}: {ours_mix['sse']}, SciPy has {2 * found.cost}")

N, D, U, L = numbers(table(f"{folder}/datablations.tsv"), "params", "tokens", "unique_tokens", "loss")
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
print("scalefit and SciPy agree" if not bad else f"{len(bad)} differences")
sys.exit(bool(bad))
