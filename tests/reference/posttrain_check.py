"""Compares sft, dpo, rmtrain and generate with PyTorch and transformers: losses, every gradient, scores, greedy answers.

usage: posttrain_check.py BIN [ROWS]      (needs torch, transformers, numpy; posttrain_common.py)

With GOLDEN=tests/data/posttrain in the environment (and no ROWS) the model, the rows and PyTorch's losses are written there.
"""
import itertools, shutil
import numpy as np
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification
from posttrain_common import *


def golden(name, model, loss):
    if GOLDEN:
        norm = torch.stack([p.grad.double().norm() for p in model.parameters() if p.grad is not None]).norm()
        with open(f"{GOLDEN}/golden.tsv", "a") as f:
            f.write(f"{name}\t{loss.item():.9g}\t{norm.item():.9g}\n")


def check_sft(name, folder, tokenizer, template):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loss = sft_loss(model, tokenizer, template, chats)
    loss.backward()
    golden("sft", model, loss)
    for rows_option in (512, 2048, 8192):
        run = f"{folder}-sft{rows_option}"
        tool("sft", "--model", folder, *STEP, "--batch-size", len(chats), "--rows", rows_option, "-o", run, chat_file)
        report(f"{name} sft --rows {rows_option}: loss", abs(log_of(run)[-1]["loss"] / loss.item() - 1), 1e-5)
        compare(f"{name} sft --rows {rows_option}", run, model, load_file(f"{folder}/model.safetensors"), 1e-5)


def check_dpo(name, folder, tokenizer, template, reference, kind="sigmoid", keep=True, weight=0.0, extra=()):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ref = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    beta, losses, nll, tokens, deltas, means, lengths = 0.1, [], 0, 0, [], [], []
    for p in pairs:
        sums = []
        for side in ("chosen", "rejected"):
            ids, mask = answers_of(tokenizer, template, p["prompt"], p[side])
            w = torch.tensor([float(m == 1 or (keep and m == 2)) for m in mask[1:]])
            lp = logprobs(model, ids)
            with torch.no_grad():
                lr = logprobs(ref, ids)
            sums.append(((lp * w).sum(), (lr * w).sum(), w.sum()))
            if side == "chosen":
                all_ = torch.tensor([float(m > 0) for m in mask[1:]])
                nll, tokens = nll - (lp * all_).sum(), tokens + all_.sum()
        (c, cr, nc), (r, rr, nr) = sums
        deltas.append((beta * (c - cr), beta * (r - rr)))
        means.append((c / nc, r / nr))
        lengths.append((nc, nr))
    e, free = 0.1, kind in ("orpo", "simpo")
    if free:  # orpo_trainer.py's odds_ratio_loss, cpo_trainer.py's simpo; rewards by token
        beta = 2.0
        deltas = [(beta * c, beta * r) for c, r in means]
        odds = lambda l: l - torch.log1p(-torch.exp(l))
    for (c, r), (nc, nr), (lc, lr) in zip(deltas, lengths, means):
        d = c - r
        dn = c / nc - r / nr
        losses.append({"sigmoid": lambda: -F.logsigmoid(d), "hinge": lambda: torch.relu(1 - d), "ipo": lambda: (dn / beta - 1 / (2 * beta)) ** 2,
                       "sigmoid_norm": lambda: -F.logsigmoid(dn), "robust": lambda: (-(1 - e) * F.logsigmoid(d) + e * F.logsigmoid(-d)) / (1 - 2 * e),
                       "orpo": lambda: -beta * F.logsigmoid(odds(lc) - odds(lr)), "simpo": lambda: -F.logsigmoid(beta * (lc - lr) - 0.5),
                       "cdpo": lambda: -(1 - e) * F.logsigmoid(d) - e * F.logsigmoid(-d), "apo_zero": lambda: 1 - torch.sigmoid(c) + torch.sigmoid(r),
                       "nca_pair": lambda: -F.logsigmoid(c) - 0.5 * F.logsigmoid(-c) - 0.5 * F.logsigmoid(-r)}[kind]())
    loss = torch.stack(losses).mean() + weight * nll / tokens
    loss.backward()
    golden("dpo-" + ("masked" if not keep else "keep" if kind == "sigmoid" else kind), model, loss)
    run = f"{folder}-dpo-{kind}-{keep}-{weight}-{os.path.basename(reference)}"
    tool("dpo", "--model", folder, *([] if free else ["--reference", reference]), *STEP, "--batch-size", len(pairs), "--rows", 1024, "--beta", beta, "--loss", kind, "--nll-weight", weight,
         *(["--keep-endings"] if keep else []), *extra, "-o", run, pair_file)
    line = log_of(run)[-1]
    report(f"{name} dpo {kind} keep {keep} nll {weight}: loss", abs(line["loss"] / loss.item() - 1), 1e-5)
    compare(f"{name} dpo {kind} keep {keep} nll {weight}", run, model, load_file(f"{folder}/model.safetensors"), 2e-5)
    c, r = torch.stack([d[0] for d in deltas]), torch.stack([d[1] for d in deltas])
    for key, value in (("rewards/chosen", c.mean()), ("rewards/rejected", r.mean()), ("rewards/margins", (c - r).mean()), ("rewards/accuracies", (c > r).float().mean())):
        report(f"{name} dpo {kind}: {key}", abs(line[key] - value.item()) / max(1e-3, abs(value.item())), 1e-4)


def check_dpo_begins(name, folder):
    run = f"{folder}-dpo-begins"
    tool("dpo", "--model", folder, *STEP, "--batch-size", 5, "--rows", 300, "--nll-weight", 0, "-o", run, pair_file)
    line = log_of(run)[0]
    report(f"{name} dpo's first loss is ln 2", abs(line["loss"] - np.log(2)), 0)
    report(f"{name} dpo's first accuracy and margin are 0", abs(line["rewards/accuracies"]) + abs(line["rewards/margins"]), 0)


def check_row(name, folder, tokenizer, template, start, first):
    """--layout row: the prompt, then all answers one behind the other in some order; each score at its answer's last token."""
    r = min((r for r in rankings if len(r["responses"]) >= 3), key=lambda r: len(r["responses"]))
    run = f"{folder}-rm-row"
    tool("rmtrain", "--model", folder, *STEP, "--rows", 700, "--layout", "row", "-o", run, write("one.jsonl", [r]))
    line, found = log_of(run)[-1], []
    parts = [answers_of(tokenizer, template, r["prompt"], a) for a in r["responses"]]
    begin = parts[0][1].index(1)
    for order in itertools.permutations(range(len(parts))):
        model = AutoModelForSequenceClassification.from_pretrained(first, dtype=torch.float32)
        ids, ends = parts[0][0][:begin], {}
        for k in order:
            ids = ids + parts[k][0][begin:]
            ends[k] = len(ids) - 1
        s = model.score(model.model(torch.tensor([ids])).last_hidden_state)[0, :, 0]
        s = [s[ends[k]] for k in range(len(parts))]
        loss = torch.stack([-F.logsigmoid(s[i] - s[j]) for i in range(len(s)) for j in range(i + 1, len(s))]).mean()
        loss.backward()
        golden("rm-row", model, loss)
        found.append((abs(line["loss"] / loss.item() - 1), model, len(ids)))
    off, model, tokens = min(found, key=lambda f: f[0])
    report(f"{name} rmtrain --layout row: loss of an order", off, 1e-6)
    report(f"{name} rmtrain --layout row: tokens", abs(line["tokens"] - tokens), 0)
    compare(f"{name} rmtrain --layout row", run, model, start, 2e-5)


def check_rm(name, folder, tokenizer, template):
    start_run = f"{folder}-rm-start"
    still = ["-q", "--epochs", 1, "--lr", 0, "--min-lr", 0, "--weight-decay", 0, "--save-every", 0, "--max-length", 2048, "--batch-size", 100]
    tool("rmtrain", "--model", folder, *still, "-o", start_run, pair_file)
    start = load_file(f"{start_run}/final/model.safetensors")
    for kind, file, records in (("pairs", pair_file, [(p["prompt"], [p["chosen"], p["rejected"]], p["margin"]) for p in pairs]),
                                ("rankings", ranking_file, [(r["prompt"], r["responses"], 0) for r in rankings])):
        model = AutoModelForSequenceClassification.from_pretrained(f"{start_run}/final", dtype=torch.float32)
        total, right, n = 0, 0, 0
        for prompt, answers, margin in records:
            s = [model(torch.tensor([answers_of(tokenizer, template, prompt, a)[0]])).logits[0, 0] for a in answers]
            terms = [-F.logsigmoid(s[i] - s[j] - margin) + 0.01 * (s[i] + s[j]) ** 2 for i in range(len(s)) for j in range(i + 1, len(s))]
            right += sum(bool(s[i] > s[j]) for i in range(len(s)) for j in range(i + 1, len(s)))
            n += len(terms)
            total = total + torch.stack(terms).mean()
        loss = total / len(records)
        loss.backward()
        golden(f"rm-{kind}", model, loss)
        run = f"{folder}-rm-{kind}"
        # The tool's own start is not the reward model above but has the same weights: the score's are drawn from the seed.
        tool("rmtrain", "--model", folder, *STEP, "--batch-size", 100, "--rows", 700, "--center", 0.01, "-o", run, file)
        line = log_of(run)[-1]
        report(f"{name} rmtrain {kind}: loss", abs(line["loss"] / loss.item() - 1), 1e-5)
        report(f"{name} rmtrain {kind}: accuracy", abs(line["accuracy"] - right / n), 1e-12)
        compare(f"{name} rmtrain {kind}", run, model, start, 2e-5)
    check_row(name, folder, tokenizer, template, start, f"{start_run}/final")
    candidates = write("candidates.jsonl", [{"prompt": r["prompt"], "responses": [a[0]["content"] for a in r["responses"]]} for r in rankings])
    worst = 0
    for line, r in zip(tool("rmtrain", "--score", "--model", start_run, "--max-length", 2048, candidates).strip("\n").split("\n"), rankings):
        ids = [answers_of(tokenizer, template, r["prompt"], a)[0] for a in r["responses"]]
        longest = max(map(len, ids))
        padded = torch.tensor([i + [model.config.pad_token_id] * (longest - len(i)) for i in ids])
        with torch.no_grad():
            theirs = model(padded, attention_mask=torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i in ids])).logits[:, 0]
        worst = max(worst, np.abs(np.array(json.loads(line)["scores"]) - theirs.numpy()).max())
    report(f"{name} rmtrain --score against {type(model).__name__}, padded", worst, 1e-5)
    worst = 0
    for line, c in zip(tool("rmtrain", "--score", "--model", start_run, "--max-length", 2048, chat_file).strip("\n").split("\n"), chats):
        with torch.no_grad():
            theirs = model(torch.tensor([encode(tokenizer, template, c["messages"])[0]])).logits[0, 0].item()
        worst = max(worst, abs(json.loads(line)["score"] - theirs))
    report(f"{name} rmtrain --score on chats", worst, 1e-5)


def check_greedy(name, folder, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = [p["prompt"] if isinstance(p["prompt"], str) else p["prompt"][-1]["content"] for p in pairs]
    file = write("prompts.jsonl", [{"prompt": p} for p in prompts])
    for options, more in (([], {}), (["--repetition-penalty", 1.3], {"repetition_penalty": 1.3})):
        out = [json.loads(l)["response"] for l in tool("generate", "--model", folder, "--temperature", 0, "--max-tokens", 40, *options, file).strip("\n").split("\n")]
        wrong = 0
        for p, got in zip(prompts, out):
            ids = tokenizer.apply_chat_template([{"role": "user", "content": p}], add_generation_prompt=True, return_tensors="pt", return_dict=False)
            end = tokenizer.convert_tokens_to_ids("<|eot_id|>" if "llama3" in folder else "<|im_end|>")
            full = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40, eos_token_id=[end, tokenizer.eos_token_id], pad_token_id=0, **more)
            want = tokenizer.decode(full[0, ids.shape[1]:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            if want != got:
                print("#", repr(want), repr(got))
            wrong += want != got
        report(f"{name} greedy answers {' '.join(map(str, options))} that differ", wrong, 0)
    given = [{"prompt": p, "responses": [out[i], "Another one."]} for i, p in enumerate(prompts)]
    off = 0
    for r in map(json.loads, tool("generate", "--given", "--model", folder, write("given.jsonl", given)).strip("\n").split("\n")):
        begin = tokenizer.apply_chat_template([{"role": "user", "content": r["prompt"]}], add_generation_prompt=True, return_dict=False)
        for text, got, count in zip(r["responses"], r["logprobs"], r["answer_tokens"]):
            all_ids = tokenizer.apply_chat_template([{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": text}], return_dict=False)[:len(begin) + count]
            lp = torch.log_softmax(model(torch.tensor([all_ids])).logits[0].double(), -1)
            off = max(off, abs(sum(lp[i - 1, all_ids[i]].item() for i in range(len(begin), len(all_ids))) - got))
    report(f"{name} log-probabilities of given answers", off, 1e-3)
    whole = tool("generate", "--model", folder, "--seed", 3, "--samples", 2, "--max-tokens", 24, file).strip("\n").split("\n")
    one = tool("generate", "--model", folder, "--seed", 3, "--samples", 2, "--max-tokens", 24, "--batch", 2, file).strip("\n").split("\n")
    report(f"{name} sampled answers that depend on --batch", sum(a != b for a, b in zip(whole, one)), 0)


ONLY = "llama" if GOLDEN else os.environ.get("ONLY", "")
for family, template in (("llama", "llama3"), ("qwen3", "chatml"), ("tied", "llama3"), ("qwen2", "chatml"), ("mistral", "llama3")):
    name = f"{family} {template}"
    if ONLY and not name.startswith(ONLY) or GOLDEN and os.path.exists(f"{GOLDEN}/model"):
        continue
    folder, tokenizer = model_make(family, template)
    check_sft(name, folder, tokenizer, template)
    tool("sft", "-q", "--model", folder, "--epochs", 2, "--lr", 3e-3, "--save-every", 0, "-o", f"{folder}-tuned", chat_file)
    check_dpo_begins(name, folder)
    if GOLDEN:
        for source, to in ((folder, "model"), (f"{folder}-tuned/final", "reference")):
            shutil.copytree(source, f"{GOLDEN}/{to}")
        for file in (chat_file, pair_file, ranking_file):
            shutil.copy(file, GOLDEN)
    check_dpo(name, folder, tokenizer, template, f"{folder}-tuned/final")
    check_dpo(name, folder, tokenizer, template, f"{folder}-tuned/final", keep=False, weight=0.2)
    check_rm(name, folder, tokenizer, template)
    check_greedy(name, folder, tokenizer)
    if family == "llama":
        for kind in ("ipo",) if GOLDEN else ("hinge", "ipo", "sigmoid_norm", "robust", "cdpo", "apo_zero", "nca_pair", "orpo", "simpo"):
            check_dpo(name, folder, tokenizer, template, f"{folder}-tuned/final", kind)
finish()
