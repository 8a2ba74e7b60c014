/* Adding up what ranks hold, in their order. */
#include "dist/internal.h"

#include <string.h>

enum { PIECE = 2048 }; /* numbers that stay in the cache while the ranks' are added */

/* sum = x, or sum + x. */
static void take(bool first, Dtype t, float *sum, const void *x, size_t n)
{
    float wide[PIECE];
    const float *f = x;
    if (t == DTYPE_BF16) {
        for (size_t i = 0; i < n; i++)
            wide[i] = bf16_to_f32(((const uint16_t *)x)[i]);
        f = wide;
    }
    if (first)
        memcpy(sum, f, n * sizeof *sum);
    else
        for (size_t i = 0; i < n; i++)
            sum[i] += f[i];
}

void reduce_ranks(Dtype t, void *to, const void *const *from, int ranks, size_t n)
{
    float sum[PIECE];
    size_t size = dtype_size(t);
    for (size_t at = 0; at < n; at += PIECE) {
        size_t m = n - at < PIECE ? n - at : PIECE;
        for (int r = 0; r < ranks; r++)
            take(r == 0, t, sum, (const char *)from[r] + at * size, m);
        if (t == DTYPE_F32)
            memcpy((float *)to + at, sum, m * sizeof *sum);
        else
            for (size_t i = 0; i < m; i++)
                ((uint16_t *)to)[at + i] = f32_to_bf16(sum[i]);
    }
}
