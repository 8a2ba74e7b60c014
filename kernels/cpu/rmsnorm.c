/* h = x + sub; y = h·r·w with r = (mean h² + eps)^-1/2 (Zhang and Sennrich 2019). */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>

CLONES static float row_forward(float *y, float *h, const float *x, const float *sub, const float *w, int64_t n, float eps)
{
    float squares = 0;
    if (sub) {
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < n; i++) {
            float sum = x[i] + sub[i];
            h[i] = sum;
            squares += sum * sum;
        }
    } else {
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < n; i++) {
            h[i] = x[i];
            squares += x[i] * x[i];
        }
    }
    float r = 1.0f / sqrtf(squares / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = h[i] * r * w[i];
    return r;
}

/* Room for three rows of n numbers. */
static float *room_of(Stream *s, int64_t n)
{
    cpu_check(3 * n <= CPU_SCRATCH_FLOATS, "rmsnorm", "widths");
    return cpu_state(s)->scratch[omp_get_thread_num()];
}

void cpu_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps)
{
    cpu_check(y.rows == x.rows && y.cols == x.cols && h.cols == x.cols && w.cols == x.cols, "rmsnorm_forward", "shapes");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (int64_t t = 0; t < x.rows; t++) {
        float *room = room_of(s, x.cols), *to = cpu_target(y, t, 0, room);
        rstd[t] = row_forward(to, f32(h) + t * h.ld, f32(x) + t * x.ld, sub.data ? cpu_row(sub, t, 0, x.cols, room + x.cols) : NULL, f32(w),
                              x.cols, eps);
        cpu_store(y, t, 0, x.cols, to);
    }
}

CLONES static void row_backward(float *dh, const float *dy, const float *h, float r, const float *w, const float *residual, int64_t n)
{
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < n; i++)
        dot += dy[i] * w[i] * h[i];
    float c = dot * r * r * r / (float)n;
    if (residual)
        for (int64_t i = 0; i < n; i++)
            dh[i] = dy[i] * w[i] * r - h[i] * c + residual[i];
    else
        for (int64_t i = 0; i < n; i++)
            dh[i] = dy[i] * w[i] * r - h[i] * c;
}

CLONES static void row_weight(float *dw, const float *dy, const float *h, float r, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dw[i] += dy[i] * h[i] * r;
}

/* The weight's gradient: threads own columns and add the rows in order. It comes first, since dh may be dy's memory. */
void cpu_rmsnorm_backward(Stream *s, Tensor dh, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual)
{
    cpu_check(dy.rows == h.rows && dy.cols == h.cols && w.cols == h.cols && dh.cols == h.cols, "rmsnorm_backward", "shapes");
    int threads = cpu_threads(s);
    if (dw.data) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int thread = 0; thread < threads; thread++) {
            int64_t begin, end;
            cpu_share(h.cols, 16, thread, threads, &begin, &end);
            for (int64_t t = 0; t < h.rows && end > begin; t++)
                row_weight(f32(dw) + begin, cpu_row(dy, t, begin, end - begin, room_of(s, h.cols)), f32(h) + t * h.ld + begin, rstd[t], end - begin);
        }
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t t = 0; t < h.rows; t++) {
        float *room = room_of(s, h.cols), *to = cpu_target(dh, t, 0, room);
        row_backward(to, cpu_row(dy, t, 0, h.cols, room + h.cols), f32(h) + t * h.ld, rstd[t], f32(w),
                     dresidual.data ? cpu_row(dresidual, t, 0, h.cols, room + 2 * h.cols) : NULL, h.cols);
        cpu_store(dh, t, 0, h.cols, to);
    }
}
