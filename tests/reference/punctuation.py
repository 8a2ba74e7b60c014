"""Writes cmd/qfilter/punctuation.inc from the installed datatrove. usage: punctuation.py > cmd/qfilter/punctuation.inc"""
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION


def array(name, characters):
    points = sorted(ord(c) for c in characters if len(c) == 1)
    print("static const uint32_t %s[] = {" % name)
    for i in range(0, len(points), 16):
        print("    " + ", ".join("0x%x" % c for c in points[i:i + 16]) + ",")
    print("};\n")


print("/* Made from datatrove.utils.text by tests/reference/punctuation.py; sorted code points. */")
array("punctuation", PUNCTUATION_SET)
array("terminal_punctuation", TERMINAL_PUNCTUATION)
