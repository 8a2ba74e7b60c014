"""Compares bpe-train and tokenize with Hugging Face tokenizers on documents: merges for many settings, ids and decoded text of ours
and of tokenizers that Hugging Face trained, byte-level and with byte fallback.

    python3 tests/reference/tokenizer_check.py BIN DOCUMENTS.jsonl [VOCAB]        (needs tokenizers)
"""
import json
import os
import subprocess
import sys
import tempfile
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

bin, path = sys.argv[1:3]
size = int(sys.argv[3]) if len(sys.argv) > 3 else 3000
folder = tempfile.TemporaryDirectory()
texts = [json.loads(l)["text"] for l in open(path, encoding="utf-8")]
failed = checks = 0
TAIL = r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)" + TAIL % r"\p{N}{1,3}",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)" + TAIL % r"\p{N}",
    "o200k": WORD + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\p{L}+|\d|[^\S\n]+": None,  # leaves stretches that nothing matches
    r"\s?\w+|\n": None,
    "none": None,
}
PATTERNS["cl100k"] = PATTERNS["llama3"]


def tool(name, *arguments, text=True):
    return subprocess.run([os.path.join(bin, name), *arguments], capture_output=True, check=True, encoding="utf-8" if text else None).stdout


def report(name, good, detail=""):
    global failed, checks
    checks += 1
    failed += not good
    if not good:
        print("differs:", name, detail)


def byte_level(pattern):
    t = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.pre_tokenizer = level if pattern == "none" else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERNS[pattern] or pattern), "isolated"), level])
    t.decoder = decoders.ByteLevel()
    return t


def merges_of(t):
    return [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in json.loads(t if isinstance(t, str) else t.to_str())["model"]["merges"]]


def compare_ids(name, file, reader, special=False):
    ids = [json.loads(l)["ids"] for l in tool("tokenize", "--tokenizer", file, *(["--parse-special"] if special else []), "--ids", path).splitlines()]
    theirs = [e.ids for e in reader.encode_batch(texts, add_special_tokens=False)]
    report(name + ": ids", ids == theirs, f"{sum(a != b for a, b in zip(ids, theirs))} of {len(texts)} documents")
    lines = folder.name + "/ids.jsonl"
    with open(lines, "w") as f:
        f.writelines(json.dumps({"ids": i}) + "\n" for i in ids)
    back = [json.loads(l)["text"] for l in tool("tokenize", "--tokenizer", file, "--decode", lines).split("\n")[:-1]]
    report(name + ": decoded", back == reader.decode_batch(ids, skip_special_tokens=False), "")
    return back


def train_both(pattern, vocab, minimum=0, specials=(), alphabet="all"):
    out = folder.name + "/ours"
    arguments = ["--min-frequency", str(minimum), "--alphabet", alphabet] + [x for s in specials or ("none",) for x in ("--special", s)]
    tool("bpe-train", "-q", "--vocab-size", str(vocab), "--pattern", pattern, *arguments, "-o", out, path)
    theirs = byte_level(pattern)
    theirs.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab, min_frequency=minimum, show_progress=False, special_tokens=list(specials),
                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet == "all" else []))
    name = f"{pattern} {vocab} {minimum} {alphabet} {' '.join(specials)}"
    report(name + ": merges", merges_of(open(out + "/tokenizer.json", encoding="utf-8").read()) == merges_of(theirs), f"of {len(merges_of(theirs))}")
    return out, theirs


for pattern in PATTERNS:
    out, theirs = train_both(pattern, size if pattern != "none" else 600)
    ours = Tokenizer.from_file(out + "/tokenizer.json")
    report(pattern + ": round trip", compare_ids(pattern + ", ours", out, ours) == texts)
    theirs.add_tokens([AddedToken("the ", normalized=False), AddedToken(" of", lstrip=True, normalized=False), AddedToken("return", single_word=True, normalized=False)])
    theirs.add_special_tokens([AddedToken("<|x|>", rstrip=True)])
    theirs.save(folder.name + "/theirs.json")
    compare_ids(pattern + ", theirs with added tokens", folder.name + "/theirs.json", theirs, special=True)
for vocab, minimum, specials, alphabet in ((300, 0, (), "all"), (256, 0, (), "all"), (size, 7, ("<a>", "<b>"), "seen"), (size, 100, (), "all"), (50000, 2, ("<s>",), "all")):
    train_both("llama3", vocab, minimum, specials, alphabet)
SPACES = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
BACK = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
for name, normalizer, pre in (("Llama 2", normalizers.Sequence(SPACES), None), ("no prefix", SPACES[1], None),
                              *((f"Metaspace {scheme} {split}", None, pre_tokenizers.Metaspace("▁", scheme, split))
                                for scheme in ("always", "first", "never") for split in (True, False))):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", True)
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False, limit_alphabet=150,
                          special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]))
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(j))
    t.normalizer, t.pre_tokenizer, t.decoder = normalizer, pre, BACK
    t.add_tokens([AddedToken("struct", normalized=False)])
    t.save(folder.name + "/theirs.json")
    compare_ids(name, folder.name + "/theirs.json", t, special=True)
print(f"{checks} comparisons over {len(texts)} documents, {failed} differ")
sys.exit(failed > 0)
