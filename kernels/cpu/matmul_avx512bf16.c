/* The matrix product's micro-kernel for AVX-512 BF16: a word is a pair of numbers that follow each other along k, and VDPBF16PS
 * adds both products of a pair to an f32 sum. The same register tile as the f32 kernel's (matmul_tile.h). */
#include "kernels/cpu/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET
enum { LANES = 16, MR = 8 };

INLINE __m512bh words(const void *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

/* Results of a tile as bf16, or as f32 with what beta adds: which of them is a constant, so that sums go from registers. */
enum { NARROW, PLAIN, ADDED };

INLINE void store(const MatmulTile *t, int64_t first, __m512 sum[MR][3], const int mr, const int nv, const int how)
{
    const __m512 alpha = _mm512_set1_ps(t->alpha), beta = _mm512_set1_ps(t->beta);
    const int64_t ldc = t->ldc;
    uint16_t *half = (uint16_t *)t->c + first * ldc;
    float *c = (float *)t->c + first * ldc;
    for (int i = 0; i < mr; i++, c += ldc, half += ldc)
        for (int j = 0; j < nv; j++) {
            __m512 x = _mm512_mul_ps(alpha, sum[i][j]);
            if (how == ADDED)
                x = _mm512_fmadd_ps(beta, _mm512_loadu_ps(c + j * LANES), x);
            if (how == NARROW)
                _mm256_storeu_si256((__m256i *)(half + j * LANES), (__m256i)_mm512_cvtneps_pbh(x));
            else
                _mm512_storeu_ps(c + j * LANES, x);
        }
}

INLINE void tile(const MatmulTile *t, int64_t first, int64_t row, int64_t step, const int mr, const int nv)
{
    __m512 sum[MR][3];
    const int32_t *a = (const int32_t *)t->a + first * row;
    const uint32_t *b = t->b;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            sum[i][j] = _mm512_setzero_ps();
    for (int64_t l = 0; l < t->k; l++, a += step, b += t->ldb) {
        __m512bh x[3];
        for (int j = 0; j < nv; j++)
            x[j] = words(b + j * LANES);
        for (int i = 0; i < mr; i++) {
            int32_t pair;
            __builtin_memcpy(&pair, a + i * row, sizeof pair);
            __m512bh y = (__m512bh)_mm512_set1_epi32(pair);
            for (int j = 0; j < nv; j++)
                sum[i][j] = _mm512_dpbf16_ps(sum[i][j], y, x[j]);
        }
    }
    if (t->narrow)
        store(t, first, sum, mr, nv, NARROW);
    else if (t->beta == 0)
        store(t, first, sum, mr, nv, PLAIN);
    else
        store(t, first, sum, mr, nv, ADDED);
}

#define OWN_TILE
#include "kernels/cpu/matmul_tile.h"

const MatmulKernel matmul_kernel_avx512bf16 = {MR, LANES, matmul_run, 0 /* words are transposed by the f32 kernel */};
#else
const MatmulKernel matmul_kernel_avx512bf16 = {0, 0, 0, 0};
#endif
