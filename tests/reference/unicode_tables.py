"""Writes libcommon/text/unicode_data.c from unicodedata2 and uniseg (PyPI), which must be of Unicode 16 (unicodedata2 16.0.0, uniseg 0.10.1).

usage: unicode_tables.py OUT.c [CLASSES.txt]
CLASSES.txt (lines "CLASS FIRST LAST" in hex) is only compared with what unicodedata2 says.
"""
import sys
import unicodedata2 as u
from uniseg.emoji import extended_pictographic
from uniseg.wordbreak import WordBreak, word_break

assert u.unidata_version.startswith("16."), u.unidata_version
SPACE = set([*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])
BITS = {"L": 1, "N": 2, "M": 4, "space": 8, "upper": 16, "lower": 32, "other": 64, "digit": 128, "P": 256, "S": 512, "Mn": 1024, "Lt": 2048, "Lm": 4096, "So": 8192}

def flags(c):
    g = u.category(chr(c))
    f = BITS.get(g[0], 0) if g[0] in "LNMPS" else 0
    f |= BITS["upper"] if g in ("Lu", "Lt") else 0
    f |= BITS["lower"] if g == "Ll" else 0
    f |= BITS["other"] if g in ("Lm", "Lo") else 0
    f |= BITS["digit"] if g == "Nd" else 0
    f |= BITS["Lt"] if g == "Lt" else 0
    f |= BITS["Lm"] if g == "Lm" else 0
    f |= BITS["So"] if g == "So" else 0
    f |= BITS["Mn"] if g == "Mn" else 0
    f |= BITS["space"] if c in SPACE else 0
    return f

BREAKS = {v: i for i, v in enumerate(["Other", "CR", "LF", "Newline", "Extend", "ZWJ", "Regional_Indicator", "Format", "Katakana", "Hebrew_Letter", "ALetter",
                                      "Single_Quote", "Double_Quote", "MidNumLet", "MidLetter", "MidNum", "Numeric", "ExtendNumLet", "WSegSpace"])}
breaks = [BREAKS[word_break(chr(c)).value] | 32 * extended_pictographic(chr(c)) for c in range(0x110000)]
table = [flags(c) for c in range(0x110000)]
if len(sys.argv) > 2:
    want = {}
    for line in open(sys.argv[2]):
        if line.strip() and not line.startswith("#"):
            k, a, b = line.split()
            want.setdefault(k, set()).update(range(int(a, 16), int(b, 16) + 1))
    for k, bit in (("L", 1), ("N", 2), ("M", 4), ("s", 8), ("Ll", 32), ("Nd", 128), ("P", 256), ("S", 512)):
        got = {c for c in range(0x110000) if table[c] & bit}
        assert got == want[k], (k, len(got ^ want[k]))

BLOCK = 128
def two_steps(values):
    blocks, index = {}, []
    for i in range(0, 0x110000, BLOCK):
        index.append(blocks.setdefault(tuple(values[i:i + BLOCK]), len(blocks)))
    return blocks, index

blocks, index = two_steps(table)
break_blocks, break_index = two_steps(breaks)
assert len(break_blocks) < 256

def array(out, kind, name, values, width=16):
    out.write("const %s %s[] = {" % (kind, name))
    for i, v in enumerate(values):
        out.write(("\n    " if i % width == 0 else " ") + "%d," % v)
    out.write("\n};\n\n")

with open(sys.argv[1], "w") as out:
    out.write("/* Made by tests/reference/unicode_tables.py from Unicode 16.0; do not edit. */\n#include \"text/unicode_data.h\"\n\n")
    array(out, "uint16_t", "unicode_block", index)
    array(out, "uint16_t", "unicode_flags", [f for b in blocks for f in b])
    array(out, "uint8_t", "unicode_break_block", break_index)
    array(out, "uint8_t", "unicode_breaks", [f for b in break_blocks for f in b])
    lower = [(c, [ord(x) for x in chr(c).lower()]) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and u.category(chr(c)) != "Cn"]
    lower = [(c, l) for c, l in lower if l != [c]]
    out.write("const uint32_t unicode_lower[][3] = {\n")
    for c, l in lower:
        out.write("    {%d, %d, %d},\n" % (c, l[0], l[1] if len(l) > 1 else 0))
    out.write("};\nconst size_t unicode_lower_count = %d;\n\n" % len(lower))
    dec = []
    for c in range(0x110000):
        d = u.decomposition(chr(c))
        if d and not d.startswith("<"):
            p = [int(x, 16) for x in d.split()]
            # composes again, unless Unicode excludes it
            again = len(p) == 2 and u.normalize("NFC", chr(p[0]) + chr(p[1])) == chr(c)
            dec.append((c, p[0], p[1] if len(p) > 1 else 0, int(again)))
    out.write("const uint32_t unicode_decomposition[][4] = {\n")
    for d in dec:
        out.write("    {%d, %d, %d, %d},\n" % d)
    out.write("};\nconst size_t unicode_decomposition_count = %d;\n\n" % len(dec))
    ccc, run = [], None
    for c in range(0x110000):
        k = u.combining(chr(c))
        if k and run and run[1] == c - 1 and run[2] == k:
            run[1] = c
        elif k:
            run = [c, c, k]
            ccc.append(run)
    out.write("const uint32_t unicode_combining[][3] = {\n")
    for r in ccc:
        out.write("    {%d, %d, %d},\n" % tuple(r))
    out.write("};\nconst size_t unicode_combining_count = %d;\n" % len(ccc))
print(len(blocks), len(lower), len(dec), len(ccc))
