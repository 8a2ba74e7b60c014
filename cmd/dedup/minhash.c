#include "minhash.h"

#include "base/cpu.h"

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

static uint64_t draw(Twister *t, uint64_t low)
{
    uint64_t range = MINHASH_PRIME - 1 - low, u;
    do {
        u = (uint64_t)twister_next(t) << 32;
        u = (u | twister_next(t)) & MINHASH_PRIME;
    } while (u > range);
    return low + u;
}

void minhash_open(MinHash *m, int count, uint32_t seed)
{
    Twister t;
    twister_seed(&t, seed);
    *m = (MinHash){.count = count};
    for (int i = 0; i < count; i++)
        m->a[i] = draw(&t, 1);
    for (int i = 0; i < count; i++)
        m->b[i] = draw(&t, 0);
}

static void sign_plain(const MinHash *m, const uint64_t *hashes, size_t count, uint64_t *signature)
{
    for (int i = 0; i < m->count; i++) {
        uint64_t least = UINT64_MAX;
        for (size_t k = 0; k < count; k++) {
            uint64_t x = hashes[k] * m->a[i] + m->b[i];
            x = (x & MINHASH_PRIME) + (x >> 61);
            x = x >= MINHASH_PRIME ? x - MINHASH_PRIME : x;
            least = x < least ? x : least;
        }
        signature[i] = least;
    }
}

void minhash_sign(const MinHash *m, const uint64_t *hashes, size_t count, uint64_t *signature)
{
#if defined(__x86_64__)
    if (cpu_level() >= CPU_AVX512) {
        minhash_sign_avx512(m, hashes, count, signature);
        return;
    }
    if (cpu_level() >= CPU_AVX2) {
        minhash_sign_avx2(m, hashes, count, signature);
        return;
    }
#endif
    sign_plain(m, hashes, count, signature);
}
