#include "shingle.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "text/unicode.h"
#include "text/utf8.h"

/* Scratch of more than this is given back after a document, so that one long document does not hold it for ever. */
enum { SCRATCH_KEPT = 1 << 20 };

/* Of ASCII: the lower-cased character, or 0 where it belongs to no word. */
static char ascii_word(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ? (char)c : c >= 'A' && c <= 'Z' ? (char)(c + 32) : 0;
}

static char *word_end(Shingles *s, size_t *count, char *begin, char *at)
{
    if (at == begin)
        return at;
    *at++ = ' ';
    s->starts = memory_grow(s->starts, &s->start_capacity, *count + 2, sizeof *s->starts);
    s->starts[(*count)++] = (size_t)(begin - s->words.data);
    s->starts[*count] = (size_t)(at - s->words.data);
    return at;
}

/* Words, lower-cased, a blank behind each; returns how many. */
static size_t words_make(Shingles *s, Span text)
{
    size_t count = 0, length;
    s->words.length = 0;
    buffer_reserve(&s->words, text.length * 2 + 16); /* lower case and the blanks add less than that */
    char *begin = s->words.data, *at = begin;
    for (size_t i = 0; i < text.length; i += length) {
        unsigned char byte = (unsigned char)text.data[i];
        if (byte < 0x80) {
            length = 1;
            if ((*at = ascii_word(byte)))
                at++;
            else
                begin = at = word_end(s, &count, begin, at);
            continue;
        }
        uint32_t c = utf8_decode(text.data + i, &length), lower[2] = {c};
        unsigned class = unicode_class(c);
        int n = class & (UNICODE_UPPER | UNICODE_N) ? unicode_to_lower(c, lower) : 1;
        for (int k = 0; k < n; k++) {
            if (unicode_is_word(lower[k])) /* Σ at the end of a word becomes ς: one letter here */
                at += utf8_encode(lower[k] == 0x3c2 ? 0x3c3 : lower[k], at);
            else /* also the dot of a lower-cased İ */
                begin = at = word_end(s, &count, begin, at);
        }
    }
    word_end(s, &count, begin, at);
    return count;
}

/* The n hashes at `hashes` sorted, each once; returns how many are left. Hashes are spread evenly, so a table with a place for
 * each by its highest bits is all but sorted, and holds equal ones once. */
static size_t hashes_sort(Shingles *s, size_t n)
{
    int bits = 4;
    while ((size_t)1 << bits < n * 2)
        bits++;
    size_t slots = (size_t)1 << bits, kept = 0;
    s->table = memory_grow(s->table, &s->table_capacity, slots, sizeof *s->table);
    memset(s->table, 0, slots * sizeof *s->table); /* no shingle has hash 0, to all intents */
    for (size_t i = 0; i < n; i++) {
        uint64_t h = s->hashes[i];
        size_t at = h >> (64 - bits);
        while (s->table[at] && s->table[at] != h)
            at = (at + 1) & (slots - 1);
        s->table[at] = h;
    }
    for (size_t i = 0; i < slots; i++) {
        uint64_t h = s->table[i];
        if (!h)
            continue;
        size_t at = kept++;
        for (; at > 0 && s->hashes[at - 1] > h; at--)
            s->hashes[at] = s->hashes[at - 1];
        s->hashes[at] = h;
    }
    return kept;
}

void shingles_make(Shingles *s, Span text, int n)
{
    if (s->capacity > SCRATCH_KEPT || s->words.capacity > SCRATCH_KEPT * 8)
        shingles_free(s);
    size_t words = words_make(s, text), count = words >= (size_t)n ? words - (size_t)n + 1 : 0;
    s->hashes = memory_grow(s->hashes, &s->capacity, count, sizeof *s->hashes);
    for (size_t i = 0; i < count; i++)
        s->hashes[i] = XXH64(s->words.data + s->starts[i], s->starts[i + (size_t)n] - 1 - s->starts[i], 0);
    s->count = count ? hashes_sort(s, count) : 0;
}

void shingles_free(Shingles *s)
{
    free(s->hashes);
    free(s->starts);
    free(s->table);
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
