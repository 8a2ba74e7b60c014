#include "text/unicode.h"

#include <stdlib.h>
#include "text/utf8.h"

static const uint32_t *find(const void *rows, size_t count, size_t width, uint32_t key)
{
    const uint32_t *table = rows;
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (table[middle * width] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && table[low * width] == key ? &table[low * width] : NULL;
}

int unicode_to_lower(uint32_t c, uint32_t out[2])
{
    if (c < 0x80) {
        out[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
        return 1;
    }
    const uint32_t *row = find(unicode_lower, unicode_lower_count, 3, c);
    out[0] = row ? row[1] : c;
    out[1] = row ? row[2] : 0;
    return 1 + (out[1] != 0);
}

/* Case_Ignorable, but for a few modifier symbols. */
static bool is_ignorable(uint32_t c)
{
    unsigned b = unicode_break(c) & BREAK_CLASS;
    return (unicode_class(c) & (UNICODE_MN | UNICODE_LM)) || b == BREAK_EXTEND || b == BREAK_ZWJ || b == BREAK_FORMAT || b == BREAK_SINGLE_QUOTE || b == BREAK_MIDNUMLET || b == BREAK_MIDLETTER ||
           c == '^' || c == '`' || c == 0xa8 || c == 0xaf || c == 0xb4 || c == 0xb8;
}

/* Is the first character before (or behind) the place that is not ignorable one that has a case? */
static bool is_beside_cased(Span text, size_t at, bool behind)
{
    size_t n;
    while (behind ? at < text.length : at > 0) {
        if (!behind)
            do
                at--;
            while (at > 0 && ((unsigned char)text.data[at] & 0xc0) == 0x80);
        uint32_t c = utf8_decode(text.data + at, &n);
        if (!is_ignorable(c))
            return (unicode_class(c) & (UNICODE_UPPER | UNICODE_LOWER)) != 0;
        at += behind ? n : 0;
    }
    return false;
}

uint32_t unicode_lower_sigma(Span text, size_t at)
{
    size_t n;
    utf8_decode(text.data + at, &n);
    return is_beside_cased(text, at, false) && !is_beside_cased(text, at + n, true) ? 0x3c2 : 0x3c3;
}

void unicode_lower_text(Span text, Buffer *out)
{
    for (size_t i = 0, n; i < text.length; i += n) {
        uint32_t low[2], c = utf8_decode(text.data + i, &n);
        char bytes[4];
        int count = unicode_to_lower(c, low);
        if (c == UNICODE_SIGMA)
            low[0] = unicode_lower_sigma(text, i);
        for (int k = 0; k < count; k++)
            buffer_append(out, bytes, utf8_encode(low[k], bytes));
    }
}

static unsigned combining_class(uint32_t c)
{
    if (c < 0x300)
        return 0;
    size_t low = 0, high = unicode_combining_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (unicode_combining[middle][1] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < unicode_combining_count && unicode_combining[low][0] <= c ? unicode_combining[low][2] : 0;
}

typedef struct Points {
    uint32_t *c;
    size_t count, capacity;
} Points;

static void points_add(Points *p, uint32_t c)
{
    p->c = memory_grow(p->c, &p->capacity, p->count + 1, sizeof *p->c);
    /* Canonical ordering: marks sort by class behind the last starter, equal classes keep their order. */
    size_t at = p->count++;
    unsigned k = combining_class(c);
    while (k && at > 0 && combining_class(p->c[at - 1]) > k) {
        p->c[at] = p->c[at - 1];
        at--;
    }
    p->c[at] = c;
}

enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = 11172 };

static void decompose(Points *p, uint32_t c)
{
    if (c < 0xc0) {
        points_add(p, c);
    } else if (c >= S_BASE && c < S_BASE + S_COUNT) {
        uint32_t s = c - S_BASE;
        points_add(p, L_BASE + s / (V_COUNT * T_COUNT));
        points_add(p, V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT);
        if (s % T_COUNT)
            points_add(p, T_BASE + s % T_COUNT);
    } else {
        const uint32_t *row = find(unicode_decomposition, unicode_decomposition_count, 4, c);
        if (!row) {
            points_add(p, c);
            return;
        }
        decompose(p, row[1]);
        if (row[2])
            decompose(p, row[2]);
    }
}

/* The primary composite of two code points, or 0. The table is sorted by composite, so pairs are searched through a hash
 * built once; two threads that race build the same. */
enum { PAIRS = 4096 };
static uint16_t pair_slot[PAIRS];
static int pairs_ready;

static unsigned pair_hash(uint32_t a, uint32_t b)
{
    return (a * 2654435761u ^ b * 2246822519u) >> 20;
}

static void pairs_build(void)
{
    static uint16_t built[PAIRS];
    for (size_t i = 0; i < unicode_decomposition_count; i++) {
        const uint32_t *row = unicode_decomposition[i];
        if (!row[3])
            continue;
        unsigned h = pair_hash(row[1], row[2]);
        while (built[h % PAIRS] && built[h % PAIRS] != i + 1)
            h++;
        built[h % PAIRS] = (uint16_t)(i + 1);
    }
    for (size_t i = 0; i < PAIRS; i++)
        __atomic_store_n(&pair_slot[i], built[i], __ATOMIC_RELAXED);
    __atomic_store_n(&pairs_ready, 1, __ATOMIC_RELEASE);
}

static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT)
        return a + (b - T_BASE);
    for (unsigned h = pair_hash(a, b);; h++) {
        unsigned slot = pair_slot[h % PAIRS];
        if (!slot)
            return 0;
        const uint32_t *row = unicode_decomposition[slot - 1];
        if (row[1] == a && row[2] == b)
            return row[0];
    }
}

static void points_compose(Points *p)
{
    size_t starter = (size_t)-1, kept = 0;
    unsigned last = 0;
    for (size_t i = 0; i < p->count; i++) {
        uint32_t c = p->c[i], whole = 0;
        unsigned k = combining_class(c);
        bool blocked = kept > 0 && starter != kept - 1 && (last == 0 || last >= k);
        if (starter != (size_t)-1 && !blocked)
            whole = compose(p->c[starter], c);
        if (whole) {
            p->c[starter] = whole;
            continue;
        }
        if (k == 0)
            starter = kept;
        last = k;
        p->c[kept++] = c;
    }
    p->count = kept;
}

void unicode_nfc(Span text, Buffer *out)
{
    if (!__atomic_load_n(&pairs_ready, __ATOMIC_ACQUIRE))
        pairs_build();
    Points p = {0};
    size_t n;
    for (size_t i = 0; i < text.length; i += n)
        decompose(&p, utf8_decode(text.data + i, &n));
    points_compose(&p);
    for (size_t i = 0; i < p.count; i++) {
        char bytes[4];
        buffer_append(out, bytes, utf8_encode(p.c[i], bytes));
    }
    free(p.c);
}

int unicode_nfc_may_change(Span text)
{
    for (size_t i = 0; i < text.length; i++)
        if ((unsigned char)text.data[i] >= 0xcc) /* U+0300 and more */
            return 1;
    return 0;
}
