#include "base/mersenne.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

enum { N = 624, M = 397 };

/* init_by_array with the seed's 32-bit digits, lowest first, as random_seed in CPython's _randommodule.c. */
void mersenne_seed(Mersenne *m, uint64_t seed)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, *s = m->state;
    int length = key[1] ? 2 : 1, i = 1, j = 0;
    s[0] = 19650218;
    for (uint32_t k = 1; k < N; k++)
        s[k] = 1812433253u * (s[k - 1] ^ s[k - 1] >> 30) + k;
    for (int k = 0; k < N; k++) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525u) + key[j] + (uint32_t)j;
        if (++i == N) {
            s[0] = s[N - 1];
            i = 1;
        }
        j = j + 1 == length ? 0 : j + 1;
    }
    for (int k = 0; k < N - 1; k++) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941u) - (uint32_t)i;
        if (++i == N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
    m->at = N;
}

static uint32_t next(Mersenne *m)
{
    uint32_t *s = m->state;
    if (m->at == N) {
        for (int k = 0; k < N; k++) {
            uint32_t y = (s[k] & 0x80000000u) | (s[k + 1 < N ? k + 1 : 0] & 0x7fffffffu);
            s[k] = s[k + M < N ? k + M : k + M - N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        m->at = 0;
    }
    uint32_t y = s[m->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

double mersenne_uniform(Mersenne *m)
{
    uint32_t a = next(m) >> 5, b = next(m) >> 6;
    return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}

/* getrandbits(k), 1 ≤ k ≤ 64: 32-bit digits, lowest first, the last one cut. */
static uint64_t bits(Mersenne *m, int k)
{
    if (k <= 32)
        return next(m) >> (32 - k);
    uint64_t low = next(m);
    return low | (uint64_t)(next(m) >> (64 - k)) << 32;
}

/* _randbelow(n), n ≥ 1. */
static uint64_t below(Mersenne *m, uint64_t n)
{
    int k = 64 - __builtin_clzll(n);
    uint64_t r = bits(m, k);
    while (r >= n)
        r = bits(m, k);
    return r;
}

void mersenne_sample(Mersenne *m, uint64_t n, size_t count, uint64_t *out)
{
    uint64_t few = 21;
    if (count > 5)
        few += (uint64_t)pow(4, ceil(log((double)count * 3) / log(4)));
    if (n <= few) {
        uint64_t *pool = memory_alloc((size_t)n, sizeof *pool);
        for (uint64_t i = 0; i < n; i++)
            pool[i] = i;
        for (size_t i = 0; i < count; i++) {
            uint64_t j = below(m, n - i);
            out[i] = pool[j];
            pool[j] = pool[n - i - 1];
        }
        free(pool);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        bool taken;
        do {
            out[i] = below(m, n);
            taken = false;
            for (size_t k = 0; k < i; k++)
                taken |= out[k] == out[i];
        } while (taken);
    }
}
