/* The random numbers of Python's `random.Random(seed)`: MT19937 (Matsumoto and Nishimura 1998), seeded and read as CPython does, where
 * draws must be those of a Python program. */
#ifndef BASE_MERSENNE_H
#define BASE_MERSENNE_H

#include <stddef.h>
#include <stdint.h>

typedef struct Mersenne {
    uint32_t state[624];
    int at;
} Mersenne;

void mersenne_seed(Mersenne *m, uint64_t seed);
double mersenne_uniform(Mersenne *m); /* random(): [0, 1), 53 bits */
/* random.sample(range(n), count): count ≤ n places into out. */
void mersenne_sample(Mersenne *m, uint64_t n, size_t count, uint64_t *out);

#endif
