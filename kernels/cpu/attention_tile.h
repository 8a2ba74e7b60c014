/* What attention.c and its form for AVX-512 BF16 know of a tile. */
#ifndef KERNELS_CPU_ATTENTION_TILE_H
#define KERNELS_CPU_ATTENTION_TILE_H

#include "kernels/cpu/cpu.h"

enum { LANES = 16, KEYS = 64, ROWS = 64, HALF = ROWS / 2 };

static inline int clamp_key(int64_t j, int64_t j0)
{
    return j <= j0 ? 0 : j - j0 >= KEYS ? KEYS : (int)(j - j0);
}

/* The forward tile is turned: scores stand as [key][row], so that maxima and sums over keys go down the lanes and nothing is ever
 * added up across a vector. State of a tile's rows: */
typedef struct Softmax {
    float most[ROWS], sum[ROWS], shrink[ROWS]; /* greatest score so far, Σ e^(score − most), what the output so far is scaled by */
    int32_t lo[ROWS], hi[ROWS];                /* keys of the block at hand that the row sees */
} Softmax;

/* What a tile's gradients are taken from and become. p: scores become probabilities; ds: dout·vᵀ becomes p∘(ds − delta). Of pairs,
 * words along the rows [ROWS / 2, KEYS] of both, and along the keys [ROWS, KEYS / 2] of ds; where words are f32 those are NULL. */
typedef struct Gradients {
    float *p, *ds;
    uint32_t *p_down, *ds_down;
    uint16_t *ds_across;
} Gradients;

/* The work on a tile that is no product. */
typedef struct AttentionKernel {
    bool (*softmax_half)(uint32_t *out, float *scores, Softmax *x, int r, int keys, bool whole);
    void (*gradient_half)(const Gradients *g, int group, int r0, int m, int width, const float *lse, const float *delta, int64_t stride, const int32_t *begin,
                          const int32_t *end, int64_t j0);
} AttentionKernel;
const AttentionKernel *attention_kernel_avx512bf16(void);

#endif
