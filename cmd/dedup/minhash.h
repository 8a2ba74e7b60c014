/* MinHash signatures of sets of 64-bit hashes. */
#ifndef DEDUP_MINHASH_H
#define DEDUP_MINHASH_H

#include <stddef.h>
#include <stdint.h>

enum { MINHASH_MOST = 256 };
#define MINHASH_PRIME ((UINT64_C(1) << 61) - 1)

typedef struct MinHash {
    _Alignas(64) uint64_t a[MINHASH_MOST]; /* zeros behind `count` */
    _Alignas(64) uint64_t b[MINHASH_MOST];
    int count;
} MinHash;

/* Constants as datatrove draws them: NumPy's RandomState(seed) (facts in datatrove/pipeline/dedup/minhash.py). */
void minhash_open(MinHash *m, int count, uint32_t seed);
/* Minimum of ((h·a + b) mod 2^64) mod (2^61 − 1) over the hashes, for each of the constants. signature has room for
 * MINHASH_MOST values, of which the first m->count are the answer. */
void minhash_sign(const MinHash *m, const uint64_t *hashes, size_t count, uint64_t *signature);

/* The same by 4 and 8 constants at once; called by minhash_sign where the CPU has them. */
void minhash_sign_avx2(const MinHash *m, const uint64_t *hashes, size_t count, uint64_t *signature);
void minhash_sign_avx512(const MinHash *m, const uint64_t *hashes, size_t count, uint64_t *signature);

#endif
