/* What is no product of an attention tile, for CPUs with AVX-512 BF16: attention.c has the plain twins. */
#include "kernels/cpu/attention_tile.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include "kernels/cpu/vector_avx512.h"

#include <math.h>

enum { VECTORS = HALF / VECTOR };

/* Word l is the pair (even l, odd l). */
INLINE __m512i pairs_of(__m512 even, __m512 odd)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

INLINE void greatest_of(float *s, __m512 *most, const int32_t *lo, const int32_t *hi, int keys, bool whole)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    for (int v = 0; v < VECTORS; v++) {
        __m512i first = _mm512_loadu_si512(lo + v * VECTOR), end = _mm512_loadu_si512(hi + v * VECTOR);
        for (int j = 0; j < keys; j++) {
            __m512 x = _mm512_loadu_ps(s + j * HALF + v * VECTOR);
            if (!whole) {
                __m512i key = _mm512_set1_epi32(j);
                x = _mm512_mask_mov_ps(none, _mm512_cmple_epi32_mask(first, key) & _mm512_cmpgt_epi32_mask(end, key), x);
                _mm512_storeu_ps(s + j * HALF + v * VECTOR, x);
            }
            most[v] = _mm512_max_ps(x, most[v]);
        }
    }
}

TARGET static bool softmax_half(float *s, Softmax *x, int r, int keys, bool whole, bool pairs)
{
    __m512 most[VECTORS], shift[VECTORS], sum[VECTORS];
    bool grown = false;
    for (int v = 0; v < VECTORS; v++)
        most[v] = _mm512_loadu_ps(x->most + r + v * VECTOR);
    if (whole)
        greatest_of(s, most, x->lo + r, x->hi + r, keys, true);
    else
        greatest_of(s, most, x->lo + r, x->hi + r, keys, false);
    for (int v = 0; v < VECTORS; v++) {
        /* A row that has seen nothing yet has no maximum: any will do, all its terms are 0. */
        float *kept = x->most + r + v * VECTOR;
        __m512 old = _mm512_loadu_ps(kept);
        __mmask16 more = _mm512_cmp_ps_mask(most[v], old, _CMP_GT_OQ);
        grown |= more != 0;
        shift[v] = _mm512_mask_mov_ps(most[v], _mm512_cmp_ps_mask(most[v], _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ), _mm512_setzero_ps());
        _mm512_storeu_ps(kept, most[v]);
        /* vector_exp(0) is not quite 1, and whether a row's output is scaled at all hangs on its neighbours. */
        _mm512_storeu_ps(x->shrink + r + v * VECTOR, _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), more, vector_exp(_mm512_sub_ps(old, shift[v]))));
        sum[v] = _mm512_setzero_ps();
    }
    for (int j = 0; j < keys; j += pairs ? 2 : 1)
        for (int v = 0; v < VECTORS; v++) {
            float *at = s + j * HALF + v * VECTOR;
            __m512 even = vector_exp(_mm512_sub_ps(_mm512_loadu_ps(at), shift[v])), odd = _mm512_setzero_ps();
            sum[v] = _mm512_add_ps(sum[v], even);
            if (!pairs) {
                _mm512_storeu_ps(at, even);
                continue;
            }
            if (j + 1 < keys)
                odd = vector_exp(_mm512_sub_ps(_mm512_loadu_ps(at + HALF), shift[v]));
            sum[v] = _mm512_add_ps(sum[v], odd);
            _mm512_storeu_si512(s + j / 2 * HALF + v * VECTOR, pairs_of(even, odd));
        }
    for (int v = 0; v < VECTORS; v++) {
        float *kept = x->sum + r + v * VECTOR;
        _mm512_storeu_ps(kept, _mm512_fmadd_ps(_mm512_loadu_ps(kept), _mm512_loadu_ps(x->shrink + r + v * VECTOR), sum[v]));
    }
    return grown;
}

/* Of row r of the half from key j: the probabilities and their gradients. */
INLINE void gradient_row(const Gradients *g, int r, int j, int lo, int hi, float lse, float delta, __m512 *p, __m512 *ds)
{
    __m512i key = _mm512_add_epi32(_mm512_set1_epi32(j), _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    __mmask16 seen = _mm512_cmple_epi32_mask(_mm512_set1_epi32(lo), key) & _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(hi), key);
    *p = _mm512_maskz_mov_ps(seen, vector_exp(_mm512_sub_ps(_mm512_loadu_ps(g->p + r * KEYS + j), _mm512_set1_ps(lse))));
    *ds = _mm512_maskz_mul_ps(seen, *p, _mm512_sub_ps(_mm512_loadu_ps(g->ds + r * KEYS + j), _mm512_set1_ps(delta)));
}

TARGET static void gradient_half(const Gradients *g, int group, int r0, int m, int width, const float *lse, const float *delta, int64_t stride,
                                 const int32_t *begin, const int32_t *end, int64_t j0)
{
    const bool pairs = g->ds_across;
    int lo[2] = {0}, hi[2] = {0};
    float sum[2] = {0}, minus[2] = {0};
    int t = r0 / group, h = r0 % group;
    for (int r = r0; r < r0 + m; r += 2) {
        for (int i = 0; i < 2; i++, next_row(&t, &h, group)) {
            bool there = r + i < r0 + m;
            int64_t at = h * stride + t;
            lo[i] = there ? clamp_key(begin[t], j0) : 0;
            hi[i] = there ? clamp_key(end[t], j0) : 0;
            sum[i] = there ? lse[at] : 0;
            minus[i] = there ? delta[at] : 0;
        }
        for (int j = 0; j < width; j += VECTOR) {
            __m512 p[2], ds[2];
            for (int i = 0; i < 2; i++)
                gradient_row(g, r - r0 + i, j, lo[i], hi[i], sum[i], minus[i], &p[i], &ds[i]);
            float *to_p = g->p + (r - r0) * KEYS + j, *to_ds = g->ds + (r - r0) * KEYS + j;
            if (pairs) {
                __m512i apart = (__m512i)_mm512_cvtne2ps_pbh(ds[1], ds[0]);
                uint16_t *across = g->ds_across + (r - r0) * KEYS + j;
                _mm512_storeu_si512(to_p, pairs_of(p[0], p[1]));
                _mm512_storeu_si512(to_ds, pairs_of(ds[0], ds[1]));
                _mm256_storeu_si256((__m256i *)across, _mm512_castsi512_si256(apart));
                _mm256_storeu_si256((__m256i *)(across + KEYS), _mm512_extracti64x4_epi64(apart, 1));
                continue;
            }
            for (int i = 0; i < 2; i++) {
                _mm512_storeu_ps(to_p + i * KEYS, p[i]);
                _mm512_storeu_ps(to_ds + i * KEYS, ds[i]);
            }
        }
    }
}

TARGET static void store_rows(uint16_t *to, int64_t ld, int n, int group, int d, const float *tile, int padded, const float *by)
{
    for (int t = 0, r = 0; t < n; t++, to += ld)
        for (int h = 0; h < group; h++, r++, tile += padded) {
            const __m512 factor = _mm512_set1_ps(by ? by[r] : 1);
            int i = 0;
            for (; i + VECTOR <= d; i += VECTOR)
                store(to + h * d, true, i, 0xffff, _mm512_mul_ps(factor, _mm512_loadu_ps(tile + i)));
            if (i < d)
                store(to + h * d, true, i, lanes_of(d - i), _mm512_mul_ps(factor, _mm512_loadu_ps(tile + i)));
        }
}

static const AttentionKernel kernel = {softmax_half, gradient_half, store_rows};

const AttentionKernel *attention_kernel_avx512bf16(void)
{
    return &kernel;
}
#else
const AttentionKernel *attention_kernel_avx512bf16(void)
{
    return NULL;
}
#endif
