/* Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011): a pure function of (seed, stream, index), so that
 * any thread, rank or grid draws the same number for the same thing. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdint.h>

/* Streams: what the numbers are for. Two uses never share a stream. */
enum {
    RANDOM_INIT = 1, /* + a hash of the parameter's name */
    RANDOM_SHUFFLE,
    RANDOM_SAMPLE,
    RANDOM_FIT = 5,
    RANDOM_CLASSIFIER,
    RANDOM_NOISE, /* dropout, NEFTune */
    RANDOM_ORDER  /* of a ranking's answers in a row */
};

void random_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);
double random_uniform(uint64_t seed, uint64_t stream, uint64_t index);             /* [0, 1), 53 bits */
uint64_t random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n); /* unbiased enough: 64x64->128 multiply */
double random_normal(uint64_t seed, uint64_t stream, uint64_t index);              /* N(0,1), Box-Muller of one block */
/* The place of i under a pseudo-random permutation of 0 … n-1 (cycle-walking Feistel network): shuffles of any size
 * in no memory. */
uint64_t random_permute(uint64_t seed, uint64_t stream, uint64_t i, uint64_t n);

#endif
