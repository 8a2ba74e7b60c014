/* What attention.c and its form for AVX-512 BF16 know of a tile. */
#ifndef KERNELS_CPU_ATTENTION_TILE_H
#define KERNELS_CPU_ATTENTION_TILE_H

#include "kernels/cpu/cpu.h"

enum { LANES = 16, KEYS = 64, ROWS = 64, HALF = ROWS / 2 };

static inline int clamp_key(int64_t j, int64_t j0)
{
    return j <= j0 ? 0 : j - j0 >= KEYS ? KEYS : (int)(j - j0);
}

/* From a tile's row, of token t and head h of the stacked ones, to the next. */
static inline void next_row(int *t, int *h, int group)
{
    *h = *h + 1 == group ? 0 : *h + 1;
    *t += *h == 0;
}

/* The forward tile is turned: scores stand as [key][row], so that maxima and sums over keys go down the lanes and nothing is ever
 * added up across a vector. State of a tile's rows: */
typedef struct Softmax {
    float most[ROWS], sum[ROWS], shrink[ROWS]; /* greatest score so far, Σ e^(score − most), what the output so far is scaled by */
    int32_t lo[ROWS], hi[ROWS];                /* keys of the block at hand that the row sees */
} Softmax;

/* What the gradients of half a tile's rows are taken from and become. p [HALF, KEYS]: scores become probabilities; ds: dout·vᵀ becomes
 * p∘(ds − delta). Where words are pairs both end as words along the rows, those of rows 2i and 2i+1 in row 2i, and ds also as words along
 * the keys in ds_across [HALF, KEYS / 2 words]; NULL: f32. */
typedef struct Gradients {
    float *p, *ds;
    uint16_t *ds_across;
} Gradients;

/* The work on a tile that is no product. */
typedef struct AttentionKernel {
    /* Scores [keys, HALF] of the tile's rows r … r+HALF-1 become e^(score − most) in place: f32, or with `pairs` [keys / 2, HALF] words along
     * the keys. Returns whether any row's maximum has grown. */
    bool (*softmax_half)(float *scores, Softmax *x, int r, int keys, bool whole, bool pairs);
    /* Of the tile's rows r … r+m-1, `width` keys. lse and delta of row r are at [r % group][r / group]. */
    void (*gradient_half)(const Gradients *g, int group, int r, int m, int width, const float *lse, const float *delta, int64_t stride, const int32_t *begin,
                          const int32_t *end, int64_t j0);
    /* The d numbers of each row (t, h) of a tile, `padded` apart, times its `by` (NULL: 1), as bf16 to to[t·ld + h·d], n tokens of `group` heads. */
    void (*store_rows)(uint16_t *to, int64_t ld, int n, int group, int d, const float *tile, int padded, const float *by);
} AttentionKernel;
const AttentionKernel *attention_kernel_avx512bf16(void);

#endif
