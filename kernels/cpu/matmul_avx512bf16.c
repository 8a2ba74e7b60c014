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

INLINE void store(const MatmulTile *t, int64_t i, int j, __m512 sum)
{
    sum = _mm512_mul_ps(_mm512_set1_ps(t->alpha), sum);
    if (t->narrow) {
        _mm256_storeu_si256((__m256i *)((uint16_t *)t->c + i * t->ldc + j * LANES), (__m256i)_mm512_cvtneps_pbh(sum));
        return;
    }
    float *c = (float *)t->c + i * t->ldc + j * LANES;
    if (t->beta != 0)
        sum = _mm512_fmadd_ps(_mm512_set1_ps(t->beta), _mm512_loadu_ps(c), sum);
    _mm512_storeu_ps(c, sum);
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
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++)
            store(t, first + i, j, sum[i][j]);
}

#define OWN_TILE
#include "kernels/cpu/matmul_tile.h"

const MatmulKernel matmul_kernel_avx512bf16 = {MR, LANES, matmul_run, 0 /* words are transposed by the f32 kernel */};
#else
const MatmulKernel matmul_kernel_avx512bf16 = {0, 0, 0, 0};
#endif
