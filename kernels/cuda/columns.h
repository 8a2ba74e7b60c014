/* Sums over a matrix's rows, for the gradients of biases and norms: to[i] += Σ_t term(t, i). Rows are dealt to slabs of at least
 * SLAB_ROWS; a block sums 32 lanes' columns of a slab, its 8 rows of threads every eighth token; the parts are added in order by a
 * second kernel. No atomics: the same bits every time. */
#ifndef KERNELS_CUDA_COLUMNS_H
#define KERNELS_CUDA_COLUMNS_H

#include "kernels/cuda/cuda.h"

enum { COLUMN_LANES = 8, SLAB_ROWS = 128, SLABS_MOST = 64, JOIN_LANES = 16 };

/* part [slabs, cols]. Term: void operator()(float (&sum)[N], int64_t t, int64_t i), which adds to the sums of columns i … i+N-1. */
template <typename Term, int N> __global__ void column_parts(float *part, Term term, int64_t rows, int64_t cols, int64_t slab)
{
    SHARED(float, lanes, [COLUMN_LANES][N][32]);
    int64_t i = ((int64_t)blockIdx.x * 32 + threadIdx.x) * N, first = blockIdx.y * slab, last = first + slab < rows ? first + slab : rows;
    float sum[N];
#pragma unroll
    for (int j = 0; j < N; j++)
        sum[j] = 0;
    if (i < cols) {
#pragma unroll 4
        for (int64_t t = first + threadIdx.y; t < last; t += COLUMN_LANES)
            term(sum, t, i);
    }
#pragma unroll
    for (int j = 0; j < N; j++)
        lanes[threadIdx.y][j][threadIdx.x] = sum[j];
    __syncthreads();
    if (threadIdx.y != 0 || i >= cols)
        return;
#pragma unroll
    for (int j = 0; j < N; j++) {
        for (int lane = 1; lane < COLUMN_LANES; lane++)
            sum[j] += lanes[lane][j][threadIdx.x];
        part[blockIdx.y * cols + i + j] = sum[j];
    }
}

namespace {

/* Lane y of a column adds up every JOIN_LANES-th part, the first one those sums. */
__global__ void column_join(float *to, const float *part, int64_t slabs, int64_t cols)
{
    SHARED(float, lanes, [JOIN_LANES][32]);
    int64_t i = (int64_t)blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    if (i < cols) {
#pragma unroll 8
        for (int64_t slab = threadIdx.y; slab < slabs; slab += JOIN_LANES)
            sum += part[slab * cols + i];
    }
    lanes[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || i >= cols)
        return;
    for (int lane = 1; lane < JOIN_LANES; lane++)
        sum += lanes[lane][threadIdx.x];
    to[i] += sum;
}

} // namespace

/* to[i] += Σ part[slab][i], part [slabs, cols] in device memory. */
static inline void column_add(Stream *s, const char *operation, float *to, const float *part, int64_t slabs, int64_t cols)
{
    LAUNCH(column_join, blocks_of(cols, 32), dim3(32, JOIN_LANES), 0, cuda_stream(s)->stream, to, part, slabs, cols);
    cuda_launched(s, operation);
}

template <int N, typename Term> static void column_sums(Stream *s, const char *operation, float *to, Term term, int64_t rows, int64_t cols)
{
    int64_t slab = (rows + SLABS_MOST - 1) / SLABS_MOST;
    if (slab < SLAB_ROWS)
        slab = SLAB_ROWS;
    int64_t slabs = (rows + slab - 1) / slab;
    cuda_check(slabs * cols * (int64_t)sizeof(float) <= PARTS_BYTES, operation, "more than 131072 columns");
    float *part = (float *)cuda_stream(s)->parts;
    auto parts = column_parts<Term, N>;
    LAUNCH(parts, dim3(blocks_of(cols / N, 32).x, (unsigned)slabs), dim3(32, COLUMN_LANES), 0, cuda_stream(s)->stream, part, term, rows, cols,
           slab);
    cuda_launched(s, operation);
    column_add(s, operation, to, part, slabs, cols);
}

#endif
