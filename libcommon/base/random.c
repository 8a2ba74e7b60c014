#include "base/random.h"

#include <math.h>

static void philox_round(uint32_t c[4], const uint32_t k[2])
{
    uint64_t p0 = (uint64_t)0xD2511F53 * c[0], p1 = (uint64_t)0xCD9E8D57 * c[2];
    uint32_t a = (uint32_t)(p1 >> 32) ^ c[1] ^ k[0], b = (uint32_t)(p0 >> 32) ^ c[3] ^ k[1];
    c[1] = (uint32_t)p1;
    c[3] = (uint32_t)p0;
    c[0] = a;
    c[2] = b;
}

void random_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4])
{
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    out[0] = (uint32_t)index;
    out[1] = (uint32_t)(index >> 32);
    out[2] = (uint32_t)stream;
    out[3] = (uint32_t)(stream >> 32);
    for (int i = 0; i < 10; i++) {
        philox_round(out, k);
        k[0] += 0x9E3779B9;
        k[1] += 0xBB67AE85;
    }
}

static uint64_t random_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t r[4];
    random_block(seed, stream, index, r);
    return (uint64_t)r[0] << 32 | r[1];
}

double random_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return (double)(random_u64(seed, stream, index) >> 11) * 0x1p-53;
}

uint64_t random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)random_u64(seed, stream, index) * n) >> 64);
}

double random_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t r[4];
    random_block(seed, stream, index, r);
    double u = ((double)(((uint64_t)r[0] << 32 | r[1]) >> 11) + 1) * 0x1p-53; /* (0, 1] */
    double v = (double)(((uint64_t)r[2] << 32 | r[3]) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

/* A balanced Feistel network over the next even number of bits; values outside 0 … n-1 are walked on. */
uint64_t random_permute(uint64_t seed, uint64_t stream, uint64_t i, uint64_t n)
{
    int bits = 2;
    while (bits < 64 && (UINT64_C(1) << bits) < n)
        bits += 2;
    int half = bits / 2;
    uint64_t mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint64_t next = left ^ (random_u64(seed, stream, right * 8 + round) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
