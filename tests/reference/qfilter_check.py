"""Compares qfilter with datatrove on documents: the words (spaCy's for en, uniseg's for uax29), sentences, verdicts of the rules and the texts
that c4 and PII leave. usage: qfilter_check.py QFILTER WORDS [-n LIMIT] FILE…   (.jsonl, .jsonl.gz; others are plain text, 60 lines a document)

QFILTER is the program, WORDS the unit test tests/unit/words, which prints words of texts on its input when it is told a kind. Prints a
line a comparison and each difference (the first 20); status 1 if there is any. Documents with NUL are left out (texts are parted by it).
"""
import gzip, json, subprocess, sys, tempfile, time

qfilter, words_program, *rest = sys.argv[1:]
limit = int(rest[1]) if rest[0] == "-n" else None
files = rest[2:] if rest[0] == "-n" else rest

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters import c4_filters, fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.utils.text import split_into_words
from datatrove.utils.word_tokenizers import load_word_tokenizer

english = load_word_tokenizer("en")
last = (None, None)
splitters = {"en": english.word_tokenize, "space": str.split}
try:
    import uniseg.wordbreak
    splitters["uax29"] = lambda text: [w for w in uniseg.wordbreak.words(text) if w.strip()]
except ImportError:
    print("no package uniseg: uax29 is not compared")


def use(kind):
    """datatrove's filters split by this kind from now on; a text is split once for all of them."""
    def split(text, language=None):
        global last
        if last[0] != (kind, text):
            last = ((kind, text), splitters[kind](text))
        return last[1]
    for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
        module.split_into_words = split
    return split


def read(path):
    if not path.endswith((".jsonl", ".gz")):
        lines = open(path, errors="replace").read().split("\n")
        yield from ("\n".join(lines[i:i + 60]) for i in range(0, len(lines), 60))
        return
    for line in gzip.open(path, "rt", errors="replace") if path.endswith(".gz") else open(path, errors="replace"):
        try:
            text = json.loads(line)["text"]
            text.encode()
        except (ValueError, KeyError):
            continue
        if "\0" not in text:
            yield text


def program(kind, texts):
    out = subprocess.run([words_program, kind], input=b"".join(t.encode() + b"\0" for t in texts), capture_output=True, check=True).stdout
    return [d.decode().split("\x01") if d else [] for d in out.split(b"\0")[:-1]]


def verdict(run, text):
    """(kept, reason, text) of a datatrove filter."""
    doc = Document(text=text, id="x")
    try:
        result = run.filter(doc)
    except (ZeroDivisionError, ValueError) as e:
        return False, type(e).__name__, text
    return (True, None, doc.text) if result is True else (False, result[1], text)


def ours(arguments, path, count):
    out = subprocess.run([qfilter, "-q", "--tag", *arguments, path], capture_output=True, check=True).stdout.splitlines()
    assert len(out) == count, (len(out), count)
    for line in out:
        d = json.loads(line)
        yield d["quality"]["keep"], d["quality"].get("reason"), d["text"]


total = shown = 0


def report(path, what, differences, count, more=""):
    global total, shown
    total += len(differences)
    print("%s: %s: %d of %d differ%s" % (path.split("/")[-1], what, len(differences), count, more), flush=True)
    for d in differences:
        shown += 1
        if shown <= 20:
            print("   ", *(repr(x)[:300] for x in d), flush=True)


def first_difference(a, b):
    i = next((i for i in range(min(len(a), len(b))) if a[i] != b[i]), min(len(a), len(b)))
    return a[max(0, i - 2):i + 4], b[max(0, i - 2):i + 4]


for path in files:
    texts = []
    for text in read(path):
        texts.append(text)
        if limit and len(texts) >= limit:
            break
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        for t in texts:
            f.write(json.dumps({"text": t}) + "\n")
        f.flush()
        theirs = {}
        for kind in splitters:
            split = use(kind)
            got = program(kind, texts)
            results = {name: list(ours(["--words=" + kind, "--rules", name], f.name, len(texts))) for name in ("gopher-quality", "gopher-repetition", "fineweb")}
            filters = {"gopher-quality": GopherQualityFilter(), "gopher-repetition": GopherRepetitionFilter(), "fineweb": FineWebQualityFilter()}
            wrong, count, differ, dropped = [], 0, {n: [] for n in filters}, {n: 0 for n in filters}
            for i, text in enumerate(texts):
                words = split(text)
                count += len(words)
                if words != got[i]:
                    wrong.append((i, *first_difference(got[i], words)))
                for name, run in filters.items():
                    want = verdict(run, text)
                    dropped[name] += not want[0]
                    if results[name][i] != want:
                        differ[name].append((i, results[name][i][:2], want[:2]))
            report(path, "words, " + kind, wrong, len(texts), " (%d words)" % count)
            for name in filters:
                report(path, name + ", " + kind, differ[name], len(texts), " (%d dropped)" % dropped[name])
        sentences = program("sentences", texts)
        report(path, "sentences", [(i, *first_difference(sentences[i], s)) for i, t in enumerate(texts) if (s := english.sent_tokenize(t)) != sentences[i]],
               len(texts), " (%d sentences)" % sum(map(len, sentences)))
        for name, run, sets in (("c4", C4QualityFilter(), []), ("c4 without end marks", C4QualityFilter(filter_no_terminal_punct=False), ["--set", "c4.filter-no-terminal-punct=0"]),
                                ("c4 by sentences", C4QualityFilter(split_paragraph=False), ["--set", "c4.split-paragraph=0"])):
            got = list(ours(["--rules", "c4", *sets], f.name, len(texts)))
            want = [verdict(run, t) for t in texts]
            report(path, name, [(i, got[i], want[i]) for i in range(len(texts)) if got[i] != want[i]], len(texts), " (%d dropped)" % sum(not w[0] for w in want))
        got = [t for _, _, t in ours(["--pii=mask"], f.name, len(texts))]
        want = [PIIFormatter().format(t) for t in texts]
        report(path, "PII", [(i, got[i], want[i]) for i in range(len(texts)) if got[i] != want[i]], len(texts), " (%d masked)" % sum(w != t for w, t in zip(want, texts)))
print("%d differences" % total)
sys.exit(total > 0)
