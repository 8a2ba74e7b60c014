/* The matrix product's micro-kernels for AVX-512: f32, and a transpose of 32-bit words. */
#include "kernels/cpu/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma")))
#define LANES 16
#define MR 8
#include "kernels/cpu/matmul_tile.h"

/* 16 rows of up to 16 columns: pairs of rows are interleaved by 32 and by 64 bits, then 128-bit quarters change places twice. */
TARGET static void transpose_block(uint32_t *out, int64_t ldo, const uint32_t *in, int64_t ldi, int64_t cols)
{
    const __mmask16 lanes = (__mmask16)((1u << cols) - 1);
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_maskz_loadu_epi32(lanes, in + i * ldi);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    /* r[4g + c] has, in its quarter q, column 4q + c of rows 4g … 4g+3. */
    for (int c = 0; c < 4; c++) {
        __m512i even0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), odd0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        __m512i even1 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88), odd1 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(even0, even1, 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
        t[12 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
    }
    if (cols == 16)
        for (int c = 0; c < 16; c++)
            _mm512_storeu_si512(out + c * ldo, t[c]);
    else
        for (int c = 0; c < 16; c++)
            if (c < cols)
                _mm512_storeu_si512(out + c * ldo, t[c]);
}

static void transpose(uint32_t *out, int64_t ldo, const uint32_t *in, int64_t ldi, int64_t rows, int64_t cols)
{
    int64_t i = 0;
    for (; i + 16 <= rows; i += 16)
        for (int64_t j = 0; j < cols; j += 16)
            transpose_block(out + j * ldo + i, ldo, in + i * ldi + j, ldi, cols - j < 16 ? cols - j : 16);
    cpu_transpose(out + i, ldo, in + i * ldi, ldi, rows - i, cols);
}

const MatmulKernel matmul_kernel_avx512 = {MR, LANES, matmul_run, transpose};
#else
const MatmulKernel matmul_kernel_avx512 = {0, 0, 0, 0};
#endif
