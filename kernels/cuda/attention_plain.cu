/* Attention in f32 arithmetic, from f32 or bf16: for f32 training, for heads above 128, for rows that are not whole vectors.
 *
 * A block of 256 threads works on tiles of TILE rows, which lie in shared memory as f32, rows of `width` numbers (the head size
 * rounded up to 8) and 4 more, so that 16-byte loads of neighbouring rows fall into different banks. Thread (x, y) of 16×16 owns MICRO
 * = TILE/16 rows y·MICRO … and of a product's columns x, x+16 … (tiles by tiles) or x·4 + 64c … (tiles by heads). */
#include "kernels/cuda/attention.h"

enum { THREADS = 256 };

__device__ static inline int padded(int d)
{
    return (d + 7) / 8 * 8;
}

/* Rows first … first+n-1 of a head into a tile, zeros behind the last row and column. */
template <typename T, int TILE, int N> __device__ static void tile_load(float *to, const T *from, int64_t ld, int64_t first, int n, int d, int width)
{
    int packs = width / N;
    for (int i = (int)threadIdx.x; i < TILE * packs; i += THREADS) {
        int row = i / packs, column = (i - row * packs) * N;
        float x[N];
#pragma unroll
        for (int j = 0; j < N; j++)
            x[j] = 0;
        if (row < n && column < d)
            load(x, from + (first + row) * ld + column);
#pragma unroll
        for (int j = 0; j < N; j++)
            to[row * (width + 4) + column + j] = x[j];
    }
}

/* s[i][j] = Σ_l a[y·MICRO + i, l]·b[x + 16j, l] */
template <int MICRO> __device__ static inline void product_rows(float (&s)[MICRO][MICRO], const float *a, const float *b, int width)
{
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < MICRO; i++)
#pragma unroll
        for (int j = 0; j < MICRO; j++)
            s[i][j] = 0;
    for (int l = 0; l < width; l += 4) {
        float p[MICRO][4], q[MICRO][4];
#pragma unroll
        for (int i = 0; i < MICRO; i++) {
            load(p[i], a + (y * MICRO + i) * (width + 4) + l);
            load(q[i], b + (x + 16 * i) * (width + 4) + l);
        }
#pragma unroll
        for (int i = 0; i < MICRO; i++)
#pragma unroll
            for (int j = 0; j < MICRO; j++)
#pragma unroll
                for (int k = 0; k < 4; k++)
                    s[i][j] += p[i][k] * q[j][k];
    }
}

/* o[i][c·4 + j] += Σ_l p[y·MICRO + i, l]·b[l, c·64 + x·4 + j], p a tile [TILE, TILE + 4] */
template <int TILE, int CHUNKS> __device__ static inline void product_add(float (&o)[TILE / 16][CHUNKS * 4], const float *p, const float *b, int width)
{
    enum { MICRO = TILE / 16 };
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    for (int l = 0; l < TILE; l += 4) {
        float a[MICRO][4];
#pragma unroll
        for (int i = 0; i < MICRO; i++)
            load(a[i], p + (y * MICRO + i) * (TILE + 4) + l);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            if (c * 64 + x * 4 < width) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    float v[4];
                    load(v, b + (l + k) * (width + 4) + c * 64 + x * 4);
#pragma unroll
                    for (int i = 0; i < MICRO; i++)
#pragma unroll
                        for (int j = 0; j < 4; j++)
                            o[i][c * 4 + j] += a[i][k] * v[j];
                }
            }
    }
}

/* The tile p [TILE, TILE + 4] from what product_rows left in registers. */
template <int TILE> __device__ static inline void tile_put(float *p, const float (&s)[TILE / 16][TILE / 16])
{
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < TILE / 16; i++)
#pragma unroll
        for (int j = 0; j < TILE / 16; j++)
            p[(y * (TILE / 16) + i) * (TILE + 4) + x + 16 * j] = s[i][j];
}

/* Writes rows first … first+n-1 of a head, times `by`[row of this thread]. */
template <typename T, int TILE, int CHUNKS>
__device__ static inline void rows_write(T *to, int64_t ld, int64_t first, int n, int d, const float (&o)[TILE / 16][CHUNKS * 4], const float (&by)[TILE / 16])
{
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < TILE / 16; i++)
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int row = y * (TILE / 16) + i, column = c * 64 + x * 4 + j;
                if (row < n && column < d)
                    to[(first + row) * ld + column] = rounded<T>(o[i][c * 4 + j] * by[i]);
            }
}

/* Over the 16 threads that share rows. */
__device__ static inline float sixteen_sum(float x)
{
#pragma unroll
    for (int bits = 8; bits > 0; bits >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, bits);
    return x;
}

__device__ static inline float sixteen_max(float x)
{
#pragma unroll
    for (int bits = 8; bits > 0; bits >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
    return x;
}

/* What every kernel here is told. */
template <typename T> struct Heads {
    const T *q, *k, *v, *dout;
    int64_t ldq, ldk, ldv, lddout;
    const int32_t *begin, *end;
    const float *lse, *delta;
    int group, d; /* query heads a key head, head size */
    int64_t rows, sequence_rows, key_rows;
    float scale;
};

static __device__ inline int tile_rows(int64_t sequence_rows, int64_t first, int tile)
{
    int64_t left = sequence_rows - first;
    return left < tile ? (int)left : tile;
}

/* A block a tile of queries (x, the last first: they see the most), a head (y), a sequence (z). */
template <typename T, int TILE, int CHUNKS, int N>
__global__ void __launch_bounds__(THREADS) attention_plain_rows(T *out, int64_t ldo, float *lse, Heads<T> a)
{
    enum { MICRO = TILE / 16 };
    SHARED_DYNAMIC(float, memory);
    int width = padded(a.d), x = threadIdx.x % 16, y = threadIdx.x / 16, head = blockIdx.y, kv = head / a.group;
    float *tq = memory, *tk = tq + TILE * (width + 4), *tv = tk + TILE * (width + 4), *tp = tv + TILE * (width + 4);
    int64_t base = blockIdx.z * a.sequence_rows, q0 = (gridDim.x - 1 - blockIdx.x) * (int64_t)TILE;
    int n = tile_rows(a.sequence_rows, q0, TILE);
    q0 += base;
    tile_load<T, TILE, N>(tq, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d, width);
    int lo[MICRO], hi[MICRO];
    float most[MICRO], sum[MICRO], o[MICRO][CHUNKS * 4];
#pragma unroll
    for (int i = 0; i < MICRO; i++) {
        int row = y * MICRO + i;
        lo[i] = row < n ? a.begin[q0 + row] : 0;
        hi[i] = row < n ? a.end[q0 + row] : 0;
        most[i] = -INFINITY;
        sum[i] = 0;
#pragma unroll
        for (int j = 0; j < CHUNKS * 4; j++)
            o[i][j] = 0;
    }
    int last = a.end[q0 + n - 1];
    for (int j0 = a.begin[q0]; j0 < last; j0 += TILE) {
        int keys = last - j0 < TILE ? last - j0 : TILE;
        __syncthreads();
        tile_load<T, TILE, N>(tk, a.k + (int64_t)kv * a.d, a.ldk, j0, keys, a.d, width);
        tile_load<T, TILE, N>(tv, a.v + (int64_t)kv * a.d, a.ldv, j0, keys, a.d, width);
        __syncthreads();
        float s[MICRO][MICRO];
        product_rows<MICRO>(s, tq, tk, width);
#pragma unroll
        for (int i = 0; i < MICRO; i++) {
            float m = most[i], more = 0;
#pragma unroll
            for (int j = 0; j < MICRO; j++) {
                int key = j0 + x + 16 * j;
                s[i][j] = key >= lo[i] && key < hi[i] ? s[i][j] * a.scale : -INFINITY;
                m = fmaxf(m, s[i][j]);
            }
            m = sixteen_max(m);
            float from = m > -INFINITY ? m : 0.0f, shrink = expf(most[i] - from);
#pragma unroll
            for (int j = 0; j < MICRO; j++) {
                s[i][j] = expf(s[i][j] - from);
                more += s[i][j];
            }
            sum[i] = sum[i] * shrink + sixteen_sum(more);
            most[i] = m;
#pragma unroll
            for (int j = 0; j < CHUNKS * 4; j++)
                o[i][j] *= shrink;
        }
        tile_put<TILE>(tp, s);
        __syncthreads();
        product_add<TILE, CHUNKS>(o, tp, tv, width);
    }
    float by[MICRO];
#pragma unroll
    for (int i = 0; i < MICRO; i++) {
        by[i] = sum[i] > 0 ? 1.0f / sum[i] : 0.0f;
        if (x == 0 && y * MICRO + i < n)
            lse[head * a.rows + q0 + y * MICRO + i] = most[i] + logf(sum[i]);
    }
    rows_write<T, TILE, CHUNKS>(out + (int64_t)head * a.d, ldo, q0, n, a.d, o, by);
}

/* A block a tile of keys (x), a key head (y), a sequence (z): dK and dV grow in registers while the tiles of queries of all heads of the
 * group pass by. Its products have keys as rows, so that P and dS lie as the second product wants them. */
template <typename T, int TILE, int CHUNKS, int N>
__global__ void __launch_bounds__(THREADS) attention_plain_keys(T *dk, int64_t lddk, T *dv, int64_t lddv, Heads<T> a)
{
    enum { MICRO = TILE / 16 };
    SHARED_DYNAMIC(float, memory);
    int width = padded(a.d), x = threadIdx.x % 16, y = threadIdx.x / 16, kv = blockIdx.y;
    float *tk = memory, *tv = tk + TILE * (width + 4), *tq = tv + TILE * (width + 4), *to = tq + TILE * (width + 4), *tp = to + TILE * (width + 4);
    int64_t base = blockIdx.z * a.sequence_rows, j0 = blockIdx.x * (int64_t)TILE;
    int keys = tile_rows(a.key_rows, j0, TILE);
    j0 += blockIdx.z * a.key_rows;
    tile_load<T, TILE, N>(tk, a.k + (int64_t)kv * a.d, a.ldk, j0, keys, a.d, width);
    tile_load<T, TILE, N>(tv, a.v + (int64_t)kv * a.d, a.ldv, j0, keys, a.d, width);
    float gk[MICRO][CHUNKS * 4], gv[MICRO][CHUNKS * 4];
#pragma unroll
    for (int i = 0; i < MICRO; i++)
#pragma unroll
        for (int j = 0; j < CHUNKS * 4; j++)
            gk[i][j] = gv[i][j] = 0;
    for (int64_t unit = 0, tiles = (a.sequence_rows + TILE - 1) / TILE; unit < tiles * a.group; unit++) {
        int head = kv * a.group + (int)(unit / tiles);
        int64_t q0 = unit % tiles * TILE;
        int n = tile_rows(a.sequence_rows, q0, TILE);
        q0 += base;
        if (a.end[q0 + n - 1] <= j0 || a.begin[q0] >= j0 + keys)
            continue;
        __syncthreads();
        tile_load<T, TILE, N>(tq, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d, width);
        tile_load<T, TILE, N>(to, a.dout + (int64_t)head * a.d, a.lddout, q0, n, a.d, width);
        __syncthreads();
        float p[MICRO][MICRO], ds[MICRO][MICRO];
        product_rows<MICRO>(p, tk, tq, width);
        product_rows<MICRO>(ds, tv, to, width);
#pragma unroll
        for (int j = 0; j < MICRO; j++) {
            int row = x + 16 * j;
            int64_t t = q0 + row;
            int lo = row < n ? a.begin[t] : 0, hi = row < n ? a.end[t] : 0;
            float lse = row < n ? a.lse[head * a.rows + t] : 0, delta = row < n ? a.delta[head * a.rows + t] : 0;
#pragma unroll
            for (int i = 0; i < MICRO; i++) {
                int64_t key = j0 + y * MICRO + i;
                p[i][j] = key >= lo && key < hi ? expf(p[i][j] * a.scale - lse) : 0.0f;
                ds[i][j] = p[i][j] * (ds[i][j] - delta);
            }
        }
        tile_put<TILE>(tp, p);
        __syncthreads();
        product_add<TILE, CHUNKS>(gv, tp, to, width);
        __syncthreads();
        tile_put<TILE>(tp, ds);
        __syncthreads();
        product_add<TILE, CHUNKS>(gk, tp, tq, width);
    }
    float one[MICRO], scale[MICRO];
#pragma unroll
    for (int i = 0; i < MICRO; i++)
        one[i] = 1, scale[i] = a.scale;
    rows_write<T, TILE, CHUNKS>(dk + (int64_t)kv * a.d, lddk, j0, keys, a.d, gk, scale);
    rows_write<T, TILE, CHUNKS>(dv + (int64_t)kv * a.d, lddv, j0, keys, a.d, gv, one);
}

/* A block a tile of queries (x), a head (y), a sequence (z): dQ. */
template <typename T, int TILE, int CHUNKS, int N>
__global__ void __launch_bounds__(THREADS) attention_plain_queries(T *dq, int64_t lddq, Heads<T> a)
{
    enum { MICRO = TILE / 16 };
    SHARED_DYNAMIC(float, memory);
    int width = padded(a.d), x = threadIdx.x % 16, y = threadIdx.x / 16, head = blockIdx.y, kv = head / a.group;
    float *tk = memory, *tv = tk + TILE * (width + 4), *tq = tv + TILE * (width + 4), *to = tq + TILE * (width + 4), *tp = to + TILE * (width + 4);
    int64_t base = blockIdx.z * a.sequence_rows, q0 = (gridDim.x - 1 - blockIdx.x) * (int64_t)TILE;
    int n = tile_rows(a.sequence_rows, q0, TILE);
    q0 += base;
    tile_load<T, TILE, N>(tq, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d, width);
    tile_load<T, TILE, N>(to, a.dout + (int64_t)head * a.d, a.lddout, q0, n, a.d, width);
    int lo[MICRO], hi[MICRO];
    float lse[MICRO], delta[MICRO], g[MICRO][CHUNKS * 4], scale[MICRO];
#pragma unroll
    for (int i = 0; i < MICRO; i++) {
        int row = y * MICRO + i;
        int64_t t = q0 + row;
        lo[i] = row < n ? a.begin[t] : 0;
        hi[i] = row < n ? a.end[t] : 0;
        lse[i] = row < n ? a.lse[head * a.rows + t] : 0;
        delta[i] = row < n ? a.delta[head * a.rows + t] : 0;
        scale[i] = a.scale;
#pragma unroll
        for (int j = 0; j < CHUNKS * 4; j++)
            g[i][j] = 0;
    }
    int last = a.end[q0 + n - 1];
    for (int j0 = a.begin[q0]; j0 < last; j0 += TILE) {
        int keys = last - j0 < TILE ? last - j0 : TILE;
        __syncthreads();
        tile_load<T, TILE, N>(tk, a.k + (int64_t)kv * a.d, a.ldk, j0, keys, a.d, width);
        tile_load<T, TILE, N>(tv, a.v + (int64_t)kv * a.d, a.ldv, j0, keys, a.d, width);
        __syncthreads();
        float p[MICRO][MICRO], ds[MICRO][MICRO];
        product_rows<MICRO>(p, tq, tk, width);
        product_rows<MICRO>(ds, to, tv, width);
#pragma unroll
        for (int i = 0; i < MICRO; i++)
#pragma unroll
            for (int j = 0; j < MICRO; j++) {
                int key = j0 + x + 16 * j;
                float e = key >= lo[i] && key < hi[i] ? expf(p[i][j] * a.scale - lse[i]) : 0.0f;
                ds[i][j] = e * (ds[i][j] - delta[i]);
            }
        tile_put<TILE>(tp, ds);
        __syncthreads();
        product_add<TILE, CHUNKS>(g, tp, tk, width);
    }
    rows_write<T, TILE, CHUNKS>(dq + (int64_t)head * a.d, lddq, q0, n, a.d, g, scale);
}

template <typename T> static Heads<T> heads_of(const AttentionCall *c)
{
    const Attention *a = c->a;
    return {(const T *)c->q.data, (const T *)c->k.data, (const T *)c->v.data, (const T *)c->dout.data, c->q.ld, c->k.ld, c->v.ld, c->dout.ld,
            a->begin, a->end, c->lse, c->delta, a->heads / a->kv_heads, a->head_dim, c->q.rows, a->sequence_rows, attention_key_rows(a), a->scale};
}

template <typename T, int TILE, int CHUNKS, int N> static void forward(Stream *s, const AttentionCall *c)
{
    const Attention *a = c->a;
    size_t width = (size_t)(a->head_dim + 7) / 8 * 8 + 4, bytes = (3 * TILE * width + TILE * (TILE + 4)) * sizeof(float);
    auto kernel = attention_plain_rows<T, TILE, CHUNKS, N>;
    need_shared(s, kernel, bytes);
    dim3 grid(blocks_of(a->sequence_rows, TILE).x, (unsigned)a->heads, (unsigned)a->sequences);
    LAUNCH(kernel, grid, dim3(THREADS), bytes, cuda_stream(s)->stream, (T *)c->out.data, c->out.ld, c->lse, heads_of<T>(c));
    cuda_launched(s, "attention_forward");
}

template <typename T, int TILE, int CHUNKS, int N> static void backward(Stream *s, const AttentionCall *c)
{
    const Attention *a = c->a;
    size_t width = (size_t)(a->head_dim + 7) / 8 * 8 + 4, bytes = (4 * TILE * width + TILE * (TILE + 4)) * sizeof(float);
    unsigned tiles = blocks_of(a->sequence_rows, TILE).x, key_tiles = blocks_of(attention_key_rows(a), TILE).x;
    auto keys = attention_plain_keys<T, TILE, CHUNKS, N>;
    need_shared(s, keys, bytes);
    LAUNCH(keys, dim3(key_tiles, (unsigned)a->kv_heads, (unsigned)a->sequences), dim3(THREADS), bytes, cuda_stream(s)->stream, (T *)c->dk.data, c->dk.ld,
           (T *)c->dv.data, c->dv.ld, heads_of<T>(c));
    cuda_launched(s, "attention_backward");
    auto queries = attention_plain_queries<T, TILE, CHUNKS, N>;
    need_shared(s, queries, bytes);
    LAUNCH(queries, dim3(tiles, (unsigned)a->heads, (unsigned)a->sequences), dim3(THREADS), bytes, cuda_stream(s)->stream, (T *)c->dq.data, c->dq.ld,
           heads_of<T>(c));
    cuda_launched(s, "attention_backward");
}

/* Four numbers at a time, or one where a row of some tensor does not allow it. */
static bool by_four(const AttentionCall *c)
{
    Tensor all[] = {c->q, c->k, c->v, c->dout};
    return vector_width(DTYPE_F32, c->a->head_dim, all, 4) > 1 && (c->q.dtype == DTYPE_F32 || vector_width(DTYPE_BF16, c->a->head_dim, all, 4) > 1);
}

/* Tiles of 64 rows of up to 128 numbers take 149 KB. Where a block has less (99 KB: sm_86, sm_89, sm_120), tiles of 32 have room for heads up to 184. */
static bool has_room(Stream *s)
{
    return cuda_state(s)->shared_bytes >= 149 << 10;
}

#define BY_HEAD(function)                          \
    do {                                           \
        if (by_four(c) && c->a->head_dim <= 64)    \
            function<T, 64, 1, 4>(s, c);           \
        else if (by_four(c) && c->a->head_dim <= 128 && has_room(s)) \
            function<T, 64, 2, 4>(s, c);           \
        else if (by_four(c))                       \
            function<T, 32, 4, 4>(s, c);           \
        else                                       \
            function<T, 32, 4, 1>(s, c);           \
    } while (0)

void attention_plain_forward(Stream *s, const AttentionCall *c)
{
    BY_TYPE(c->q.dtype, "attention_forward", T, BY_HEAD(forward));
}

void attention_plain_backward(Stream *s, const AttentionCall *c)
{
    BY_TYPE(c->q.dtype, "attention_backward", T, BY_HEAD(backward));
}
