#include "text/pretokenize.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "text/regex.h"
#include "text/unicode.h"
#include "text/utf8.h"

#define CL100K_TAIL(digits) "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

/* The spelling that we write comes first of each kind. */
static const struct {
    SplitKind kind;
    const char *regex;
} known[] = {
    {SPLIT_GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {SPLIT_GPT2, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|\\s++$|\\s+(?!\\S)|\\s"},
    {SPLIT_GPT2, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {SPLIT_CL100K, CONTRACTIONS CL100K_TAIL("\\p{N}{1,3}")},
    {SPLIT_CL100K, "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
    {SPLIT_QWEN2, CONTRACTIONS CL100K_TAIL("\\p{N}")},
    {SPLIT_O200K, "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" CONTRACTIONS
                  "?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" CONTRACTIONS
                  "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
};
enum { KNOWN = sizeof known / sizeof *known };

int splitter_open(Splitter *s, const char *text, Error *err)
{
    static const struct {
        const char *name;
        SplitKind kind;
    } names[] = {{"gpt2", SPLIT_GPT2}, {"cl100k", SPLIT_CL100K}, {"llama3", SPLIT_CL100K}, {"qwen2", SPLIT_QWEN2}, {"o200k", SPLIT_O200K}};
    *s = (Splitter){0};
    if (strcmp(text, "none") == 0)
        return 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t k = 0; strcmp(names[i].name, text) == 0 && k < KNOWN; k++)
            if (known[k].kind == names[i].kind) {
                *s = (Splitter){.kind = known[k].kind, .regex = memory_string(known[k].regex)};
                return 0;
            }
    s->regex = memory_string(text);
    for (size_t k = 0; k < KNOWN; k++)
        if (strcmp(known[k].regex, text) == 0) {
            s->kind = known[k].kind;
            return 0;
        }
    s->kind = SPLIT_REGEX;
    s->code = regex_compile(text, err);
    if (s->code)
        return 0;
    free(s->regex);
    *s = (Splitter){0};
    return -1;
}

void splitter_close(Splitter *s)
{
    free(s->regex);
    regex_free(s->code);
    *s = (Splitter){0};
}

void *splitter_scratch(const Splitter *s)
{
    return s->code ? regex_scratch(s->code) : NULL;
}

void splitter_scratch_free(void *scratch)
{
    regex_scratch_free(scratch);
}

/* The class and length of the code point at `at`; at the end class 0 and length 0. */
static inline unsigned class_at(Span t, size_t at, size_t *length)
{
    if (at >= t.length) {
        *length = 0;
        return 0;
    }
    unsigned char c = (unsigned char)t.data[at];
    if (c < 0x80) {
        *length = 1;
        return unicode_flags[unicode_block[0] * 128 + c];
    }
    return unicode_class(utf8_decode(t.data + at, length));
}

/* The end of the run of code points that have any of `some` and none of `none`. */
static size_t run_end(Span t, size_t at, unsigned some, unsigned none)
{
    for (size_t n;; at += n) {
        unsigned c = class_at(t, at, &n);
        if (n == 0 || (some && !(c & some)) || (c & none))
            return at;
    }
}

enum { WORDLESS = UNICODE_SPACE | UNICODE_L | UNICODE_N };

/* 's 't 're 've 'm 'll 'd at `at`: their length, or 0. Ignoring case also takes the long s, U+017F. */
static size_t contraction(Span t, size_t at, bool ignore_case)
{
    const char *p = t.data + at;
    size_t left = t.length - at;
    if (left < 2 || p[0] != '\'')
        return 0;
    if (ignore_case && left >= 3 && (unsigned char)p[1] == 0xc5 && (unsigned char)p[2] == 0xbf)
        return 3;
    char a = p[1], b = left > 2 ? p[2] : 0;
    if (ignore_case) {
        a = a >= 'A' && a <= 'Z' ? (char)(a + 32) : a;
        b = b >= 'A' && b <= 'Z' ? (char)(b + 32) : b;
    }
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return 3;
    return a == 's' || a == 't' || a == 'm' || a == 'd' ? 2 : 0;
}

/* \s+(?!\S)|\s+ : a run before something visible leaves its last blank to it. */
static size_t blanks(Span t, size_t at)
{
    size_t end = at, last = at, n;
    while ((class_at(t, end, &n) & UNICODE_SPACE)) {
        last = end;
        end += n;
    }
    return end == t.length || last == at ? end : last;
}

/* \s*[\r\n]+ first: up to the last line end of the run. */
static size_t blanks_by_line(Span t, size_t at)
{
    size_t newline = 0, n;
    for (size_t i = at; class_at(t, i, &n) & UNICODE_SPACE; i += n)
        if (t.data[i] == '\n' || t.data[i] == '\r')
            newline = i + 1;
    return newline ? newline : blanks(t, at);
}

static size_t gpt2_next(Span t, size_t at)
{
    size_t n = contraction(t, at, false);
    if (n)
        return at + n;
    unsigned c = class_at(t, at, &n);
    if (t.data[at] == ' ') {
        size_t m;
        unsigned next = class_at(t, at + 1, &m);
        if (m == 0 || (next & UNICODE_SPACE))
            return blanks(t, at);
        at++;
        c = next;
    } else if (c & UNICODE_SPACE) {
        return blanks(t, at);
    }
    if (c & UNICODE_L)
        return run_end(t, at, UNICODE_L, 0);
    if (c & UNICODE_N)
        return run_end(t, at, UNICODE_N, 0);
    return run_end(t, at, 0, WORDLESS);
}

/* " ?[^\s\p{L}\p{N}]+[\r\n]*" (with "/" too for o200k) at a place that is a blank or such a mark; 0: no match. */
static size_t marks(Span t, size_t at, bool slash)
{
    size_t begin = t.data[at] == ' ' ? at + 1 : at, end = run_end(t, begin, 0, WORDLESS);
    if (end == begin)
        return 0;
    while (end < t.length && (t.data[end] == '\r' || t.data[end] == '\n' || (slash && t.data[end] == '/')))
        end++;
    return end;
}

static size_t digits(Span t, size_t at, int most)
{
    for (size_t n; most > 0 && (class_at(t, at, &n) & UNICODE_N); most--)
        at += n;
    return at;
}

static size_t cl100k_next(Span t, size_t at, int most_digits)
{
    size_t n = contraction(t, at, true);
    if (n)
        return at + n;
    unsigned c = class_at(t, at, &n);
    if (c & UNICODE_L)
        return run_end(t, at + n, UNICODE_L, 0);
    if (c & UNICODE_N)
        return digits(t, at, most_digits);
    if (t.data[at] != '\r' && t.data[at] != '\n') {
        size_t end = run_end(t, at + n, UNICODE_L, 0);
        if (end > at + n)
            return end;
    }
    size_t end = c & UNICODE_SPACE && t.data[at] != ' ' ? 0 : marks(t, at, false);
    return end ? end : blanks_by_line(t, at);
}

enum { UPPERISH = UNICODE_UPPER | UNICODE_OTHER | UNICODE_M, LOWERISH = UNICODE_LOWER | UNICODE_OTHER | UNICODE_M };

/* [UPPERISH]*[LOWERISH]+ from `at`: its end, or 0. Letters without case and marks are in both classes, so a run of upper
 * case gives back everything behind its last such code point. */
static size_t word_lower(Span t, size_t at)
{
    size_t end = at, shared = 0, n;
    for (unsigned c; ((c = class_at(t, end, &n)) & UPPERISH);) {
        end += n;
        if (c & LOWERISH)
            shared = end;
    }
    size_t low = run_end(t, end, LOWERISH, 0);
    return low > end ? low : shared;
}

static size_t word_upper(Span t, size_t at)
{
    size_t end = run_end(t, at, UPPERISH, 0);
    return end > at ? run_end(t, end, LOWERISH, 0) : 0;
}

static size_t o200k_next(Span t, size_t at)
{
    size_t n, end = 0;
    unsigned c = class_at(t, at, &n);
    bool prefix = !(c & (UNICODE_L | UNICODE_N)) && t.data[at] != '\r' && t.data[at] != '\n';
    if (prefix)
        end = word_lower(t, at + n);
    if (!end && (c & (UNICODE_L | UNICODE_M)))
        end = word_lower(t, at);
    if (!end && prefix)
        end = word_upper(t, at + n);
    if (!end && (c & (UNICODE_L | UNICODE_M)))
        end = word_upper(t, at);
    if (end)
        return end + (end < t.length ? contraction(t, end, true) : 0);
    if (c & UNICODE_N)
        return digits(t, at, 3);
    end = c & UNICODE_SPACE && t.data[at] != ' ' ? 0 : marks(t, at, true);
    return end ? end : blanks_by_line(t, at);
}

size_t splitter_next(SplitKind kind, Span text, size_t at)
{
    switch (kind) {
    case SPLIT_GPT2:
        return gpt2_next(text, at);
    case SPLIT_CL100K:
        return cl100k_next(text, at, 3);
    case SPLIT_QWEN2:
        return cl100k_next(text, at, 1);
    case SPLIT_O200K:
        return o200k_next(text, at);
    default:
        return text.length;
    }
}

int splitter_run(const Splitter *s, void *scratch, Span text, int (*emit)(void *context, Span piece), void *context, Error *err)
{
    if (s->kind == SPLIT_REGEX)
        return regex_split(s->code, scratch, s->matches_only, text, emit, context, err);
    for (size_t at = 0, end; at < text.length; at = end) {
        end = splitter_next(s->kind, text, at);
        if (emit(context, (Span){text.data + at, end - at}) < 0)
            return -1;
    }
    return 0;
}
