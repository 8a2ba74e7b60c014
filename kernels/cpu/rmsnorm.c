/* h = x + sub; y = h·r·w with r = (mean h² + eps)^-1/2 (Zhang and Sennrich 2019). */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
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

void cpu_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps)
{
    cpu_check(y.rows == x.rows && y.cols == x.cols && h.cols == x.cols && w.cols == x.cols, "rmsnorm_forward", "shapes");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (int64_t t = 0; t < x.rows; t++)
        rstd[t] = row_forward(cpu_place(y, t, 0), y.dtype == DTYPE_BF16, f32(h) + t * h.ld, f32(x) + t * x.ld, sub.data ? cpu_place(sub, t, 0) : NULL,
                              sub.dtype == DTYPE_BF16, f32(w), x.cols, eps);
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

/* The weight's gradient is summed in parts of the rows, which are added in order: how many does not depend on the threads. */
void cpu_rmsnorm_backward(Stream *s, Tensor dh, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual)
{
    cpu_check(dy.rows == h.rows && dy.cols == h.cols && w.cols == h.cols && dh.cols == h.cols, "rmsnorm_backward", "shapes");
    cpu_check((PARTS + 2) * h.cols <= CPU_SCRATCH_FLOATS, "rmsnorm_backward", "widths");
    int64_t n = h.cols, rows = (h.rows + PARTS - 1) / PARTS > PART_ROWS ? (h.rows + PARTS - 1) / PARTS : PART_ROWS, count = (h.rows + rows - 1) / rows;
    float *parts = cpu_state(s)->scratch[0] + 2 * n; /* behind the first thread's rows */
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (int64_t p = 0; p < count; p++) {
        float *room = cpu_state(s)->scratch[omp_get_thread_num()], *sum = dw.data ? parts + p * n : NULL;
        if (sum)
            memset(sum, 0, (size_t)n * sizeof *sum);
        for (int64_t t = p * rows; t < h.rows && t < (p + 1) * rows; t++) {
            float *to = cpu_target(dh, t, 0, room);
            row_backward(to, sum, cpu_place(dy, t, 0), dy.dtype == DTYPE_BF16, f32(h) + t * h.ld, rstd[t], f32(w),
                         dresidual.data ? cpu_row(dresidual, t, 0, n, room + n) : NULL, n);
            cpu_store(dh, t, 0, n, to);
        }
    }
    if (dw.data)
        parts_add(f32(dw), parts, count, n);
}
