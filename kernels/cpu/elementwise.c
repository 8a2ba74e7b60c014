/* fill, copy, add, scale: rows dealt to threads. */
#include "kernels/cpu/cpu.h"

#include <string.h>

CLONES static void row_fill(float *x, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = value;
}

CLONES static void row_add(float *y, const float *x, int64_t n, float alpha)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += alpha * x[i];
}

CLONES static void row_scale(float *x, int64_t n, float alpha)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= alpha;
}

/* A contiguous matrix is one long row, cut into pieces so that threads share it. */
static int64_t pieces(Tensor x, int64_t *length)
{
    if (x.ld != x.cols) {
        *length = x.cols;
        return x.rows;
    }
    *length = 1 << 14;
    return (x.rows * x.cols + *length - 1) / *length;
}

static int64_t piece(Tensor x, int64_t i, int64_t length, int64_t *offset)
{
    if (x.ld != x.cols) {
        *offset = i * x.ld;
        return x.cols;
    }
    int64_t total = x.rows * x.cols;
    *offset = i * length;
    return total - *offset < length ? total - *offset : length;
}

void cpu_fill(Stream *s, Tensor x, float value)
{
    int64_t length, n = pieces(x, &length);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (n > 4)
    for (int64_t i = 0; i < n; i++) {
        int64_t offset, m = piece(x, i, length, &offset);
        row_fill(f32(x) + offset, m, value);
    }
}

void cpu_copy(Stream *s, Tensor to, Tensor from)
{
    cpu_check(to.rows == from.rows && to.cols == from.cols, "copy", "shapes");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (to.rows > 16)
    for (int64_t i = 0; i < to.rows; i++)
        dtype_convert((char *)to.data + (size_t)(i * to.ld) * dtype_size(to.dtype), to.dtype,
                      (const char *)from.data + (size_t)(i * from.ld) * dtype_size(from.dtype), from.dtype, (size_t)to.cols);
}

void cpu_add(Stream *s, Tensor y, Tensor x, float alpha)
{
    cpu_check(y.rows == x.rows && y.cols == x.cols, "add", "shapes");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (y.rows > 16)
    for (int64_t i = 0; i < y.rows; i++)
        row_add(f32(y) + i * y.ld, f32(x) + i * x.ld, y.cols, alpha);
}

void cpu_scale(Stream *s, Tensor x, float alpha)
{
    int64_t length, n = pieces(x, &length);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (n > 4)
    for (int64_t i = 0; i < n; i++) {
        int64_t offset, m = piece(x, i, length, &offset);
        row_scale(f32(x) + offset, m, alpha);
    }
}
