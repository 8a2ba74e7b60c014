"""Compares sft, dpo and rmtrain with TRL's own trainers: losses, every gradient, and the metrics under TRL's names.

usage: trl_check.py BIN [ROWS]      (needs torch, transformers, trl, datasets; posttrain_common.py)

Each trainer does one step over all rows; its gradients are taken before the optimiser sees them. With GOLDEN=tests/data/posttrain (and no
ROWS) TRL's numbers are written there as trl.tsv, for the model that posttrain_check.py left there.
"""
import copy, warnings
from posttrain_common import *
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

warnings.filterwarnings("ignore")
MARKED = {"llama3": "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
                    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] | trim + '<|eot_id|>' }}{% endgeneration %}{% else %}"
                    "{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
                    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
          "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
                    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
                    "{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"}
still = dict(per_device_train_batch_size=1000, max_steps=1, learning_rate=1e-9, logging_steps=1, report_to=[], save_strategy="no", bf16=False,
             gradient_checkpointing=False, max_grad_norm=0, use_cpu=True, disable_tqdm=True, output_dir=f"{T}/trl", remove_unused_columns=False)


class Take(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **more):
        self.gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def one_step(trainer):
    """(loss, {name: gradient}, metrics) of a step over everything."""
    take, losses, inner = Take(), [], trainer.compute_loss
    trainer.add_callback(take)

    def spied(*a, **k):
        out = inner(*a, **k)
        losses.append(float((out[0] if isinstance(out, tuple) else out).detach()))
        return out

    trainer.compute_loss = spied
    trainer.train()
    assert len(losses) == 1, len(losses)
    return losses[0], take.gradients, trainer.state.log_history[0]


def same(name, run, start, theirs, keys, limit=2e-5):
    loss, gradients, metrics = theirs
    line, ours, worst = log_of(run)[0], gradient(run, start), 0
    report(f"{name}: loss", abs(line["loss"] - loss) / max(abs(loss), 1e-3), 1e-5)
    for key, g in gradients.items():
        if key in ours:
            worst = max(worst, ((ours[key] - g.double()).norm() / g.double().norm().clamp_min(1e-12)).item())
    report(f"{name}: every gradient", worst, limit)
    off = {k: abs(line["tokens" if k == "num_tokens" else k] - metrics[k]) / max(abs(metrics[k]), 1e-2) for k in keys}
    report(f"{name}: {' '.join(keys)}", max(off.values()), 1e-4)
    if GOLDEN:
        norm = torch.stack([g.double().norm() for g in gradients.values()]).norm()
        with open(f"{GOLDEN}/trl.tsv", "a") as f:
            f.write(f"{name.split(' ', 2)[2]}\tloss\t{loss:.9g}\n{name.split(' ', 2)[2]}\tgrad_norm\t{norm.item():.9g}\n")
            f.writelines(f"{name.split(' ', 2)[2]}\t{k}\t{metrics[k]:.9g}\n" for k in keys)


def check_sft(name, folder, tokenizer):
    data = Dataset.from_list([{"messages": c["messages"]} for c in chats])
    start = load_file(f"{folder}/model.safetensors")
    for packing, length in ((None, 2048), ("bfd", 2048), ("bfd", 96), ("bfd-split", 96), ("bfd-split", 37)):
        how = dict(packing=True, packing_strategy=packing.replace("-", "_")) if packing else {}
        args = SFTConfig(**still, assistant_only_loss=True, max_length=length, loss_type="nll", **how)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        theirs = one_step(SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer))
        run = f"{folder}-sft-{packing}-{length}"
        tool("sft", "--model", folder, *STEP, "--max-length", length, "--packing", packing or "bfd", "--batch-size", len(chats), "--rows", 4096, "-o", run, chat_file)
        # What has no answer's token left goes through TRL's model and not through ours.
        same(f"{name} sft-{packing}-{length}", run, start, theirs, ["entropy", "mean_token_accuracy"] + (["num_tokens"] if length == 2048 else []))


def check_dpo(name, folder, tokenizer, reference):
    message = lambda role, x: [{"role": role, "content": x}] if isinstance(x, str) else x
    data = Dataset.from_list([{"prompt": message("user", p["prompt"]), "chosen": message("assistant", p["chosen"]),
                               "rejected": message("assistant", p["rejected"])} for p in pairs])
    start = load_file(f"{folder}/model.safetensors")
    keys = [f"{k}/{s}" for k in ("rewards", "logps", "logits") for s in ("chosen", "rejected")] + ["rewards/accuracies", "rewards/margins", "entropy",
                                                                                              "mean_token_accuracy", "num_tokens"]
    for kind in ("sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "apo_zero", "nca_pair"):
        same_dpo(name, folder, tokenizer, reference, data, start, kind, [kind], None, 0, keys)
    same_dpo(name, folder, tokenizer, reference, data, start, "sigmoid", ["sigmoid", "sft"], [1.0, 0.2], 0.2, keys)
    same_dpo(name, folder, tokenizer, reference, data, start, "ipo", ["ipo", "sft"], [1.0, 1.5], 1.5, keys)
    ending = copy.deepcopy(tokenizer)  # these two end an answer with the vocabulary's eos token; let it be the one that ends a turn
    ending.eos_token = "<|eot_id|>"
    for kind in ("orpo", "simpo"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        common = dict(**still, beta=2.0, max_length=2048, disable_dropout=True)
        if kind == "orpo":
            trainer = ORPOTrainer(model=model, args=ORPOConfig(**common), train_dataset=data, processing_class=ending)
        else:
            trainer = CPOTrainer(model=model, args=CPOConfig(**common, loss_type="simpo", simpo_gamma=0.5, cpo_alpha=0.0), train_dataset=data,
                                 processing_class=ending)
        if kind == "orpo":  # its likelihood goes over the prompt too: ours is compared without it
            inner = trainer.concatenated_forward
            trainer.concatenated_forward = lambda *a, **k: tuple(x * 0 if i == 4 else x for i, x in enumerate(inner(*a, **k)))
        theirs = one_step(trainer)
        run = f"{folder}-{kind}"
        tool("dpo", "--model", folder, *STEP, "--batch-size", len(pairs), "--beta", 2, "--loss", kind, "--gamma", 0.5, "--nll-weight", 0, "--keep-endings", "-o", run, pair_file)
        same(f"{name} dpo-{kind}", run, start, theirs, ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"])


def same_dpo(name, folder, tokenizer, reference, data, start, kind, losses, weights, nll, keys):
    args = DPOConfig(**still, loss_type=losses, loss_weights=weights, beta=0.1, label_smoothing=0.1 if kind == "robust" else 0.0, max_length=2048)
    load = lambda f: AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32)
    theirs = one_step(DPOTrainer(model=load(folder), ref_model=load(reference), args=args, train_dataset=data, processing_class=tokenizer))
    run = f"{folder}-dpo-{kind}-{nll}"
    tool("dpo", "--model", folder, "--reference", reference, *STEP, "--batch-size", len(pairs), "--loss", kind, "--nll-weight", nll, "--keep-endings", "-o", run, pair_file)
    same(f"{name} dpo-{kind}{'-sft' if nll else ''}", run, start, theirs, keys)


def check_reward(name, folder, tokenizer):
    still_run = f"{folder}-start"
    tool("rmtrain", "-q", "--model", folder, "--epochs", 1, "--lr", 0, "--min-lr", 0, "--save-every", 0, "--max-length", 2048, "--batch-size", 100, "-o", still_run, pair_file)
    start = load_file(f"{still_run}/final/model.safetensors")
    message = lambda role, x: [{"role": role, "content": x}] if isinstance(x, str) else x
    data = Dataset.from_list([{"prompt": message("user", p["prompt"]), "chosen": message("assistant", p["chosen"]),
                               "rejected": message("assistant", p["rejected"]), "margin": float(p.get("margin") or 0)} for p in pairs])
    for length in 2048, 50:  # the second leaves pairs out
        model = AutoModelForSequenceClassification.from_pretrained(f"{still_run}/final", dtype=torch.float32)
        args = RewardConfig(**still, center_rewards_coefficient=0.01, max_length=length, disable_dropout=True)
        theirs = one_step(RewardTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer))
        run = f"{folder}-reward-{length}"
        tool("rmtrain", "--model", folder, *STEP, "--batch-size", 100, "--max-length", length, "--center", 0.01, "-o", run, pair_file)
        same(f"{name} reward{'' if length == 2048 else -length}", run, start, theirs, ["accuracy", "margin", "min_reward", "mean_reward", "max_reward", "num_tokens"])


if GOLDEN:
    plain = AutoTokenizer.from_pretrained(f"{GOLDEN}/model")
    cases = [("llama llama3", f"{GOLDEN}/model", plain, f"{GOLDEN}/reference")]
else:
    cases = []
    for family, template in (("llama", "llama3"), ("qwen3", "chatml")):
        folder, tokenizer = model_make(family, template)
        tool("sft", "-q", "--model", folder, "--epochs", 2, "--lr", 3e-3, "--save-every", 0, "-o", f"{folder}-tuned", chat_file)
        cases.append((f"{family} {template}", folder, tokenizer, f"{folder}-tuned/final"))
for name, folder, tokenizer, reference in cases:
    if GOLDEN:
        os.symlink(folder if os.path.isabs(folder) else os.path.abspath(folder), f"{T}/golden")
        folder = f"{T}/golden"
    tokenizer.chat_template = MARKED[name.split()[1]]
    check_sft(name, folder, tokenizer)
    if "llama3" in name:  # ChatML's newline behind a turn is part of TRL's completion, not of ours
        check_dpo(name, folder, tokenizer, reference)
    check_reward(name, folder, tokenizer)
finish()
