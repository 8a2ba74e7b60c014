"""Random shapes of every family, single and sharded, f32, f16 and bf16, RoPE in old and new spelling: transformers' logits, loss and gradients against ours
(tests/unit/model.c), and the folders that we write loaded in transformers again.

usage: families_check.py BUILD [SEED…]   (needs torch, transformers, safetensors)
"""
import glob, os, random, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from model_golden import drawn, write

build, seeds = sys.argv[1], [int(s) for s in sys.argv[2:]] or [1, 2, 3]
worst, models, failed = 0.0, 0, 0
for seed in seeds:
    with tempfile.TemporaryDirectory() as top:
        theirs, ours = os.path.join(top, "theirs"), os.path.join(top, "ours")
        os.mkdir(ours)
        torch.manual_seed(seed)
        for name, config, dtype, largest in drawn(seed):
            write(theirs, name, config, dtype, largest, random.Random("%d %s" % (seed, name)))
        out = subprocess.run([os.path.join(build, "tests/unit/model"), "-o", ours] + sorted(glob.glob(theirs + "/*")), capture_output=True, text=True).stdout
        bad = [line for line in out.splitlines() if line.startswith("not ok")]
        print("\n".join(bad))
        failed += len(bad) + ("1.." not in out)
        for folder in sorted(glob.glob(ours + "/*")):
            golden = load_file(os.path.join(theirs, os.path.basename(folder), "golden.safetensors"))
            model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager")
            with torch.no_grad():
                logits = model(input_ids=golden["tokens"].long()).logits
            error = ((logits - golden["logits"]).norm() / golden["logits"].norm()).item()
            worst, models, failed = max(worst, error), models + 1, failed + (error > 1e-5)
print("%d random models read, %d of them written and read by transformers again: worst logits differ by %.2g, %d failures" % (models, models, worst, failed))
sys.exit(failed > 0)
