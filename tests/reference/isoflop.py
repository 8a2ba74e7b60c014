"""IsoFLOP fits by NumPy and SciPy of a table with columns params tokens flops loss: prints one line a window with the
number of budgets that count, then slope, intercept and their standard errors of log10 N and of log10 D on log10 C.

tests/data/isoflop.tsv holds one set-up (RefinedWeb, base, short warm-up, cosine to each budget's end, counted with
attention, training loss) of Porian et al. 2024 (formll/resolving-scaling-law-discrepancies, MIT).

    python3 tests/reference/isoflop.py tests/data/isoflop.tsv > tests/data/isoflop-fits.tsv
"""
import sys
import numpy as np
from scipy.stats import linregress

table = np.genfromtxt(sys.argv[1], names=True)
print("window", "budgets", *[f"{law}_{x}" for law in "ND" for x in ("slope", "intercept", "slope_se", "intercept_se")], sep="\t")
for window in ("2", "all"):
    optima = []
    for flops in np.unique(table["flops"]):
        rows = np.sort(table[table["flops"] == flops], order="params")
        best, reach = rows["loss"].argmin(), len(rows) if window == "all" else int(window)
        if best in (0, len(rows) - 1):
            continue
        rows = rows[max(0, best - reach):best + reach + 1]
        x = np.log10(rows["params"])
        c2, c1, _ = np.polyfit(x, rows["loss"], 2)
        vertex = -c1 / (2 * c2)
        if c2 > 0 and x[0] <= vertex <= x[-1]:
            optima.append((np.log10(flops), vertex, np.log10(flops / 6) - vertex))
    c, n, d = np.array(optima).T
    fits = [linregress(c, y) for y in (n, d)]
    print(window, len(c), *[f"{v:.9g}" for f in fits for v in (f.slope, f.intercept, f.stderr, f.intercept_stderr)], sep="\t")
