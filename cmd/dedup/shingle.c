#include "shingle.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "text/unicode.h"
#include "text/utf8.h"

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Python's \w: letters, numbers, marks do not count, underscore does. */
static bool is_word(uint32_t c)
{
    return c == '_' || (unicode_class(c) & (UNICODE_L | UNICODE_N));
}

static void word_end(Shingles *s, size_t *count, size_t begin)
{
    if (s->words.length == begin)
        return;
    buffer_byte(&s->words, ' ');
    s->starts = memory_grow(s->starts, &s->start_capacity, *count + 2, sizeof *s->starts);
    s->starts[(*count)++] = begin;
    s->starts[*count] = s->words.length;
}

void shingles_make(Shingles *s, Span text, int n)
{
    size_t count = 0, begin = 0, length;
    s->words.length = 0;
    s->count = 0;
    for (size_t i = 0; i < text.length; i += length) {
        uint32_t c = utf8_decode(text.data + i, &length), lower[2];
        if (!is_word(c)) {
            word_end(s, &count, begin);
            begin = s->words.length;
            continue;
        }
        int m = unicode_to_lower(c, lower);
        for (int k = 0; k < m; k++) {
            char bytes[4];
            buffer_append(&s->words, bytes, utf8_encode(lower[k], bytes));
        }
    }
    word_end(s, &count, begin);
    for (size_t i = 0; i + (size_t)n <= count; i++) {
        s->hashes = memory_grow(s->hashes, &s->capacity, s->count + 1, sizeof *s->hashes);
        s->hashes[s->count++] = XXH64(s->words.data + s->starts[i], s->starts[i + (size_t)n] - 1 - s->starts[i], 0);
    }
    qsort(s->hashes, s->count, sizeof *s->hashes, compare_u64);
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++)
        if (kept == 0 || s->hashes[kept - 1] != s->hashes[i])
            s->hashes[kept++] = s->hashes[i];
    s->count = kept;
}

void shingles_free(Shingles *s)
{
    free(s->hashes);
    free(s->starts);
    buffer_free(&s->words);
    *s = (Shingles){0};
}

double shingles_jaccard(const uint64_t *a, size_t n, const uint64_t *b, size_t m)
{
    size_t i = 0, j = 0, both = 0;
    while (i < n && j < m) {
        both += a[i] == b[j];
        bool less = a[i] <= b[j], more = a[i] >= b[j];
        i += less;
        j += more;
    }
    return n + m > both ? (double)both / (double)(n + m - both) : 0;
}

/* MT19937 seeded by init_genrand, as RandomState(int) does in its legacy form. */
typedef struct Twister {
    uint32_t m[624];
    int at;
} Twister;

static void twister_seed(Twister *t, uint32_t seed)
{
    t->m[0] = seed;
    for (uint32_t i = 1; i < 624; i++)
        t->m[i] = 1812433253u * (t->m[i - 1] ^ t->m[i - 1] >> 30) + i;
    t->at = 624;
}

static uint32_t twister_next(Twister *t)
{
    if (t->at == 624) {
        for (int i = 0; i < 624; i++) {
            uint32_t y = (t->m[i] & 0x80000000u) | (t->m[(i + 1) % 624] & 0x7fffffffu);
            t->m[i] = t->m[(i + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        t->at = 0;
    }
    uint32_t y = t->m[t->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static const uint64_t PRIME = (UINT64_C(1) << 61) - 1;

static uint64_t draw(Twister *t, uint64_t low)
{
    uint64_t range = PRIME - 1 - low, u;
    do {
        u = (uint64_t)twister_next(t) << 32;
        u = (u | twister_next(t)) & PRIME;
    } while (u > range);
    return low + u;
}

void minhash_open(MinHash *m, int count, uint32_t seed)
{
    Twister t;
    twister_seed(&t, seed);
    m->count = count;
    for (int i = 0; i < count; i++)
        m->a[i] = draw(&t, 1);
    for (int i = 0; i < count; i++)
        m->b[i] = draw(&t, 0);
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#endif
static void sign_one(const uint64_t *a, const uint64_t *b, uint64_t h, uint64_t *least, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t x = h * a[i] + b[i];
        x = (x & PRIME) + (x >> 61);
        x = x >= PRIME ? x - PRIME : x;
        least[i] = x < least[i] ? x : least[i];
    }
}

void minhash_sign(const MinHash *m, const Shingles *s, uint64_t *signature)
{
    for (int i = 0; i < m->count; i++)
        signature[i] = UINT64_MAX;
    for (size_t k = 0; k < s->count; k++)
        sign_one(m->a, m->b, s->hashes[k], signature, m->count);
}
