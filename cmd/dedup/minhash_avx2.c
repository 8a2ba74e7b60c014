/* minhash_sign for AVX2: 8 constants stay in registers while all hashes pass. */
#include "minhash.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2"), always_inline)) static inline

/* Low 64 bits of the products, of which AVX2 has only 32 × 32 bits. */
TARGET __m256i multiply(__m256i x, __m256i y)
{
    __m256i crossed = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(x, 32), y), _mm256_mul_epu32(x, _mm256_srli_epi64(y, 32)));
    return _mm256_add_epi64(_mm256_mul_epu32(x, y), _mm256_slli_epi64(crossed, 32));
}

/* Values lie below 2^63, so the signed comparison serves. */
TARGET __m256i lower(__m256i least, __m256i h, __m256i a, __m256i b)
{
    const __m256i prime = _mm256_set1_epi64x((long long)MINHASH_PRIME);
    __m256i x = _mm256_add_epi64(multiply(h, a), b);
    x = _mm256_add_epi64(_mm256_and_si256(x, prime), _mm256_srli_epi64(x, 61));
    x = _mm256_sub_epi64(x, _mm256_andnot_si256(_mm256_cmpgt_epi64(prime, x), prime));
    return _mm256_blendv_epi8(least, x, _mm256_cmpgt_epi64(least, x));
}

__attribute__((target("avx2"))) void minhash_sign_avx2(const MinHash *m, const uint64_t *hashes, size_t count, uint64_t *signature)
{
    for (int i = 0; i < m->count; i += 8) {
        __m256i a0 = _mm256_load_si256((const __m256i *)(m->a + i)), b0 = _mm256_load_si256((const __m256i *)(m->b + i));
        __m256i a1 = _mm256_load_si256((const __m256i *)(m->a + i + 4)), b1 = _mm256_load_si256((const __m256i *)(m->b + i + 4));
        __m256i least0 = _mm256_set1_epi64x(INT64_MAX), least1 = least0;
        for (size_t k = 0; k < count; k++) {
            __m256i h = _mm256_set1_epi64x((long long)hashes[k]);
            least0 = lower(least0, h, a0, b0);
            least1 = lower(least1, h, a1, b1);
        }
        _mm256_storeu_si256((__m256i *)(signature + i), least0);
        _mm256_storeu_si256((__m256i *)(signature + i + 4), least1);
    }
}
#endif
