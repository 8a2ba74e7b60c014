"""What peers take, in seconds of wall time: peer.py json FILE | bpe FILE VOCAB | encode TOKENIZER.json FILE"""
import json, sys, time

kind, rest = sys.argv[1], sys.argv[2:]
if kind == "json":
    lines = open(rest[0], "rb").readlines()
    begin = time.time()
    for l in lines:
        json.loads(l)
elif kind == "bpe":
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    begin = time.time()
    t.train_from_iterator((json.loads(l)["text"] for l in open(rest[0])), trainers.BpeTrainer(vocab_size=int(rest[1]), show_progress=False,
                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
else:
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(rest[0])
    begin = time.time()
    batch = []
    for l in open(rest[1]):
        batch.append(json.loads(l)["text"])
        if len(batch) == 1000:
            t.encode_batch(batch, add_special_tokens=False)
            batch = []
    t.encode_batch(batch, add_special_tokens=False)
print("%.3f" % (time.time() - begin))
