/* For tests of the CPU's operations: a device of one thread and one of two, tensors, and how far they are apart. */
#ifndef TESTS_PAIR_H
#define TESTS_PAIR_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "kernels/ops.h"
#include "tests/unit/tap.h"

static Device *devices[2];
static Stream *streams[2];
static uint64_t counter;

static inline Tensor random_tensor(int64_t rows, int64_t cols)
{
    Tensor x = tensor_make(devices[0], DTYPE_F32, memory_aligned((size_t)(rows * cols), 4), rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        ((float *)x.data)[i] = (float)random_normal(1, 99, counter++);
    return x;
}

static inline Tensor like(Tensor x)
{
    return tensor_make(devices[0], DTYPE_F32, memory_aligned((size_t)(x.rows * x.cols), 4), x.rows, x.cols);
}

static inline float at(Tensor x, int64_t i, int64_t j)
{
    return ((float *)x.data)[i * x.ld + j];
}

static inline double distance(Tensor x, const double *y)
{
    double d = 0, n = 1e-30;
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t j = 0; j < x.cols; j++) {
            double e = at(x, i, j) - y[i * x.cols + j];
            d += e * e;
            n += y[i * x.cols + j] * y[i * x.cols + j];
        }
    return sqrt(d / n);
}

static inline int same_bits(Tensor a, Tensor b)
{
    return memcmp(a.data, b.data, (size_t)(a.rows * a.cols) * dtype_size(a.dtype)) == 0;
}

/* The same numbers in bf16. Where `exact`, x is rounded too, so that products of both can be compared. */
static inline Tensor halved(Tensor x, bool exact)
{
    Tensor y = tensor_make(devices[0], DTYPE_BF16, memory_aligned((size_t)(x.rows * x.cols), 2), x.rows, x.cols);
    devices[0]->ops->copy(streams[0], y, x);
    if (exact)
        devices[0]->ops->copy(streams[0], x, y);
    return y;
}

static inline Tensor widened(Tensor x)
{
    Tensor y = tensor_make(devices[0], DTYPE_F32, memory_aligned((size_t)(x.rows * x.cols), 4), x.rows, x.cols);
    devices[0]->ops->copy(streams[0], y, x);
    return y;
}

/* How far a bf16 result is from the f32 one. */
static inline double apart(Tensor half, Tensor want)
{
    Tensor x = widened(half);
    double d = 0, n = 1e-30;
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t j = 0; j < x.cols; j++) {
            double e = (double)at(x, i, j) - at(want, i, j);
            d += e * e;
            n += (double)at(want, i, j) * at(want, i, j);
        }
    free(x.data);
    return sqrt(d / n);
}

static inline void pair_open(void)
{
    for (int i = 0; i < 2; i++) {
        devices[i] = device_open("cpu", i + 1, NULL);
        streams[i] = devices[i]->stream_new(devices[i]);
    }
}

static inline int pair_end(void)
{
    for (int i = 0; i < 2; i++) {
        streams[i]->device->stream_free(streams[i]);
        device_close(devices[i]);
    }
    return tap_end();
}

#endif
