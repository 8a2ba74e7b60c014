/* Rotary position embedding (Su et al. 2021), Hugging Face's half layout. */
#include "kernels/cpu/cpu.h"


static inline __attribute__((always_inline)) void rotate(void *x, bool narrow, const float *c, const float *s, int heads, int half, float sign)
{
    for (int h = 0; h < heads; h++)
#pragma omp simd
        for (int i = 0; i < half; i++) {
            int64_t at = (int64_t)h * 2 * half + i;
            float a = cpu_at(x, narrow, at), b = cpu_at(x, narrow, at + half), sine = sign * s[i];
            cpu_put(x, narrow, at, a * c[i] - b * sine);
            cpu_put(x, narrow, at + half, b * c[i] + a * sine);
        }
}

CLONES static void heads_rotate(void *x, bool narrow, const float *c, const float *s, int heads, int half, float sign)
{
    if (narrow)
        rotate(x, true, c, s, heads, half, sign);
    else
        rotate(x, false, c, s, heads, half, sign);
}

typedef struct Arguments {
    Tensor x;
    int heads, half;
    const int32_t *positions;
    const float *cosine, *sine;
    float sign;
} Arguments;

static const RowKernel plain = {.rotate = heads_rotate};

static void rotate_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Arguments *a = arguments;
    const RowKernel *kernel = cpu_row_kernel(&plain);
    (void)state, (void)thread;
    for (int64_t t = begin; t < end; t++) {
        int64_t at = (int64_t)a->positions[t] * a->half;
        kernel->rotate(cpu_place(a->x, t, 0), a->x.dtype == DTYPE_BF16, a->cosine + at, a->sine + at, a->heads, a->half, a->sign);
    }
}

void cpu_rope(Stream *s, Tensor x, int heads, int head_dim, const int32_t *positions, const float *cosine, const float *sine,
              bool backward)
{
    cpu_check(x.cols == (int64_t)heads * head_dim && head_dim % 2 == 0, "rope", "shapes");
    const Arguments a = {x, heads, head_dim / 2, positions, cosine, sine, backward ? -1.0f : 1.0f};
    cpu_rows(s, x.rows, cpu_row_item(rotate_rows, 8, &a, sizeof a));
}
