#include "text/words.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "text/unicode.h"
#include "text/utf8.h"

static void add(Words *w, const char *begin, const char *end)
{
    if (end == begin)
        return;
    w->items = memory_grow(w->items, &w->capacity, w->count + 1, sizeof *w->items);
    w->items[w->count++] = (Span){begin, (size_t)(end - begin)};
}

static const char *before(const char *p, const char *begin)
{
    do
        p--;
    while (p > begin && ((unsigned char)*p & 0xc0) == 0x80);
    return p;
}

static uint32_t at(const char *p)
{
    size_t n;
    return utf8_decode(p, &n);
}

static size_t length_at(const char *p)
{
    size_t n;
    utf8_decode(p, &n);
    return n;
}

static bool is_alnum(uint32_t c)
{
    return (unicode_class(c) & (UNICODE_L | UNICODE_N | UNICODE_M)) != 0;
}

static bool is_letter(uint32_t c)
{
    return (unicode_class(c) & UNICODE_L) != 0;
}

static bool in(const char *list, uint32_t c)
{
    return c < 0x80 && c && strchr(list, (char)c);
}

/* Known abbreviations, and single letters with full stops (U.S., p.m.). */
static bool is_abbreviation(const char *b, const char *e)
{
    static const char *const known[] = {"Mr.", "Mrs.", "Ms.", "Dr.", "St.", "Prof.", "Inc.", "Ltd.", "Co.", "Corp.", "Jr.", "Sr.", "vs.", "e.g.", "i.e.", "a.m.",
                                        "p.m.", "Ph.D.", "Gen.", "Gov.", "Rep.", "Sen.", "Rev.", "Mt.", "Bros.", "Adm.", "Jan.", "Feb.", "Mar.", "Apr.", "Jun.",
                                        "Jul.", "Aug.", "Sep.", "Sept.", "Oct.", "Nov.", "Dec."};
    size_t n = (size_t)(e - b);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == n && memcmp(known[i], b, n) == 0)
            return true;
    if (n < 2 || n % 2)
        return false;
    for (size_t i = 0; i < n; i += 2)
        if (!((b[i] >= 'a' && b[i] <= 'z') || (b[i] >= 'A' && b[i] <= 'Z')) || b[i + 1] != '.')
            return false;
    return true;
}

static const char *dots_front(const char *b, const char *e)
{
    const char *p = b;
    while (p < e && *p == '.')
        p++;
    return p - b >= 2 ? p : b;
}

/* n't 's 'm 're 've 'll 'd at the end, with either apostrophe: where it begins, or e. */
static const char *contraction(const char *b, const char *e)
{
    static const char *const ends[] = {"s", "m", "re", "ve", "ll", "d", "S", "M", "RE", "VE", "LL", "D"};
    static const char *const apostrophes[] = {"'", "\xe2\x80\x99"};
    for (int a = 0; a < 2; a++) {
        size_t m = strlen(apostrophes[a]);
        for (size_t i = 0; i < 12; i++) {
            size_t n = strlen(ends[i]);
            if ((size_t)(e - b) > n + m && memcmp(e - n, ends[i], n) == 0 && memcmp(e - n - m, apostrophes[a], m) == 0)
                return e - n - m;
        }
        if ((size_t)(e - b) > 2 + m && (e[-1] == 't' || e[-1] == 'T') && memcmp(e - 1 - m, apostrophes[a], m) == 0 && (e[-2 - (long)m] == 'n' || e[-2 - (long)m] == 'N'))
            return e - 2 - m;
    }
    return e;
}

static bool is_address(const char *b, const char *e)
{
    for (const char *p = b; p + 2 < e; p++)
        if (memcmp(p, "://", 3) == 0 && p > b)
            return true;
    if (e - b > 4 && memcmp(b, "www.", 4) == 0)
        return true;
    const char *sign = memchr(b, '@', (size_t)(e - b));
    return sign && sign > b && memchr(sign, '.', (size_t)(e - sign));
}

static const char *const dashes[] = {"--", "\xe2\x80\x94", "\xe2\x80\x93", "-", "~"};

/* Where the middle of a chunk is cut: a mark at p between what stands before and behind it; returns the mark's length, or 0. */
static size_t infix_at(const char *b, const char *p, const char *e)
{
    if (p == b)
        return 0;
    const char *d = dots_front(p, e);
    if (d > p)
        return (size_t)(d - p);
    uint32_t c = at(p), left = at(before(p, b));
    size_t n = length_at(p);
    if (c == 0x2026)
        return n;
    for (int i = 0; i < 5; i++) {
        size_t m = strlen(dashes[i]);
        if ((size_t)(e - p) > m && memcmp(p, dashes[i], m) == 0 && is_alnum(left) && is_letter(at(p + m)))
            return m;
    }
    if (p + n >= e)
        return 0;
    uint32_t right = at(p + n);
    unsigned l = unicode_class(left), r = unicode_class(right);
    if (in("+-*^", c) && (l & UNICODE_N) && ((r & UNICODE_N) || right == '-'))
        return n;
    if (c == '.' && (l & UNICODE_LOWER) && (r & UNICODE_UPPER))
        return n;
    if (c == ',' && (l & UNICODE_L) && (r & UNICODE_L))
        return n;
    return in(":<>=/", c) && is_alnum(left) && is_letter(right) ? n : 0;
}

static void middle(Words *w, const char *b, const char *e)
{
    if (e - b == 6 && (memcmp(b, "cannot", 6) == 0 || memcmp(b, "Cannot", 6) == 0)) {
        add(w, b, b + 3);
        add(w, b + 3, e);
        return;
    }
    if (is_address(b, e)) {
        add(w, b, e);
        return;
    }
    const char *begin = b;
    for (const char *p = b; p < e;) {
        size_t n = infix_at(b, p, e);
        if (n == 0) {
            p += length_at(p);
            continue;
        }
        add(w, begin, p);
        add(w, p, p + n);
        p += n;
        begin = p;
    }
    add(w, begin, e);
}

static void chunk(Words *w, const char *b, const char *e)
{
    Span tail[64];
    int tails = 0;
    while (b < e && !is_abbreviation(b, e)) {
        const char *d = dots_front(b, e);
        uint32_t c = at(b);
        size_t n = length_at(b);
        if (d > b) {
            add(w, b, d);
            b = d;
        } else if (!is_alnum(c) && !in("-@/\\|^~.`", c) && !(c == '+' && b + 1 < e && (unicode_class(at(b + 1)) & UNICODE_N))) {
            add(w, b, b + n);
            b += n;
        } else {
            break;
        }
    }
    while (b < e && tails < 63 && !is_abbreviation(b, e)) {
        const char *p = before(e, b), *dots = e;
        uint32_t c = at(p);
        while (dots > b && dots[-1] == '.')
            dots--;
        const char *cut = contraction(b, e);
        if (e - dots >= 2)
            cut = dots;
        else if (cut == e && c == '.' && p > b) {
            const char *q = before(p, b);
            cut = (unicode_class(at(q)) & UNICODE_UPPER) && q == b ? e : p;
        } else if (cut == e && !is_alnum(c) && !in("-@/\\|^~.`+$=", c))
            cut = p;
        if (cut == e)
            break;
        tail[tails++] = (Span){cut, (size_t)(e - cut)};
        e = cut;
    }
    if (b < e && is_abbreviation(b, e))
        add(w, b, e);
    else if (b < e)
        middle(w, b, e);
    while (tails > 0) {
        tails--;
        add(w, tail[tails].data, tail[tails].data + tail[tails].length);
    }
}

void words_split(Words *w, WordKind kind, Span text)
{
    w->count = 0;
    const char *p = text.data, *end = text.data + text.length;
    while (p < end) {
        const char *b = p;
        uint32_t c = 0;
        while (p < end && !((c = at(p)), (unicode_class(c) & UNICODE_SPACE) || (c >= 0x1c && c <= 0x1f)))
            p += length_at(p);
        if (kind == WORDS_SPACE)
            add(w, b, p);
        else if (p > b)
            chunk(w, b, p);
        if (p < end)
            p += length_at(p);
    }
}

void words_free(Words *w)
{
    free(w->items);
    *w = (Words){0};
}
