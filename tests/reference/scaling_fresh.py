"""scalefit against NumPy and SciPy on tables of runs that are drawn anew from known laws: other orders of columns, formats and writings of
numbers, missing values, repeated rows, budgets without an inner minimum.

    python3 tests/reference/scaling_fresh.py SCALEFIT [SEED…]
"""
import json
import os
import subprocess
import sys
import tempfile
import numpy as np
from scipy.optimize import curve_fit, least_squares
from scipy.stats import linregress
from scaling_common import HOFFMANN, fit

np.seterr(all="ignore")  # starts far off overflow
scalefit, seeds = sys.argv[1], [int(s) for s in sys.argv[2:]] or [1, 2, 3]
folder = tempfile.mkdtemp()
bad, compared = [], 0


def run(*arguments):
    return json.loads(subprocess.run([scalefit, *map(str, arguments), "--json", "-q"], check=True, capture_output=True, text=True).stdout)


def close(name, got, want, relative, absolute=0):
    global compared
    compared += 1
    if not abs(got - want) <= relative * abs(want) + absolute:
        bad.append(f"{name}: {got!r}, SciPy has {want!r}")


def write(random, name, columns):
    """A table in one of the forms that scalefit reads; rows without a loss and unused columns among the others."""
    names = list(columns)
    random.shuffle(names)
    form = random.choice(["tsv", "csv", "semicolon", "jsonl"])
    path = os.path.join(folder, f"{name}.{form}")
    count = len(columns[names[0]])
    numeral = [lambda x: f"{x:.17g}", lambda x: f"{x:.16E}", lambda x: f"{x:+.16e}"][random.integers(3)]
    rows = [{n: numeral(columns[n][i]) for n in names} for i in range(count)]
    rows += [{**rows[int(random.integers(count))], "loss": random.choice(["nan", "NaN", ""])} for _ in range(3) if "loss" in columns]
    if form == "jsonl":
        text = "".join(json.dumps({n: float(v) if v else float("nan") for n, v in r.items()} | {"note": "NaN", "by": None}) + "\n" for r in rows)
    else:
        cell = {"tsv": "\t", "csv": ", ", "semicolon": ";"}[form]
        text = ("\ufeff" if random.random() < 0.3 else "") + cell.join(names + ["note"]) + "\n"
        text += "".join(cell.join([r[n] for n in names] + ["x"]) + random.choice(["\n", "\r\n"]) for r in rows)
    open(path, "w", newline="").write(text)
    return path


def isoflop(random, name):
    A, B, E, alpha, beta = random.uniform([200, 300, 1.2, 0.28, 0.26], [600, 2500, 2, 0.4, 0.42])
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    runs = []
    for c in 10 ** np.linspace(17, 20.5, 7):
        best = G * (c / 6) ** (beta / (alpha + beta))
        shift = 3 if random.random() < 0.2 else random.uniform(-0.5, 0.5)  # 3: no inner minimum
        n = best * 2.0 ** (np.arange(-4, 5) * random.uniform(0.3, 0.6) + shift)
        d = c * random.uniform(0.98, 1.02, len(n)) / (6 * n)
        runs += [(x, y, 6 * x * y, (E + A / x**alpha + B / y**beta) * np.exp(random.normal(0, 0.001))) for x, y in zip(n, d)]
    runs = np.array(runs)
    runs = np.concatenate([runs, runs[random.integers(len(runs), size=5)]])  # some twice
    random.shuffle(runs)
    path = write(random, name, dict(zip(("params", "tokens", "flops", "loss"), runs.T)))
    points = []
    runs = runs[np.argsort(runs[:, 2])]
    groups, first = [], 0
    for i in range(1, len(runs) + 1):
        if i == len(runs) or runs[i, 2] > runs[first, 2] * 1.1:
            groups.append(np.unique(runs[first:i], axis=0))
            first = i
    for g in groups:
        low = int(g[:, 3].argmin())
        part = g[max(0, low - 2) : low + 3]
        z = np.log10(part[:, 0])
        c2, c1, c0 = np.polyfit(z, part[:, 3], 2)
        if 0 < low < len(g) - 1 and c2 > 0 and z[0] < -c1 / (2 * c2) < z[-1]:
            points.append((np.log10(g[:, 2]).mean(), -c1 / (2 * c2), c0 - c1 * c1 / (4 * c2)))
    x, y, loss = np.array(points).T
    line = linregress(x, y)
    got = run("isoflop", "--budget", "1e23", path)
    close(f"{name}: slope", got["log10_N_on_log10_C"]["slope"], line.slope, 1e-7)
    close(f"{name}: its error", got["log10_N_on_log10_C"]["slope_se"], line.stderr, 1e-5)
    close(f"{name}: prediction", got["predictions"][0]["params"], 10 ** (line.intercept + 23 * line.slope), 1e-6)
    close(f"{name}: loss", got["predictions"][0]["loss"], 10 ** np.polyval(np.polyfit(x, np.log10(loss), 1), 23), 1e-6)
    data = tuple(np.log(v) for v in (runs[:, 0], runs[:, 1], runs[:, 3]))
    best = min((fit(HOFFMANN + s, data) for s in random.normal(0, 0.1, (30, 5))), key=lambda f: f.fun)
    got = run("parametric", "--bootstrap", "0", path)
    close(f"{name}: objective above SciPy's", max(got["objective"] / best.fun, 1), 1, 1e-6)
    if got["objective"] > best.fun * (1 - 1e-6):
        close(f"{name}: alpha", got["params"]["alpha"], best.x[3], 2e-3)
        close(f"{name}: E", got["params"]["E"], np.exp(best.x[2]), 2e-3)
    line = linregress(np.log10(runs[:, 2]), np.log10(runs[:, 3]))
    got = run("power", path)
    close(f"{name}: power", got["log10_y_on_log10_x"]["slope"], line.slope, 1e-7)


def downstream(random, name):
    flops = 10 ** np.linspace(18, 23, 16)
    nll = 25 * flops**-0.065 * np.exp(random.normal(0, 0.01, 16))
    accuracy = np.clip(0.25 + 0.65 / (1 + np.exp(9 * (nll - 1.1))) + random.normal(0, 0.005, 16), 0, 1)
    path = write(random, name, {"flops": flops, "quiz_bpb": nll, "quiz_acc": accuracy})
    curve, _ = curve_fit(lambda v, h, k, x0: 0.25 + h / (1 + np.exp(-k * (v - x0))), nll, accuracy, [0.6, -8, 1.2], bounds=([0, -80, 0], [0.75, 0, 3]), ftol=1e-14, xtol=1e-14)
    line = linregress(np.log10(flops), np.log10(nll))
    got = run("downstream", "--bootstrap", "0", "--chance", "0.25", path)["tasks"][0]
    close(f"{name}: step 1", got["step1"]["slope"], line.slope, 1e-7)
    for key, want in zip(("height", "k", "x0"), curve):
        close(f"{name}: {key}", got["step2"][key], want, 1e-4)


def mixture(random, name):
    shares = random.dirichlet([1, 1, 1, 1], 50)
    t = random.uniform(-2, 1, 4)
    loss = 1.5 + np.exp(shares @ t) + random.normal(0, 0.003, 50)
    path = write(random, name, {f"w_{d}": shares[:, i] * 100 for i, d in enumerate("abcd")} | {"loss_x": loss})
    found = least_squares(lambda v: v[0] + np.exp(shares @ v[1:]) - loss, [loss.min() - 0.3, *t], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    linear = np.linalg.lstsq(shares, loss, rcond=None)[0]
    got = run("mixture", "--bootstrap", "0", path)["targets"]["loss_x"]
    close(f"{name}: squares", got["exponential"]["sse"], 2 * found.cost, 1e-6)
    close(f"{name}: c", got["exponential"]["c"], found.x[0], 1e-3)
    for ours, want in zip(sorted(got["linear"]["beta"]), sorted(linear)):  # the columns were shuffled
        close(f"{name}: linear", ours, want, 1e-7)


for seed in seeds:
    random = np.random.default_rng(seed)
    isoflop(random, f"isoflop-{seed}")
    downstream(random, f"downstream-{seed}")
    mixture(random, f"mixture-{seed}")

for line in bad:
    print(line)
print(f"{compared} numbers of {3 * len(seeds)} tables: " + ("scalefit and SciPy agree" if not bad else f"{len(bad)} differences"))
sys.exit(bool(bad))
