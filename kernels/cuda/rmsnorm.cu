/* h = x + sub; y = h·r·w with r = (mean h² + eps)^-1/2 (Zhang and Sennrich 2019). Memory-bound: each number is read and written once.
 * A row belongs to ROW_WARPS warps, whose threads keep HELD packs of N numbers of it in registers between the sum and the result;
 * HELD 0, for rows that are longer or not aligned, reads them again. */
#include "kernels/cuda/columns.h"

enum { WARPS = 8 };

/* The sum over a row's threads, the same in each, in a fixed order. */
template <int ROW_WARPS> __device__ static inline float row_sum(float x)
{
    x = warp_sum(x);
    if (ROW_WARPS == 1)
        return x;
    SHARED(float, parts, [WARPS]);
    if (threadIdx.x == 0)
        parts[threadIdx.y] = x;
    __syncthreads();
    x = 0;
    for (int w = 0; w < WARPS; w++)
        x += parts[w];
    return x;
}

/* for each pack of the row that is this thread's: `l` counts them, `i` is its first column. */
#define FOR_PACKS(l, i)                                                                            \
    _Pragma("unroll (HELD ? HELD : 1)") for (int l = 0; HELD ? l < HELD : begin + (int64_t)l * STEP < n; l++)        \
        if (const int64_t i = begin + (int64_t)l * STEP; i < n)

template <typename T, typename W, int N, int ROW_WARPS, int HELD>
__global__ void __launch_bounds__(WARPS * 32)
    rmsnorm_rows(T *y, int64_t ldy, T *h, int64_t ldh, float *rstd, const T *x, int64_t ldx, const T *sub, int64_t ldsub, const W *w, int64_t rows,
                 int64_t n, float eps)
{
    enum { ROWS = WARPS / ROW_WARPS, STEP = ROW_WARPS * 32 * N };
    int64_t t = (int64_t)blockIdx.x * ROWS + threadIdx.y / ROW_WARPS;
    if (t >= rows)
        return;
    int64_t begin = (int64_t)(threadIdx.y % ROW_WARPS * 32 + threadIdx.x) * N;
    float held[HELD ? HELD : 1][N], squares = 0;
    FOR_PACKS(l, i)
    {
        float(&a)[N] = held[HELD ? l : 0], b[N];
        load(a, x + t * ldx + i);
        if (sub) {
            load(b, sub + t * ldsub + i);
#pragma unroll
            for (int j = 0; j < N; j++)
                a[j] = number(rounded<T>(a[j] + b[j]));
        }
        store(h + t * ldh + i, a);
#pragma unroll
        for (int j = 0; j < N; j++)
            squares += a[j] * a[j];
    }
    float r = 1.0f / sqrtf(row_sum<ROW_WARPS>(squares) / (float)n + eps);
    FOR_PACKS(l, i)
    {
        float(&a)[N] = held[HELD ? l : 0], b[N];
        if (!HELD)
            load(a, h + t * ldh + i);
        load(b, w + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            b[j] = a[j] * r * b[j];
        store(y + t * ldy + i, b);
    }
    if (begin == 0)
        rstd[t] = r;
}

template <typename T, typename W, int N, int ROW_WARPS, int HELD>
__global__ void __launch_bounds__(WARPS * 32)
    rmsnorm_rows_backward(T *dh, int64_t lddh, const T *dy, int64_t lddy, const T *h, int64_t ldh, const float *rstd, const W *w, const T *residual,
                          int64_t ldr, int64_t rows, int64_t n)
{
    enum { ROWS = WARPS / ROW_WARPS, STEP = ROW_WARPS * 32 * N };
    int64_t t = (int64_t)blockIdx.x * ROWS + threadIdx.y / ROW_WARPS;
    if (t >= rows)
        return;
    int64_t begin = (int64_t)(threadIdx.y % ROW_WARPS * 32 + threadIdx.x) * N;
    float weighted[HELD ? HELD : 1][N], held[HELD ? HELD : 1][N], dot = 0;
    FOR_PACKS(l, i)
    {
        float(&a)[N] = weighted[HELD ? l : 0], (&b)[N] = held[HELD ? l : 0], c[N];
        load(a, dy + t * lddy + i);
        load(b, h + t * ldh + i);
        load(c, w + i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            a[j] *= c[j];
            dot += a[j] * b[j];
        }
    }
    float r = rstd[t], scale = row_sum<ROW_WARPS>(dot) * r * r * r / (float)n;
    FOR_PACKS(l, i)
    {
        float(&a)[N] = weighted[HELD ? l : 0], (&b)[N] = held[HELD ? l : 0], c[N];
        if (!HELD) {
            load(a, dy + t * lddy + i);
            load(b, h + t * ldh + i);
            load(c, w + i);
#pragma unroll
            for (int j = 0; j < N; j++)
                a[j] *= c[j];
        }
        if (residual)
            load(c, residual + t * ldr + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            c[j] = a[j] * r - b[j] * scale + (residual ? c[j] : 0.0f);
        store(dh + t * lddh + i, c);
    }
}

/* dw += Σ_t dy∘h·r */
template <typename T> struct WeightTerm {
    const T *dy, *h;
    int64_t lddy, ldh;
    const float *rstd;
    template <int N> __device__ void operator()(float (&sum)[N], int64_t t, int64_t i) const
    {
        float a[N], b[N], r = rstd[t];
        load(a, dy + t * lddy + i);
        load(b, h + t * ldh + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            sum[j] += a[j] * b[j] * r;
    }
};

/* Runs the statement with ROW_WARPS and HELD for rows of n numbers by packs of N. */
#define BY_ROW(n, N, ROW_WARPS, HELD, ...)                          \
    do {                                                            \
        if (N == 1 || (n) > WARPS * 32 * N * 8) {                   \
            enum { ROW_WARPS = (N == 1 ? 1 : WARPS), HELD = 0 };    \
            __VA_ARGS__;                                            \
        } else if ((n) <= 32 * N * 4) {                             \
            enum { ROW_WARPS = 1, HELD = 4 };                       \
            __VA_ARGS__;                                            \
        } else if ((n) <= WARPS * 32 * N * 2) {                     \
            enum { ROW_WARPS = WARPS, HELD = 2 };                   \
            __VA_ARGS__;                                            \
        } else {                                                    \
            enum { ROW_WARPS = WARPS, HELD = 8 };                   \
            __VA_ARGS__;                                            \
        }                                                           \
    } while (0)

void cuda_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps)
{
    cuda_check(y.rows == x.rows && y.cols == x.cols && h.cols == x.cols && w.cols == x.cols, "rmsnorm_forward", "shapes");
    cuda_check(y.dtype == x.dtype && h.dtype == x.dtype && (!sub.data || sub.dtype == x.dtype), "rmsnorm_forward", "types");
    if (x.rows == 0)
        return;
    Tensor all[] = {y, h, x, sub, w};
    BY_TYPE(x.dtype, "rmsnorm_forward", T, BY_TYPE(w.dtype, "rmsnorm_forward", W, BY_VECTOR(vector_width(x.dtype, x.cols, all, 5), T, N, BY_ROW(x.cols, N, ROW_WARPS, HELD, {
                                auto kernel = rmsnorm_rows<T, W, N, ROW_WARPS, HELD>;
                                LAUNCH(kernel, blocks_of(x.rows, WARPS / ROW_WARPS), dim3(32, WARPS), 0, cuda_stream(s)->stream, (T *)y.data, y.ld,
                                       (T *)h.data, h.ld, rstd, (const T *)x.data, x.ld, (const T *)sub.data, sub.ld, (const W *)w.data, x.rows,
                                       x.cols, eps);
                            }))));
    cuda_launched(s, "rmsnorm_forward");
}

/* The weight's gradient comes first, since dh may be dy's memory. */
void cuda_rmsnorm_backward(Stream *s, Tensor dh, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual)
{
    cuda_check(dy.rows == h.rows && dy.cols == h.cols && w.cols == h.cols && dh.cols == h.cols, "rmsnorm_backward", "shapes");
    cuda_check(dy.dtype == h.dtype && dh.dtype == h.dtype && (!dw.data || dw.dtype == DTYPE_F32) && (!dresidual.data || dresidual.dtype == h.dtype),
               "rmsnorm_backward", "types");
    if (h.rows == 0)
        return;
    if (dw.data)
        BY_TYPE(h.dtype, "rmsnorm_backward", T, {
            WeightTerm<T> term = {(const T *)dy.data, (const T *)h.data, dy.ld, h.ld, rstd};
            Tensor both[] = {dy, h};
            if (vector_width(h.dtype, h.cols, both, 2) > 1)
                column_sums<4 / (int)sizeof(T)>(s, "rmsnorm_backward", f32(dw), term, h.rows, h.cols);
            else
                column_sums<1>(s, "rmsnorm_backward", f32(dw), term, h.rows, h.cols);
        });
    Tensor all[] = {dh, dy, h, w, dresidual};
    BY_TYPE(h.dtype, "rmsnorm_backward", T, BY_TYPE(w.dtype, "rmsnorm_backward", W, BY_VECTOR(vector_width(h.dtype, h.cols, all, 5), T, N, BY_ROW(h.cols, N, ROW_WARPS, HELD, {
                                auto kernel = rmsnorm_rows_backward<T, W, N, ROW_WARPS, HELD>;
                                LAUNCH(kernel, blocks_of(h.rows, WARPS / ROW_WARPS), dim3(32, WARPS), 0, cuda_stream(s)->stream, (T *)dh.data, dh.ld,
                                       (const T *)dy.data, dy.ld, (const T *)h.data, h.ld, rstd, (const W *)w.data, (const T *)dresidual.data,
                                       dresidual.ld, h.rows, h.cols);
                            }))));
    cuda_launched(s, "rmsnorm_backward");
}
