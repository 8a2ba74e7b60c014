/* GopherRepetitionFilter (datatrove pipeline/filters/gopher_repetition_filter.py). Shares are of the whole text's code points;
 * an empty text is dropped. A threshold of 0 turns its rule off. */
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "rules.h"
#include "text/utf8.h"

const GopherRepetition gopher_repetition_default = {0.3, 0.2, 0.3, 0.2, {0.20, 0.18, 0.16}, {0.15, 0.14, 0.13, 0.12, 0.11, 0.10}};

/* Tables by hash in one block of memory, cleared for each pass: of n-grams with their counts, or of keys alone. Small slots keep
 * a document's table near the processor. */
struct Gram {
    uint64_t key;          /* 0: empty */
    uint32_t count, first;
};

static void *table_begin(Page *p, size_t items, size_t width)
{
    size_t n = 64;
    while (n < items * 2)
        n *= 2;
    if (n * width > p->table_capacity) {
        free(p->table);
        p->table_capacity = n * width;
        p->table = memory_alloc(p->table_capacity, 1);
    }
    p->table_mask = n - 1;
    return memset(p->table, 0, n * width);
}

static inline size_t slot_of(uint64_t key)
{
    return (size_t)(key ^ key >> 32);
}

/* The entry of a key; new ones count 0. */
static inline struct Gram *gram_find(struct Gram *grams, size_t mask, uint64_t key)
{
    key += key == 0;
    for (size_t i = slot_of(key);; i++) {
        struct Gram *g = &grams[i & mask];
        if (g->key == key)
            return g;
        if (!g->key) {
            g->key = key;
            return g;
        }
    }
}

/* Was the key there? It is now. */
static inline bool key_seen(uint64_t *keys, size_t mask, uint64_t key)
{
    key += key == 0;
    for (size_t i = slot_of(key);; i++) {
        uint64_t *k = &keys[i & mask];
        if (*k == key)
            return true;
        if (!*k) {
            *k = key;
            return false;
        }
    }
}

/* Pieces between runs of at least `least` newlines: how many, how many were there before, and those ones' code points. */
static void count_repeats(Page *p, Span text, size_t least, size_t *all, size_t *repeated, size_t *length)
{
    *all = *repeated = *length = 0;
    size_t pieces = 2;
    for (const char *q = text.data, *end = q + text.length; q < end && (q = memchr(q, '\n', (size_t)(end - q))); q++)
        pieces++;
    uint64_t *keys = table_begin(p, pieces, sizeof *keys);
    for (size_t at = 0; at <= text.length;) {
        size_t end = at, run = 0;
        while (end < text.length) {
            const char *newline = memchr(text.data + end, '\n', text.length - end);
            end = newline ? (size_t)(newline - text.data) : text.length;
            for (run = 0; end + run < text.length && text.data[end + run] == '\n';)
                run++;
            if (run >= least)
                break;
            end += run;
        }
        ++*all;
        if (key_seen(keys, p->table_mask, XXH3_64bits(text.data + at, end - at))) {
            ++*repeated;
            *length += utf8_count((Span){text.data + at, end - at});
        }
        if (end >= text.length)
            break;
        at = end + run;
    }
}

/* Hashes of all words up to each place in the list, so that any n-gram's costs one product: of bytes b0 b1 …, Σ (b+1)·Mᵏ mod 2⁶⁴
 * with the last byte at k = 0. Grams that are compared without blanks between the words ("ab" "c" is "a" "bc") need a hash of
 * bytes. */
enum { POWERS = 1024 };
static const uint64_t multiplier = 0xd6e8feb86659fd93u;

typedef struct GramPlace {
    uint64_t joined, spaced; /* hashes: the words alone, and with a blank behind each */
    uint32_t bytes, points;
} GramPlace;

static inline uint64_t power(const Page *p, size_t n)
{
    if (__builtin_expect(n < POWERS, 1))
        return p->powers[n];
    uint64_t result = 1, square = multiplier;
    for (; n; n >>= 1, square *= square)
        result *= n & 1 ? square : 1;
    return result;
}

static void places_set(Page *p)
{
    if (p->placed)
        return;
    p->placed = true;
    page_split(p);
    if (!p->powers) {
        p->powers = memory_alloc(POWERS, sizeof *p->powers);
        p->powers[0] = 1;
        for (size_t i = 1; i < POWERS; i++)
            p->powers[i] = p->powers[i - 1] * multiplier;
    }
    p->places = memory_grow(p->places, &p->place_capacity, p->words.count + 1, sizeof *p->places);
    GramPlace at = {0};
    p->places[0] = at;
    for (size_t i = 0; i < p->words.count; i++) {
        Span w = p->words.items[i];
        uint64_t h = 0;
        uint32_t points = 0;
        for (size_t k = 0; k < w.length; k++) {
            h = h * multiplier + (unsigned char)w.data[k] + 1;
            points += ((unsigned char)w.data[k] & 0xc0) != 0x80;
        }
        uint64_t m = power(p, w.length);
        at.joined = at.joined * m + h;
        at.spaced = (at.spaced * m + h) * multiplier + ' ' + 1;
        at.bytes += (uint32_t)w.length;
        at.points += points;
        p->places[i + 1] = at;
    }
}

static bool top_gram(Page *p, size_t n, double limit)
{
    if (p->words.count < n)
        return false;
    size_t places = p->words.count - n + 1;
    struct Gram *grams = table_begin(p, places, sizeof *grams);
    size_t mask = p->table_mask;
    uint32_t count = 0, first = 0;
    for (size_t i = 0; i < places; i++) {
        const GramPlace *a = p->places + i, *b = a + n;
        struct Gram *g = gram_find(grams, mask, b->spaced - a->spaced * power(p, b->bytes - a->bytes + n));
        if (g->count++ == 0)
            g->first = (uint32_t)i;
        if (g->count > count || (g->count == count && g->first < first)) {
            count = g->count;
            first = g->first;
        }
    }
    size_t length = p->places[first + n].points - p->places[first].points + n - 1;
    return (double)(length * count) / (double)p->length > limit;
}

static double repeated_grams(Page *p, size_t n)
{
    places_set(p);
    if (p->words.count < n)
        return 0;
    uint64_t *keys = table_begin(p, p->words.count, sizeof *keys);
    size_t length = 0, mask = p->table_mask;
    for (size_t i = 0; i + n <= p->words.count;) {
        const GramPlace *a = p->places + i, *b = a + n;
        if (key_seen(keys, mask, b->joined - a->joined * power(p, b->bytes - a->bytes))) {
            length += b->points - a->points;
            i += n;
        } else {
            i++;
        }
    }
    return (double)length / (double)p->length;
}

const char *duplicated_grams(const double limits[6], Page *p)
{
    static const char *const reasons[] = {"duplicated_5_n_grams", "duplicated_6_n_grams", "duplicated_7_n_grams",
                                          "duplicated_8_n_grams", "duplicated_9_n_grams", "duplicated_10_n_grams"};
    for (size_t n = 0; n < 6; n++)
        if (limits[n] > 0 && repeated_grams(p, n + 5) > limits[n])
            return reasons[n];
    return NULL;
}

const char *gopher_repetition(const GopherRepetition *r, Page *p)
{
    static const char *const top[] = {"top_2_gram", "top_3_gram", "top_4_gram"};
    size_t all, again, length;
    if (p->length == 0)
        return "empty";
    count_repeats(p, strip(p->text), 2, &all, &again, &length);
    if (r->dup_para_frac > 0 && (double)again / (double)all > r->dup_para_frac)
        return "dup_para_frac";
    if (r->dup_para_char_frac > 0 && (double)length / (double)p->length > r->dup_para_char_frac)
        return "dup_para_char_frac";
    count_repeats(p, p->text, 1, &all, &again, &length);
    if (r->dup_line_frac > 0 && (double)again / (double)all > r->dup_line_frac)
        return "dup_line_frac";
    if (r->dup_line_char_frac > 0 && (double)length / (double)p->length > r->dup_line_char_frac)
        return "dup_line_char_frac";
    places_set(p);
    for (size_t n = 0; n < 3; n++)
        if (r->top_n_grams[n] > 0 && top_gram(p, n + 2, r->top_n_grams[n]))
            return top[n];
    return duplicated_grams(r->dup_n_grams, p);
}
