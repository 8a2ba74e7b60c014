/* y[t] += bias; dbias += column sums of dy. */
#include "kernels/cpu/cpu.h"

CLONES static void row_add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

typedef struct Arguments {
    Tensor y, bias;
} Arguments;

static void forward_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Arguments *a = arguments;
    for (int64_t t = begin; t < end; t++) {
        float *row = (float *)(uintptr_t)cpu_row(a->y, t, 0, a->y.cols, state->scratch[thread]);
        row_add(row, f32(a->bias), a->y.cols);
        cpu_store(a->y, t, 0, a->y.cols, row);
    }
}

void cpu_bias_forward(Stream *s, Tensor y, Tensor bias)
{
    cpu_check(y.cols == bias.cols, "bias_forward", "shapes");
    cpu_rows(s, y.rows, cpu_row_item(forward_rows, 4, &(Arguments){y, bias}, sizeof(Arguments)));
}

/* Threads own columns, so each sum runs over the rows in order. */
void cpu_bias_backward(Stream *s, Tensor dbias, Tensor dy)
{
    cpu_settle(s);
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
