/* Attention of one new token a sequence over a paged cache (bf16 alone: attention_decode_mma.cu). The keys are cut into chunks of fixed size, a block each, so that a few
 * long sequences fill the GPU and a sequence has the same bits in every batch; a second kernel joins the chunks in order.
 *
 * A block serves up to HEADS query heads of one key head, so that their keys and values are read once. It takes TILE keys at a time:
 * while their scores are computed the values come by cp.async, while those are added up the next keys. */
#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/mma.h"

enum { THREADS = 128, WARPS = THREADS / 32, TILE = 64, HEADS = 8, CHUNK = 256, CHUNKS_MOST = 128 };

/* Rows of the cache, positions first … last-1 and at most TILE, of one key head to shared rows of `ld` numbers. */
template <typename C, bool VECTOR>
__device__ static inline void tile_load(C *to, int ld, const C *from, const Decode<C> &a, const int32_t *pages, int kv, int first, int last)
{
    enum { N = VECTOR ? 16 / (int)sizeof(C) : 1 };
    int packs = a.d / N, rows = THREADS / packs > 0 ? THREADS / packs : 1;
    for (int column = (int)threadIdx.x % packs * N, row = (int)threadIdx.x / packs; row < rows && column < a.d; column += THREADS * N)
        for (int i = row; i < TILE && first + i < last; i += rows) {
            int position = first + i;
            int64_t at = ((int64_t)pages[position >> a.page_bits] << a.page_bits) + (position & ((1 << a.page_bits) - 1));
            const C *p = from + (at * a.kv_heads + kv) * a.d + column;
            if (VECTOR)
                copy_async(to + i * ld + column, p, true);
            else
                to[i * ld + column] = *p;
        }
}

/* A block a chunk (x), a key head and set of HEADS heads of its group (y), a sequence (z). */
template <typename T, typename C, bool VECTOR>
__global__ void __launch_bounds__(THREADS) decode_chunks(float *parts, const T *q, int64_t ldq, Decode<C> a, int ld)
{
    SHARED_DYNAMIC(float, memory);
    SHARED(float, score, [HEADS][TILE]);
    SHARED(float, shrink, [HEADS]);
    int sets = (a.group + HEADS - 1) / HEADS, kv = blockIdx.y / sets, set = blockIdx.y % sets, chunk = blockIdx.x;
    int heads = a.group - set * HEADS < HEADS ? a.group - set * HEADS : HEADS, head = kv * a.group + set * HEADS;
    int64_t b = blockIdx.z;
    int first, last;
    span_of(a, b, chunk, &first, &last);
    if (first >= last)
        return;
    const int32_t *pages = a.table + b * a.table_stride;
    int pairs = (a.d + 1) / 2, groups = THREADS / pairs, tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
    /* queries [HEADS, d rounded up to 4], then keys and values [TILE, ld]; at the end the groups' sums [groups, HEADS, d]. */
    int wide = (a.d + 3) / 4 * 4;
    float *tq = memory;
    C *tk = (C *)(tq + HEADS * wide), *tv = tk + TILE * ld;
    for (int i = tid; i < HEADS * wide; i += THREADS) {
        int h = i / wide, column = i - h * wide;
        tq[i] = h < heads && column < a.d ? number(q[b * ldq + (int64_t)(head + h) * a.d + column]) * a.scale : 0.0f;
    }
    tile_load<C, VECTOR>(tk, ld, a.keys, a, pages, kv, first, last);
    copy_commit();
    float o[HEADS][2], most[HEADS / WARPS], sum[HEADS / WARPS];
#pragma unroll
    for (int h = 0; h < HEADS; h++)
        o[h][0] = o[h][1] = 0;
#pragma unroll
    for (int i = 0; i < HEADS / WARPS; i++)
        most[i] = -INFINITY, sum[i] = 0;
    for (int j0 = first; j0 < last; j0 += TILE) {
        int keys = last - j0 < TILE ? last - j0 : TILE;
        copy_wait(0);
        __syncthreads(); /* the keys are here, and nobody uses the values of the tile before */
        tile_load<C, VECTOR>(tv, ld, a.values, a, pages, kv, j0, last);
        copy_commit();
        /* A thread a key, half of the heads each. */
        int key = tid % TILE, half = tid / TILE;
        if (key < keys) {
            float s[HEADS / 2];
#pragma unroll
            for (int h = 0; h < HEADS / 2; h++)
                s[h] = 0;
            for (int i = 0; i < a.d; i += VECTOR ? 4 : 1) {
                float k[VECTOR ? 4 : 1];
                load(k, tk + key * ld + i);
#pragma unroll
                for (int h = 0; h < HEADS / 2; h++)
                    if (2 * h + half < heads) {
                        float x[VECTOR ? 4 : 1];
                        load(x, tq + (2 * h + half) * wide + i);
#pragma unroll
                        for (int l = 0; l < (VECTOR ? 4 : 1); l++)
                            s[h] += k[l] * x[l];
                    }
            }
#pragma unroll
            for (int h = 0; h < HEADS / 2; h++)
                score[2 * h + half][key] = s[h];
        }
        copy_wait(0);
        __syncthreads(); /* the scores and the values are here, and nobody uses the keys */
        if (j0 + TILE < last)
            tile_load<C, VECTOR>(tk, ld, a.keys, a, pages, kv, j0 + TILE, last);
        copy_commit();
        /* A warp a head. */
#pragma unroll
        for (int i = 0; i < HEADS / WARPS; i++) {
            int h = i * WARPS + warp;
            float x = lane < keys ? score[h][lane] : -INFINITY, y = lane + 32 < keys ? score[h][lane + 32] : -INFINITY;
            float top = fmaxf(most[i], warp_max(fmaxf(x, y)));
            x = lane < keys ? expf(x - top) : 0.0f;
            y = lane + 32 < keys ? expf(y - top) : 0.0f;
            float by = most[i] > -INFINITY ? expf(most[i] - top) : 0.0f;
            sum[i] = sum[i] * by + warp_sum(x + y);
            most[i] = top;
            score[h][lane] = x;
            score[h][lane + 32] = y;
            if (lane == 0)
                shrink[h] = by;
        }
        __syncthreads();
        /* A thread two columns, its group every groups-th key. */
        if (tid < groups * pairs) {
            int column = tid % pairs * 2, next = column + 1 < a.d;
#pragma unroll
            for (int h = 0; h < HEADS; h++)
                o[h][0] *= shrink[h], o[h][1] *= shrink[h];
            for (int j = tid / pairs; j < keys; j += groups) {
                float v0 = number(tv[j * ld + column]), v1 = next ? number(tv[j * ld + column + 1]) : 0.0f;
#pragma unroll
                for (int h = 0; h < HEADS; h++) {
                    float p = score[h][j];
                    o[h][0] += p * v0;
                    o[h][1] += p * v1;
                }
            }
        }
    }
    copy_wait(0);
    __syncthreads();
    /* The groups' sums are added in order, through shared memory. */
    float *all = (float *)tk;
    if (tid < groups * pairs) {
        int column = tid % pairs * 2, at = tid / pairs * HEADS * wide + column;
#pragma unroll
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < 2 && column + i < a.d; i++)
                all[at + h * wide + i] = o[h][i];
    }
    __syncthreads();
    for (int i = tid; i < heads * a.d; i += THREADS) {
        int h = i / a.d, column = i - h * a.d;
        float x = 0;
        for (int g = 0; g < groups; g++)
            x += all[(g * HEADS + h) * wide + column];
        part_of(parts, a, b, head + h, chunk)[column] = x;
    }
#pragma unroll
    for (int i = 0; i < HEADS / WARPS; i++) {
        int h = i * WARPS + warp;
        if (lane == 0 && h < heads) {
            part_of(parts, a, b, head + h, chunk)[a.d] = most[i];
            part_of(parts, a, b, head + h, chunk)[a.d + 1] = sum[i];
        }
    }
}

/* A block a head (x) and a sequence (y): the chunks joined in order. */
template <typename T, typename C> __global__ void decode_join(T *out, int64_t ldo, float *parts, Decode<C> a)
{
    int64_t b = blockIdx.y;
    int head = blockIdx.x;
    float most = -INFINITY, sum = 0;
    for (int chunk = 0; chunk < a.chunks; chunk++) {
        int first, last;
        span_of(a, b, chunk, &first, &last);
        if (first < last)
            most = fmaxf(most, part_of(parts, a, b, head, chunk)[a.d]);
    }
    for (int column = threadIdx.x; column < a.d; column += THREADS) {
        float x = 0;
        sum = 0;
        for (int chunk = 0; chunk < a.chunks; chunk++) {
            int first, last;
            span_of(a, b, chunk, &first, &last);
            if (first >= last)
                continue;
            const float *part = part_of(parts, a, b, head, chunk);
            float by = expf(part[a.d] - most);
            x += part[column] * by;
            sum += part[a.d + 1] * by;
        }
        out[b * ldo + (int64_t)head * a.d + column] = rounded<T>(x / sum);
    }
}

template <typename T, typename C> static void decode(Stream *s, Tensor out, Tensor q, const PagedKeys *cache, Decode<C> a, int heads)
{
    float *parts = (float *)cuda_stream(s)->parts;
    /* As many sequences at a time as have room for their parts. */
    int64_t room = PARTS_BYTES / ((int64_t)heads * a.chunks * (a.d + 2) * (int64_t)sizeof(float));
    cuda_check(room > 0, "attention_decode", "heads");
    Tensor pages[] = {{(void *)cache->keys, NULL, cache->dtype, 1, 0, 0}, {(void *)cache->values, NULL, cache->dtype, 1, 0, 0}};
    bool vector = vector_width(cache->dtype, a.d, pages, 2) > 1;
    int ld = vector ? a.d + 16 / (int)sizeof(C) : a.d + 1, wide = (a.d + 3) / 4 * 4, pairs = (a.d + 1) / 2;
    size_t tiles = (size_t)2 * TILE * (size_t)ld * sizeof(C), sums = (size_t)(THREADS / pairs * HEADS * wide) * sizeof(float);
    size_t bytes = (size_t)(HEADS * wide) * sizeof(float) + (tiles > sums ? tiles : sums);
    auto chunks = vector ? decode_chunks<T, C, true> : decode_chunks<T, C, false>;
    auto join = decode_join<T, C>;
    int sets = (a.group + HEADS - 1) / HEADS;
    bool products = q.dtype == DTYPE_BF16 && cache->dtype == DTYPE_BF16 && a.d <= 128 && vector && ((uintptr_t)q.data | (uintptr_t)(q.ld * 2)) % 4 == 0;
    if (!products)
        need_shared(s, chunks, bytes);
    if (room > 65535)
        room = 65535;
    for (int64_t first = 0; first < q.rows; first += room) {
        int64_t n = q.rows - first < room ? q.rows - first : room;
        Decode<C> part = a;
        part.table += first * a.table_stride;
        part.length += first;
        if (products) {
            attention_decode_mma(s, parts, tensor_rows(q, first, n), (const Decode<bf16> *)(const void *)&part, n);
        } else {
            LAUNCH(chunks, dim3((unsigned)a.chunks, (unsigned)(a.kv_heads * sets), (unsigned)n), dim3(THREADS), bytes, cuda_stream(s)->stream, parts,
                   (const T *)q.data + first * q.ld, q.ld, part, ld);
            cuda_launched(s, "attention_decode");
        }
        LAUNCH(join, dim3((unsigned)heads, (unsigned)n), dim3(THREADS), 0, cuda_stream(s)->stream, (T *)out.data + first * out.ld, out.ld, parts, part);
        cuda_launched(s, "attention_decode");
    }
}

void cuda_attention_decode(Stream *s, Tensor out, Tensor q, const PagedKeys *cache, int heads, int kv_heads, int head_dim, float scale, int64_t window)
{
    cuda_check(q.cols == (int64_t)heads * head_dim && out.cols == q.cols && out.dtype == q.dtype && heads % kv_heads == 0 && head_dim <= 256,
               "attention_decode", "shapes or types");
    if (q.rows == 0)
        return;
    int bits = 0;
    while (1 << bits < cache->page_tokens)
        bits++;
    cuda_check(1 << bits == cache->page_tokens, "attention_decode", "pages that are no power of two");
    /* Chunks depend on what the cache can hold, never on what it holds. */
    int64_t most = cache->table_stride * cache->page_tokens, chunk = CHUNK;
    while ((most + chunk - 1) / chunk > CHUNKS_MOST)
        chunk *= 2;
    BY_TYPE(q.dtype, "attention_decode", T, BY_TYPE(cache->dtype, "attention_decode", C, {
                Decode<C> a = {(const C *)cache->keys, (const C *)cache->values, cache->table, cache->length, cache->table_stride, bits,
                               kv_heads, heads / kv_heads, head_dim, (int)chunk, (int)((most + chunk - 1) / chunk), scale, window};
                decode<T, C>(s, out, q, cache, a, heads);
            }));
}
