/* Attention of bf16 by Hopper's warpgroup products (FlashAttention-3's way: Shah et al. 2024), head sizes above 32. The warpgroups of a
 * block share the tiles in shared memory; each owns 64 rows, whose scores, probabilities and sums never leave its registers. Scores are
 * kept in base 2.
 *
 * Tiles are filled by cp.async one step ahead of what is being used: a barrier a step says that the next is here and the last is free. They are
 * asked for behind the step's first products, which run meanwhile; where two blocks share an SM going forward (heads of 64), the other's do. */
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/wgmma.h"

/* Warpgroups of a block, its rows and threads: two that share keys going forward; one going back, where two blocks fit side by side and
 * one's products hide the other's arithmetic. */
enum { FORWARD = 2, BACKWARD = 1 };
#define ROWS_OF(groups) ((groups) * 64)
#define THREADS_OF(groups) ((groups) * 128)

/* What the kernels are compiled for: elsewhere they are empty, and nobody calls them. */
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1
#else
#define HOPPER 0
#endif

/* Columns of a tile of heads of D. */
#define WIDTH(D) ((D) <= 64 ? 64 : 128)

/* Rows first … first+n-1 of a head into a tile, zeros behind the last row and column; arrives with its group. */
template <int ROWS, int D, int GROUPS> __device__ static inline void tile_load(bf16 *to, const bf16 *from, int64_t ld, int first, int n, int d)
{
    enum { PIECES = WIDTH(D) / 8, STEP = THREADS_OF(GROUPS) / PIECES };
    int column = (int)threadIdx.x % PIECES * 8, row = (int)threadIdx.x / PIECES;
    bool inside = column < d;
    const bf16 *p = inside ? from + (int64_t)(first + row) * ld + column : from;
    int64_t step = inside ? STEP * ld : 0;
    to += tile_at<ROWS>(row, column); /* STEP is a multiple of 8: all rows of a thread exchange their pieces alike */
    if (n >= ROWS)
#pragma unroll
        for (int i = 0; i < ROWS / STEP; i++, p += step)
            copy_async(to + i * STEP * 64, p, inside);
    else
#pragma unroll 1
        for (int i = 0; i < ROWS / STEP; i++, p += step) {
            bool wanted = inside && row + i * STEP < n;
            copy_async(to + i * STEP * 64, wanted ? p : from, wanted);
        }
}

/* s = rows `row` … `row`+63 of tile a times the COLUMNS rows of tile b: a group of products under way. */
template <int D, int COLUMNS, int ROWS> __device__ static inline void product_rows(float (&s)[COLUMNS / 8][4], const bf16 *a, int row, const bf16 *b)
{
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmma_rows<COLUMNS>(s, operand_rows<ROWS>(a, row, k), operand_rows<COLUMNS>(b, 0, k), k > 0);
    wgmma_commit();
}

/* o += p·tile: likewise. */
template <int D, int ROWS> __device__ static inline void product_add(float (&o)[D / 8][4], const uint32_t (&p)[ROWS / 16][4], const bf16 *tile)
{
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++)
        wgmma_columns<D>(o, p[k], operand_columns<ROWS>(tile, k));
    wgmma_commit();
}

template <int N> __device__ static inline void clear(float (&o)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            o[n][i] = 0;
}

/* Rounds a product to the next one's A. */
template <int N> __device__ static inline void pack(uint32_t (&p)[N / 2][4], const float (&s)[N][4])
{
#pragma unroll
    for (int k = 0; k < N / 2; k++)
        pack_a(p[k], s[2 * k], s[2 * k + 1]);
}

/* Of the keys j0 … those that a row does not see: its own are lo … hi-1. */
template <int N> __device__ static inline void hide(float (&s)[N][4], int j0, const int (&lo)[2], const int (&hi)[2], float value)
{
    int first = j0 + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int c = 0; c < N; c++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int key = first + c * 8 + i % 2;
            if (key < lo[i / 2] || key >= hi[i / 2])
                s[c][i] = value;
        }
}

/* Everything that was asked for is here and seen by all, and nobody uses what was read before. */
__device__ inline void tiles_step()
{
    copy_wait(0);
    wgmma_visible();
    __syncthreads();
}

/* A warp writes its 16 rows from `row` of the tile of ROWS, each times by[half], through its own rows of shared memory, 16 bytes a lane. */
template <int D, int ROWS>
__device__ static inline void rows_write(bf16 *to, int64_t ld, int first, int n, int d, bf16 *tile, int row, const float (&o)[D / 8][4], const float (&by)[2])
{
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int c = 0; c < D / 8; c++)
            *(uint32_t *)(tile + tile_at<ROWS>(row + half * 8 + g, c * 8 + 2 * t)) = pack_pair(o[c][2 * half] * by[half], o[c][2 * half + 1] * by[half]);
    __syncwarp();
    for (int i = lane; i < 16 * (D / 8); i += 32) {
        int line = row + i / (D / 8), column = i % (D / 8) * 8;
        if (line < n && column < d)
            *(uint4 *)ALIGNED(to + (int64_t)(first + line) * ld + column, 16) = *(const uint4 *)ALIGNED(tile + tile_at<ROWS>(line, column), 16);
    }
}

/* A block a tile of queries (x, the last first: they see the most), a head (y), a sequence (z). While a tile's values are added, the
 * scores of the next are computed and made probabilities. */
template <int D, int KEYS> __global__ void __launch_bounds__(THREADS_OF(FORWARD), 1) attention_rows(bf16 *out, int64_t ldo, float *lse, Heads a)
{
#if HOPPER
    enum { OWN = ROWS_OF(FORWARD), TILE = KEYS * WIDTH(D) };
    SHARED_DYNAMIC(bf16, memory);
    bf16 *tq = memory, *tk = tq + OWN * WIDTH(D), *tv = tk + 2 * TILE;
    int lane = threadIdx.x % 32, group = threadIdx.x / 128 * 64, row = threadIdx.x / 32 * 16, g = lane / 4, t = lane % 4, head = blockIdx.y;
    int base = blockIdx.z * a.sequence_rows, q0 = base + (int)(gridDim.x - 1 - blockIdx.x) * OWN, n = least(OWN, base + a.sequence_rows - q0);
    const bf16 *k = a.k + head / a.group * a.d, *v = a.v + head / a.group * a.d;
    int first = a.begin[q0], last = a.end[q0 + n - 1];
    /* A tile of keys between these needs no mask. */
    int all_begin = a.begin[q0 + n - 1], all_end = a.end[q0], lo[2], hi[2];
    tile_load<OWN, D, FORWARD>(tq, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d);
    tile_load<KEYS, D, FORWARD>(tk, k, a.ldk, first, last - first, a.d);
    copy_commit();
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, o[D / 8][4], s[KEYS / 8][4], shrink[2], scale = a.scale * ATTENTION_LOG2E;
    uint32_t p[KEYS / 16][4];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int line = row + half * 8 + g;
        lo[half] = line < n ? a.begin[q0 + line] : 0;
        hi[half] = line < n ? a.end[q0 + line] : 0;
    }
    /* Scores of the keys j0 … become probabilities. */
    auto soften = [&](int j0) {
        if (j0 < all_begin || j0 + KEYS > all_end)
            hide(s, j0, lo, hi, -INFINITY);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float tops[2] = {most[half], most[half]}, more[4] = {0, 0, 0, 0}; /* several, so that none waits for the one before */
#pragma unroll
            for (int c = 0; c < KEYS / 8; c++)
                tops[c % 2] = fmaxf(tops[c % 2], fmaxf(s[c][2 * half], s[c][2 * half + 1]));
            float top = fmaxf(tops[0], tops[1]);
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            float from = top > -INFINITY ? top * scale : 0.0f;
            shrink[half] = exp2_near(most[half] * scale - from);
            most[half] = top;
#pragma unroll
            for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    s[c][i] = exp2_near(s[c][i] * scale - from);
                    more[c % 2 * 2 + i % 2] += s[c][i];
                }
            sum[half] = sum[half] * shrink[half] + ((more[0] + more[1]) + (more[2] + more[3]));
        }
    };
    clear(o);
    if (first < last) {
        tiles_step();
        product_rows<D, KEYS, OWN>(s, tq, group, tk);
        tile_load<KEYS, D, FORWARD>(tv, v, a.ldv, first, last - first, a.d);
        if (first + KEYS < last)
            tile_load<KEYS, D, FORWARD>(tk + TILE, k, a.ldk, first + KEYS, last - first - KEYS, a.d);
        copy_commit();
        wgmma_wait<0>();
        wgmma_settle(s);
        soften(first);
        pack(p, s);
    }
    for (int j0 = first, u = 0; j0 < last; j0 += KEYS, u ^= 1) {
        tiles_step(); /* the values and the next keys; the keys of this tile and the values before are free */
        int next = j0 + KEYS;
        auto ask = [&] {
            tile_load<KEYS, D, FORWARD>(tv + (u ^ 1) * TILE, v, a.ldv, next, last - next, a.d);
            if (next + KEYS < last)
                tile_load<KEYS, D, FORWARD>(tk + u * TILE, k, a.ldk, next + KEYS, last - next - KEYS, a.d);
            copy_commit();
        };
        if (next < last) {
            if (D <= 64)
                ask();
            product_rows<D, KEYS, OWN>(s, tq, group, tk + (u ^ 1) * TILE);
            product_add<D, KEYS>(o, p, tv + u * TILE);
            if (D > 64)
                ask();
            wgmma_wait<1>();
            wgmma_settle(s);
            soften(next);
            wgmma_wait<0>();
            wgmma_settle(o);
            /* Most tiles raise no maximum. */
            if (__ballot_sync(0xffffffffu, shrink[0] != 1 || shrink[1] != 1))
#pragma unroll
                for (int c = 0; c < D / 8; c++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        o[c][i] *= shrink[i / 2];
            pack(p, s);
        } else {
            product_add<D, KEYS>(o, p, tv + u * TILE);
            wgmma_wait<0>();
            wgmma_settle(o);
        }
    }
    copy_wait(0);
    __syncthreads();
    float by[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float all = sum[half];
        all += __shfl_xor_sync(0xffffffffu, all, 1);
        all += __shfl_xor_sync(0xffffffffu, all, 2);
        by[half] = all > 0 ? 1.0f / all : 0.0f;
        int line = row + half * 8 + g;
        if (t == 0 && line < n)
            lse[(int64_t)head * a.rows + q0 + line] = all > 0 ? most[half] * a.scale + logf(all) : -INFINITY;
    }
    rows_write<D, OWN>(out + (int64_t)head * a.d, ldo, q0, n, a.d, tq, row, o, by);
#endif
}

/* A block a tile of keys (x), a key head (y), a sequence (z): dK and dV grow in registers while the tiles of queries that see the keys
 * pass by, of all heads of the group. Products have keys as rows: Pᵀ and dSᵀ are the next products' A as they are. */
template <int D, int QUERIES>
__global__ void __launch_bounds__(THREADS_OF(BACKWARD), 2) attention_keys(bf16 *dk, int64_t lddk, bf16 *dv, int64_t lddv, Heads a)
{
#if HOPPER
    enum { OWN = ROWS_OF(BACKWARD), TILE = QUERIES * WIDTH(D) };
    SHARED_DYNAMIC(bf16, memory);
    bf16 *tk = memory, *tv = tk + OWN * WIDTH(D), *stages = tv + OWN * WIDTH(D);
    Marks<QUERIES> *marks = (Marks<QUERIES> *)(stages + 4 * TILE);
    int lane = threadIdx.x % 32, group = threadIdx.x / 128 * 64, row = threadIdx.x / 32 * 16, g = lane / 4, t = lane % 4, kv = blockIdx.y;
    int base = blockIdx.z * a.sequence_rows, end = base + a.sequence_rows, j0 = blockIdx.z * a.key_rows + (int)blockIdx.x * OWN;
    int keys = least(OWN, (int)(blockIdx.z + 1) * a.key_rows - j0), first, past;
    queries_of_keys<QUERIES>(&first, &past, a, base, j0, keys);
    tile_load<OWN, D, BACKWARD>(tk, a.k + (int64_t)kv * a.d, a.ldk, j0, keys, a.d);
    tile_load<OWN, D, BACKWARD>(tv, a.v + (int64_t)kv * a.d, a.ldv, j0, keys, a.d);
    float gk[D / 8][4], gv[D / 8][4], scale = a.scale * ATTENTION_LOG2E;
    clear(gk);
    clear(gv);
    int per_head = past - first, units = per_head * a.group;
    /* Unit u is a tile of queries of one head of the group; unit u+1 comes while u is used. */
    auto fetch = [&](int u) {
        int head = kv * a.group + u / per_head, q0 = base + (first + u % per_head) * QUERIES, n = least(QUERIES, end - q0);
        bf16 *stage = stages + u % 2 * 2 * TILE;
        tile_load<QUERIES, D, BACKWARD>(stage, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d);
        tile_load<QUERIES, D, BACKWARD>(stage + TILE, a.dout + (int64_t)head * a.d, a.lddout, q0, n, a.d);
        marks_load<QUERIES, THREADS_OF(BACKWARD)>(marks + u % 2, a, head, q0, n);
    };
    if (units > 0)
        fetch(0);
    copy_commit();
    for (int u = 0; u < units; u++) {
        tiles_step();
        const bf16 *q = stages + u % 2 * 2 * TILE, *dout = q + TILE;
        const Marks<QUERIES> *mark = marks + u % 2;
        float p[QUERIES / 8][4], ds[QUERIES / 8][4];
        uint32_t packed[QUERIES / 16][4], packed_ds[QUERIES / 16][4];
        product_rows<D, QUERIES, OWN>(p, tk, group, q);
        product_rows<D, QUERIES, OWN>(ds, tv, group, dout);
        if (u + 1 < units)
            fetch(u + 1);
        copy_commit();
        wgmma_wait<1>();
        wgmma_settle(p);
        /* Whether every query of the tile sees every key. */
        bool all = mark->begin[QUERIES - 1] <= j0 && mark->end[0] >= j0 + OWN && mark->end[QUERIES - 1] > 0;
#pragma unroll
        for (int c = 0; c < QUERIES / 8; c++)
#pragma unroll
            for (int odd = 0; odd < 2; odd++) {
                int at = c * 8 + 2 * t + odd;
                float less = mark->lse[at] * ATTENTION_LOG2E;
#pragma unroll
                for (int half = 0; half < 2; half++)
                    p[c][2 * half + odd] = exp2_near(p[c][2 * half + odd] * scale - less);
            }
        if (!all)
#pragma unroll
            for (int c = 0; c < QUERIES / 8; c++)
#pragma unroll
                for (int odd = 0; odd < 2; odd++) {
                    int at = c * 8 + 2 * t + odd, lo = mark->begin[at], hi = mark->end[at];
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        int key = j0 + row + half * 8 + g;
                        if (key < lo || key >= hi)
                            p[c][2 * half + odd] = 0;
                    }
                }
        pack(packed, p);
        product_add<D, QUERIES>(gv, packed, dout);
        wgmma_wait<1>();
        wgmma_settle(ds);
#pragma unroll
        for (int c = 0; c < QUERIES / 8; c++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                ds[c][i] = p[c][i] * (ds[c][i] - mark->delta[c * 8 + 2 * t + i % 2]);
        pack(packed_ds, ds);
        product_add<D, QUERIES>(gk, packed_ds, q);
        wgmma_wait<0>();
        wgmma_settle(gv);
        wgmma_settle(gk);
    }
    copy_wait(0);
    __syncthreads();
    float one[2] = {1, 1}, by[2] = {a.scale, a.scale};
    rows_write<D, OWN>(dk + (int64_t)kv * a.d, lddk, j0, keys, a.d, tk, row, gk, by);
    rows_write<D, OWN>(dv + (int64_t)kv * a.d, lddv, j0, keys, a.d, tv, row, gv, one);
#endif
}

/* A block a tile of queries (x), a head (y), a sequence (z): dQ grows in registers while the tiles of keys pass by, the next on its way. */
template <int D, int KEYS> __global__ void __launch_bounds__(THREADS_OF(BACKWARD), 2) attention_queries(bf16 *dq, int64_t lddq, Heads a)
{
#if HOPPER
    enum { OWN = ROWS_OF(BACKWARD), TILE = KEYS * WIDTH(D) };
    SHARED_DYNAMIC(bf16, memory);
    bf16 *tq = memory, *to = tq + OWN * WIDTH(D), *stages = to + OWN * WIDTH(D);
    int lane = threadIdx.x % 32, group = threadIdx.x / 128 * 64, row = threadIdx.x / 32 * 16, g = lane / 4, head = blockIdx.y, kv = head / a.group;
    int base = blockIdx.z * a.sequence_rows, q0 = base + (int)(gridDim.x - 1 - blockIdx.x) * OWN, n = least(OWN, base + a.sequence_rows - q0);
    const bf16 *k = a.k + (int64_t)kv * a.d, *v = a.v + (int64_t)kv * a.d;
    int first = a.begin[q0], last = a.end[q0 + n - 1], all_begin = a.begin[q0 + n - 1], all_end = a.end[q0], lo[2], hi[2];
    tile_load<OWN, D, BACKWARD>(tq, a.q + (int64_t)head * a.d, a.ldq, q0, n, a.d);
    tile_load<OWN, D, BACKWARD>(to, a.dout + (int64_t)head * a.d, a.lddout, q0, n, a.d);
    tile_load<KEYS, D, BACKWARD>(stages, k, a.ldk, first, last - first, a.d);
    tile_load<KEYS, D, BACKWARD>(stages + TILE, v, a.ldv, first, last - first, a.d);
    copy_commit();
    float lse[2], delta[2], o[D / 8][4], scale = a.scale * ATTENTION_LOG2E, by[2] = {a.scale, a.scale};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int line = row + half * 8 + g;
        bool there = line < n;
        lo[half] = there ? a.begin[q0 + line] : 0;
        hi[half] = there ? a.end[q0 + line] : 0;
        lse[half] = there ? a.lse[(int64_t)head * a.rows + q0 + line] * ATTENTION_LOG2E : 0;
        delta[half] = there ? a.delta[(int64_t)head * a.rows + q0 + line] : 0;
    }
    clear(o);
    for (int j0 = first, u = 0; j0 < last; j0 += KEYS, u ^= 1) {
        tiles_step();
        const bf16 *tk = stages + u * 2 * TILE;
        float p[KEYS / 8][4], ds[KEYS / 8][4];
        uint32_t packed[KEYS / 16][4];
        product_rows<D, KEYS, OWN>(p, tq, group, tk);
        product_rows<D, KEYS, OWN>(ds, to, group, tk + TILE);
        if (j0 + KEYS < last) {
            bf16 *next = stages + (u ^ 1) * 2 * TILE;
            tile_load<KEYS, D, BACKWARD>(next, k, a.ldk, j0 + KEYS, last - j0 - KEYS, a.d);
            tile_load<KEYS, D, BACKWARD>(next + TILE, v, a.ldv, j0 + KEYS, last - j0 - KEYS, a.d);
        }
        copy_commit();
        wgmma_wait<1>();
        wgmma_settle(p);
#pragma unroll
        for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[c][i] = exp2_near(p[c][i] * scale - lse[i / 2]);
        if (j0 < all_begin || j0 + KEYS > all_end)
            hide(p, j0, lo, hi, 0);
        wgmma_wait<0>();
        wgmma_settle(ds);
#pragma unroll
        for (int c = 0; c < KEYS / 8; c++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                ds[c][i] = p[c][i] * (ds[c][i] - delta[i / 2]);
        pack(packed, ds);
        product_add<D, KEYS>(o, packed, tk);
        wgmma_wait<0>();
        wgmma_settle(o);
    }
    copy_wait(0);
    __syncthreads();
    rows_write<D, OWN>(dq + (int64_t)head * a.d, lddq, q0, n, a.d, tq, row, o, by);
#endif
}

template <int D, int KEYS> static void forward(Stream *s, const AttentionCall *c)
{
    enum { OWN = ROWS_OF(FORWARD) };
    const Attention *a = c->a;
    size_t bytes = (size_t)(OWN + 4 * KEYS) * WIDTH(D) * sizeof(bf16);
    auto kernel = attention_rows<D, KEYS>;
    need_shared(s, kernel, bytes);
    LAUNCH(kernel, dim3(blocks_of(a->sequence_rows, OWN).x, (unsigned)a->heads, (unsigned)a->sequences), dim3(THREADS_OF(FORWARD)), bytes, cuda_stream(s)->stream,
           (bf16 *)c->out.data, c->out.ld, c->lse, heads_of(c));
    cuda_launched(s, "attention_forward");
}

template <int D, int QUERIES> static void backward_keys(Stream *s, const AttentionCall *c)
{
    enum { OWN = ROWS_OF(BACKWARD) };
    const Attention *a = c->a;
    size_t bytes = (size_t)(2 * OWN + 4 * QUERIES) * WIDTH(D) * sizeof(bf16) + 2 * sizeof(Marks<QUERIES>);
    auto kernel = attention_keys<D, QUERIES>;
    need_shared(s, kernel, bytes);
    LAUNCH(kernel, dim3(blocks_of(attention_key_rows(a), OWN).x, (unsigned)a->kv_heads, (unsigned)a->sequences), dim3(THREADS_OF(BACKWARD)), bytes, cuda_stream(s)->stream,
           (bf16 *)c->dk.data, c->dk.ld, (bf16 *)c->dv.data, c->dv.ld, heads_of(c));
    cuda_launched(s, "attention_backward");
}

template <int D, int KEYS> static void backward_queries(Stream *s, const AttentionCall *c)
{
    enum { OWN = ROWS_OF(BACKWARD) };
    const Attention *a = c->a;
    size_t bytes = (size_t)(2 * OWN + 4 * KEYS) * WIDTH(D) * sizeof(bf16);
    auto kernel = attention_queries<D, KEYS>;
    need_shared(s, kernel, bytes);
    LAUNCH(kernel, dim3(blocks_of(a->sequence_rows, OWN).x, (unsigned)a->heads, (unsigned)a->sequences), dim3(THREADS_OF(BACKWARD)), bytes, cuda_stream(s)->stream,
           (bf16 *)c->dq.data, c->dq.ld, heads_of(c));
    cuda_launched(s, "attention_backward");
}

#define BY_HEAD(function, small, large)  \
    do {                                 \
        if (c->a->head_dim <= 64)        \
            function<64, small>(s, c);   \
        else if (c->a->head_dim <= 80)   \
            function<80, large>(s, c);   \
        else if (c->a->head_dim <= 96)   \
            function<96, large>(s, c);   \
        else                             \
            function<128, large>(s, c);  \
    } while (0)

void attention_wgmma_forward(Stream *s, const AttentionCall *c)
{
    BY_HEAD(forward, 64, 128);
}

void attention_wgmma_backward(Stream *s, const AttentionCall *c)
{
    BY_HEAD(backward_keys, 128, 64);
    BY_HEAD(backward_queries, 64, 64);
}
