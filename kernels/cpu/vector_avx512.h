/* Included by files named for AVX-512 BF16, behind the compiler's own header: rows of f32 or bf16 sixteen numbers at a time. `half` is a
 * constant where it is inlined. */
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET
enum { VECTOR = 16 };

/* Lanes of the n numbers that are left. Loops over whole vectors give the constant of all lanes instead. */
INLINE __mmask16 lanes_of(int64_t n)
{
    return n >= VECTOR ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

INLINE __m512 load(const void *x, bool half, int64_t i, __mmask16 lanes)
{
    if (half) {
        const void *from = (const uint16_t *)x + i;
        __m256i v = lanes == 0xffff ? _mm256_loadu_si256(from) : _mm256_maskz_loadu_epi16(lanes, from);
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
    }
    return _mm512_maskz_loadu_ps(lanes, (const float *)x + i);
}

INLINE void store(void *x, bool half, int64_t i, __mmask16 lanes, __m512 v)
{
    if (half && lanes == 0xffff)
        _mm256_storeu_si256((__m256i *)((uint16_t *)x + i), (__m256i)_mm512_cvtneps_pbh(v));
    else if (half) /* which takes far longer */
        _mm256_mask_storeu_epi16((uint16_t *)x + i, lanes, (__m256i)_mm512_cvtneps_pbh(v));
    else
        _mm512_mask_storeu_ps((float *)x + i, lanes, v);
}

/* e^x for x up to 88 as 2^k·2^f, f in [-1/2, 1/2], by a polynomial of degree 5 for 2^f (relative error 2.3e-7, and 2e-8·x more); 0 below -104. */
INLINE __m512 vector_exp(__m512 x)
{
    const __m512 log2e = _mm512_set1_ps(1.44269504f), round = _mm512_set1_ps(12582912.0f);
    x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x); /* of a NaN it gives the second */
    __m512 k = _mm512_sub_ps(_mm512_fmadd_ps(x, log2e, round), round), f = _mm512_fmsub_ps(x, log2e, k);
    __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(0.00133908634f), _mm512_set1_ps(0.00967603192f));
    p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(0.0555035711f));
    p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(0.240221075f));
    p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(0.693147188f));
    p = _mm512_fmadd_ps(f, p, _mm512_set1_ps(1.00000008f));
    return _mm512_scalef_ps(p, k);
}

/* 1 / (1 + e^−x): an estimate of 14 bits and a step of Newton's. */
INLINE __m512 vector_sigmoid(__m512 x)
{
    __m512 below = _mm512_add_ps(_mm512_set1_ps(1.0f), vector_exp(_mm512_min_ps(_mm512_set1_ps(88.0f), _mm512_sub_ps(_mm512_setzero_ps(), x)))), r = _mm512_rcp14_ps(below);
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(below, r, _mm512_set1_ps(2.0f)));
}
