/* h = x + sub; y = h·r·w with r = (mean h² + eps)^-1/2 (Zhang and Sennrich 2019). */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum { PARTS = 64 /* most sums of a weight's gradient that stand apart */, PART_ROWS = 64 };

static inline __attribute__((always_inline)) float add_rows(float *h, const float *x, const void *sub, bool half, int64_t n)
{
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) {
        float sum = x[i] + cpu_at(sub, half, i);
        h[i] = sum;
        squares += sum * sum;
    }
    return squares;
}

CLONES static float row_forward(void *y, bool y_half, float *h, const float *x, const void *sub, bool sub_half, const float *w, int64_t n, float eps)
{
    float squares = 0;
    if (!sub) {
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < n; i++) {
            h[i] = x[i];
            squares += x[i] * x[i];
        }
    } else {
        squares = sub_half ? add_rows(h, x, sub, true, n) : add_rows(h, x, sub, false, n);
    }
    float r = 1.0f / sqrtf(squares / (float)n + eps);
    if (y_half)
        for (int64_t i = 0; i < n; i++)
            cpu_put(y, true, i, h[i] * r * w[i]);
    else
        for (int64_t i = 0; i < n; i++)
            cpu_put(y, false, i, h[i] * r * w[i]);
    return r;
}

typedef struct Forward {
    Tensor y, h, x, sub, w;
    float *rstd, eps;
} Forward;

static const RowKernel plain_forward = {.norm_forward = row_forward};

static void forward_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Forward *a = arguments;
    const RowKernel *kernel = cpu_row_kernel(&plain_forward);
    (void)state, (void)thread;
    for (int64_t t = begin; t < end; t++)
        a->rstd[t] = kernel->norm_forward(cpu_place(a->y, t, 0), a->y.dtype == DTYPE_BF16, f32(a->h) + t * a->h.ld, f32(a->x) + t * a->x.ld,
                                          a->sub.data ? cpu_place(a->sub, t, 0) : NULL, a->sub.dtype == DTYPE_BF16, f32(a->w), a->x.cols, a->eps);
}

void cpu_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps)
{
    cpu_check(y.rows == x.rows && y.cols == x.cols && h.cols == x.cols && w.cols == x.cols, "rmsnorm_forward", "shapes");
    cpu_rows(s, x.rows, cpu_row_item(forward_rows, 4, &(Forward){y, h, x, sub, w, rstd, eps}, sizeof(Forward)));
}

/* dw NULL: not wanted. dh may be dy's memory. */
static inline __attribute__((always_inline)) void backward(float *dh, float *dw, const void *dy, bool half, const float *h, float r, const float *w,
                                                           const float *residual, int64_t n)
{
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < n; i++)
        dot += cpu_at(dy, half, i) * w[i] * h[i];
    float c = dot * r * r * r / (float)n;
    if (dw)
        for (int64_t i = 0; i < n; i++)
            dw[i] += cpu_at(dy, half, i) * h[i] * r;
    if (residual)
        for (int64_t i = 0; i < n; i++)
            dh[i] = cpu_at(dy, half, i) * w[i] * r - h[i] * c + residual[i];
    else
        for (int64_t i = 0; i < n; i++)
            dh[i] = cpu_at(dy, half, i) * w[i] * r - h[i] * c;
}

CLONES static void row_backward(float *dh, float *dw, const void *dy, bool half, const float *h, float r, const float *w, const float *residual, int64_t n)
{
    if (half)
        backward(dh, dw, dy, true, h, r, w, residual, n);
    else
        backward(dh, dw, dy, false, h, r, w, residual, n);
}

CLONES static void parts_add(float *dw, const float *parts, int64_t count, int64_t n)
{
    for (int64_t p = 0; p < count; p++)
        for (int64_t i = 0; i < n; i++)
            dw[i] += parts[p * n + i];
}

enum { AHEAD = 8 /* rows */ };

typedef struct Backward {
    Tensor dh, narrow, dy, h, dresidual;
    const float *rstd, *w;
    float *dw, *parts;
    int64_t part_rows;
} Backward;

static const RowKernel plain_backward = {.norm_backward = row_backward};

static void backward_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Backward *a = arguments;
    const RowKernel *kernel = cpu_row_kernel(&plain_backward);
    int64_t n = a->h.cols;
    float *room = state->scratch[thread], *sum = NULL;
    for (int64_t t = begin; t < end; t++) {
        float *to = cpu_target(a->dh, t, 0, room);
        if (t + AHEAD < end)
            cpu_fetch_row(a->h, t + AHEAD);
        if (a->dw)
            sum = a->parts + t / a->part_rows * n;
        if (sum && t % a->part_rows == 0)
            memset(sum, 0, (size_t)n * sizeof *sum);
        kernel->norm_backward(to, sum, cpu_place(a->dy, t, 0), a->dy.dtype == DTYPE_BF16, f32(a->h) + t * a->h.ld, a->rstd[t], a->w,
                              a->dresidual.data ? cpu_row(a->dresidual, t, 0, n, room + n) : NULL, n);
        cpu_store(a->dh, t, 0, n, to);
        if (a->narrow.data)
            cpu_store(a->narrow, t, 0, n, to);
    }
}

static void backward_finish(const void *arguments, int thread, int threads)
{
    const Backward *a = arguments;
    (void)threads;
    if (thread == 0)
        parts_add(a->dw, a->parts, (a->h.rows + a->part_rows - 1) / a->part_rows, a->h.cols);
}

/* The weight's gradient is summed in parts of the rows, which are added in order: how many does not depend on the threads. */
void cpu_rmsnorm_backward(Stream *s, Tensor dh, Tensor narrow, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual)
{
    cpu_check(dy.rows == h.rows && dy.cols == h.cols && w.cols == h.cols && dh.cols == h.cols, "rmsnorm_backward", "shapes");
    cpu_check(!narrow.data || (narrow.rows == h.rows && narrow.cols == h.cols), "rmsnorm_backward", "shapes");
    cpu_check((PARTS + 2) * h.cols <= CPU_PANEL_B_WORDS, "rmsnorm_backward", "widths");
    int64_t rows = (h.rows + PARTS - 1) / PARTS > PART_ROWS ? (h.rows + PARTS - 1) / PARTS : PART_ROWS;
    Backward a = {.dh = dh, .narrow = narrow, .dy = dy, .h = h, .dresidual = dresidual, .rstd = rstd, .w = f32(w), .part_rows = rows};
    if (dw.data) {
        a.dw = f32(dw);
        a.parts = (float *)cpu_rows_room(s, h.rows, (RowCut){.grain = rows}, PARTS * h.cols);
    }
    RowItem item = cpu_row_item(backward_rows, rows, &a, sizeof a);
    item.finish = a.dw ? backward_finish : NULL;
    cpu_rows(s, h.rows, item);
}
