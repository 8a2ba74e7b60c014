/* Attention by tiles with an online softmax (FlashAttention: Dao et al. 2022, 2023): the T×T matrix never stands in memory.
 *
 * A tile of queries is up to ROWS rows and a tile of keys is KEYS. Blocks of keys that no query of a tile may see are skipped, which
 * is what makes documents cheap. The products are the matrix product's micro-kernels, which see words (matmul.c): an f32, or where
 * the CPU multiplies bf16 a pair of bf16; then probabilities and their gradients are rounded to bf16 before they are multiplied, as
 * FlashAttention does. Elsewhere bf16 is widened. Tiles that need no change are read where they lie; others are copied to scratch,
 * and then the query heads that share a key head are stacked as rows of one tile. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>
#include "base/cpu.h"
#include "kernels/cpu/attention_tile.h"

/* A operand of a product in words: element (i, l) lies at data[i·row + l·step], one of which is 1. As B: row l at data + l·step. */
typedef struct Words {
    const uint32_t *data;
    int64_t row, step;
} Words;

/* C[m×n] = alpha·A·B + beta·C, n a multiple of LANES, k in words. */
static void product(const MatmulKernel *kernel, float *c, int64_t ldc, Words a, Words b, int m, int n, int k, float alpha, float beta)
{
    MatmulTile t = {.a = a.data, .row = a.row, .step = a.step, .ldb = b.step, .k = k, .ldc = ldc, .alpha = alpha, .beta = beta};
    for (int j = 0, left = n / kernel->lanes; left > 0;) {
        int vectors = left == 4 ? 2 : left < 3 ? left : 3;
        t.b = b.data + j;
        t.c = c + j;
        kernel->run(&t, m, vectors);
        left -= vectors;
        j += vectors * kernel->lanes;
    }
}

/* What one tile works on. */
typedef struct Shape {
    const MatmulKernel *kernel;
    const AttentionKernel *tile;
    int d, padded, ratio; /* head size, padded to LANES; query heads a key head */
    bool pairs;           /* words are pairs of bf16 */
    bool ready;           /* f32 rows of a head can be read and written where they lie */
    int group;            /* query heads that are stacked in a tile */
    int queries;          /* query positions in a tile: group · queries <= ROWS */
} Shape;

/* Rows of bf16 that can be read as words where they lie. */
static bool has_words(Tensor x)
{
    return x.ld % 2 == 0 && (uintptr_t)x.data % sizeof(uint32_t) == 0;
}

static const AttentionKernel plain;

static Shape shape_of(const Attention *a, Tensor q, Tensor k, Tensor v)
{
    Shape s = {.kernel = cpu_matmul_kernel(), .tile = cpu_level() >= CPU_AVX512_BF16 ? attention_kernel_avx512bf16() : &plain,
               .d = a->head_dim, .padded = (a->head_dim + LANES - 1) / LANES * LANES, .ratio = a->heads / a->kv_heads};
    s.pairs = q.dtype == DTYPE_BF16 && cpu_level() >= CPU_AVX512_BF16 && s.d % 2 == 0 && has_words(q) && has_words(k) && has_words(v);
    if (s.pairs)
        s.kernel = &matmul_kernel_avx512bf16;
    s.ready = q.dtype == DTYPE_F32 && s.d == s.padded;
    s.group = s.ready ? 1 : s.ratio;
    s.queries = ROWS / s.group > 0 ? ROWS / s.group : 1;
    cpu_check(a->heads % a->kv_heads == 0 && s.group <= ROWS && s.padded <= 256, "attention", "heads");
    return s;
}

/* Words that hold n numbers along k. */
static int words_of(Shape s, int n)
{
    return s.pairs ? (n + 1) / 2 : n;
}

/* A tile of bf16 whose rows need no padding, a vector at a time: heads are short, and a call a row would cost more than the row. */
CLONES static void tile_widen(float *out, const uint16_t *in, int64_t ldi, int rows, int n)
{
    for (int r = 0; r < rows; r++, out += n, in += ldi)
        for (int i = 0; i < n; i += LANES)
            cpu_widen(out + i, in + i, LANES);
}

/* Pairs of rows: word i of row r is (x[2r, i], x[2r + 1, i]); x's rows are words `ld` apart, of d numbers. Columns from d on: 0. */
CLONES static void tile_pairs(uint32_t *out, int64_t ldo, Words x, int rows, int d)
{
    for (int r = 0; r < rows; r += 2, out += ldo) {
        const uint16_t *even = (const uint16_t *)(x.data + r * x.row), *odd = (const uint16_t *)(x.data + (r + 1) * x.row);
        if (r + 1 < rows)
            for (int i = 0; i < d; i++)
                out[i] = even[i] | (uint32_t)odd[i] << 16;
        else
            for (int i = 0; i < d; i++)
                out[i] = even[i];
        for (int i = d; i < ldo; i++)
            out[i] = 0;
    }
}

/* n tokens' rows of `group` heads: row (t − t0)·group + h is x[t, head first+h]. `across`: as A, its words along the head size. */
typedef struct Tile {
    Words across;
    int rows;
} Tile;

enum { TURNED = KEYS };
_Static_assert(KEYS == ROWS, "tiles of queries and of keys are turned alike");

static Tile tile_load(uint32_t *room, Tensor x, Shape s, int64_t t0, int n, int group, int first)
{
    Tile tile = {{room, s.padded, 1}, n * group};
    const uint16_t *half = (const uint16_t *)x.data + t0 * x.ld + first * s.d;
    if (s.ready) {
        tile.across = (Words){(const uint32_t *)x.data + t0 * x.ld + first * s.d, x.ld, 1};
    } else if (s.pairs && group == 1) {
        tile.across = (Words){(const uint32_t *)half, x.ld / 2, 1};
    } else if (s.pairs) {
        tile.across.row = s.d / 2;
        for (int t = 0; t < n; t++)
            memcpy(room + t * group * (s.d / 2), half + t * x.ld, (size_t)(group * s.d) * sizeof *half);
    } else if (x.dtype == DTYPE_BF16 && s.d == s.padded) {
        tile_widen((float *)room, half, x.ld, n, group * s.d);
    } else {
        float *out = (float *)room;
        for (int t = 0; t < n; t++)
            for (int h = 0; h < group; h++, out += s.padded) {
                cpu_load(out, x, t0 + t, (first + h) * s.d, s.d);
                memset(out + s.d, 0, (size_t)(s.padded - s.d) * sizeof *out);
            }
    }
    return tile;
}

/* As B, its words along the rows: [words of rows, padded]. */
static Words tile_down(uint32_t *room, Tile x, Shape s)
{
    if (!s.pairs)
        return (Words){x.across.data, 1, x.across.row};
    tile_pairs(room, s.padded, x.across, x.rows, s.d);
    return (Words){room, 1, s.padded};
}

/* As B, its words along the head size: [words of d, TURNED], zeros behind the last row. */
static Words tile_turned(uint32_t *room, Tile x, Shape s)
{
    int words = words_of(s, s.d);
    if (x.rows < TURNED)
        memset(room, 0, (size_t)(words * TURNED) * sizeof *room);
    cpu_matmul_kernel()->transpose(room, TURNED, x.across.data, x.across.row, x.rows, words);
    return (Words){room, 1, TURNED};
}

/* Two numbers as a pair of bf16, rounded to nearest even. */
static inline uint32_t pair_of(float even, float odd)
{
    union {
        float f;
        uint32_t u;
    } a = {.f = even}, b = {.f = odd};
    return (a.u + 0x7fff + (a.u >> 16 & 1)) >> 16 | ((b.u + 0x7fff + (b.u >> 16 & 1)) & 0xffff0000);
}

/* A tile's rows are worked on in halves: of the keys on the diagonal the first sees half. Here end the keys of the block at j0 that
 * some row of half h sees; end: of the tile's first query. */
static int half_end(const int32_t *end, Shape s, int rows, int h, int64_t j0)
{
    int last = (h + 1) * HALF < rows ? (h + 1) * HALF - 1 : rows - 1;
    return h * HALF < rows ? clamp_key(end[last / s.group], j0) : 0;
}

static void seen_keys(Softmax *x, const Attention *a, Shape s, int64_t q0, int rows, int64_t j0)
{
    for (int r = 0; r < ROWS; r++) {
        int64_t t = q0 + r / s.group;
        x->lo[r] = r < rows ? clamp_key(a->begin[t], j0) : 0;
        x->hi[r] = r < rows ? clamp_key(a->end[t], j0) : 0;
    }
}

/* Scores [keys][ROWS] of the half's rows r … r+HALF-1 become e^(score − most), words along the keys in `out`: pairs, or where that is
 * `scores` f32. Returns whether any row's maximum has grown. */
CLONES static bool softmax_half(uint32_t *out, float *scores, Softmax *x, int r, int keys, bool whole)
{
    const bool pairs = out != (uint32_t *)scores;
    float most[HALF], sum[HALF] = {0}, *s = scores + r;
    const int32_t *lo = x->lo + r, *hi = x->hi + r;
    out += r;
    for (int l = 0; l < HALF; l++)
        most[l] = x->most[r + l];
    for (int j = 0; j < keys && !whole; j++)
#pragma omp simd
        for (int l = 0; l < HALF; l++) {
            float unseen = ((j < lo[l]) | (j >= hi[l])) ? -INFINITY : 0.0f;
            s[j * ROWS + l] += unseen; /* a sum, since compilers make a choice of what is stored into branches */
        }
    for (int j = 0; j < keys; j++)
#pragma omp simd
        for (int l = 0; l < HALF; l++)
            most[l] = s[j * ROWS + l] > most[l] ? s[j * ROWS + l] : most[l];
    int grown = 0;
#pragma omp simd reduction(| : grown)
    for (int l = 0; l < HALF; l++) {
        /* A row that has seen nothing yet has no maximum: any will do, all its terms are 0. */
        float old = x->most[r + l], now = most[l];
        grown |= now > old;
        x->most[r + l] = now;
        now = now == -INFINITY ? 0 : now;
        x->shrink[r + l] = cpu_exp(old - now);
        most[l] = now;
    }
    for (int j = 0; j < keys && !pairs; j++)
#pragma omp simd
        for (int l = 0; l < HALF; l++) {
            float e = cpu_exp(s[j * ROWS + l] - most[l]);
            s[j * ROWS + l] = e;
            sum[l] += e;
        }
    for (int j = 0; j + 1 < keys && pairs; j += 2)
#pragma omp simd
        for (int l = 0; l < HALF; l++) {
            float even = cpu_exp(s[j * ROWS + l] - most[l]), odd = cpu_exp(s[(j + 1) * ROWS + l] - most[l]);
            out[j / 2 * ROWS + l] = pair_of(even, odd);
            sum[l] += even + odd;
        }
    if (pairs && keys % 2)
#pragma omp simd
        for (int l = 0; l < HALF; l++) {
            float e = cpu_exp(s[(keys - 1) * ROWS + l] - most[l]);
            out[keys / 2 * ROWS + l] = pair_of(e, 0);
            sum[l] += e;
        }
    for (int l = 0; l < HALF; l++)
        x->sum[r + l] = x->sum[r + l] * x->shrink[r + l] + sum[l];
    return grown;
}

CLONES static void rows_scale(float *x, int rows, int n, const float *by)
{
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < n; i++)
            x[r * n + i] *= by[r];
}

static void forward_tile(float *scratch, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a, Shape s,
                         int64_t q0, int n, int first_head)
{
    int kv_head = first_head / s.ratio, rows = n * s.group, w = s.padded, lanes_rows = (rows + LANES - 1) / LANES * LANES;
    float *scores = scratch, *tile_o = scores + ROWS * KEYS;
    uint32_t *turned = (uint32_t *)(tile_o + ROWS * w), *room = turned + ROWS * w, *room_v = room + ROWS * w, *down = room_v + KEYS * w;
    uint32_t *p = s.pairs ? down + KEYS * w : (uint32_t *)scores;
    Softmax x;
    Words q_turned = tile_turned(turned, tile_load(room, q, s, q0, n, s.group, first_head), s);
    memset(tile_o, 0, (size_t)(rows * w) * sizeof *tile_o);
    for (int r = 0; r < ROWS; r++) {
        x.most[r] = -INFINITY;
        x.sum[r] = 0;
    }
    int64_t first = a->begin[q0], last = a->end[q0 + n - 1];
    for (int64_t j0 = first; j0 < last; j0 += KEYS) {
        int keys = last - j0 < KEYS ? (int)(last - j0) : KEYS;
        bool whole = a->begin[q0 + n - 1] <= j0 && a->end[q0] >= j0 + keys && rows % HALF == 0;
        Words tile_k = tile_load(room, k, s, j0, keys, 1, kv_head).across;
        Words tile_v = tile_down(down, tile_load(room_v, v, s, j0, keys, 1, kv_head), s);
        if (!whole)
            seen_keys(&x, a, s, q0, rows, j0);
        for (int r = 0; r < rows; r += HALF) {
            int end = half_end(a->end + q0, s, rows, r / HALF, j0), lanes = lanes_rows - r < HALF ? lanes_rows - r : HALF;
            if (end == 0)
                continue;
            product(s.kernel, scores + r, ROWS, tile_k, (Words){q_turned.data + r, 1, ROWS}, end, lanes, words_of(s, s.d), a->scale, 0);
            if (s.tile->softmax_half(p, scores, &x, r, end, whole) && j0 > first)
                rows_scale(tile_o + r * w, rows - r < HALF ? rows - r : HALF, w, x.shrink + r);
            product(s.kernel, tile_o + r * w, w, (Words){p + r, 1, ROWS}, tile_v, rows - r < HALF ? rows - r : HALF, w, words_of(s, end), 1, 1);
        }
    }
    for (int r = 0; r < rows; r++) {
        int64_t t = q0 + r / s.group;
        int head = first_head + r % s.group;
        float over = 1.0f / x.sum[r];
        rows_scale(tile_o + r * w, 1, s.d, &over);
        cpu_store(out, t, head * s.d, s.d, tile_o + r * w);
        lse[head * out.rows + t] = x.most[r] + logf(x.sum[r]);
    }
}

static void check_shapes(Tensor q, Tensor k, Tensor v, const Attention *a, Shape s, const char *operation)
{
    int64_t keys = a->sequences * attention_key_rows(a), width = (int64_t)a->kv_heads * s.d;
    cpu_check(q.rows == a->sequences * a->sequence_rows && q.cols == (int64_t)a->heads * s.d, operation, "shape of queries");
    cpu_check(k.rows == keys && k.cols == width && v.rows == keys && v.cols == width, operation, "shape of keys");
}

/* A row that sees itself alone: the first of a document, or padding. */
static bool starts(const Attention *a, int64_t t)
{
    return a->begin[t] == a->end[t] - 1;
}

/* One tile of queries of a sequence and stack of heads, cut where documents end. */
static void forward_unit(float *scratch, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a, Shape s, int64_t at, int64_t end, int head)
{
    /* A tile ends with its document, so that blocks of keys lie alike in it whatever is packed before it: its rows get the
     * same bits (but under a sliding window, where a tile's first row decides). Rows that see themselves alone, such as
     * padding, share a tile. */
    for (int64_t next; at < end; at = next) {
        next = at + 1;
        bool alone = next < end && starts(a, next);
        while (next < end && (alone ? starts(a, next) && (next + 1 == end || starts(a, next + 1)) : !starts(a, next)))
            next++;
        forward_tile(scratch, out, lse, q, k, v, a, s, at, (int)(next - at), head);
    }
}

/* Threads take whole sequences where these come out even: other operations leave their rows in the thread's cache. */
static int64_t units_at_once(const Attention *a, int64_t units, int threads)
{
    return a->sequences % threads == 0 ? units / threads : 1;
}

void cpu_attention_forward(Stream *st, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a)
{
    cpu_settle(st);
    Shape s = shape_of(a, q, k, v);
    check_shapes(q, k, v, a, s, "attention_forward");
    CpuState *state = cpu_state(st);
    int64_t tiles = (a->sequence_rows + s.queries - 1) / s.queries, stacks = a->heads / s.group, units = a->sequences * stacks * tiles;
#pragma omp parallel for schedule(static, units_at_once(a, units, cpu_threads(st))) num_threads(cpu_threads(st))
    for (int64_t u = 0; u < units; u++) {
        int64_t begin = u / (stacks * tiles) * a->sequence_rows, at = begin + u % tiles * s.queries, end = at + s.queries;
        if (end > begin + a->sequence_rows)
            end = begin + a->sequence_rows;
        forward_unit(state->scratch[omp_get_thread_num()], out, lse, q, k, v, a, s, at, end, (int)(u / tiles % stacks) * s.group);
    }
}

/* Of m rows from r, `width` keys. lse and delta of row r are at [r % group][r / group]. */
CLONES static void gradient_half(const Gradients *g, int group, int r0, int m, int width, const float *lse, const float *delta, int64_t stride,
                                 const int32_t *begin, const int32_t *end, int64_t j0)
{
    for (int r = r0; r < r0 + m; r++) {
        int lo = clamp_key(begin[r / group], j0), hi = clamp_key(end[r / group], j0);
        int64_t at = r % group * stride + r / group;
        float *row = g->p + r * KEYS, *d = g->ds + r * KEYS, minus = delta[at], sum = lse[at];
        for (int j = 0; j < lo; j++)
            row[j] = -INFINITY;
        for (int j = hi; j < width; j++)
            row[j] = -INFINITY;
#pragma omp simd
        for (int j = 0; j < width; j++) {
            float e = cpu_exp(row[j] - sum);
            row[j] = e;
            d[j] = e * (d[j] - minus);
        }
    }
    if (!g->p_down)
        return;
    if (m % 2) {
        memset(g->p + (r0 + m) * KEYS, 0, KEYS * sizeof *g->p);
        memset(g->ds + (r0 + m) * KEYS, 0, KEYS * sizeof *g->ds);
    }
    for (int r = r0; r < r0 + m; r += 2) {
        const float *p = g->p + r * KEYS, *ds = g->ds + r * KEYS;
        uint32_t *p_down = g->p_down + r / 2 * KEYS, *ds_down = g->ds_down + r / 2 * KEYS;
        uint16_t *even = g->ds_across + r * KEYS, *odd = even + KEYS;
        for (int j = 0; j < width; j++) {
            uint32_t pair = pair_of(ds[j], ds[KEYS + j]);
            p_down[j] = pair_of(p[j], p[KEYS + j]);
            ds_down[j] = pair;
            even[j] = (uint16_t)pair;
            odd[j] = (uint16_t)(pair >> 16);
        }
    }
}

static const AttentionKernel plain = {softmax_half, gradient_half};

/* The rows from r on. */
static Words words_down(Words a, int r)
{
    return (Words){a.data + r * a.row, a.row, a.step};
}

/* Adds the f32 tile to the rows of dq. */
static void add_queries(Tensor dq, Shape s, int64_t q0, int rows, int first, const float *tile, float *room)
{
    for (int r = 0; r < rows; r++) {
        int64_t t = q0 + r / s.group, column = (first + r % s.group) * s.d;
        cpu_load(room, dq, t, column, s.d);
        for (int i = 0; i < s.d; i++)
            room[i] += tile[r * s.padded + i];
        cpu_store(dq, t, column, s.d, room);
    }
}

/* Gradients of one (sequence, key head): a tile of keys keeps dK and dV in scratch while the tiles of queries that see it
 * pass by; dQ grows in its own memory, or where that is bf16 in scratch as long as it fits. One thread does all of it, in order. */
static void backward_unit(float *scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout, const float *lse, const float *delta,
                          Tensor q, Tensor k, Tensor v, const Attention *a, Shape s, int64_t sequence, int kv_head)
{
    const MatmulKernel *kernel = s.kernel;
    int64_t base = sequence * a->sequence_rows, key_rows = attention_key_rows(a), first_key = sequence * key_rows;
    int w = s.padded, d_words = words_of(s, s.d);
    /* A row more than a tile's: an odd number of rows is made even. */
    Gradients g = {.p = scratch, .ds = g.p + (ROWS + 1) * KEYS};
    float *tile_dq = g.ds + (ROWS + 1) * KEYS, *tile_dk = tile_dq + ROWS * w, *tile_dv = tile_dk + KEYS * w;
    uint32_t *room_k = (uint32_t *)(tile_dv + KEYS * w), *room_v = room_k + KEYS * w, *kt = room_v + KEYS * w, *vt = kt + KEYS * w;
    uint32_t *room_q = vt + KEYS * w, *room_do = room_q + ROWS * w, *down_k = room_do + ROWS * w, *down_q = down_k + KEYS * w, *down_do = down_q + ROWS * w;
    g.p_down = down_do + ROWS * w;
    g.ds_down = g.p_down + (ROWS / 2 + 1) * KEYS;
    g.ds_across = (uint16_t *)(g.ds_down + (ROWS / 2 + 1) * KEYS);
    float *grown = (float *)(g.ds_across + (ROWS + 1) * KEYS);
    if (!s.pairs)
        g.p_down = g.ds_down = NULL;
    int64_t heads_rows = a->sequence_rows * s.group;
    bool grows = !s.ready && grown + heads_rows * w <= scratch + CPU_SCRATCH_FLOATS;
    if (grows)
        memset(grown, 0, (size_t)(heads_rows * w) * sizeof *grown);
    Words p_down = {s.pairs ? g.p_down : (uint32_t *)g.p, 1, KEYS}, ds_down = {s.pairs ? g.ds_down : (uint32_t *)g.ds, 1, KEYS};
    Words ds_across = {s.pairs ? (uint32_t *)g.ds_across : (uint32_t *)g.ds, s.pairs ? KEYS / 2 : KEYS, 1};
    for (int64_t j0 = first_key; j0 < first_key + key_rows; j0 += KEYS) {
        int keys = first_key + key_rows - j0 < KEYS ? (int)(first_key + key_rows - j0) : KEYS;
        Tile tile_k = tile_load(room_k, k, s, j0, keys, 1, kv_head);
        Words k_turned = tile_turned(kt, tile_k, s), k_down = tile_down(down_k, tile_k, s);
        Words v_turned = tile_turned(vt, tile_load(room_v, v, s, j0, keys, 1, kv_head), s);
        memset(tile_dk, 0, (size_t)(2 * KEYS * w) * sizeof *tile_dk);
        int64_t tiles = (a->sequence_rows + s.queries - 1) / s.queries;
        for (int64_t u = 0; u < tiles * (s.ratio / s.group); u++) {
            int64_t q0 = base + u % tiles * s.queries;
            int first_head = kv_head * s.ratio + (int)(u / tiles) * s.group;
            int n = base + a->sequence_rows - q0 < s.queries ? (int)(base + a->sequence_rows - q0) : s.queries;
            if (a->end[q0 + n - 1] <= j0 || a->begin[q0] >= j0 + keys)
                continue;
            int rows = n * s.group;
            Tile tile_q = tile_load(room_q, q, s, q0, n, s.group, first_head), tile_do = tile_load(room_do, dout, s, q0, n, s.group, first_head);
            Words q_down = tile_down(down_q, tile_q, s), do_down = tile_down(down_do, tile_do, s);
            float *to = tile_dq;
            int64_t ldo = w;
            if (s.ready) {
                to = f32(dq) + q0 * dq.ld + first_head * s.d;
                ldo = dq.ld;
            } else if (grows) {
                to = grown + (q0 - base) * s.group * w;
            } else {
                memset(tile_dq, 0, (size_t)(rows * w) * sizeof *tile_dq);
            }
            for (int r = 0; r < rows; r += HALF) {
                int end = half_end(a->end + q0, s, rows, r / HALF, j0), m = rows - r < HALF ? rows - r : HALF, width = end > HALF ? KEYS : HALF;
                if (end == 0)
                    continue;
                product(kernel, g.p + r * KEYS, KEYS, words_down(tile_q.across, r), k_turned, m, width, d_words, a->scale, 0);
                product(kernel, g.ds + r * KEYS, KEYS, words_down(tile_do.across, r), v_turned, m, width, d_words, 1, 0);
                s.tile->gradient_half(&g, s.group, r, m, width, lse + first_head * q.rows + q0, delta + first_head * q.rows + q0, q.rows, a->begin + q0,
                                      a->end + q0, j0);
                int down = words_of(s, r), words = words_of(s, m), some = words_of(s, end < keys ? end : keys);
                product(kernel, tile_dv, w, (Words){p_down.data + down * KEYS, 1, KEYS}, (Words){do_down.data + down * do_down.step, 1, do_down.step}, width, w,
                        words, 1, 1);
                product(kernel, tile_dk, w, (Words){ds_down.data + down * KEYS, 1, KEYS}, (Words){q_down.data + down * q_down.step, 1, q_down.step}, width, w,
                        words, a->scale, 1);
                product(kernel, to + r * ldo, ldo, words_down(ds_across, r), k_down, m, w, some, a->scale, 1);
            }
            if (to == tile_dq)
                add_queries(dq, s, q0, rows, first_head, tile_dq, grown);
        }
        for (int j = 0; j < keys; j++) {
            cpu_store(dk, j0 + j, kv_head * s.d, s.d, tile_dk + j * w);
            cpu_store(dv, j0 + j, kv_head * s.d, s.d, tile_dv + j * w);
        }
    }
    for (int64_t r = 0; grows && r < heads_rows; r++)
        cpu_store(dq, base + r / s.group, (kv_head * s.ratio + r % s.group) * s.d, s.d, grown + r * w);
}

CLONES static float row_dot(const float *a, const float *b, int n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

void cpu_attention_backward(Stream *st, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, const float *lse, float *delta,
                            Tensor q, Tensor k, Tensor v, const Attention *a)
{
    cpu_settle(st);
    Shape s = shape_of(a, q, k, v);
    s.pairs &= has_words(dout);
    check_shapes(q, k, v, a, s, "attention_backward");
    check_shapes(dq, dk, dv, a, s, "attention_backward");
    CpuState *state = cpu_state(st);
    int threads = cpu_threads(st);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t t = 0; t < q.rows; t++) {
        float *room = state->scratch[omp_get_thread_num()];
        const float *d = cpu_row(dout, t, 0, q.cols, room), *o = cpu_row(out, t, 0, q.cols, room + q.cols);
        for (int h = 0; h < a->heads; h++)
            delta[h * q.rows + t] = row_dot(d + h * s.d, o + h * s.d, s.d);
        memset((char *)dq.data + (size_t)(t * dq.ld) * dtype_size(dq.dtype), 0, (size_t)dq.cols * dtype_size(dq.dtype));
    }
    int64_t units = a->sequences * a->kv_heads;
#pragma omp parallel for schedule(static, units_at_once(a, units, threads)) num_threads(threads)
    for (int64_t u = 0; u < units; u++)
        backward_unit(state->scratch[omp_get_thread_num()], dq, dk, dv, dout, lse, delta, q, k, v, a, s, u / a->kv_heads, (int)(u % a->kv_heads));
}
