/* Unicode 16.0: classes, lower case and normal form C. Not the C library's or PCRE2's tables, whose versions differ from
 * machine to machine and would split text differently. */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include <stdbool.h>
#include "base/memory.h"
#include "text/unicode_data.h"

enum {
    UNICODE_L = 1,
    UNICODE_N = 2,
    UNICODE_M = 4,
    UNICODE_SPACE = 8,   /* White_Space: 25 code points */
    UNICODE_UPPER = 16,  /* Lu, Lt */
    UNICODE_LOWER = 32,  /* Ll */
    UNICODE_OTHER = 64,  /* Lm, Lo */
    UNICODE_DIGIT = 128, /* Nd */
    UNICODE_P = 256,
    UNICODE_S = 512,
    UNICODE_MN = 1024,
    UNICODE_LT = 2048,
    UNICODE_LM = 4096,
    UNICODE_SO = 8192
};

static inline unsigned unicode_class(uint32_t c)
{
    return c < 0x110000 ? unicode_flags[unicode_block[c >> 7] * 128 + (c & 127)] : 0;
}

/* White space as Python's str.isspace has it: White_Space and the four separators. */
static inline bool unicode_is_blank(uint32_t c)
{
    return c < 0x80 ? c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) : (unicode_class(c) & UNICODE_SPACE) != 0;
}

/* \w of Python's re: letters, numbers, underscore; marks do not count. */
static inline bool unicode_is_word(uint32_t c)
{
    return c == '_' || (unicode_class(c) & (UNICODE_L | UNICODE_N)) != 0;
}

/* Word_Break (UAX 29), and whether Extended_Pictographic. */
enum {
    BREAK_OTHER, BREAK_CR, BREAK_LF, BREAK_NEWLINE, BREAK_EXTEND, BREAK_ZWJ, BREAK_REGIONAL, BREAK_FORMAT, BREAK_KATAKANA, BREAK_HEBREW, BREAK_LETTER,
    BREAK_SINGLE_QUOTE, BREAK_DOUBLE_QUOTE, BREAK_MIDNUMLET, BREAK_MIDLETTER, BREAK_MIDNUM, BREAK_NUMERIC, BREAK_EXTENDNUMLET, BREAK_SPACE,
    BREAK_CLASS = 31,
    BREAK_PICTURE = 32
};
static inline unsigned unicode_break(uint32_t c)
{
    return c < 0x110000 ? unicode_breaks[unicode_break_block[c >> 7] * 128 + (c & 127)] : 0;
}

/* Full lower case: one or two code points into out; returns how many. (Python's str.lower but for the sigma.) */
int unicode_to_lower(uint32_t c, uint32_t out[2]);

enum { UNICODE_SIGMA = 0x3a3 }; /* the capital one */
/* The small sigma for the capital one that stands there: the final one at a word's end. */
uint32_t unicode_lower_sigma(Span text, size_t at);
/* Python's str.lower, appended to out. */
void unicode_lower_text(Span text, Buffer *out);

/* Normal form C of valid UTF-8, appended to out. */
void unicode_nfc(Span text, Buffer *out);
/* May NFC change this text? A quick look; false is certain. */
int unicode_nfc_may_change(Span text);

#endif
