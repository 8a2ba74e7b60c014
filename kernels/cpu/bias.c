/* y[t] += bias; dbias += column sums of dy. */
#include "kernels/cpu/cpu.h"

#include <omp.h>

CLONES static void row_add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

void cpu_bias_forward(Stream *s, Tensor y, Tensor bias)
{
    cpu_check(y.cols == bias.cols, "bias_forward", "shapes");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (int64_t t = 0; t < y.rows; t++) {
        float *room = cpu_state(s)->scratch[omp_get_thread_num()], *row = (float *)(uintptr_t)cpu_row(y, t, 0, y.cols, room);
        row_add(row, f32(bias), y.cols);
        cpu_store(y, t, 0, y.cols, row);
    }
}

/* Threads own columns, so each sum runs over the rows in order. */
void cpu_bias_backward(Stream *s, Tensor dbias, Tensor dy)
{
    cpu_check(dy.cols == dbias.cols, "bias_backward", "shapes");
    enum { COLUMNS = 64 };
    int64_t blocks = (dy.cols + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (int64_t b = 0; b < blocks; b++) {
        float room[COLUMNS];
        int64_t first = b * COLUMNS, n = dy.cols - first < COLUMNS ? dy.cols - first : COLUMNS;
        for (int64_t t = 0; t < dy.rows; t++)
            row_add(f32(dbias) + first, cpu_row(dy, t, first, n, room), n);
    }
}
