/* minhash_sign for AVX512: 16 constants stay in registers while all hashes pass. */
#include "minhash.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512dq"), always_inline)) static inline

TARGET __m512i lower(__m512i least, __m512i h, __m512i a, __m512i b)
{
    const __m512i prime = _mm512_set1_epi64((long long)MINHASH_PRIME);
    __m512i x = _mm512_add_epi64(_mm512_mullo_epi64(h, a), b);
    x = _mm512_add_epi64(_mm512_and_si512(x, prime), _mm512_srli_epi64(x, 61));
    x = _mm512_min_epu64(x, _mm512_sub_epi64(x, prime)); /* below the prime the difference wraps and is the greater */
    return _mm512_min_epu64(least, x);
}

__attribute__((target("avx512f,avx512dq"))) void minhash_sign_avx512(const MinHash *m, const uint64_t *hashes, size_t count, uint64_t *signature)
{
    for (int i = 0; i < m->count; i += 16) {
        __m512i a0 = _mm512_load_si512(m->a + i), b0 = _mm512_load_si512(m->b + i), least0 = _mm512_set1_epi64(-1);
        __m512i a1 = _mm512_load_si512(m->a + i + 8), b1 = _mm512_load_si512(m->b + i + 8), least1 = least0;
        for (size_t k = 0; k < count; k++) {
            __m512i h = _mm512_set1_epi64((long long)hashes[k]);
            least0 = lower(least0, h, a0, b0);
            least1 = lower(least1, h, a1, b1);
        }
        _mm512_storeu_si512(signature + i, least0);
        _mm512_storeu_si512(signature + i + 8, least1);
    }
}
#endif
