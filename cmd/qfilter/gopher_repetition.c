/* GopherRepetitionFilter (datatrove pipeline/filters/gopher_repetition_filter.py). Shares are of the whole text's code points;
 * an empty text is kept. A threshold of 0 turns its rule off. */
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "rules.h"
#include "text/utf8.h"

const GopherRepetition gopher_repetition_default = {0.3, 0.2, 0.3, 0.2, {0.20, 0.18, 0.16}, {0.15, 0.14, 0.13, 0.12, 0.11, 0.10}};

struct Gram {
    uint64_t low, high; /* 128-bit hash */
    uint32_t count, first;
    uint32_t length;    /* code points */
};

static size_t table_begin(Page *p, size_t items)
{
    size_t n = 64;
    while (n < items * 2)
        n *= 2;
    p->grams = memory_grow(p->grams, &p->gram_capacity, n, sizeof *p->grams);
    memset(p->grams, 0, n * sizeof *p->grams);
    return n - 1;
}

static struct Gram *table_find(Page *p, size_t mask, const char *data, size_t length)
{
    XXH128_hash_t h = XXH3_128bits(data, length);
    h.low64 |= 1;
    for (size_t i = h.low64 >> 1;; i++) {
        struct Gram *g = &p->grams[i & mask];
        if (!g->low || (g->low == h.low64 && g->high == h.high64)) {
            g->low = h.low64;
            g->high = h.high64;
            return g;
        }
    }
}

/* Pieces between runs of at least `least` newlines: how many, how many were there before, and those ones' code points. */
static void count_repeats(Page *p, Span text, size_t least, size_t *all, size_t *repeated, size_t *length)
{
    *all = *repeated = *length = 0;
    size_t mask = table_begin(p, text.length / (least + 1) + 2);
    for (size_t at = 0; at <= text.length;) {
        size_t end = at, run = 0;
        while (end < text.length) {
            run = 0;
            while (end + run < text.length && text.data[end + run] == '\n')
                run++;
            if (run >= least)
                break;
            end += run ? run : 1;
        }
        struct Gram *g = table_find(p, mask, text.data + at, end - at);
        ++*all;
        if (g->count++) {
            ++*repeated;
            *length += utf8_count((Span){text.data + at, end - at});
        }
        if (end >= text.length)
            break;
        at = end + run;
    }
}

static size_t join(Page *p, size_t first, int n, const char *between)
{
    p->scratch.length = 0;
    for (int k = 0; k < n; k++) {
        buffer_string(&p->scratch, k ? between : "");
        buffer_append(&p->scratch, p->words.items[first + (size_t)k].data, p->words.items[first + (size_t)k].length);
    }
    return utf8_count((Span){p->scratch.data, p->scratch.length});
}

static bool top_gram(Page *p, int n, double limit)
{
    if (p->words.count < (size_t)n)
        return false;
    size_t grams = p->words.count - (size_t)n + 1, mask = table_begin(p, grams);
    const struct Gram *best = NULL;
    for (size_t i = 0; i < grams; i++) {
        size_t length = join(p, i, n, " ");
        struct Gram *g = table_find(p, mask, p->scratch.data, p->scratch.length);
        if (g->count++ == 0) {
            g->first = (uint32_t)i;
            g->length = (uint32_t)length;
        }
        if (!best || g->count > best->count || (g->count == best->count && g->first < best->first))
            best = g;
    }
    return (double)best->length * best->count / (double)p->length > limit;
}

static bool repeated_grams(Page *p, int n, double limit)
{
    if (p->words.count < (size_t)n)
        return false;
    size_t mask = table_begin(p, p->words.count), length = 0;
    for (size_t i = 0; i + (size_t)n <= p->words.count;) {
        size_t m = join(p, i, n, "");
        struct Gram *g = table_find(p, mask, p->scratch.data, p->scratch.length);
        if (g->count) {
            length += m;
            i += (size_t)n;
        } else {
            g->count = 1;
            i++;
        }
    }
    return (double)length / (double)p->length > limit;
}

const char *gopher_repetition(const GopherRepetition *r, Page *p)
{
    static const char *const top[] = {"top_2_gram", "top_3_gram", "top_4_gram"};
    static const char *const repeated[] = {"duplicated_5_n_grams", "duplicated_6_n_grams", "duplicated_7_n_grams", "duplicated_8_n_grams", "duplicated_9_n_grams", "duplicated_10_n_grams"};
    size_t all, again, length;
    if (p->length == 0)
        return NULL;
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
    for (int n = 0; n < 3; n++)
        if (r->top_n_grams[n] > 0 && top_gram(p, n + 2, r->top_n_grams[n]))
            return top[n];
    for (int n = 0; n < 6; n++)
        if (r->dup_n_grams[n] > 0 && repeated_grams(p, n + 5, r->dup_n_grams[n]))
            return repeated[n];
    return NULL;
}
