"""Reads an event folder with the tensorboard package and compares it with the log that it was made from.
Usage: tensorboard_check.py FOLDER LOG"""
import json
import math
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
seen = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
count = 0
for line in open(sys.argv[2]):
    record = json.loads(line)
    step = record.pop("step")
    for key, value in record.items():
        if value is None or isinstance(value, bool):
            continue
        got = seen[key].pop(step)
        assert math.isclose(got, value, rel_tol=1e-6), (key, step, got, value)
        count += 1
left = sum(len(steps) for steps in seen.values())
assert count > 0 and left == 0, f"{left} numbers that the log does not have"
print(f"{count} numbers of {len(seen)} tags are the log's")
