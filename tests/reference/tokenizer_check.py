"""Trains a byte-level BPE with Hugging Face tokenizers on the lines of a text and compares its merges with ours, then the ids of
every line. usage: tokenizer_check.py OURS.json TEXT VOCAB TOKENIZE   (needs tokenizers)"""
import json, subprocess, sys
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

ours_path, text, size, tokenize = sys.argv[1:]
ours = json.load(open(ours_path))
merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in ours["model"]["merges"]]
hf = Tokenizer(models.BPE())
pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
hf.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
hf.decoder = decoders.ByteLevel()
lines = [l.rstrip("\n") for l in open(text, encoding="utf-8", newline="\n")]
hf.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=int(size), show_progress=False, initial_alphabet=[]))
theirs = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in json.loads(hf.to_str())["model"]["merges"]]
same = sum(a == b for a, b in zip(merges, theirs))
print(f"merges: {same} of {len(theirs)} equal, ours has {len(merges)}")
reader = Tokenizer.from_file(ours_path)
out = subprocess.run([tokenize, "--tokenizer", ours_path, "--text", "--ids", text], capture_output=True, text=True, check=True).stdout
ids = [json.loads(l)["ids"] for l in out.splitlines()]
differ = sum(a != reader.encode(l, add_special_tokens=False).ids for a, l in zip(ids, lines))
print(f"ids: {differ} of {len(lines)} lines differ")
sys.exit(merges != theirs or differ > 0 or len(ids) != len(lines))
