/* y[t] += bias; dbias += column sums of dy. */
#include "kernels/cuda/columns.h"

template <typename T, int N> __global__ void bias_add(T *y, int64_t ldy, const float *bias, int64_t rows, int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    float b[N];
    load(b, bias + i);
    FOR_ROWS(row, rows) {
        float v[N];
        load(v, y + row * ldy + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] += b[j];
        store(y + row * ldy + i, v);
    }
}

void cuda_bias_forward(Stream *s, Tensor y, Tensor bias)
{
    cuda_check(y.cols == bias.cols && bias.dtype == DTYPE_F32, "bias_forward", "shapes or types");
    if (y.rows == 0)
        return;
    Tensor both[] = {y, bias};
    BY_TYPE(y.dtype, "bias_forward", T, BY_VECTOR(vector_width(y.dtype, y.cols, both, 2), T, N, {
                auto kernel = bias_add<T, N>;
                Cover c = cover(y.rows, y.cols / N);
                LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, (T *)y.data, y.ld, f32(bias), y.rows, y.cols);
            }));
    cuda_launched(s, "bias_forward");
}

template <typename T> struct BiasTerm {
    const T *dy;
    int64_t ld;
    template <int N> __device__ void operator()(float (&sum)[N], int64_t t, int64_t i) const
    {
        float v[N];
        load(v, dy + t * ld + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            sum[j] += v[j];
    }
};

void cuda_bias_backward(Stream *s, Tensor dbias, Tensor dy)
{
    cuda_check(dy.cols == dbias.cols && dbias.dtype == DTYPE_F32, "bias_backward", "shapes or types");
    if (dy.rows == 0)
        return;
    BY_TYPE(dy.dtype, "bias_backward", T, {
        BiasTerm<T> term = {(const T *)dy.data, dy.ld};
        if (vector_width(dy.dtype, dy.cols, &dy, 1) > 1)
            column_sums<4 / (int)sizeof(T)>(s, "bias_backward", f32(dbias), term, dy.rows, dy.cols);
        else
            column_sums<1>(s, "bias_backward", f32(dbias), term, dy.rows, dy.cols);
    });
}
