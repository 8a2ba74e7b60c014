/* *sum += Σ x²: a block sums a piece of fixed size, f32 inside a thread's share and double behind it; the pieces' sums are added by
 * one block in a fixed order. */
#include "kernels/cuda/cuda.h"

enum { THREADS = 256, WARPS = THREADS / 32, PIECE = THREADS * 64 };

/* The block's sum in thread 0, by lanes, then by warps in order. */
__device__ static inline double block_sum(double x)
{
    SHARED(double, parts, [WARPS]);
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = x;
    __syncthreads();
    double all = 0;
    if (threadIdx.x == 0)
        for (int w = 0; w < WARPS; w++)
            all += parts[w];
    return all;
}

template <int N> __global__ void piece_squares(double *part, const float *x, int64_t n)
{
    int64_t first = (int64_t)blockIdx.x * PIECE, last = first + PIECE < n ? first + PIECE : n;
    float sum = 0;
#pragma unroll 4
    for (int64_t i = first + threadIdx.x * N; i < last; i += THREADS * N) {
        float v[N];
        load(v, x + i);
#pragma unroll
        for (int j = 0; j < N; j++)
            sum += v[j] * v[j];
    }
    double all = block_sum((double)sum);
    if (threadIdx.x == 0)
        part[blockIdx.x] = all;
}

__global__ void add_pieces(double *sum, const double *part, int64_t pieces)
{
    double mine = 0;
    for (int64_t i = threadIdx.x; i < pieces; i += THREADS)
        mine += part[i];
    double all = block_sum(mine);
    if (threadIdx.x == 0)
        *sum += all;
}

void cuda_sum_squares(Stream *s, double *sum, Tensor x)
{
    cuda_check((x.ld == x.cols || x.rows <= 1) && x.dtype == DTYPE_F32, "sum_squares", "strides or types");
    int64_t n = x.rows * x.cols, pieces = (n + PIECE - 1) / PIECE;
    if (n == 0)
        return;
    cuda_check(pieces * (int64_t)sizeof(double) <= PARTS_BYTES, "sum_squares", "more than 6.8e10 numbers");
    double *part = (double *)cuda_stream(s)->parts;
    BY_VECTOR(vector_width(DTYPE_F32, n, &x, 1), float, N, {
        auto kernel = piece_squares<N>;
        LAUNCH(kernel, dim3((unsigned)pieces), dim3(THREADS), 0, cuda_stream(s)->stream, part, f32(x), n);
    });
    cuda_launched(s, "sum_squares");
    LAUNCH(add_pieces, dim3(1), dim3(THREADS), 0, cuda_stream(s)->stream, sum, part, pieces);
    cuda_launched(s, "sum_squares");
}
