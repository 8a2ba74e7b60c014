/* Shingles: the set of 64-bit hashes (XXH64) of n-grams of lower-cased \w+ words, joined by blanks. */
#ifndef DEDUP_SHINGLE_H
#define DEDUP_SHINGLE_H

#include <stdint.h>
#include "base/memory.h"

typedef struct Shingles {
    uint64_t *hashes; /* sorted, each once */
    size_t count, capacity;
    Buffer words;     /* scratch */
    size_t *starts;
    uint64_t *table;
    size_t start_capacity, table_capacity;
} Shingles;

/* Fewer than n words: count 0. */
void shingles_make(Shingles *s, Span text, int n);
void shingles_free(Shingles *s);
/* |a ∩ b| / |a ∪ b| of sorted sets. */
double shingles_jaccard(const uint64_t *a, size_t n, const uint64_t *b, size_t m);

#endif
