"""Writes tests/data/sample.tsv: what transformers' logits processors leave of given logits.

usage: sample_golden.py >tests/data/sample.tsv     (needs torch, transformers)

A line: temperature, top-k, top-p, min-p, repetition penalty, which logits, then the 40 probabilities. Logit i of set s is
((37 i + 11 s) mod 23)/4 - 2, so that there are ties; tokens 3, 5, 5, 17 were there before.
"""
import torch
from transformers.generation.logits_process import (LogitsProcessorList, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper,
                                                    TopKLogitsWarper, TopPLogitsWarper)

for temperature, k, p, m, penalty, s in [(1, 0, 1, 0, 1, 0), (0.7, 0, 1, 0, 1, 1), (1, 5, 1, 0, 1, 2), (1.3, 7, 1, 0, 1.2, 3), (1, 0, 0.9, 0, 1, 4), (0.8, 0, 0.5, 0, 1.5, 5),
                                         (1, 0, 1, 0.1, 1, 6), (1.5, 0, 1, 0.3, 1, 7), (0.9, 12, 0.8, 0.05, 1.1, 8), (2, 30, 0.95, 0.2, 0.8, 9), (0.5, 1, 0.3, 0, 1, 10), (1, 0, 0.01, 0, 1, 11)]:
    logits = torch.tensor([[((37 * i + 11 * s) % 23) / 4 - 2 for i in range(40)]])
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
    out = torch.softmax(steps(torch.tensor([[3, 5, 5, 17]]), logits), -1)[0]
    print("\t".join([f"{x:g}" for x in (temperature, k, p, m, penalty, s)] + [f"{x:.7g}" for x in out.tolist()]))
