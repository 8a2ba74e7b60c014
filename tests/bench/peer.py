"""What peers take, in seconds of wall time: peer.py json FILE | bpe FILE VOCAB | encode TOKENIZER.json FILE
or how many MB of text a second one core gets through, in the first 20 seconds: peer.py words FILE (datatrove's English words) | quality FILE (its filters)
or the seconds of CPU that datatrove's MinHash takes, all of its four steps in one process: peer.py minhash FILE BUCKETS HASHES
or that a command takes: peer.py cpu COMMAND…"""
import json, os, resource, subprocess, sys, tempfile, time


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
elif kind == "minhash":
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    config = MinhashConfig(n_grams=5, num_buckets=int(rest[1]), hashes_per_bucket=int(rest[2]))
    path = os.path.abspath(rest[0])
    with tempfile.TemporaryDirectory() as t:
        reader = lambda: JsonlReader(os.path.dirname(path), glob_pattern=os.path.basename(path))
        steps = [([reader(), MinhashDedupSignature(t + "/signatures", config=config)], 1),
                 ([MinhashDedupBuckets(t + "/signatures", t + "/buckets", config=config)], config.num_buckets),
                 ([MinhashDedupCluster(t + "/buckets", t + "/removed", config=config)], 1),
                 ([reader(), MinhashDedupFilter(t + "/removed"), JsonlWriter(t + "/kept", compression=None)], 1)]
        begin = time.process_time()
        for i, (pipeline, tasks) in enumerate(steps):
            LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir="%s/log-%d" % (t, i)).run()
        used = time.process_time() - begin
        kept = sum(1 for f in os.listdir(t + "/kept") for l in open(os.path.join(t, "kept", f)))
    print("%.3f %d" % (used, kept))
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
