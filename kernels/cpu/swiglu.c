/* y = g·σ(g)·u (Shazeer 2020); dg = dy·u·σ·(1+g(1−σ)), du = dy·g·σ. */
#include "kernels/cpu/cpu.h"

CLONES static void row_forward(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = g[i] / (1.0f + cpu_exp(-g[i])) * u[i];
}

CLONES static void row_backward(float *dg, float *du, const float *dy, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float sigma = 1.0f / (1.0f + cpu_exp(-g[i])), gate = g[i], up = u[i];
        du[i] = dy[i] * gate * sigma;
        dg[i] = dy[i] * up * sigma * (1.0f + gate * (1.0f - sigma));
    }
}

void cpu_swiglu_forward(Stream *s, Tensor y, Tensor gu)
{
    cpu_check(gu.cols == 2 * y.cols && gu.rows == y.rows, "swiglu_forward", "shapes");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (y.rows > 4)
    for (int64_t t = 0; t < y.rows; t++)
        row_forward(f32(y) + t * y.ld, f32(gu) + t * gu.ld, f32(gu) + t * gu.ld + y.cols, y.cols);
}

void cpu_swiglu_backward(Stream *s, Tensor dgu, Tensor dy, Tensor gu)
{
    cpu_check(gu.cols == 2 * dy.cols && gu.rows == dy.rows && dgu.cols == gu.cols, "swiglu_backward", "shapes");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (dy.rows > 4)
    for (int64_t t = 0; t < dy.rows; t++)
        row_backward(f32(dgu) + t * dgu.ld, f32(dgu) + t * dgu.ld + dy.cols, f32(dy) + t * dy.ld, f32(gu) + t * gu.ld,
                     f32(gu) + t * gu.ld + dy.cols, dy.cols);
}
