/* out[t] = table[tokens[t]], 0 where tokens[t] < 0; dtable[tokens[t]] += dout[t], the rows of a token added in the order of their positions: one kernel
 * links each position to the next of the same token, and a block that finds itself at a token's first position walks that list.
 * No sort, no atomics. */
#include "kernels/cuda/cuda.h"

enum { WARPS = 8, ROW_THREADS = 64, LIST_END = -1 };

template <int N>
__global__ void embedding_rows(float *out, int64_t ldo, const float *table, int64_t ldt, int64_t vocabulary, const int32_t *tokens, int64_t rows,
                               int64_t cols)
{
    int64_t i = column_of(N);
    if (i >= cols)
        return;
    FOR_ROWS(row, rows) {
        int32_t token = tokens[row];
        if (token >= vocabulary)
            __trap();
        float v[N] = {0};
        if (token >= 0)
            load(v, table + token * ldt + i);
        store(out + row * ldo + i, v);
    }
}

void cuda_embedding_forward(Stream *s, Tensor out, Tensor table, const int32_t *tokens)
{
    cuda_check(out.cols == table.cols && out.dtype == DTYPE_F32 && table.dtype == DTYPE_F32, "embedding_forward", "shapes or types");
    if (out.rows == 0)
        return;
    Tensor both[] = {out, table};
    BY_VECTOR(vector_width(DTYPE_F32, out.cols, both, 2), float, N, {
        auto kernel = embedding_rows<N>;
        Cover c = cover(out.rows, out.cols / N);
        LAUNCH(kernel, c.grid, c.block, 0, cuda_stream(s)->stream, f32(out), out.ld, f32(table), table.ld, table.rows, tokens, out.rows, out.cols);
    });
    cuda_launched(s, "embedding_forward");
}

/* A warp a position t, 32 tokens at a time: next[t] is the next position of t's token (LIST_END: none), first[t] says whether there is none
 * before it. */
__global__ void embedding_links(int32_t *next, int32_t *first, const int32_t *tokens, int32_t rows)
{
    int32_t t = (int32_t)(blockIdx.x * WARPS + threadIdx.y), lane = (int32_t)threadIdx.x;
    if (t >= rows)
        return;
    int32_t mine = tokens[t], found = LIST_END;
    for (int32_t j = t + 1; j < rows && found < 0; j += 32) {
        unsigned same = __ballot_sync(0xffffffffu, j + lane < rows && tokens[j + lane] == mine);
        if (same)
            found = j + __ffs((int)same) - 1;
    }
    unsigned before = 0;
    for (int32_t j = t - 32; j > -32 && !before; j -= 32)
        before = __ballot_sync(0xffffffffu, j + lane >= 0 && tokens[j + lane] == mine);
    if (lane == 0) {
        next[t] = found;
        first[t] = !before;
    }
}

template <int N>
__global__ void embedding_gather(float *dtable, int64_t ldt, const float *dout, int64_t ldo, const int32_t *tokens, const int32_t *next,
                                 const int32_t *first, int64_t cols)
{
    int32_t t = (int32_t)blockIdx.x;
    int64_t i = ((int64_t)blockIdx.y * ROW_THREADS + threadIdx.x) * N;
    if (!first[t] || i >= cols || tokens[t] < 0)
        return;
    float sum[N];
    float *row = dtable + tokens[t] * ldt + i;
    load(sum, row);
    while (t >= 0) {
        /* Four positions at a time, so that their rows are under way together; they are added in order. */
        int32_t at[4];
        float v[4][N];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            at[j] = t;
            if (t >= 0)
                t = next[t];
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (at[j] >= 0)
                load(v[j], dout + at[j] * ldo + i);
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (at[j] >= 0)
#pragma unroll
                for (int l = 0; l < N; l++)
                    sum[l] += v[j][l];
    }
    store(row, sum);
}

void cuda_embedding_backward(Stream *s, Tensor dtable, Tensor dout, const int32_t *tokens)
{
    cuda_check(dout.cols == dtable.cols && dtable.dtype == DTYPE_F32 && dout.dtype == DTYPE_F32, "embedding_backward", "shapes or types");
    cuda_check(dout.rows * 2 * (int64_t)sizeof(int32_t) <= PARTS_BYTES, "embedding_backward", "more than 4194304 tokens");
    if (dout.rows == 0)
        return;
    int32_t *next = (int32_t *)cuda_stream(s)->parts, *first = next + dout.rows;
    LAUNCH(embedding_links, blocks_of(dout.rows, WARPS), dim3(32, WARPS), 0, cuda_stream(s)->stream, next, first, tokens, (int32_t)dout.rows);
    cuda_launched(s, "embedding_backward");
    Tensor both[] = {dtable, dout};
    BY_VECTOR(vector_width(DTYPE_F32, dout.cols, both, 2), float, N, {
        auto kernel = embedding_gather<N>;
        LAUNCH(kernel, dim3((unsigned)dout.rows, blocks_of(dout.cols / N, ROW_THREADS).x), dim3(ROW_THREADS), 0, cuda_stream(s)->stream, f32(dtable),
               dtable.ld, f32(dout), dout.ld, tokens, next, first, dout.cols);
    });
    cuda_launched(s, "embedding_backward");
}
