"""What peers take, in seconds of wall time: peer.py json FILE | bpe FILE VOCAB | encode TOKENIZER.json FILE
or how many MB of text a second one core gets through, in the first 20 seconds: peer.py words FILE (datatrove's English words) | quality FILE (its filters)
or the seconds of CPU that a command takes: peer.py cpu COMMAND…"""
import json, resource, subprocess, sys, time


def rate(work, path):
    """MB of text a second of CPU."""
    done, first = 0, None
    for l in open(path):
        text = json.loads(l)["text"]
        work(text)
        if first is None:  # the first document loads the rules
            first = begin = time.process_time()
            continue
        done += len(text.encode())
        if time.process_time() - begin > 20:
            break
    print("%.3f" % (done / 1e6 / (time.process_time() - begin)))
    sys.exit()


kind, rest = sys.argv[1], sys.argv[2:]
if kind == "json":
    lines = open(rest[0], "rb").readlines()
    begin = time.time()
    for l in lines:
        json.loads(l)
elif kind == "cpu":
    subprocess.run(rest, stdout=subprocess.DEVNULL, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("%.3f" % (used.ru_utime + used.ru_stime))
    sys.exit()
elif kind == "words":
    from datatrove.utils.word_tokenizers import load_word_tokenizer
    rate(load_word_tokenizer("en").word_tokenize, rest[0])
elif kind == "quality":
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(), FineWebQualityFilter()]
    rate(lambda text: all(f.filter(d) is True for d in [Document(text=text, id="")] for f in filters), rest[0])
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
