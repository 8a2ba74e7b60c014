/* y = g·σ(g)·u (Shazeer 2020); dg = dy·u·σ·(1+g(1−σ)), du = dy·g·σ. */
#include "kernels/cuda/cuda.h"

template <typename T, int N> __global__ void swiglu_packs(T *y, int64_t ldy, const T *gu, int64_t ldgu, int64_t rows, int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    FOR_ROWS(row, rows) {
        float g[N], u[N];
        load(g, gu + row * ldgu + i);
        load(u, gu + row * ldgu + cols + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            g[j] = g[j] / (1.0f + expf(-g[j])) * u[j];
        store(y + row * ldy + i, g);
    }
}

template <typename T, int N>
__global__ void swiglu_packs_backward(T *dgu, int64_t lddgu, const T *dy, int64_t lddy, const T *gu, int64_t ldgu, int64_t rows, int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    FOR_ROWS(row, rows) {
        float g[N], u[N], d[N];
        load(g, gu + row * ldgu + i);
        load(u, gu + row * ldgu + cols + i);
        load(d, dy + row * lddy + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float sigma = 1.0f / (1.0f + expf(-g[j])), gate = g[j], up = u[j];
            u[j] = d[j] * gate * sigma;
            g[j] = d[j] * up * sigma * (1.0f + gate * (1.0f - sigma));
        }
        store(dgu + row * lddgu + i, g);
        store(dgu + row * lddgu + cols + i, u);
    }
}

void cuda_swiglu_forward(Stream *s, Tensor y, Tensor gu)
{
    cuda_check(gu.cols == 2 * y.cols && gu.rows == y.rows && gu.dtype == y.dtype, "swiglu_forward", "shapes or types");
    if (y.rows == 0)
        return;
    Tensor both[] = {y, gu};
    BY_TYPE(y.dtype, "swiglu_forward", T, BY_VECTOR(vector_width(y.dtype, y.cols, both, 2), T, N, {
                auto kernel = swiglu_packs<T, N>;
                Cover c = cover(y.rows, y.cols / N);
                LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (T *)y.data, y.ld, (const T *)gu.data, gu.ld, y.rows, y.cols);
            }));
    cuda_launched(s, "swiglu_forward");
}

void cuda_swiglu_backward(Stream *s, Tensor dgu, Tensor dy, Tensor gu)
{
    cuda_check(gu.cols == 2 * dy.cols && gu.rows == dy.rows && dgu.cols == gu.cols && gu.dtype == dy.dtype && dgu.dtype == gu.dtype,
               "swiglu_backward", "shapes or types");
    if (dy.rows == 0)
        return;
    Tensor all[] = {dgu, dy, gu};
    BY_TYPE(dy.dtype, "swiglu_backward", T, BY_VECTOR(vector_width(dy.dtype, dy.cols, all, 3), T, N, {
                auto kernel = swiglu_packs_backward<T, N>;
                Cover c = cover(dy.rows, dy.cols / N);
                LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (T *)dgu.data, dgu.ld, (const T *)dy.data, dy.ld, (const T *)gu.data,
                       gu.ld, dy.rows, dy.cols);
            }));
    cuda_launched(s, "swiglu_backward");
}
