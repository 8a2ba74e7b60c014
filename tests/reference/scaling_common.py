"""SciPy's fit of L = E + A/N^alpha + B/D^beta to a table of runs, as fast as it goes: the gradient by hand, whole arrays. For
scaling_check.py and tests/bench/peer_fits.py.
"""
import numpy as np
from scipy.optimize import minimize


def table(path):
    rows = [line.rstrip("\n").split("\t") for line in open(path)]
    return {c: np.array([r[i] for r in rows[1:]]) for i, c in enumerate(rows[0])}


def numbers(t, *columns):
    return [t[c].astype(float) for c in columns]


def chinchilla(path):
    """Logarithms of parameters, tokens and loss of the runs whose column `used` says 1."""
    t = table(path)
    used = t["used"] == "1"
    params, flops, loss = (v[used] for v in numbers(t, "params", "flops", "loss"))
    return np.log(params), np.log(flops / (6 * params)), np.log(loss)


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


def fit(start, data, method="BFGS"):
    options = {"gtol": 1e-9, "maxiter": 2000} if method == "BFGS" else {"ftol": 1e-13, "gtol": 1e-9, "maxiter": 5000, "maxfun": 20000}
    return minimize(huber, start, args=data, jac=True, method=method, options=options)


def resample(job):
    """The lower of the minima from two starts, the full fit and Hoffmann's constants, for rows drawn with replacement."""
    seed, full, data, method = job
    rows = np.random.default_rng(seed).integers(len(data[0]), size=len(data[0]))
    drawn = tuple(v[rows] for v in data)
    return min((fit(s, drawn, method) for s in (full, HOFFMANN)), key=lambda f: f.fun).x
