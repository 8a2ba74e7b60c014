/* Attention of bf16 by mma.sync (FlashAttention-2's division of work: Dao 2023). Four warps share a tile; a warp owns MT·16 of its rows,
 * whose scores, probabilities and sums never leave its registers. D is the head size rounded up to one of a few; rows in shared memory
 * are 16 bytes longer, so that ldmatrix meets every bank once (D/8 is even). Scores are kept in base 2.
 *
 * Shared memory is filled by cp.async, one tile ahead of what is being used. */
#include "kernels/cuda/attention_tiles.h"

enum { THREADS = 128, WARPS = 4, PAD = 8 };

/* Rows first … first+n-1 of a head into a tile of ROWS, zeros behind the last row and column; arrives with its group. */
template <int ROWS, int D> __device__ static inline void tile_load(bf16 *to, const bf16 *from, int64_t ld, int first, int n, int d)
{
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        int row = i / (D / 8), column = i % (D / 8) * 8;
        bool wanted = row < n && column < d;
        copy_async(to + row * (D + PAD) + column, wanted ? from + (int64_t)(first + row) * ld + column : from, wanted);
    }
}

/* Rows `row` … `row`+15 of a tile as A, columns 16·k …  */
template <int D> __device__ static inline void load_a(uint32_t (&a)[4], const bf16 *tile, int row, int k)
{
    int lane = threadIdx.x % 32;
    ldmatrix(a, tile + (row + lane % 16) * (D + PAD) + k * 16 + lane / 16 * 8);
}

/* Rows `row` … `row`+15 of a tile as B of A·tileᵀ: two blocks of 8 columns, {b[0], b[1]} and {b[2], b[3]}. */
template <int D> __device__ static inline void load_b(uint32_t (&b)[4], const bf16 *tile, int row, int k)
{
    int lane = threadIdx.x % 32;
    ldmatrix(b, tile + (row + lane % 8 + lane / 16 * 8) * (D + PAD) + k * 16 + lane / 8 % 2 * 8);
}

/* Rows `row` … `row`+15 of a tile as B of A·tile: columns 16·n … in two blocks of 8. */
template <int D> __device__ static inline void load_b_rows(uint32_t (&b)[4], const bf16 *tile, int row, int n)
{
    int lane = threadIdx.x % 32;
    ldmatrix_transposed(b, tile + (row + lane % 16) * (D + PAD) + n * 16 + lane / 16 * 8);
}

/* s = rows `row` … of tile a times the COLUMNS rows of tile b. */
template <int D, int MT, int COLUMNS>
__device__ static inline void product_rows(float (&s)[MT][COLUMNS / 8][4], const bf16 *tile_a, int row, const bf16 *tile_b)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int c = 0; c < COLUMNS / 8; c++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[m][c][i] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
            load_a<D>(a[m], tile_a, row + m * 16, k);
#pragma unroll
        for (int c = 0; c < COLUMNS / 16; c++) {
            uint32_t b[4];
            load_b<D>(b, tile_b, c * 16, k);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_bf16(s[m][2 * c], a[m], b[0], b[1]);
                mma_bf16(s[m][2 * c + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* o += p·tile, p [MT·16, COLUMNS] rounded to bf16. */
template <int D, int MT, int COLUMNS>
__device__ static inline void product_add(float (&o)[MT][D / 8][4], const float (&p)[MT][COLUMNS / 8][4], const bf16 *tile)
{
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; k++) {
        uint32_t a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
            pack_a(a[m], p[m][2 * k], p[m][2 * k + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            load_b_rows<D>(b, tile, k * 16, n);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_bf16(o[m][2 * n], a[m], b[0], b[1]);
                mma_bf16(o[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <int D, int MT> __device__ static inline void clear(float (&o)[MT][D / 8][4])
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                o[m][n][i] = 0;
}

/* A warp writes its MT·16 rows from `row` of the tile, each times by[m][half], through its own rows of shared memory, 16 bytes a lane.
 * The tile has `n` rows and stands at row `first` of `to`. */
template <int D, int MT>
__device__ static inline void rows_write(bf16 *to, int64_t ld, int first, int n, int d, bf16 *tile, int row, const float (&o)[MT][D / 8][4],
                                         const float (&by)[MT][2])
{
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            bf16 *line = tile + (row + m * 16 + half * 8 + g) * (D + PAD);
#pragma unroll
            for (int c = 0; c < D / 8; c++)
                *(uint32_t *)(line + c * 8 + 2 * t) = pack_pair(o[m][c][2 * half] * by[m][half], o[m][c][2 * half + 1] * by[m][half]);
        }
    __syncwarp();
    for (int i = lane; i < MT * 16 * (D / 8); i += 32) {
        int line = row + i / (D / 8), column = i % (D / 8) * 8;
        if (line < n && column < d)
            *(uint4 *)ALIGNED(to + (int64_t)(first + line) * ld + column, 16) = *(const uint4 *)ALIGNED(tile + line * (D + PAD) + column, 16);
    }
}

/* A block a tile of queries (x, the last first: they see the most), a head (y), a sequence (z). One tile of keys and one of values: while
 * scores are computed the values come, while they are used the next keys. */
template <int D, int MT, int KEYS> __global__ void __launch_bounds__(THREADS) attention_rows(bf16 *out, int64_t ldo, float *lse, Heads a)
{
    enum { QUERIES = WARPS * MT * 16 };
    SHARED_DYNAMIC(bf16, memory);
    bf16 *tq = memory, *tk = tq + QUERIES * (D + PAD), *tv = tk + KEYS * (D + PAD);
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * MT * 16, g = lane / 4, t = lane % 4, head = blockIdx.y, column = head / a.group * a.d;
    int base = blockIdx.z * a.sequence_rows, q0 = base + (int)(gridDim.x - 1 - blockIdx.x) * QUERIES, n = least(QUERIES, base + a.sequence_rows - q0);
    int first = a.begin[q0], last = a.end[q0 + n - 1];
    tile_load<QUERIES, D>(tq, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d);
    tile_load<KEYS, D>(tk, a.k + column, a.ldk, first, last - first, a.d);
    copy_commit();
    /* A tile of keys between these needs no mask. */
    int all_begin = a.begin[q0 + n - 1], all_end = a.end[q0];
    float most[MT][2], sum[MT][2], o[MT][D / 8][4], scale = a.scale * ATTENTION_LOG2E;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            most[m][half] = -INFINITY;
            sum[m][half] = 0;
        }
    clear<D, MT>(o);
    for (int j0 = first; j0 < last; j0 += KEYS) {
        copy_wait(0);
        __syncthreads(); /* the keys are here, and nobody uses the values of the tile before */
        tile_load<KEYS, D>(tv, a.v + column, a.ldv, j0, last - j0, a.d);
        copy_commit();
        float s[MT][KEYS / 8][4];
        product_rows<D, MT, KEYS>(s, tq, row, tk);
        copy_wait(0);
        __syncthreads(); /* the values are here, and nobody uses the keys */
        if (j0 + KEYS < last)
            tile_load<KEYS, D>(tk, a.k + column, a.ldk, j0 + KEYS, last - j0 - KEYS, a.d);
        copy_commit();
        if (j0 < all_begin || j0 + KEYS > all_end) {
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int line = row + m * 16 + half * 8 + g, lo = line < n ? a.begin[q0 + line] : 0, hi = line < n ? a.end[q0 + line] : 0;
#pragma unroll
                    for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
                        for (int odd = 0; odd < 2; odd++) {
                            int key = j0 + c * 8 + 2 * t + odd;
                            if (key < lo || key >= hi)
                                s[m][c][2 * half + odd] = -INFINITY;
                        }
                }
        }
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float top = most[m][half];
#pragma unroll
                for (int c = 0; c < KEYS / 8; c++)
                    top = fmaxf(top, fmaxf(s[m][c][2 * half], s[m][c][2 * half + 1]));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
                top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
                float from = top > -INFINITY ? top * scale : 0.0f, shrink = exp2_near(most[m][half] * scale - from), more = 0;
                most[m][half] = top;
#pragma unroll
                for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++) {
                        s[m][c][i] = exp2_near(s[m][c][i] * scale - from);
                        more += s[m][c][i];
                    }
                sum[m][half] = sum[m][half] * shrink + more;
#pragma unroll
                for (int c = 0; c < D / 8; c++) {
                    o[m][c][2 * half] *= shrink;
                    o[m][c][2 * half + 1] *= shrink;
                }
            }
        product_add<D, MT, KEYS>(o, s, tv);
    }
    copy_wait(0);
    __syncthreads();
    float by[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float all = sum[m][half];
            all += __shfl_xor_sync(0xffffffffu, all, 1);
            all += __shfl_xor_sync(0xffffffffu, all, 2);
            by[m][half] = all > 0 ? 1.0f / all : 0.0f;
            int line = row + m * 16 + half * 8 + g;
            if (t == 0 && line < n)
                lse[(int64_t)head * a.rows + q0 + line] = all > 0 ? most[m][half] * a.scale + logf(all) : -INFINITY;
        }
    rows_write<D, MT>(out + (int64_t)head * a.d, ldo, q0, n, a.d, tq, row, o, by);
}

/* A block a tile of keys (x), a key head (y), a sequence (z): dK and dV grow in registers while the tiles of queries that see the keys
 * pass by, of all heads of the group. Products have keys as rows: Pᵀ and dSᵀ are the next products' A as they are. */
template <int D, int MT, int QUERIES>
__global__ void __launch_bounds__(THREADS) attention_keys(bf16 *dk, int64_t lddk, bf16 *dv, int64_t lddv, Heads a)
{
    enum { KEYS = WARPS * MT * 16, ROW = D + PAD };
    SHARED_DYNAMIC(bf16, memory);
    bf16 *tk = memory, *tv = tk + KEYS * ROW, *stages = tv + KEYS * ROW;
    Marks<QUERIES> *marks = (Marks<QUERIES> *)(stages + 4 * QUERIES * ROW);
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * MT * 16, g = lane / 4, t = lane % 4, kv = blockIdx.y;
    int base = blockIdx.z * a.sequence_rows, end = base + a.sequence_rows, j0 = blockIdx.z * a.key_rows + (int)blockIdx.x * KEYS;
    int keys = least(KEYS, (int)(blockIdx.z + 1) * a.key_rows - j0);
    int first, past;
    queries_of_keys<QUERIES>(&first, &past, a, base, j0, keys);
    tile_load<KEYS, D>(tk, a.k + (int64_t)kv * a.d, a.ldk, j0, keys, a.d);
    tile_load<KEYS, D>(tv, a.v + (int64_t)kv * a.d, a.ldv, j0, keys, a.d);
    float gk[MT][D / 8][4], gv[MT][D / 8][4], scale = a.scale * ATTENTION_LOG2E;
    clear<D, MT>(gk);
    clear<D, MT>(gv);
    int per_head = past - first, units = per_head * a.group;
    /* Unit u is a tile of queries of one head of the group; unit u+1 comes while u is used. */
    auto fetch = [&](int u) {
        int head = kv * a.group + u / per_head, q0 = base + (first + u % per_head) * QUERIES, n = least(QUERIES, end - q0);
        bf16 *stage = stages + u % 2 * 2 * QUERIES * ROW;
        tile_load<QUERIES, D>(stage, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d);
        tile_load<QUERIES, D>(stage + QUERIES * ROW, a.dout + (int64_t)head * a.d, a.lddout, q0, n, a.d);
        marks_load<QUERIES, THREADS>(marks + u % 2, a, head, q0, n);
    };
    if (units > 0)
        fetch(0);
    copy_commit();
    for (int u = 0; u < units; u++) {
        copy_wait(0);
        __syncthreads(); /* unit u is here, and nobody uses unit u−1, whose place the next takes */
        if (u + 1 < units)
            fetch(u + 1);
        copy_commit();
        const bf16 *q = stages + u % 2 * 2 * QUERIES * ROW, *dout = q + QUERIES * ROW;
        const Marks<QUERIES> *mark = marks + u % 2;
        float p[MT][QUERIES / 8][4], ds[MT][QUERIES / 8][4];
        product_rows<D, MT, QUERIES>(p, tk, row, q);
#pragma unroll
        for (int c = 0; c < QUERIES / 8; c++)
#pragma unroll
            for (int odd = 0; odd < 2; odd++) {
                int at = c * 8 + 2 * t + odd;
                float lse = mark->lse[at] * ATTENTION_LOG2E;
                int lo = mark->begin[at], hi = mark->end[at];
#pragma unroll
                for (int m = 0; m < MT; m++)
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        int key = j0 + row + m * 16 + half * 8 + g;
                        float e = exp2_near(p[m][c][2 * half + odd] * scale - lse);
                        p[m][c][2 * half + odd] = key >= lo && key < hi ? e : 0.0f;
                    }
            }
        product_add<D, MT, QUERIES>(gv, p, dout);
        product_rows<D, MT, QUERIES>(ds, tv, row, dout);
#pragma unroll
        for (int c = 0; c < QUERIES / 8; c++)
#pragma unroll
            for (int odd = 0; odd < 2; odd++) {
                float delta = mark->delta[c * 8 + 2 * t + odd];
#pragma unroll
                for (int m = 0; m < MT; m++)
#pragma unroll
                    for (int half = 0; half < 2; half++)
                        ds[m][c][2 * half + odd] = p[m][c][2 * half + odd] * (ds[m][c][2 * half + odd] - delta);
            }
        product_add<D, MT, QUERIES>(gk, ds, q);
    }
    copy_wait(0);
    __syncthreads();
    float one[MT][2], by[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++)
        one[m][0] = one[m][1] = 1, by[m][0] = by[m][1] = a.scale;
    rows_write<D, MT>(dk + (int64_t)kv * a.d, lddk, j0, keys, a.d, tk, row, gk, by);
    rows_write<D, MT>(dv + (int64_t)kv * a.d, lddv, j0, keys, a.d, tv, row, gv, one);
}

/* A block a tile of queries (x), a head (y), a sequence (z): dQ grows in registers while the tiles of keys pass by, the next on its way. */
template <int D, int MT, int KEYS> __global__ void __launch_bounds__(THREADS) attention_queries(bf16 *dq, int64_t lddq, Heads a)
{
    enum { QUERIES = WARPS * MT * 16, ROW = D + PAD };
    SHARED_DYNAMIC(bf16, memory);
    bf16 *tq = memory, *to = tq + QUERIES * ROW, *stages = to + QUERIES * ROW;
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * MT * 16, g = lane / 4, t = lane % 4, head = blockIdx.y, kv = head / a.group;
    int base = blockIdx.z * a.sequence_rows, q0 = base + (int)(gridDim.x - 1 - blockIdx.x) * QUERIES, n = least(QUERIES, base + a.sequence_rows - q0);
    const bf16 *k = a.k + (int64_t)kv * a.d, *v = a.v + (int64_t)kv * a.d;
    int first = a.begin[q0], last = a.end[q0 + n - 1];
    tile_load<QUERIES, D>(tq, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d);
    tile_load<QUERIES, D>(to, a.dout + (int64_t)head * a.d, a.lddout, q0, n, a.d);
    tile_load<KEYS, D>(stages, k, a.ldk, first, last - first, a.d);
    tile_load<KEYS, D>(stages + KEYS * ROW, v, a.ldv, first, last - first, a.d);
    copy_commit();
    int lo[MT][2], hi[MT][2];
    float lse[MT][2], delta[MT][2], o[MT][D / 8][4], scale = a.scale * ATTENTION_LOG2E, by[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int line = row + m * 16 + half * 8 + g;
            bool there = line < n;
            lo[m][half] = there ? a.begin[q0 + line] : 0;
            hi[m][half] = there ? a.end[q0 + line] : 0;
            lse[m][half] = there ? a.lse[(int64_t)head * a.rows + q0 + line] * ATTENTION_LOG2E : 0;
            delta[m][half] = there ? a.delta[(int64_t)head * a.rows + q0 + line] : 0;
            by[m][half] = a.scale;
        }
    clear<D, MT>(o);
    for (int j0 = first, u = 0; j0 < last; j0 += KEYS, u++) {
        copy_wait(0);
        __syncthreads(); /* this tile is here, and nobody uses the one before, whose place the next takes */
        if (j0 + KEYS < last) {
            bf16 *next = stages + (u + 1) % 2 * 2 * KEYS * ROW;
            tile_load<KEYS, D>(next, k, a.ldk, j0 + KEYS, last - j0 - KEYS, a.d);
            tile_load<KEYS, D>(next + KEYS * ROW, v, a.ldv, j0 + KEYS, last - j0 - KEYS, a.d);
        }
        copy_commit();
        const bf16 *tk = stages + u % 2 * 2 * KEYS * ROW;
        float p[MT][KEYS / 8][4], ds[MT][KEYS / 8][4];
        product_rows<D, MT, KEYS>(p, tq, row, tk);
        product_rows<D, MT, KEYS>(ds, to, row, tk + KEYS * ROW);
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int key = j0 + c * 8 + 2 * t + i % 2;
                    float e = exp2_near(p[m][c][i] * scale - lse[m][i / 2]);
                    ds[m][c][i] = key >= lo[m][i / 2] && key < hi[m][i / 2] ? e * (ds[m][c][i] - delta[m][i / 2]) : 0.0f;
                }
        product_add<D, MT, KEYS>(o, ds, tk);
    }
    copy_wait(0);
    __syncthreads();
    rows_write<D, MT>(dq + (int64_t)head * a.d, lddq, q0, n, a.d, tq, row, o, by);
}

template <int D> static void forward(Stream *s, const AttentionCall *c)
{
    enum { MT = 2, QUERIES = WARPS * MT * 16, KEYS = D <= 64 ? 128 : 64 };
    const Attention *a = c->a;
    size_t bytes = (size_t)(QUERIES + 2 * KEYS) * (D + PAD) * sizeof(bf16);
    auto kernel = attention_rows<D, MT, KEYS>;
    need_shared(s, kernel, bytes);
    dim3 grid(blocks_of(a->sequence_rows, QUERIES).x, (unsigned)a->heads, (unsigned)a->sequences);
    LAUNCH(kernel, grid, dim3(THREADS), bytes, cuda_stream(s)->stream, (bf16 *)c->out.data, c->out.ld, c->lse, heads_of(c));
    cuda_launched(s, "attention_forward");
}

template <int D, int MT, int QUERIES> static void backward_keys(Stream *s, const AttentionCall *c)
{
    enum { KEYS = WARPS * MT * 16 };
    const Attention *a = c->a;
    size_t bytes = (size_t)(2 * KEYS + 4 * QUERIES) * (D + PAD) * sizeof(bf16) + 2 * sizeof(Marks<QUERIES>);
    auto kernel = attention_keys<D, MT, QUERIES>;
    need_shared(s, kernel, bytes);
    LAUNCH(kernel, dim3(blocks_of(attention_key_rows(a), KEYS).x, (unsigned)a->kv_heads, (unsigned)a->sequences), dim3(THREADS), bytes,
           cuda_stream(s)->stream, (bf16 *)c->dk.data, c->dk.ld, (bf16 *)c->dv.data, c->dv.ld, heads_of(c));
    cuda_launched(s, "attention_backward");
}

template <int D, int MT, int KEYS> static void backward_queries(Stream *s, const AttentionCall *c)
{
    enum { QUERIES = WARPS * MT * 16 };
    const Attention *a = c->a;
    size_t bytes = (size_t)(2 * QUERIES + 4 * KEYS) * (D + PAD) * sizeof(bf16);
    auto kernel = attention_queries<D, MT, KEYS>;
    need_shared(s, kernel, bytes);
    LAUNCH(kernel, dim3(blocks_of(a->sequence_rows, QUERIES).x, (unsigned)a->heads, (unsigned)a->sequences), dim3(THREADS), bytes,
           cuda_stream(s)->stream, (bf16 *)c->dq.data, c->dq.ld, heads_of(c));
    cuda_launched(s, "attention_backward");
}

/* As many rows a warp as its sums leave registers for, the tiles that measured fastest; smaller ones where a block has not that much shared
 * memory (99 KB: sm_86, sm_89, sm_120). */
template <int D> static void backward(Stream *s, const AttentionCall *c)
{
    if (cuda_state(s)->shared_bytes >= 110 << 10) {
        backward_keys<D, D <= 64 ? 2 : 1, 64>(s, c);
        backward_queries<D, 2, D <= 64 ? 64 : 32>(s, c);
    } else {
        backward_keys<D, D <= 64 ? 2 : 1, 32>(s, c);
        backward_queries<D, D <= 96 ? 2 : 1, 32>(s, c);
    }
}

#define BY_HEAD(function)              \
    do {                               \
        if (c->a->head_dim <= 16)      \
            function<16>(s, c);        \
        else if (c->a->head_dim <= 32) \
            function<32>(s, c);        \
        else if (c->a->head_dim <= 64) \
            function<64>(s, c);        \
        else if (c->a->head_dim <= 80) \
            function<80>(s, c);        \
        else if (c->a->head_dim <= 96) \
            function<96>(s, c);        \
        else                           \
            function<128>(s, c);       \
    } while (0)

void attention_mma_forward(Stream *s, const AttentionCall *c)
{
    BY_HEAD(forward);
}

void attention_mma_backward(Stream *s, const AttentionCall *c)
{
    BY_HEAD(backward);
}
