/* Operands of a matrix product become words for the micro-kernels, as they lie along k. */
#include "kernels/cpu/matmul.h"

#include <string.h>

/* out[w·ld + i] = (x[2w·ldx + i], x[(2w + 1)·ldx + i]), a vector at a time. */
CLONES static void pack_pairs(uint32_t *out, int64_t ld, const uint16_t *x, int64_t ldx, int64_t m, int64_t words)
{
    enum { VECTOR = 16 };
    for (int64_t w = 0; w < words; w++, out += ld, x += 2 * ldx) {
        int64_t i = 0;
        for (; i + VECTOR <= m; i += VECTOR)
            for (int l = 0; l < VECTOR; l++)
                out[i + l] = x[i + l] | (uint32_t)x[ldx + i + l] << 16;
        for (; i < m; i++)
            out[i] = x[i] | (uint32_t)x[ldx + i] << 16;
    }
}

/* The same of f32, rounded. */
CLONES static void pack_rounded_pairs(uint32_t *out, int64_t ld, const float *x, int64_t ldx, int64_t m, int64_t words)
{
    for (int64_t w = 0; w < words; w++, out += ld, x += 2 * ldx)
        for (int64_t i = 0; i < m; i++)
            out[i] = cpu_half(x[i]) | (uint32_t)cpu_half(x[ldx + i]) << 16;
}

/* out[w] = (x[2w], x[2w + 1]), rounded. */
CLONES static void round_words(uint32_t *out, const float *x, int64_t words)
{
    for (int64_t w = 0; w < words; w++)
        out[w] = cpu_half(x[2 * w]) | (uint32_t)cpu_half(x[2 * w + 1]) << 16;
}

static const RowKernel plain = {.pairs = pack_pairs, .rounded_pairs = pack_rounded_pairs, .rounded_words = round_words};

CLONES static void widen_row(uint32_t *out, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (uint32_t)x[i] << 16;
}

CLONES static void round_row(uint32_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        union {
            uint32_t u;
            float f;
        } number = {.u = x[i]};
        x[i] = (uint32_t)cpu_half(number.f) << 16;
    }
}

static uint16_t half_at(View x, int64_t i, int64_t l)
{
    return ((const uint16_t *)x.data)[i * x.row + l * x.column];
}

bool matmul_whole_pairs(View x, int64_t k)
{
    return x.row != 1 && x.row % 2 == 0 && k % 2 == 0 && (uintptr_t)x.data % sizeof(uint32_t) == 0;
}

/* Words of pairs from f32 that is rounded: rows (at most MATMUL_PANEL) become words a strip at a time, which then change places. */
static void pack_rounded(const Product *p, uint32_t *out, int64_t ld, View x, int64_t first, int64_t m, int64_t begin, int64_t n)
{
    enum { STRIP = 64 };
    const RowKernel *kernel = cpu_row_kernel(&plain);
    const float *number = x.data;
    _Alignas(64) uint32_t words[MATMUL_PANEL * STRIP];
    int64_t whole = p->k / 2 - begin < n ? p->k / 2 - begin : n; /* words of two numbers */
    if (x.row == 1)
        kernel->rounded_pairs(out, ld, number + 2 * begin * x.column + first, x.column, m, whole);
    for (int64_t w = 0; w < whole && x.row != 1; w += STRIP) {
        int64_t some = whole - w < STRIP ? whole - w : STRIP;
        for (int64_t i = 0; i < m; i++)
            kernel->rounded_words(words + i * STRIP, number + (first + i) * x.row + 2 * (begin + w), some);
        cpu_matmul_kernel()->transpose(out + w * ld, ld, words, STRIP, m, some);
    }
    for (int64_t i = 0; i < m && whole < n; i++)
        out[whole * ld + i] = cpu_half(number[(first + i) * x.row + (p->k - 1) * x.column]);
}

void matmul_pack(const Product *p, uint32_t *out, int64_t ld, View x, int64_t first, int64_t m, int64_t begin, int64_t n)
{
    const uint16_t *half = x.data;
    const uint32_t *word = x.data;
    if (p->pairs && x.rounded) {
        pack_rounded(p, out, ld, x, first, m, begin, n);
    } else if (p->pairs && x.row == 1) {
        int64_t whole = p->k / 2 - begin < n ? p->k / 2 - begin : n;
        cpu_row_kernel(&plain)->pairs(out, ld, half + 2 * begin * x.column + first, x.column, m, whole);
        if (whole < n)
            for (int64_t i = 0; i < m; i++)
                out[whole * ld + i] = half[(p->k - 1) * x.column + first + i];
    } else if (p->pairs && matmul_whole_pairs(x, p->k)) {
        cpu_matmul_kernel()->transpose(out, ld, word + first * (x.row / 2) + begin, x.row / 2, m, n);
    } else if (p->pairs) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t w = 0; w < n; w++) {
                int64_t l = 2 * (begin + w);
                out[w * ld + i] = half_at(x, first + i, l) | (l + 1 < p->k ? (uint32_t)half_at(x, first + i, l + 1) << 16 : 0);
            }
    } else if (x.dtype == DTYPE_BF16 && x.row == 1) {
        for (int64_t w = 0; w < n; w++)
            widen_row(out + w * ld, half + (begin + w) * x.column + first, m);
    } else if (x.dtype == DTYPE_BF16) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t w = 0; w < n; w++)
                out[w * ld + i] = (uint32_t)half_at(x, first + i, begin + w) << 16;
    } else if (x.row == 1) {
        for (int64_t w = 0; w < n; w++)
            memcpy(out + w * ld, word + (begin + w) * x.column + first, (size_t)m * sizeof *out);
    } else {
        cpu_matmul_kernel()->transpose(out, ld, word + first * x.row + begin, x.row, m, n);
    }
    for (int64_t w = 0; w < n && x.rounded && !p->pairs; w++)
        round_row(out + w * ld, m);
}

void matmul_pack_panel(const Product *p, uint32_t *panels, int64_t j, int64_t column, int64_t columns, int64_t begin, int64_t depth)
{
    int lanes = p->kernel->lanes;
    int64_t at = matmul_vector(p, j) * lanes, width = matmul_vector(p, j + 1) * lanes - at;
    int64_t n = columns - at < width ? columns - at : width;
    uint32_t *out = panels + at * depth;
    if (n < width)
        memset(out, 0, (size_t)(width * depth) * sizeof *out);
    matmul_pack(p, out, width, p->b, column + at, n, begin, depth);
}
