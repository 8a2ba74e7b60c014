"""Compares adapters with PEFT: losses, every gradient, merged weights, reward scores; folders both ways.

usage: lora_check.py BIN [ROWS]      (needs torch, transformers, peft; posttrain_common.py)

With GOLDEN=tests/data/posttrain in the environment PEFT's adapter of the model there is written beside it, and its loss to golden.tsv.
"""
import math, shutil
import peft, torch.nn.functional as F
from transformers import AutoModelForSequenceClassification
from posttrain_common import *

STILL = ["-q", "--epochs", 1, "--lr", 0, "--min-lr", 0, "--weight-decay", 0, "--grad-clip", 0, "--save-every", 0, "--max-length", 2048, "--batch-size", 100]


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)).item()


def gradients(name, run, start, model):
    """Of A and B (and the score): ours from the step that the run took from the adapter `start`."""
    before, after = (load_file(f"{f}/adapter_model.safetensors") for f in (start, f"{run}/final"))
    worst, seen = 0, 0
    for key, p in model.named_parameters():
        if p.grad is None:
            continue
        ours = key.replace(".default", "").replace(".modules_to_save", "")
        u = (before[ours].double() - after[ours].double()) / LR
        worst, seen = max(worst, relative(u / (1 - u.abs()), p.grad)), seen + 1
    report(f"{name}: every gradient of {seen} matrices", worst if seen == len(before) else math.inf, 2e-5)


def check(name, folder, tokenizer, template, **config):
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **config))
    torch.manual_seed(2)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.normal_(0, 0.1)
    theirs = f"{folder}-peft"
    model.save_pretrained(theirs)
    rank = config.get("r", 8)
    loss = sft_loss(model, tokenizer, template, chats)
    loss.backward()
    run = f"{theirs}-step"
    tool("sft", "--model", folder, "--adapter", theirs, "--lora", rank, *STEP, "--batch-size", 100, "-o", run, chat_file)
    report(f"{name}: PEFT's folder, loss", abs(log_of(run)[-1]["loss"] / loss.item() - 1), 1e-5)
    gradients(name, run, theirs, model)
    again = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), f"{run}/final")
    loss = sft_loss(again, tokenizer, template, chats)
    tool("sft", "--model", folder, "--adapter", run, *STILL, "-o", f"{theirs}-merged", chat_file)
    report(f"{name}: our folder in PEFT, loss", abs(log_of(f"{theirs}-merged")[-1]["loss"] / loss.item() - 1), 1e-5)
    tool("sft", "--model", run, "--lora", rank, "--merge", *STILL, "-o", f"{theirs}-whole", chat_file)
    merged, whole = again.merge_and_unload().state_dict(), load_file(f"{theirs}-whole/final/model.safetensors")
    report(f"{name}: --merge against merge_and_unload", max(relative(whole[k], merged[k]) for k in whole), 1e-6)


def clear(folder):
    for kind in ("", "-step", "-merged", "-whole"):
        shutil.rmtree(f"{folder}-peft{kind}")


def check_fresh(name, folder, tokenizer, template):
    """A new adapter changes nothing, its A has PEFT's distribution, and PEFT reads its configuration as it was asked for."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    run = f"{folder}-fresh"
    tool("sft", "--model", folder, "--lora", 6, "--lora-alpha", 12, "--rslora", "--lora-targets", "q_proj,down_proj", *STILL, "-o", run, chat_file)
    report(f"{name}: a fresh adapter changes nothing", abs(log_of(run)[-1]["loss"] / sft_loss(base, tokenizer, template, chats).item() - 1), 1e-5)
    config = peft.PeftConfig.from_pretrained(f"{run}/final")
    wanted = dict(r=6, lora_alpha=12, use_rslora=True, target_modules={"q_proj", "down_proj"}, base_model_name_or_path=os.path.realpath(folder))
    report(f"{name}: adapter_config.json", sum(getattr(config, k) != v for k, v in wanted.items()), 0)
    for key, a in load_file(f"{run}/final/adapter_model.safetensors").items():
        bound = 1 / math.sqrt(a.shape[1])
        if "lora_A" in key:
            report(f"{name}: {key[-35:]} uniform in 1/sqrt(in)", max(a.abs().max().item() / bound - 1, abs(a.std().item() / bound * math.sqrt(3) - 1) - 0.15), 0)
        else:
            report(f"{name}: {key[-35:]} zero", a.abs().max().item(), 0)


def check_reward(name, folder, tokenizer, template):
    start, run = f"{folder}-reward", f"{folder}-reward-step"
    options = ["--lora", 4, "--lora-alpha", 8, "--lora-targets", "all-linear"]
    tool("rmtrain", "--model", folder, *options, "-q", "--epochs", 4, "--lr", 1e-2, "--save-every", 0, "--max-length", 2048, "-o", start, pair_file)
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, f"{start}/final", is_trainable=True)
    losses = []
    for p in pairs:
        c, r = (model(torch.tensor([answers_of(tokenizer, template, p["prompt"], p[side])[0]])).logits[0, 0] for side in ("chosen", "rejected"))
        losses.append(-F.logsigmoid(c - r))
    loss = torch.stack(losses).mean()
    loss.backward()
    tool("rmtrain", "--model", start, *options, *STEP, "--batch-size", 100, "-o", run, pair_file)
    report(f"{name}: reward model's loss", abs(log_of(run)[-1]["loss"] / loss.item() - 1), 1e-5)
    gradients(f"{name}: reward model", run, f"{start}/final", model)
    worst = 0
    for line, p in zip(tool("rmtrain", "--score", "--model", folder, "--adapter", start, "--max-length", 2048, candidates).strip("\n").split("\n"), pairs):
        with torch.no_grad():
            want = [model(torch.tensor([answers_of(tokenizer, template, p["prompt"], p[side])[0]])).logits[0, 0].item() for side in ("chosen", "rejected")]
        worst = max([worst] + [abs(a - b) / max(1e-2, abs(b)) for a, b in zip(json.loads(line)["scores"], want)])
    report(f"{name}: rmtrain --score with --adapter", worst, 1e-4)


def golden(folder):
    global chats
    chats = [json.loads(line) for line in open(f"{folder}/chat.jsonl")]
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/model")
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
                                                       rank_pattern={"v_proj": 3}, alpha_pattern={"layers.1.mlp.down_proj": 9}, base_model_name_or_path="model"))
    torch.manual_seed(2)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.normal_(0, 0.1)
    loss = sft_loss(model, tokenizer, "llama3", chats)
    loss.backward()
    model.peft_config["default"].base_model_name_or_path = "model"
    model.save_pretrained(f"{folder}/adapter")
    os.remove(f"{folder}/adapter/README.md")
    with open(f"{folder}/golden.tsv", "a") as f:
        f.write(f"lora\t{loss.item():.9g}\t{torch.stack([p.grad.double().norm() for p in model.parameters() if p.grad is not None]).norm().item():.9g}\n")


if GOLDEN:
    golden(GOLDEN)
    sys.exit()
for p in pairs:
    p.pop("margin", None)
pair_file = write("plain-pairs.jsonl", pairs)
text_of = lambda a: a if isinstance(a, str) else a[0]["content"]
candidates = write("candidates.jsonl", [{"prompt": p["prompt"], "responses": [text_of(p["chosen"]), text_of(p["rejected"])]} for p in pairs])
for family, template in (("llama", "llama3"), ("qwen2", "chatml"), ("qwen3", "chatml"), ("mistral", "llama3")):
    folder, tokenizer = model_make(family, template)
    check(f"{family}, all-linear", folder, tokenizer, template, r=4, lora_alpha=8, target_modules="all-linear")
    check_fresh(family, folder, tokenizer, template)
    check_reward(family, folder, tokenizer, template)
    if family == "llama":
        names = ["q_proj", "v_proj", "gate_proj"]
        clear(folder)
        check("llama, rsLoRA with patterns", folder, tokenizer, template, r=4, lora_alpha=6, use_rslora=True, target_modules=names,
              rank_pattern={"v_proj": 3, "layers.1.self_attn.q_proj": 5}, alpha_pattern={"layers.0.mlp.gate_proj": 3})
        clear(folder)
        check("llama, one layer", folder, tokenizer, template, r=4, target_modules=["down_proj"], layers_to_transform=[1])
finish()
