"""SciPy's side of tests/bench/fits: seconds of the 4,500 starts and of SAMPLES bootstrap fits, each from a part of them that is
measured, in one process and in as many as there are CPUs. Methods BFGS and L-BFGS-B; the faster counts where it ends as low.

usage: peer_fits.py TABLE SAMPLES       prints: starts bootstrap, of one process; starts bootstrap, of all; method
"""
import itertools
import multiprocessing
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "reference"))
import numpy as np
from scaling_common import HOFFMANN, chinchilla, fit, resample

np.seterr(all="ignore")
data, samples = chinchilla(sys.argv[1]), int(sys.argv[2])
GRID = [np.array(s) for s in itertools.product(range(0, 30, 5), range(0, 30, 5), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5))]
starts = [GRID[i] for i in np.random.default_rng(0).permutation(len(GRID))[:40]]


def timed(run, jobs, whole):
    begin = time.perf_counter()
    ends = run(jobs)
    return (time.perf_counter() - begin) * whole / len(jobs), ends


def start(job):
    return fit(*job).fun


full = min((fit(HOFFMANN + s, data) for s in np.random.default_rng(0).normal(0, 0.1, (20, 5))), key=lambda f: f.fun).x
rows = []
for method in ("BFGS", "L-BFGS-B"):
    draws = [(seed, full, data, method) for seed in range(60)]
    one, ends = timed(lambda jobs: [resample(j) for j in jobs], draws, samples)
    grid, _ = timed(lambda jobs: [start(j) for j in jobs], [(s, data, method) for s in starts], len(GRID))
    cpus = len(os.sched_getaffinity(0))
    with multiprocessing.Pool(cpus) as pool:
        pool.map(resample, draws[: 2 * cpus])
        all_cpus, _ = timed(lambda jobs: pool.map(resample, jobs, chunksize=5), draws, samples)
        grid_all, _ = timed(lambda jobs: pool.map(start, jobs, chunksize=2), [(s, data, method) for s in starts], len(GRID))
    rows.append((one, np.array(ends)[:, 3].std(), f"{grid:.3f} {one:.3f} {grid_all:.3f} {all_cpus:.3f} {method}"))
print(min(rows)[2])
