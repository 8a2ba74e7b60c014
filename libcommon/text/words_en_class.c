/* Character classes of the English rules. spaCy lists its letters by blocks: Latin with its extensions, the modern Greek and
 * Cyrillic alphabets, and some scripts without case (Thai, Armenian or Georgian letters, for example, are none); its pictures are
 * the symbols (So) of Unicode 11. Here the blocks are listed and Unicode's classes say the rest. */
#include <string.h>
#include "text/unicode.h"
#include "text/utf8.h"
#include "text/words_en.h"

typedef struct Range {
    uint32_t first, last;
} Range;

static const Range cased[] = {
    {'A', 'Z'}, {'a', 'z'}, {0xc0, 0xd6}, {0xd8, 0xf6}, {0xf8, 0x1bf}, {0x1c4, 0x2af},                       /* Latin, phonetic */
    /* Greek */
    {0x386, 0x386}, {0x388, 0x38a}, {0x38c, 0x38c}, {0x38e, 0x38f}, {0x391, 0x3a9}, {0x3ac, 0x3af}, {0x3b1, 0x3c9}, {0x3cc, 0x3ce},
    {0x400, 0x401}, {0x403, 0x40a}, {0x40c, 0x40d}, {0x410, 0x451}, {0x453, 0x45a}, {0x45c, 0x45d}, {0x490, 0x491}, {0x496, 0x497},
    {0x4a2, 0x4a3}, {0x4ae, 0x4af}, {0x4ba, 0x4bb}, {0x4d8, 0x4d9}, {0x4e8, 0x4e9}, /* Russian, Ukrainian, Macedonian, Tatar */
    {0x1d00, 0x1d25}, {0x1d6b, 0x1d77}, {0x1d79, 0x1d9a}, {0x1e00, 0x1eff}, {0x2c60, 0x2c7b}, {0x2c7e, 0x2c7f},
    {0xa722, 0xa76f}, {0xa771, 0xa787}, {0xa78b, 0xa78e}, {0xa790, 0xa7b9}, {0xa7fa, 0xa7fa}, {0xab30, 0xab5a}, {0xab60, 0xab64},
    {0xff21, 0xff3a}, {0xff41, 0xff5a}                                                                      /* Latin extensions, full width */
};
static const Range uncased[] = {
    {0x591, 0x5f4}, {0xfb1d, 0xfb4f},                                                        /* Hebrew */
    {0x620, 0x64a}, {0x66e, 0x6d5}, {0x6e5, 0x6ff}, {0x750, 0x77f}, {0x8a0, 0x8bd}, {0xfb50, 0xfbb1}, {0xfbd3, 0xfd3d}, {0xfd50, 0xfdc7},
    {0xfdf0, 0xfdfb}, {0xfe70, 0xfefc}, {0x1ee00, 0x1eebb},                                  /* Arabic, Persian */
    {0x900, 0x9ff}, {0xb80, 0xcff}, {0xd80, 0xdff},                                          /* Devanagari, Bengali, Tamil, Telugu, Kannada, Sinhala */
    {0x1100, 0x11ff}, {0xac00, 0xd7af}, {0x1200, 0x137f},                                    /* Hangul, Ethiopic */
    {0x2e80, 0x2fdf}, {0x2ff0, 0x30ff}, {0x31c0, 0x31ef}, {0x3200, 0x4dbf}, {0x4e00, 0x9fff}, {0xf900, 0xfaff}, {0xfe30, 0xfe4f},
    {0x1f200, 0x1f2ff}, {0x20000, 0x2a6df}, {0x2a700, 0x2ebef}, {0x2f800, 0x2fa1f}           /* Han, Kana, their marks and forms */
};
/* Symbols younger than Unicode 11. */
static const Range newer[] = {
    {0x166d, 0x166d}, {0x2427, 0x2429}, {0x2b96, 0x2b97}, {0x2bc9, 0x2bc9}, {0x2bff, 0x2bff}, {0x2e50, 0x2e51}, {0x2ffc, 0x2fff}, {0x31e4, 0x31ef},
    {0x32ff, 0x32ff}, {0xfbc3, 0xfdcf}, {0xfdfe, 0xfdff}, {0x1019c, 0x1019c}, {0x10ed1, 0x10ed8}, {0x11fd5, 0x11ff1}, {0x1cc00, 0x1cfc3},
    {0x1d1e9, 0x1d1ff}, {0x1d253, 0x1d27f}, {0x1e14f, 0x1e14f}, {0x1ed2e, 0x1ed2e}, {0x1f10d, 0x1f10f}, {0x1f16c, 0x1f16f}, {0x1f1ad, 0x1f1ae},
    {0x1f6d5, 0x1f6df}, {0x1f6fa, 0x1f6fc}, {0x1f774, 0x1f77f}, {0x1f7d9, 0x1f7ff}, {0x1f8b0, 0x1f8c1}, {0x1f90c, 0x1f90f}, {0x1f93f, 0x1f93f},
    {0x1f971, 0x1f972}, {0x1f977, 0x1f979}, {0x1f97b, 0x1f97b}, {0x1f9a3, 0x1f9af}, {0x1f9ba, 0x1f9bf}, {0x1f9c3, 0x1f9cf}, {0x1fa00, 0x1fa57},
    {0x1fa70, 0x1fbfa}
};
static const char marks[] = ",:;!?()[]{}<>_#*&…¿؟¡。？！，、；：～·।،۔؛٪";
static const char quotes[] = "'\",`”“‘´’‚„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧";
static const char currencies[] = "$£€¥฿₽﷼₴";

uint16_t english_classes[EN_TABLE];

static void set_range(Range r, unsigned flags)
{
    for (uint32_t c = r.first; c <= r.last && c < EN_TABLE; c++)
        english_classes[c] |= (uint16_t)flags;
}

static void set_all(const char *characters, unsigned flags)
{
    size_t n;
    for (const char *p = characters; *p; p += n)
        english_classes[utf8_decode(p, &n)] |= (uint16_t)flags;
}

void english_classes_build(void)
{
    for (size_t i = 0; i < sizeof cased / sizeof *cased; i++)
        for (uint32_t c = cased[i].first; c <= cased[i].last && c < EN_TABLE; c++) {
            unsigned class = unicode_class(c);
            english_classes[c] |= EN_ALPHA | (class & UNICODE_LOWER ? EN_LOWER : 0) | (class & UNICODE_UPPER && !(class & UNICODE_LT) ? EN_UPPER : 0);
        }
    /* The glottal stops, of no case, stand among small letters, and an unused code point among Greek capitals. */
    english_classes[0x294] |= EN_LOWER;
    english_classes[0x295] |= EN_LOWER;
    english_classes[0x3a2] |= EN_UPPER;
    for (size_t i = 0; i < sizeof uncased / sizeof *uncased; i++)
        set_range(uncased[i], EN_ALPHA | EN_LOWER | EN_UPPER);
    for (uint32_t c = 0x80; c < EN_TABLE; c++)
        if (unicode_class(c) & UNICODE_SO)
            english_classes[c] |= EN_ICON;
    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++)
        for (uint32_t c = newer[i].first; c <= newer[i].last && c < EN_TABLE; c++)
            english_classes[c] &= (uint16_t)~EN_ICON;
    for (uint32_t c = 0; c < EN_TABLE; c++)
        english_classes[c] |= (english_classes[c] & EN_ICON ? EN_PREFIX | EN_SUFFIX | EN_INFIX : 0) | (english_classes[c] & EN_LOWER ? EN_BEFORE_STOP : 0);
    set_range((Range){'0', '9'}, EN_DIGIT | EN_BEFORE_STOP | EN_HOST);
    set_range((Range){'a', 'z'}, EN_HOST);
    set_range((Range){'A', 'Z'}, EN_HOST);
    set_range((Range){0xa1, 0xffff}, EN_HOST);
    set_range((Range){0x20a0, 0x20bf}, EN_PREFIX);
    set_all(marks, EN_PREFIX | EN_SUFFIX | EN_BEFORE_STOP);
    set_all(quotes, EN_PREFIX | EN_SUFFIX | EN_BEFORE_STOP | EN_QUOTE);
    set_all(currencies, EN_PREFIX);
    set_all("§%=—–", EN_PREFIX);
    set_all("—–", EN_SUFFIX);
    set_all("%²-+|", EN_BEFORE_STOP);
    set_all(".…+-*^,:<>=/–—~", EN_INFIX);
}

unsigned english_class_beyond(uint32_t c)
{
    for (size_t i = sizeof uncased / sizeof *uncased - 3; i < sizeof uncased / sizeof *uncased; i++)
        if (c >= uncased[i].first && c <= uncased[i].last)
            return EN_ALPHA | EN_LOWER | EN_UPPER | EN_BEFORE_STOP;
    return 0;
}
