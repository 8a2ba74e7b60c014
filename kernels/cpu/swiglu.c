/* y = g·σ(g)·u (Shazeer 2020); dg = dy·u·σ·(1+g(1−σ)), du = dy·g·σ. */
#include "kernels/cpu/cpu.h"

#include <omp.h>

enum { PIECE = 4096 }; /* columns at a time where rows must be widened */

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
    cpu_check(gu.cols == 2 * y.cols && gu.rows == y.rows && gu.dtype == y.dtype, "swiglu_forward", "shapes or types");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (y.rows > 4)
    for (int64_t t = 0; t < y.rows; t++)
        for (int64_t i = 0; i < y.cols; i += PIECE) {
            int64_t n = y.cols - i < PIECE ? y.cols - i : PIECE;
            float *room = cpu_state(s)->scratch[omp_get_thread_num()], *to = cpu_target(y, t, i, room);
            row_forward(to, cpu_row(gu, t, i, n, room + PIECE), cpu_row(gu, t, y.cols + i, n, room + 2 * PIECE), n);
            cpu_store(y, t, i, n, to);
        }
}

void cpu_swiglu_backward(Stream *s, Tensor dgu, Tensor dy, Tensor gu)
{
    cpu_check(gu.cols == 2 * dy.cols && gu.rows == dy.rows && dgu.cols == gu.cols && gu.dtype == dy.dtype && dgu.dtype == dy.dtype,
              "swiglu_backward", "shapes or types");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (dy.rows > 4)
    for (int64_t t = 0; t < dy.rows; t++)
        for (int64_t i = 0; i < dy.cols; i += PIECE) {
            int64_t n = dy.cols - i < PIECE ? dy.cols - i : PIECE, up = dy.cols + i;
            float *room = cpu_state(s)->scratch[omp_get_thread_num()], *dg = cpu_target(dgu, t, i, room), *du = cpu_target(dgu, t, up, room + PIECE);
            row_backward(dg, du, cpu_row(dy, t, i, n, room + 2 * PIECE), cpu_row(gu, t, i, n, room + 3 * PIECE),
                         cpu_row(gu, t, up, n, room + 4 * PIECE), n);
            cpu_store(dgu, t, i, n, dg);
            cpu_store(dgu, t, up, n, du);
        }
}
