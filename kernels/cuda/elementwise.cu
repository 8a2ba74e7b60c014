/* fill, copy, scatter, add, scale: a thread takes 16 bytes. A matrix without gaps between its rows is one long row. */
#include <cuda_fp16.h>
#include "kernels/cuda/cuda.h"

__device__ static inline float number(__half x)
{
    return __half2float(x);
}
template <> __device__ inline __half rounded<__half>(float x)
{
    return __float2half_rn(x);
}

template <typename T, int N> __global__ void fill_packs(T *x, int64_t ld, int64_t rows, int64_t cols, float value)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    float v[N];
#pragma unroll
    for (int j = 0; j < N; j++)
        v[j] = value;
    FOR_ROWS(row, rows)
        store(x + row * ld + i, v);
}

template <typename T, typename F, int N>
__global__ void copy_packs(T *to, int64_t ldto, const F *from, int64_t ldfrom, int64_t rows, int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    FOR_ROWS(row, rows) {
        float v[N];
        load(v, from + row * ldfrom + i);
        store(to + row * ldto + i, v);
    }
}

template <typename T, int N> __global__ void scatter_packs(T *to, int64_t ldto, const T *from, int64_t ldfrom, const int32_t *to_rows, int64_t rows, int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    FOR_ROWS(row, rows) {
        float v[N];
        if (to_rows[row] < 0)
            continue;
        load(v, from + row * ldfrom + i);
        store(to + to_rows[row] * ldto + i, v);
    }
}

template <typename Y, typename X, int N>
__global__ void add_packs(Y *y, int64_t ldy, const X *x, int64_t ldx, float alpha, int64_t rows, int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    FOR_ROWS(row, rows) {
        float v[N], w[N];
        load(v, y + row * ldy + i);
        load(w, x + row * ldx + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] += alpha * w[j];
        store(y + row * ldy + i, v);
    }
}

template <typename T, int N> __global__ void scale_packs(T *x, int64_t ld, float alpha, int64_t rows, int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    FOR_ROWS(row, rows) {
        float v[N];
        load(v, x + row * ld + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] *= alpha;
        store(x + row * ld + i, v);
    }
}

static bool no_gaps(Tensor x)
{
    return x.ld == x.cols || x.rows <= 1;
}

static Tensor one_row(Tensor x)
{
    x.cols *= x.rows;
    x.rows = 1;
    x.ld = x.cols;
    return x;
}

static Cover cover_of(Tensor x, int n)
{
    return cover(x.rows, x.cols / n);
}

void cuda_fill(Stream *s, Tensor x, float value)
{
    if (x.rows == 0 || x.cols == 0)
        return;
    if (no_gaps(x))
        x = one_row(x);
    BY_TYPE(x.dtype, "fill", T, BY_VECTOR(vector_width(x.dtype, x.cols, &x, 1), T, N, {
                auto kernel = fill_packs<T, N>;
                Cover c = cover_of(x, N);
                LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (T *)x.data, x.ld, x.rows, x.cols, value);
            }));
    cuda_launched(s, "fill");
}

template <typename T, typename F> static void copy_typed(Stream *s, Tensor to, Tensor from)
{
    Tensor both[] = {to, from};
    BY_VECTOR(vector_width(from.dtype, to.cols, both, 2), F, N, {
        auto kernel = copy_packs<T, F, N>;
        Cover c = cover_of(to, N);
        LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (T *)to.data, to.ld, (const F *)from.data, from.ld, to.rows, to.cols);
    });
    cuda_launched(s, "copy");
}

template <typename T> static void copy_to(Stream *s, Tensor to, Tensor from)
{
    if (from.dtype == DTYPE_F16)
        copy_typed<T, __half>(s, to, from);
    else
        BY_TYPE(from.dtype, "copy", F, (copy_typed<T, F>(s, to, from)));
}

void cuda_copy(Stream *s, Tensor to, Tensor from)
{
    cuda_check(to.rows == from.rows && to.cols == from.cols, "copy", "shapes");
    if (to.rows == 0 || to.cols == 0)
        return;
    if (no_gaps(to) && no_gaps(from))
        to = one_row(to), from = one_row(from);
    if (to.dtype == DTYPE_F16)
        copy_to<__half>(s, to, from);
    else
        BY_TYPE(to.dtype, "copy", T, copy_to<T>(s, to, from));
}

template <typename T> static void scatter_typed(Stream *s, Tensor to, Tensor from, const int32_t *rows)
{
    Tensor both[] = {to, from};
    BY_VECTOR(vector_width(from.dtype, to.cols, both, 2), T, N, {
        auto kernel = scatter_packs<T, N>;
        Cover c = cover_of(from, N);
        LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (T *)to.data, to.ld, (const T *)from.data, from.ld, rows, from.rows, from.cols);
    });
    cuda_launched(s, "scatter");
}

void cuda_scatter(Stream *s, Tensor to, Tensor from, const int32_t *rows)
{
    cuda_check(to.cols == from.cols && to.dtype == from.dtype, "scatter", "shapes or types");
    if (from.rows > 0 && from.cols > 0)
        BY_TYPE(to.dtype, "scatter", T, scatter_typed<T>(s, to, from, rows));
}

void cuda_add(Stream *s, Tensor y, Tensor x, float alpha)
{
    cuda_check(y.rows == x.rows && y.cols == x.cols, "add", "shapes");
    if (y.rows == 0 || y.cols == 0)
        return;
    if (no_gaps(y) && no_gaps(x))
        y = one_row(y), x = one_row(x);
    Tensor both[] = {y, x};
    BY_TYPE(y.dtype, "add", Y, BY_TYPE(x.dtype, "add", X, BY_VECTOR(vector_width(x.dtype, x.cols, both, 2), X, N, {
                        auto kernel = add_packs<Y, X, N>;
                        Cover c = cover_of(y, N);
                        LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (Y *)y.data, y.ld, (const X *)x.data, x.ld, alpha, y.rows,
                               y.cols);
                    })));
    cuda_launched(s, "add");
}

void cuda_scale(Stream *s, Tensor x, float alpha)
{
    if (x.rows == 0 || x.cols == 0)
        return;
    if (no_gaps(x))
        x = one_row(x);
    BY_TYPE(x.dtype, "scale", T, BY_VECTOR(vector_width(x.dtype, x.cols, &x, 1), T, N, {
                auto kernel = scale_packs<T, N>;
                Cover c = cover_of(x, N);
                LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (T *)x.data, x.ld, alpha, x.rows, x.cols);
            }));
    cuda_launched(s, "scale");
}
