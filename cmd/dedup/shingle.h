/* Shingles: the set of 64-bit hashes of 5-grams of lower-cased \w+ words, and MinHash signatures over it. */
#ifndef DEDUP_SHINGLE_H
#define DEDUP_SHINGLE_H

#include <stdint.h>
#include "base/memory.h"

typedef struct Shingles {
    uint64_t *hashes; /* sorted, each once */
    size_t count, capacity;
    Buffer words;     /* scratch */
    size_t *starts;
    size_t start_capacity;
} Shingles;

/* Fewer than n words: count 0. */
void shingles_make(Shingles *s, Span text, int n);
void shingles_free(Shingles *s);
/* |a ∩ b| / |a ∪ b| of sorted sets. */
double shingles_jaccard(const uint64_t *a, size_t n, const uint64_t *b, size_t m);

enum { MINHASH_MOST = 256 };
typedef struct MinHash {
    uint64_t a[MINHASH_MOST], b[MINHASH_MOST];
    int count;
} MinHash;

/* Constants as datatrove draws them: NumPy's RandomState(seed) (facts in datatrove/pipeline/dedup/minhash.py). */
void minhash_open(MinHash *m, int count, uint32_t seed);
/* Minimum of ((h·a + b) mod 2^64) mod (2^61 − 1) over the shingles, for each of the constants. */
void minhash_sign(const MinHash *m, const Shingles *s, uint64_t *signature);

#endif
