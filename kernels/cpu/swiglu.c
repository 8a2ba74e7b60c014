/* y = g·σ(g)·u (Shazeer 2020); dg = dy·u·σ·(1+g(1−σ)), du = dy·g·σ. */
#include "kernels/cpu/cpu.h"


static inline __attribute__((always_inline)) void forward(void *y, const void *g, const void *u, bool half, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float gate = cpu_at(g, half, i);
        cpu_put(y, half, i, gate / (1.0f + cpu_exp(-gate)) * cpu_at(u, half, i));
    }
}

static inline __attribute__((always_inline)) void backward(void *dg, void *du, const void *dy, const void *g, const void *u, bool half, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float gate = cpu_at(g, half, i), up = cpu_at(u, half, i), d = cpu_at(dy, half, i), sigma = 1.0f / (1.0f + cpu_exp(-gate));
        cpu_put(du, half, i, d * gate * sigma);
        cpu_put(dg, half, i, d * up * sigma * (1.0f + gate * (1.0f - sigma)));
    }
}

CLONES static void row_forward(void *y, const void *g, const void *u, bool half, int64_t n)
{
    if (half)
        forward(y, g, u, true, n);
    else
        forward(y, g, u, false, n);
}

CLONES static void row_backward(void *dg, void *du, const void *dy, const void *g, const void *u, bool half, int64_t n)
{
    if (half)
        backward(dg, du, dy, g, u, true, n);
    else
        backward(dg, du, dy, g, u, false, n);
}

enum { AHEAD = 2 /* rows */ };

typedef struct Arguments {
    Tensor y, gu, dgu; /* y: forward y, backward dy */
} Arguments;

static const RowKernel plain = {.swiglu_forward = row_forward, .swiglu_backward = row_backward};

static void forward_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Arguments *a = arguments;
    const RowKernel *kernel = cpu_row_kernel(&plain);
    (void)state, (void)thread;
    for (int64_t t = begin; t < end; t++)
        kernel->swiglu_forward(cpu_place(a->y, t, 0), cpu_place(a->gu, t, 0), cpu_place(a->gu, t, a->y.cols), a->y.dtype == DTYPE_BF16, a->y.cols);
}

static void backward_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Arguments *a = arguments;
    const RowKernel *kernel = cpu_row_kernel(&plain);
    int64_t n = a->y.cols;
    (void)state, (void)thread;
    for (int64_t t = begin; t < end; t++) {
        if (t + AHEAD < end && a->gu.dtype == DTYPE_BF16) /* rows of f32 come as fast by themselves */
            cpu_fetch_row(a->gu, t + AHEAD);
        kernel->swiglu_backward(cpu_place(a->dgu, t, 0), cpu_place(a->dgu, t, n), cpu_place(a->y, t, 0), cpu_place(a->gu, t, 0),
                                cpu_place(a->gu, t, n), a->y.dtype == DTYPE_BF16, n);
    }
}

void cpu_swiglu_forward(Stream *s, Tensor y, Tensor gu)
{
    cpu_check(gu.cols == 2 * y.cols && gu.rows == y.rows && gu.dtype == y.dtype, "swiglu_forward", "shapes or types");
    cpu_rows(s, y.rows, cpu_row_item(forward_rows, 4, &(Arguments){.y = y, .gu = gu}, sizeof(Arguments)));
}

void cpu_swiglu_backward(Stream *s, Tensor dgu, Tensor dy, Tensor gu)
{
    cpu_check(gu.cols == 2 * dy.cols && gu.rows == dy.rows && dgu.cols == gu.cols && gu.dtype == dy.dtype && dgu.dtype == dy.dtype,
              "swiglu_backward", "shapes or types");
    cpu_rows(s, dy.rows, cpu_row_item(backward_rows, 4, &(Arguments){.y = dy, .gu = gu, .dgu = dgu}, sizeof(Arguments)));
}
