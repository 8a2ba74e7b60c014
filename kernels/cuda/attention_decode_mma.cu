/* Attention of one new token a sequence by mma.sync: the query heads of a key head are the rows of a product (up to 16, Dao et al. 2023,
 * "Flash-Decoding"). A warp takes every fourth 16 keys of its block's chunk and fetches the next while it works, waiting for nobody; at
 * the end the warps' sums are added in order. Scores are kept in base 2. */
#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/mma.h"

enum { WARPS = 4, THREADS = WARPS * 32, KEYS = 16, ROWS = 16, PAD = 8 };

/* Keys or values first … first+15 of a key head to rows of D+PAD, zeros behind the last and behind d columns; arrives with its group. */
template <int D> __device__ static inline void rows_fetch(bf16 *to, const bf16 *from, const Decode<bf16> &a, const int32_t *pages, int kv, int first, int last)
{
    enum { PIECES = D / 8 };
#pragma unroll
    for (int i = 0; i < KEYS * PIECES / 32; i++) {
        int at = i * 32 + (int)threadIdx.x % 32, row = at / PIECES, column = at % PIECES * 8, position = first + row;
        bool wanted = position < last && column < a.d;
        const bf16 *p = from;
        if (wanted) {
            int64_t place = ((int64_t)pages[position >> a.page_bits] << a.page_bits) + (position & ((1 << a.page_bits) - 1));
            p = from + (place * a.kv_heads + kv) * a.d + column;
        }
        copy_async(to + row * (D + PAD) + column, p, wanted);
    }
}

/* A block a chunk (x), a key head and set of ROWS heads of its group (y), a sequence (z). */
template <int D> __global__ void __launch_bounds__(THREADS) decode_chunks(float *parts, const bf16 *q, int64_t ldq, Decode<bf16> a)
{
    enum { TILE = KEYS * (D + PAD) };
    SHARED_DYNAMIC(bf16, memory);
    SHARED(float, tops, [WARPS][ROWS]);
    SHARED(float, sums, [WARPS][ROWS]);
    int sets = (a.group + ROWS - 1) / ROWS, kv = blockIdx.y / sets, set = blockIdx.y % sets, chunk = blockIdx.x;
    int heads = a.group - set * ROWS < ROWS ? a.group - set * ROWS : ROWS, head = kv * a.group + set * ROWS;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, first, last;
    int64_t b = blockIdx.z;
    span_of(a, b, chunk, &first, &last);
    if (first >= last)
        return;
    const int32_t *pages = a.table + b * a.table_stride;
    bf16 *stages = memory + warp * 4 * TILE;
    auto fetch = [&](int j0, int stage) {
        rows_fetch<D>(stages + stage * 2 * TILE, a.keys, a, pages, kv, j0, last);
        rows_fetch<D>(stages + stage * 2 * TILE + TILE, a.values, a, pages, kv, j0, last);
    };
    int begin = first + warp * KEYS;
    if (begin < last)
        fetch(begin, 0);
    copy_commit();
    uint32_t rows[D / 16][4];
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = g + i % 2 * 8, column = k * 16 + 2 * t + i / 2 * 8;
            rows[k][i] = row < heads && column < a.d ? *(const uint32_t *)ALIGNED(q + b * ldq + (int64_t)(head + row) * a.d + column, 4) : 0;
        }
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, o[D / 8][4], scale = a.scale * ATTENTION_LOG2E;
#pragma unroll
    for (int c = 0; c < D / 8; c++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            o[c][i] = 0;
    for (int j0 = begin, stage = 0; j0 < last; j0 += WARPS * KEYS, stage ^= 1) {
        if (j0 + WARPS * KEYS < last)
            fetch(j0 + WARPS * KEYS, stage ^ 1);
        copy_commit();
        copy_wait(1);
        __syncwarp(); /* all lanes' pieces of this tile are here */
        const bf16 *keys = stages + stage * 2 * TILE, *values = keys + TILE;
        float s[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            uint32_t x[4];
            ldmatrix(x, keys + (lane % 8 + lane / 16 * 8) * (D + PAD) + k * 16 + lane / 8 % 2 * 8);
            mma_bf16(s[0], rows[k], x[0], x[1]);
            mma_bf16(s[1], rows[k], x[2], x[3]);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = most[half];
#pragma unroll
            for (int c = 0; c < 2; c++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    s[c][i] = j0 + c * 8 + 2 * t + i % 2 < last ? s[c][i] * scale : -INFINITY;
                    top = fmaxf(top, s[c][i]);
                }
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2)); /* finite: a tile has a key, and scores are finite */
            float shrink = exp2_near(most[half] - top), more = 0;
            most[half] = top;
#pragma unroll
            for (int c = 0; c < 2; c++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    s[c][i] = exp2_near(s[c][i] - top);
                    more += s[c][i];
                }
            sum[half] = sum[half] * shrink + more;
#pragma unroll
            for (int c = 0; c < D / 8; c++) {
                o[c][2 * half] *= shrink;
                o[c][2 * half + 1] *= shrink;
            }
        }
        uint32_t p[4];
        pack_a(p, s[0], s[1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t x[4];
            ldmatrix_transposed(x, values + lane % 16 * (D + PAD) + n * 16 + lane / 16 * 8);
            mma_bf16(o[2 * n], p, x[0], x[1]);
            mma_bf16(o[2 * n + 1], p, x[2], x[3]);
        }
        __syncwarp(); /* nobody uses this tile */
    }
    copy_wait(0);
    /* Each warp leaves its sums where its tiles were. */
    float *mine = (float *)stages;
    enum { WIDE = 4 * TILE * (int)sizeof(bf16) / (int)sizeof(float) };
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float all = sum[half];
        all += __shfl_xor_sync(0xffffffffu, all, 1);
        all += __shfl_xor_sync(0xffffffffu, all, 2);
        if (t == 0) {
            tops[warp][half * 8 + g] = most[half];
            sums[warp][half * 8 + g] = all;
        }
#pragma unroll
        for (int c = 0; c < D / 8; c++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                mine[(half * 8 + g) * D + c * 8 + 2 * t + i] = o[c][2 * half + i];
    }
    __syncthreads();
    const float *all = (const float *)memory;
    for (int i = (int)threadIdx.x; i < heads * D; i += THREADS) {
        int row = i / D, column = i % D;
        float top = tops[0][row], x = 0, total = 0; /* the first warp has always had keys */
#pragma unroll
        for (int w = 1; w < WARPS; w++)
            top = fmaxf(top, tops[w][row]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float by = exp2_near(tops[w][row] - top);
            x += all[w * WIDE + row * D + column] * by;
            total += sums[w][row] * by;
        }
        float *part = part_of(parts, a, b, head + row, chunk);
        if (column < a.d)
            part[column] = x;
        if (column == 0) {
            part[a.d] = top * ATTENTION_LN2;
            part[a.d + 1] = total;
        }
    }
}

template <int D> static void chunks(Stream *s, float *parts, Tensor q, const Decode<bf16> *a, int64_t n)
{
    auto kernel = decode_chunks<D>;
    size_t bytes = (size_t)WARPS * 4 * KEYS * (D + PAD) * sizeof(bf16);
    need_shared(s, kernel, bytes);
    int sets = (a->group + ROWS - 1) / ROWS;
    LAUNCH(kernel, dim3((unsigned)a->chunks, (unsigned)(a->kv_heads * sets), (unsigned)n), dim3(THREADS), bytes, cuda_stream(s)->stream, parts,
           (const bf16 *)q.data, q.ld, *a);
    cuda_launched(s, "attention_decode");
}

void attention_decode_mma(Stream *s, float *parts, Tensor q, const Decode<bf16> *a, int64_t n)
{
    if (a->d <= 64)
        chunks<64>(s, parts, q, a, n);
    else if (a->d <= 96)
        chunks<96>(s, parts, q, a, n);
    else
        chunks<128>(s, parts, q, a, n);
}
