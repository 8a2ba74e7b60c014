"""What the filters of transformers and of llama.cpp leave of given logits: writes tests/data/sample.tsv, or has our own filters
compared with it on other logits (live).

usage: sample_golden.py [SEED [VOCABULARY [CASES [build/tests/unit/sample]]]]
(needs numpy, torch, transformers; and xllamacpp for llama.cpp's lines, which it leaves out, and says so, where that is absent)

A line: order (0 transformers, 1 llama.cpp), temperature, top-k, top-p, min-p, repetition penalty, size of the vocabulary, how many
tokens were there before, those tokens, the logits, and the probabilities. Seed 0 gives the golden file, whose first sets have ties.
"""
import ctypes, subprocess, sys, tempfile
import numpy as np, torch
from transformers.generation.logits_process import (LogitsProcessorList, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper,
                                                    TopKLogitsWarper, TopPLogitsWarper)

seed, vocabulary, cases = (int(a) for a in (sys.argv[1:4] + ["0", "40", "20"][len(sys.argv[1:4]):]))
ours = sys.argv[4] if len(sys.argv) > 4 else None
file = tempfile.NamedTemporaryFile("w") if ours else sys.stdout


def transformers_filter(temperature, k, p, m, penalty, seen, logits):
    steps = LogitsProcessorList()
    if penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(float(penalty)))
    steps.append(TemperatureLogitsWarper(float(temperature)))
    if k:
        steps.append(TopKLogitsWarper(k))
    if p < 1:
        steps.append(TopPLogitsWarper(p))
    if m:
        steps.append(MinPLogitsWarper(m))
    return torch.softmax(steps(torch.tensor([seen]), torch.tensor(logits[None])).double(), -1)[0].tolist()


class Token(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float)]


class Tokens(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(Token)), ("size", ctypes.c_size_t), ("selected", ctypes.c_int64), ("sorted", ctypes.c_bool)]


try:
    import xllamacpp
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
except ImportError:
    library = None
    print("no Python package xllamacpp: llama.cpp's order is left out", file=sys.stderr)


def llama_filter(temperature, k, p, m, penalty, seen, logits):
    """llama.cpp's own samplers, in the order of its default chain."""
    chain = []
    for name, types, values in (("penalties", (*[ctypes.c_int32] * 2, *[ctypes.c_float] * 3), (len(logits), 64, penalty, 0, 0)), ("top_k", (ctypes.c_int32,), (k,)),
                                ("top_p", (ctypes.c_float, ctypes.c_size_t), (p, 1)), ("min_p", (ctypes.c_float, ctypes.c_size_t), (m, 1)),
                                ("temp", (ctypes.c_float,), (temperature,))):
        new = getattr(library, "llama_sampler_init_" + name)
        new.restype, new.argtypes = ctypes.c_void_p, types
        chain.append(new(*values))
    tokens = (Token * len(logits))(*[Token(i, float(z), 0) for i, z in enumerate(logits)])
    array = Tokens(tokens, len(logits), -1, False)
    library.llama_sampler_accept.argtypes = (ctypes.c_void_p, ctypes.c_int32)
    library.llama_sampler_apply.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    for t in seen:
        library.llama_sampler_accept(chain[0], t)
    for s in chain:
        library.llama_sampler_apply(s, ctypes.byref(array))
    out = np.full(len(logits), -np.inf)
    for i in range(array.size):
        out[array.data[i].id] = array.data[i].logit
    e = np.exp(out - out.max())
    return (e / e.sum()).tolist()


fixed = [(1, 0, 1, 0, 1), (0.7, 0, 1, 0, 1), (1, 5, 1, 0, 1), (1.3, 7, 1, 0, 1.2), (1, 0, 0.9, 0, 1), (0.8, 0, 0.5, 0, 1.5), (1, 0, 1, 0.1, 1),
         (1.5, 0, 1, 0.3, 1), (0.9, 12, 0.8, 0.05, 1.1), (2, 30, 0.95, 0.2, 0.8), (0.5, 1, 0.3, 0, 1), (1, 0, 0.01, 0, 1)]
random = np.random.default_rng(seed)
for case in range(cases):
    if seed == 0 and case < len(fixed):
        options = fixed[case]
        logits = np.array([((37 * i + 11 * case) % 23) / 4 - 2 for i in range(vocabulary)], np.float32)
        seen = [3, 5, 5, 17]
    else:
        pick = lambda off, draw: off if random.random() < 0.4 else draw
        options = (round(random.uniform(0.3, 2), 2), pick(0, int(random.integers(1, vocabulary))), pick(1, round(random.uniform(0.05, 0.99), 3)),
                   pick(0, round(random.uniform(0.001, 0.5), 3)), pick(1, round(random.uniform(0.7, 1.8), 2)))
        logits = (random.normal(size=vocabulary) * random.uniform(0.5, 4)).astype(np.float32)
        seen = random.integers(0, vocabulary, random.integers(1, 100)).tolist()
    for order, filter in ((0, transformers_filter), (1, llama_filter)):
        if order == 0 or library:
            out = filter(*options, seen, logits)
            print(order, *(f"{x:g}" for x in options), vocabulary, len(seen), *seen, *(f"{x:.9g}" for x in logits), *(f"{x:.7g}" for x in out), sep="\t", file=file)
if ours:
    file.flush()
    r = subprocess.run([ours, file.name], capture_output=True, text=True)
    lines = r.stdout.splitlines()
    print("\n".join(l for l in lines if l.startswith("not ok")))
    print(*(f"{sum(l.startswith('ok') and name in l for l in lines)} cases of {name} equal" for name in ("transformers", "llama.cpp")), sep=", ")
    sys.exit(r.returncode)
