"""Writes libcommon/text/punctuation.inc from the installed datatrove and spaCy. usage: punctuation.py > libcommon/text/punctuation.inc"""
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from spacy.pipeline import Sentencizer


def array(name, characters):
    points = sorted(ord(c) for c in characters if len(c) == 1)
    print("static const uint32_t %s[] = {" % name)
    for i in range(0, len(points), 16):
        print("    " + ", ".join("0x%x" % c for c in points[i:i + 16]) + ",")
    print("};\n")


print("/* Made from datatrove.utils.text and spaCy's Sentencizer by tests/reference/punctuation.py; sorted code points. */")
array("punctuation", PUNCTUATION_SET)
array("terminal_punctuation", TERMINAL_PUNCTUATION)
array("younger_ends", set(TERMINAL_PUNCTUATION) - set(Sentencizer.default_punct_chars))
assert set(Sentencizer.default_punct_chars) <= set(TERMINAL_PUNCTUATION)
