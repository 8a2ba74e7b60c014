/* Rows of the operations between products, for CPUs with AVX-512 BF16. Their plain twins stand in the operations' files. */
#include "kernels/cpu/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include "kernels/cpu/vector_avx512.h"

INLINE void forward_at(void *y, const void *g, const void *u, bool half, int64_t i, __mmask16 lanes)
{
    __m512 gate = load(g, half, i, lanes);
    store(y, half, i, lanes, _mm512_mul_ps(_mm512_mul_ps(gate, vector_sigmoid(gate)), load(u, half, i, lanes)));
}

INLINE void forward(void *y, const void *g, const void *u, bool half, int64_t n)
{
    int64_t i = 0;
    for (; i + VECTOR <= n; i += VECTOR)
        forward_at(y, g, u, half, i, 0xffff);
    if (i < n)
        forward_at(y, g, u, half, i, lanes_of(n - i));
}

TARGET static void swiglu_forward(void *y, const void *g, const void *u, bool half, int64_t n)
{
    if (half)
        forward(y, g, u, true, n);
    else
        forward(y, g, u, false, n);
}

INLINE void backward_at(void *dg, void *du, const void *dy, const void *g, const void *u, bool half, int64_t i, __mmask16 lanes)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 gate = load(g, half, i, lanes), d = load(dy, half, i, lanes), sigma = vector_sigmoid(gate), through = _mm512_mul_ps(d, sigma);
    __m512 slope = _mm512_fmadd_ps(gate, _mm512_sub_ps(one, sigma), one);
    store(dg, half, i, lanes, _mm512_mul_ps(_mm512_mul_ps(through, load(u, half, i, lanes)), slope));
    store(du, half, i, lanes, _mm512_mul_ps(through, gate));
}

INLINE void backward(void *dg, void *du, const void *dy, const void *g, const void *u, bool half, int64_t n)
{
    int64_t i = 0;
    for (; i + VECTOR <= n; i += VECTOR)
        backward_at(dg, du, dy, g, u, half, i, 0xffff);
    if (i < n)
        backward_at(dg, du, dy, g, u, half, i, lanes_of(n - i));
}

TARGET static void swiglu_backward(void *dg, void *du, const void *dy, const void *g, const void *u, bool half, int64_t n)
{
    if (half)
        backward(dg, du, dy, g, u, true, n);
    else
        backward(dg, du, dy, g, u, false, n);
}

/* Heads of 16: both halves of a head in one vector. */
INLINE void rotate_short(void *x, bool narrow, const float *c, const float *s, int heads, float sign)
{
    __m512 cosine = _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(_mm256_loadu_ps(c))));
    __m256 sine = _mm256_mul_ps(_mm256_set1_ps(sign), _mm256_loadu_ps(s)), minus = _mm256_sub_ps(_mm256_setzero_ps(), sine);
    __m512 both = _mm512_insertf32x8(_mm512_castps256_ps512(minus), sine, 1);
    for (int h = 0; h < heads; h++) {
        __m512 v = load(x, narrow, h * VECTOR, 0xffff);
        store(x, narrow, h * VECTOR, 0xffff, _mm512_fmadd_ps(v, cosine, _mm512_mul_ps(_mm512_shuffle_f32x4(v, v, 0x4e), both)));
    }
}

INLINE void rotate_at(void *x, bool narrow, const float *c, const float *s, int heads, int half, float sign, int i, __mmask16 lanes)
{
    __m512 cosine = load(c, false, i, lanes), sine = _mm512_mul_ps(_mm512_set1_ps(sign), load(s, false, i, lanes));
    for (int h = 0; h < heads; h++) {
        int64_t at = (int64_t)h * 2 * half + i;
        __m512 a = load(x, narrow, at, lanes), b = load(x, narrow, at + half, lanes);
        store(x, narrow, at, lanes, _mm512_fmsub_ps(a, cosine, _mm512_mul_ps(b, sine)));
        store(x, narrow, at + half, lanes, _mm512_fmadd_ps(b, cosine, _mm512_mul_ps(a, sine)));
    }
}

INLINE void rotate_any(void *x, bool narrow, const float *c, const float *s, int heads, int half, float sign)
{
    int i = 0;
    for (; i + VECTOR <= half; i += VECTOR)
        rotate_at(x, narrow, c, s, heads, half, sign, i, 0xffff);
    if (i < half)
        rotate_at(x, narrow, c, s, heads, half, sign, i, lanes_of(half - i));
}

TARGET static void rotate(void *x, bool narrow, const float *c, const float *s, int heads, int half, float sign)
{
    if (half == VECTOR / 2 && narrow)
        rotate_short(x, true, c, s, heads, sign);
    else if (half == VECTOR / 2)
        rotate_short(x, false, c, s, heads, sign);
    else if (narrow)
        rotate_any(x, true, c, s, heads, half, sign);
    else
        rotate_any(x, false, c, s, heads, half, sign);
}

TARGET static float greatest(const float *z, int64_t n)
{
    enum { APART = 4 };
    __m512 most[APART];
    int64_t i = 0;
    for (int l = 0; l < APART; l++)
        most[l] = _mm512_set1_ps(z[0]);
    for (; i + APART * VECTOR <= n; i += APART * VECTOR)
        for (int l = 0; l < APART; l++)
            most[l] = _mm512_max_ps(most[l], _mm512_loadu_ps(z + i + l * VECTOR));
    for (; i < n; i += VECTOR)
        most[0] = _mm512_mask_max_ps(most[0], lanes_of(n - i), most[0], _mm512_maskz_loadu_ps(lanes_of(n - i), z + i));
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3])));
}

TARGET static float exponentials(float *z, int64_t n, float most)
{
    __m512 sum = _mm512_setzero_ps(), shift = _mm512_set1_ps(most);
    int64_t i = 0;
    for (; i + VECTOR <= n; i += VECTOR) {
        __m512 e = vector_exp(_mm512_sub_ps(_mm512_loadu_ps(z + i), shift));
        _mm512_storeu_ps(z + i, e);
        sum = _mm512_add_ps(sum, e);
    }
    if (i < n) {
        __mmask16 lanes = lanes_of(n - i);
        __m512 e = vector_exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, z + i), shift));
        _mm512_mask_storeu_ps(z + i, lanes, e);
        sum = _mm512_mask_add_ps(sum, lanes, sum, e);
    }
    return _mm512_reduce_add_ps(sum);
}

INLINE void scale(void *to, bool half, const float *z, int64_t n, float factor)
{
    const __m512 by = _mm512_set1_ps(factor);
    int64_t i = 0;
    for (; i + VECTOR <= n; i += VECTOR)
        store(to, half, i, 0xffff, _mm512_mul_ps(by, _mm512_loadu_ps(z + i)));
    if (i < n)
        store(to, half, i, lanes_of(n - i), _mm512_mul_ps(by, _mm512_maskz_loadu_ps(lanes_of(n - i), z + i)));
}

TARGET static void scaled(void *to, bool half, const float *z, int64_t n, float factor)
{
    if (half)
        scale(to, true, z, n, factor);
    else
        scale(to, false, z, n, factor);
}

/* Words of two rows, 32 numbers of each at a time. */
TARGET static void pairs(uint32_t *out, int64_t ld, const uint16_t *x, int64_t ldx, int64_t m, int64_t words)
{
    __m512i low, high;
    uint16_t order[2 * VECTOR];
    for (int l = 0; l < 2 * VECTOR; l++)
        order[l] = (uint16_t)(l / 2 + l % 2 * 2 * VECTOR);
    low = _mm512_loadu_si512(order);
    high = _mm512_add_epi16(low, _mm512_set1_epi16(VECTOR));
    for (int64_t w = 0; w < words; w++, out += ld, x += 2 * ldx) {
        int64_t i = 0;
        for (; i + 2 * VECTOR <= m; i += 2 * VECTOR) {
            __m512i even = _mm512_loadu_si512(x + i), odd = _mm512_loadu_si512(x + ldx + i);
            _mm512_storeu_si512(out + i, _mm512_permutex2var_epi16(even, low, odd));
            _mm512_storeu_si512(out + i + VECTOR, _mm512_permutex2var_epi16(even, high, odd));
        }
        if (i + VECTOR <= m) {
            __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(x + i))), odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(x + ldx + i)));
            _mm512_storeu_si512(out + i, _mm512_or_epi32(even, _mm512_slli_epi32(odd, 16)));
            i += VECTOR;
        }
        if (i < m) {
            __mmask16 lanes = lanes_of(m - i);
            __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x + i)), odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x + ldx + i));
            _mm512_mask_storeu_epi32(out + i, lanes, _mm512_or_epi32(even, _mm512_slli_epi32(odd, 16)));
        }
    }
}

/* Numbers of two rows as words of pairs; `lanes` of each. */
INLINE void rounded_at(uint32_t *out, const float *x, int64_t ldx, __mmask16 lanes, __m512i order)
{
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(lanes, x + ldx), _mm512_maskz_loadu_ps(lanes, x));
    _mm512_mask_storeu_epi32(out, lanes, _mm512_permutexvar_epi16(order, both));
}

TARGET static void rounded_pairs(uint32_t *out, int64_t ld, const float *x, int64_t ldx, int64_t m, int64_t words)
{
    uint16_t order[2 * VECTOR];
    for (int l = 0; l < 2 * VECTOR; l++)
        order[l] = (uint16_t)(l / 2 + l % 2 * VECTOR);
    const __m512i places = _mm512_loadu_si512(order);
    for (int64_t w = 0; w < words; w++, out += ld, x += 2 * ldx) {
        int64_t i = 0;
        for (; i + VECTOR <= m; i += VECTOR)
            rounded_at(out + i, x + i, ldx, 0xffff, places);
        if (i < m)
            rounded_at(out + i, x + i, ldx, lanes_of(m - i), places);
    }
}

TARGET static void rounded_words(uint32_t *out, const float *x, int64_t words)
{
    int64_t w = 0;
    for (; w + VECTOR <= words; w += VECTOR)
        _mm512_storeu_si512(out + w, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 2 * w + VECTOR), _mm512_loadu_ps(x + 2 * w)));
    if (w == words)
        return;
    int64_t left = 2 * (words - w), low = left < VECTOR ? left : VECTOR;
    __m512 first = _mm512_maskz_loadu_ps(lanes_of(low), x + 2 * w), second = _mm512_maskz_loadu_ps(lanes_of(left - low), x + 2 * w + VECTOR);
    _mm512_mask_storeu_epi32(out + w, lanes_of(words - w), (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

/* h = x + sub; returns h². */
INLINE __m512 norm_sum(float *h, const float *x, const void *sub, bool half, int64_t i, __mmask16 lanes)
{
    __m512 sum = load(x, false, i, lanes);
    if (sub)
        sum = _mm512_add_ps(sum, load(sub, half, i, lanes));
    store(h, false, i, lanes, sum);
    return _mm512_mul_ps(sum, sum);
}

INLINE void norm_scale(void *y, bool half, const float *h, const float *w, __m512 r, int64_t i, __mmask16 lanes)
{
    store(y, half, i, lanes, _mm512_mul_ps(_mm512_mul_ps(load(h, false, i, lanes), r), load(w, false, i, lanes)));
}

INLINE float norm(void *y, bool y_half, float *h, const float *x, const void *sub, bool sub_half, const float *w, int64_t n, float eps)
{
    __m512 squares = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + VECTOR <= n; i += VECTOR)
        squares = _mm512_add_ps(squares, norm_sum(h, x, sub, sub_half, i, 0xffff));
    if (i < n)
        squares = _mm512_add_ps(squares, norm_sum(h, x, sub, sub_half, i, lanes_of(n - i)));
    float r = 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)n + eps);
    const __m512 by = _mm512_set1_ps(r);
    for (i = 0; i + VECTOR <= n; i += VECTOR)
        norm_scale(y, y_half, h, w, by, i, 0xffff);
    if (i < n)
        norm_scale(y, y_half, h, w, by, i, lanes_of(n - i));
    return r;
}

TARGET static float norm_forward(void *y, bool y_half, float *h, const float *x, const void *sub, bool sub_half, const float *w, int64_t n, float eps)
{
    if (y_half && sub_half)
        return norm(y, true, h, x, sub, true, w, n, eps);
    if (y_half)
        return norm(y, true, h, x, sub, false, w, n, eps);
    if (sub_half)
        return norm(y, false, h, x, sub, true, w, n, eps);
    return norm(y, false, h, x, sub, false, w, n, eps);
}

/* dw += dy∘h·r; returns w∘dy∘h. */
INLINE __m512 norm_dot(float *dw, const void *dy, bool half, const float *h, const float *w, __m512 r, int64_t i, __mmask16 lanes)
{
    __m512 both = _mm512_mul_ps(load(dy, half, i, lanes), load(h, false, i, lanes));
    if (dw)
        store(dw, false, i, lanes, _mm512_fmadd_ps(both, r, load(dw, false, i, lanes)));
    return _mm512_mul_ps(both, load(w, false, i, lanes));
}

INLINE void norm_gradient(float *dh, const void *dy, bool half, const float *h, const float *w, const float *residual, __m512 r, __m512 c, int64_t i,
                          __mmask16 lanes)
{
    __m512 d = _mm512_mul_ps(_mm512_mul_ps(load(dy, half, i, lanes), load(w, false, i, lanes)), r);
    d = _mm512_fnmadd_ps(load(h, false, i, lanes), c, d);
    store(dh, false, i, lanes, residual ? _mm512_add_ps(d, load(residual, false, i, lanes)) : d);
}

INLINE void norm_back(float *dh, float *dw, const void *dy, bool half, const float *h, float r, const float *w, const float *residual, int64_t n)
{
    const __m512 by = _mm512_set1_ps(r);
    __m512 dot = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + VECTOR <= n; i += VECTOR)
        dot = _mm512_add_ps(dot, norm_dot(dw, dy, half, h, w, by, i, 0xffff));
    if (i < n)
        dot = _mm512_add_ps(dot, norm_dot(dw, dy, half, h, w, by, i, lanes_of(n - i)));
    const __m512 c = _mm512_set1_ps(_mm512_reduce_add_ps(dot) * r * r * r / (float)n);
    for (i = 0; i + VECTOR <= n; i += VECTOR)
        norm_gradient(dh, dy, half, h, w, residual, by, c, i, 0xffff);
    if (i < n)
        norm_gradient(dh, dy, half, h, w, residual, by, c, i, lanes_of(n - i));
}

TARGET static void norm_backward(float *dh, float *dw, const void *dy, bool half, const float *h, float r, const float *w, const float *residual, int64_t n)
{
    if (half)
        norm_back(dh, dw, dy, true, h, r, w, residual, n);
    else
        norm_back(dh, dw, dy, false, h, r, w, residual, n);
}

static const RowKernel kernel = {swiglu_forward, swiglu_backward, rotate, greatest, exponentials, scaled, pairs, rounded_pairs, rounded_words, norm_forward, norm_backward};

const RowKernel *row_kernel_avx512bf16(void)
{
    return &kernel;
}
#else
const RowKernel *row_kernel_avx512bf16(void)
{
    return NULL;
}
#endif
