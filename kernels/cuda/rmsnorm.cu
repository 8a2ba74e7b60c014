/* h = x + sub; y = h·r·w with r = (mean h² + eps)^-1/2 (Zhang and Sennrich 2019). Memory-bound: each number is read and written once.
 * A row belongs to ROW_WARPS warps, whose threads keep HELD packs of N numbers of it in registers between the sum and the result;
 * HELD 0, for rows that are longer or not aligned, reads them again. */
#include "kernels/cuda/columns.h"

enum { WARPS = 8, VECTOR = 4 };

/* A matrix of f32 or bf16, which a whole launch has in common: a branch, for fewer kernels. */
struct Either {
    void *data; /* NULL: absent */
    int64_t ld;
    bool half;
};

static Either either(Tensor x)
{
    cuda_check(!x.data || x.dtype == DTYPE_F32 || x.dtype == DTYPE_BF16, "rmsnorm", "types");
    return {x.data, x.ld, x.dtype == DTYPE_BF16};
}

template <int N> __device__ static inline void load(float (&x)[N], const Either &e, int64_t row, int64_t column)
{
    if (e.half)
        load(x, (const bf16 *)e.data + row * e.ld + column);
    else
        load(x, (const float *)e.data + row * e.ld + column);
}

template <int N> __device__ static inline void store(const Either &e, int64_t row, int64_t column, const float (&x)[N])
{
    if (e.half)
        store((bf16 *)e.data + row * e.ld + column, x);
    else
        store((float *)e.data + row * e.ld + column, x);
}

/* The sum over a row's threads, the same in each, in a fixed order. parts: shared, of no other row until all have read it. */
template <int ROW_WARPS> __device__ static inline float row_sum(float x, float (&parts)[WARPS])
{
    x = warp_sum(x);
    if (ROW_WARPS == 1)
        return x;
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

template <int N, int ROW_WARPS, int HELD>
__global__ void __launch_bounds__(WARPS * 32)
    rmsnorm_rows(Either y, float *h, int64_t ldh, float *rstd, const float *x, int64_t ldx, Either sub, const float *w, int64_t rows, int64_t n, float eps)
{
    enum { ROWS = WARPS / ROW_WARPS, STEP = ROW_WARPS * 32 * N };
    int64_t t = (int64_t)blockIdx.x * ROWS + threadIdx.y / ROW_WARPS;
    if (t >= rows)
        return;
    SHARED(float, sums, [WARPS]);
    int64_t begin = (int64_t)(threadIdx.y % ROW_WARPS * 32 + threadIdx.x) * N;
    float held[HELD ? HELD : 1][N], squares = 0;
    FOR_PACKS(l, i)
    {
        float(&a)[N] = held[HELD ? l : 0], b[N];
        load(a, x + t * ldx + i);
        if (sub.data) {
            load(b, sub, t, i);
#pragma unroll
            for (int j = 0; j < N; j++)
                a[j] += b[j];
        }
        store(h + t * ldh + i, a);
#pragma unroll
        for (int j = 0; j < N; j++)
            squares += a[j] * a[j];
    }
    float r = 1.0f / sqrtf(row_sum<ROW_WARPS>(squares, sums) / (float)n + eps);
    FOR_PACKS(l, i)
    {
        float(&a)[N] = held[HELD ? l : 0], b[N];
        if (!HELD)
            load(a, h + t * ldh + i);
        load(b, w + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            b[j] = a[j] * r * b[j];
        store(y, t, i, b);
    }
    if (begin == 0)
        rstd[t] = r;
}

/* dh, narrow, and with SUMS the block's rows' share of dw = Σ_t dy∘h·r in part [gridDim.x, n]: the block takes every gridDim.x-th group of
 * ROWS rows, so that the weight's gradient costs no second reading. Rows that registers have room for are read whole, the residual stream's
 * gradient too, before anything is written: it may lie where dh goes, and no load would pass a store. */
template <int N, int ROW_WARPS, int HELD, bool SUMS>
__global__ void __launch_bounds__(WARPS * 32) rmsnorm_rows_backward(Either dh, Either narrow, float *part, Either dy, const float *h, int64_t ldh, const float *rstd,
                                                                    const float *w, Either residual, int64_t rows, int64_t n)
{
    enum { ROWS = WARPS / ROW_WARPS, STEP = ROW_WARPS * 32 * N, WHOLE = HELD > 0 && HELD <= 4 };
    SHARED(float, dots, [2][WARPS]);
    int64_t begin = (int64_t)(threadIdx.y % ROW_WARPS * 32 + threadIdx.x) * N;
    float sums[SUMS ? HELD : 1][N];
#pragma unroll
    for (int l = 0; l < (SUMS ? HELD : 1); l++)
#pragma unroll
        for (int j = 0; j < N; j++)
            sums[l][j] = 0.0f;
    int turn = 0;
    for (int64_t t = (int64_t)blockIdx.x * ROWS + threadIdx.y / ROW_WARPS; t < rows; t += (int64_t)gridDim.x * ROWS, turn ^= 1) {
        float weighted[HELD ? HELD : 1][N], held[HELD ? HELD : 1][N], rest[WHOLE ? HELD : 1][N], dot = 0, r = rstd[t];
        FOR_PACKS(l, i)
        {
            float(&a)[N] = weighted[HELD ? l : 0], (&b)[N] = held[HELD ? l : 0], c[N];
            load(a, dy, t, i);
            load(b, h + t * ldh + i);
            load(c, w + i);
            if (WHOLE && residual.data)
                load(rest[l], residual, t, i);
#pragma unroll
            for (int j = 0; j < N; j++) {
                if (SUMS)
                    sums[l][j] += a[j] * b[j] * r;
                a[j] *= c[j];
                dot += a[j] * b[j];
            }
        }
        float scale = row_sum<ROW_WARPS>(dot, dots[turn]) * r * r * r / (float)n;
        FOR_PACKS(l, i)
        {
            float(&a)[N] = weighted[HELD ? l : 0], (&b)[N] = held[HELD ? l : 0], (&c)[N] = rest[WHOLE ? l : 0];
            if (!HELD) {
                load(a, dy, t, i);
                load(b, h + t * ldh + i);
                load(c, w + i);
#pragma unroll
                for (int j = 0; j < N; j++)
                    a[j] *= c[j];
            }
            if (!WHOLE && residual.data)
                load(c, residual, t, i);
#pragma unroll
            for (int j = 0; j < N; j++)
                c[j] = a[j] * r - b[j] * scale + (residual.data ? c[j] : 0.0f);
            store(dh, t, i, c);
            if (narrow.data)
                store(narrow, t, i, c);
        }
    }
    if (SUMS)
        FOR_PACKS(l, i)
        store(part + blockIdx.x * n + i, sums[SUMS ? l : 0]);
}

/* dw += Σ_t dy∘h·r, of rows that no block holds whole. */
struct WeightTerm {
    Either dy;
    const float *h;
    int64_t ldh;
    const float *rstd;
    template <int N> __device__ void operator()(float (&sum)[N], int64_t t, int64_t i) const
    {
        float a[N], b[N], r = rstd[t];
        load(a, dy, t, i);
        load(b, h + t * ldh + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            sum[j] += a[j] * b[j] * r;
    }
};

/* Runs the statement with N, ROW_WARPS and HELD for rows of n numbers, which allow vectors or not. */
#define BY_ROW(vectors, n, N, ROW_WARPS, HELD, ...)                        \
    do {                                                                   \
        if (!(vectors)) {                                                  \
            enum { N = 1, ROW_WARPS = 1, HELD = 0 };                       \
            __VA_ARGS__;                                                   \
        } else if ((n) <= 32 * VECTOR * 4) {                               \
            enum { N = VECTOR, ROW_WARPS = 1, HELD = 4 };                  \
            __VA_ARGS__;                                                   \
        } else if ((n) <= WARPS * 32 * VECTOR * 2) {                       \
            enum { N = VECTOR, ROW_WARPS = WARPS, HELD = 2 };              \
            __VA_ARGS__;                                                   \
        } else if ((n) <= WARPS * 32 * VECTOR * 4) {                       \
            enum { N = VECTOR, ROW_WARPS = WARPS, HELD = 4 };              \
            __VA_ARGS__;                                                   \
        } else if ((n) <= WARPS * 32 * VECTOR * 8) {                       \
            enum { N = VECTOR, ROW_WARPS = WARPS, HELD = 8 };              \
            __VA_ARGS__;                                                   \
        } else {                                                           \
            enum { N = VECTOR, ROW_WARPS = WARPS, HELD = 0 };              \
            __VA_ARGS__;                                                   \
        }                                                                  \
    } while (0)

void cuda_rmsnorm_forward(Stream *s, Tensor y, Tensor h, float *rstd, Tensor x, Tensor sub, Tensor w, float eps)
{
    cuda_check(y.rows == x.rows && y.cols == x.cols && h.cols == x.cols && w.cols == x.cols, "rmsnorm_forward", "shapes");
    cuda_check(h.dtype == DTYPE_F32 && x.dtype == DTYPE_F32 && w.dtype == DTYPE_F32, "rmsnorm_forward", "types");
    if (x.rows == 0)
        return;
    Tensor all[] = {y, h, x, sub, w};
    BY_ROW(vector_width(DTYPE_F32, x.cols, all, 5) > 1, x.cols, N, ROW_WARPS, HELD, {
        auto kernel = rmsnorm_rows<N, ROW_WARPS, HELD>;
        LAUNCH(kernel, blocks_of(x.rows, WARPS / ROW_WARPS), dim3(32, WARPS), 0, cuda_stream(s)->stream, either(y), f32(h), h.ld, rstd, f32(x), x.ld,
               either(sub), f32(w), x.rows, x.cols, eps);
    });
    cuda_launched(s, "rmsnorm_forward");
}

/* Blocks that share the rows where the weight's gradient is wanted: those that an H100 runs at once, the same on every GPU for the same bits. */
#define BLOCKS_MOST(HELD) ((HELD) <= 2 ? 528 : 264)

void cuda_rmsnorm_backward(Stream *s, Tensor dh, Tensor narrow, Tensor dw, Tensor dy, Tensor h, const float *rstd, Tensor w, Tensor dresidual)
{
    cuda_check(dy.rows == h.rows && dy.cols == h.cols && w.cols == h.cols && dh.cols == h.cols, "rmsnorm_backward", "shapes");
    cuda_check(!narrow.data || (narrow.rows == h.rows && narrow.cols == h.cols), "rmsnorm_backward", "shapes");
    cuda_check(h.dtype == DTYPE_F32 && w.dtype == DTYPE_F32 && (!dw.data || dw.dtype == DTYPE_F32), "rmsnorm_backward", "types");
    if (h.rows == 0)
        return;
    Tensor all[] = {dh, narrow, dy, h, w, dresidual};
    BY_ROW(vector_width(DTYPE_F32, h.cols, all, 6) > 1, h.cols, N, ROW_WARPS, HELD, {
        enum { TOGETHER = HELD > 0 && HELD <= 4 && (int)ROW_WARPS == WARPS };
        dim3 blocks = blocks_of(h.rows, WARPS / ROW_WARPS);
        float *part = TOGETHER && dw.data ? (float *)cuda_stream(s)->parts : NULL;
        if (part && blocks.x > BLOCKS_MOST(HELD))
            blocks.x = BLOCKS_MOST(HELD);
        if (dw.data && !part) { /* first, since dh may be dy's memory */
            WeightTerm term = {either(dy), f32(h), h.ld, rstd};
            column_sums<1>(s, "rmsnorm_backward", f32(dw), term, h.rows, h.cols);
        }
        auto kernel = part ? rmsnorm_rows_backward<N, ROW_WARPS, HELD, TOGETHER> : rmsnorm_rows_backward<N, ROW_WARPS, HELD, false>;
        LAUNCH(kernel, blocks, dim3(32, WARPS), 0, cuda_stream(s)->stream, either(dh), either(narrow), part, either(dy), f32(h), h.ld, rstd, f32(w),
               either(dresidual), h.rows, h.cols);
        cuda_launched(s, "rmsnorm_backward");
        if (part)
            column_add(s, "rmsnorm_backward", f32(dw), part, blocks.x, h.cols);
    });
}
