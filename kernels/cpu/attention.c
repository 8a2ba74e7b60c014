/* Attention by tiles with an online softmax (FlashAttention: Dao et al. 2022, 2023): the T×T matrix never stands in memory.
 *
 * A tile of queries is up to ROWS rows and a tile of keys is KEYS. Blocks of keys that no query of a tile may see are skipped, which
 * is what makes documents cheap. The products are the matrix product's micro-kernels, which see words (matmul.h): an f32, or where
 * the CPU multiplies bf16 a pair of bf16; then probabilities and their gradients are rounded to bf16 before they are multiplied, as
 * FlashAttention does. Elsewhere bf16 is widened. Tiles that need no change are read where they lie; others are copied to scratch,
 * and then the query heads that share a key head are stacked as rows of one tile. */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>
#include "base/cpu.h"
#include "kernels/cpu/attention_tile.h"

enum { TOGETHER_ROWS = 256 /* of a sequence at most, for it to go through other operations too */, AHEAD = 8 /* rows */ };

/* A operand of a product in words: element (i, l) lies at data[i·row + l·step], one of which is 1. As B: row l at data + l·step. */
typedef struct Words {
    const uint32_t *data;
    int64_t row, step;
} Words;

/* C[m×n] = alpha·A·B + beta·C, n a multiple of LANES, k in words. */
static void product(const MatmulKernel *kernel, float *c, int64_t ldc, Words a, Words b, int m, int n, int k, float alpha, float beta)
{
    MatmulTile t = {.a = a.data, .row = a.row, .step = a.step, .ldb = b.step, .k = k, .ldc = ldc, .alpha = alpha, .beta = beta, .near = true};
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
    const uint16_t *half = (const uint16_t *)x.across.data;
    int64_t ld = 2 * x.across.row;
    int words = x.rows / 2;
    if (s.d < s.padded)
        memset(room, 0, (size_t)(words * s.padded) * sizeof *room);
    row_kernel_avx512bf16()->pairs(room, s.padded, half, ld, s.d, words);
    if (x.rows % 2)
        for (int i = 0; i < s.padded; i++)
            room[words * s.padded + i] = i < s.d ? half[2 * words * ld + i] : 0;
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

/* A tile's rows are worked on in halves: of the keys on the diagonal the first sees half. Here end the keys of the block at j0 that
 * some row of half h sees; end: of the tile's first query. */
static int half_end(const int32_t *end, Shape s, int rows, int h, int64_t j0)
{
    int last = (h + 1) * HALF < rows ? (h + 1) * HALF - 1 : rows - 1;
    return h * HALF < rows ? clamp_key(end[last / s.group], j0) : 0;
}

static void seen_keys(Softmax *x, const Attention *a, Shape s, int64_t q0, int rows, int64_t j0)
{
    for (int r = 0, t = 0, h = 0; r < ROWS; r++) {
        x->lo[r] = r < rows ? clamp_key(a->begin[q0 + t], j0) : 0;
        x->hi[r] = r < rows ? clamp_key(a->end[q0 + t], j0) : 0;
        next_row(&t, &h, s.group);
    }
}

/* attention_tile.h's, of f32. */
CLONES static bool softmax_half(float *s, Softmax *x, int r, int keys, bool whole, bool pairs)
{
    float most[HALF], sum[HALF] = {0};
    const int32_t *lo = x->lo + r, *hi = x->hi + r;
    (void)pairs;
    for (int l = 0; l < HALF; l++)
        most[l] = x->most[r + l];
    for (int j = 0; j < keys && !whole; j++)
#pragma omp simd
        for (int l = 0; l < HALF; l++) {
            float unseen = ((j < lo[l]) | (j >= hi[l])) ? -INFINITY : 0.0f;
            s[j * HALF + l] += unseen; /* a sum, since compilers make a choice of what is stored into branches */
        }
    for (int j = 0; j < keys; j++)
#pragma omp simd
        for (int l = 0; l < HALF; l++)
            most[l] = s[j * HALF + l] > most[l] ? s[j * HALF + l] : most[l];
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
    for (int j = 0; j < keys; j++)
#pragma omp simd
        for (int l = 0; l < HALF; l++) {
            float e = cpu_exp(s[j * HALF + l] - most[l]);
            s[j * HALF + l] = e;
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

CLONES static void tile_narrow(uint16_t *to, int64_t ld, Shape s, int n, int group, const float *tile)
{
    for (int t = 0; t < n; t++, to += ld)
        for (int h = 0; h < group; h++, tile += s.padded)
            cpu_narrow(to + h * s.d, tile, s.d);
}

/* A tile's rows, each times its `by` (NULL: 1), to where tile_load has them from. */
static void tile_store(Tensor to, Shape s, int64_t t0, int n, int group, int first, float *tile, const float *by)
{
    void *place = cpu_place(to, t0, first * s.d);
    if (s.pairs) {
        s.tile->store_rows(place, to.ld, n, group, s.d, tile, s.padded, by);
        return;
    }
    if (by)
        rows_scale(tile, n * group, s.padded, by);
    if (to.dtype == DTYPE_BF16) {
        tile_narrow(place, to.ld, s, n, group, tile);
        return;
    }
    for (int t = 0; t < n; t++)
        for (int h = 0; h < group; h++, tile += s.padded)
            memcpy((float *)place + t * to.ld + h * s.d, tile, (size_t)s.d * sizeof *tile);
}

static void forward_tile(float *scratch, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a, Shape s,
                         int64_t q0, int n, int first_head)
{
    int kv_head = first_head / s.ratio, rows = n * s.group, w = s.padded, lanes_rows = (rows + LANES - 1) / LANES * LANES;
    float *scores = scratch, *tile_o = scores + HALF * KEYS;
    uint32_t *turned = (uint32_t *)(tile_o + ROWS * w), *room = turned + ROWS * w, *room_v = room + ROWS * w, *down = room_v + KEYS * w;
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
            product(s.kernel, scores, HALF, tile_k, (Words){q_turned.data + r, 1, ROWS}, end, lanes, words_of(s, s.d), a->scale, 0);
            if (s.tile->softmax_half(scores, &x, r, end, whole, s.pairs) && j0 > first)
                rows_scale(tile_o + r * w, rows - r < HALF ? rows - r : HALF, w, x.shrink + r);
            product(s.kernel, tile_o + r * w, w, (Words){(uint32_t *)scores, 1, HALF}, tile_v, rows - r < HALF ? rows - r : HALF, w, words_of(s, end), 1, 1);
        }
    }
    for (int t = 0, r = 0; t < n; t++)
        for (int h = 0; h < s.group; h++, r++) {
            x.shrink[r] = 1.0f / x.sum[r];
            lse[(first_head + h) * out.rows + q0 + t] = x.most[r] + logf(x.sum[r]);
        }
    tile_store(out, s, q0, n, s.group, first_head, tile_o, x.shrink);
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
static bool by_sequences(const Attention *a, int threads)
{
    return a->sequences % threads == 0;
}

/* What both directions are given. */
typedef struct Arguments {
    Tensor q, k, v, out, dq, dk, dv, dout;
    float *lse, *delta;
    Attention a;
    Shape s;
} Arguments;

/* As one of the operations that rows go through together, where what is made of a sequence's rows fits the cache. */
static void sequences_run(Stream *s, const Arguments *x, void (*run)(const void *, CpuState *, int, int64_t, int64_t))
{
    RowItem item = cpu_row_item(run, x->a.sequence_rows, x, sizeof *x);
    item.cut.whole = x->a.sequence_rows;
    if (item.cut.whole > TOGETHER_ROWS)
        cpu_settle(s);
    cpu_rows(s, x->q.rows, item);
    if (item.cut.whole > TOGETHER_ROWS)
        cpu_settle(s);
}

/* Units [begin, end) of the tiles of all sequences, stacks of heads and tiles in these. */
static void forward_units(const Arguments *x, float *scratch, int64_t begin, int64_t end)
{
    const Attention *a = &x->a;
    int64_t tiles = (a->sequence_rows + x->s.queries - 1) / x->s.queries, stacks = a->heads / x->s.group;
    for (int64_t u = begin; u < end; u++) {
        int64_t first = u / (stacks * tiles) * a->sequence_rows, at = first + u % tiles * x->s.queries, last = at + x->s.queries;
        if (last > first + a->sequence_rows)
            last = first + a->sequence_rows;
        forward_unit(scratch, x->out, x->lse, x->q, x->k, x->v, a, x->s, at, last, (int)(u / tiles % stacks) * x->s.group);
    }
}

static int64_t sequence_units(const Arguments *x)
{
    return (x->a.sequence_rows + x->s.queries - 1) / x->s.queries * (x->a.heads / x->s.group);
}

static void forward_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Arguments *x = arguments;
    int64_t units = sequence_units(x), rows = x->a.sequence_rows;
    forward_units(x, state->scratch[thread], begin / rows * units, end / rows * units);
}

void cpu_attention_forward(Stream *st, Tensor out, float *lse, Tensor q, Tensor k, Tensor v, const Attention *a)
{
    const Arguments x = {.q = q, .k = k, .v = v, .out = out, .lse = lse, .a = *a, .s = shape_of(a, q, k, v)};
    check_shapes(q, k, v, a, x.s, "attention_forward");
    if (by_sequences(a, cpu_threads(st))) {
        sequences_run(st, &x, forward_rows);
        return;
    }
    cpu_settle(st);
    CpuState *state = cpu_state(st);
    int64_t units = a->sequences * sequence_units(&x);
#pragma omp parallel for schedule(static, 1) num_threads(cpu_threads(st))
    for (int64_t u = 0; u < units; u++)
        forward_units(&x, state->scratch[omp_get_thread_num()], u, u + 1);
}

/* attention_tile.h's, of f32. */
CLONES static void gradient_half(const Gradients *g, int group, int r0, int m, int width, const float *lse, const float *delta, int64_t stride,
                                 const int32_t *begin, const int32_t *end, int64_t j0)
{
    for (int r = r0, t = r0 / group, h = r0 % group; r < r0 + m; r++) {
        int lo = clamp_key(begin[t], j0), hi = clamp_key(end[t], j0);
        int64_t at = h * stride + t;
        next_row(&t, &h, group);
        float *row = g->p + (r - r0) * KEYS, *d = g->ds + (r - r0) * KEYS, minus = delta[at], sum = lse[at];
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
}

static const AttentionKernel plain = {softmax_half, gradient_half, NULL /* words are those of AVX-512 BF16 */};

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
    Gradients g = {.p = scratch, .ds = g.p + HALF * KEYS, .ds_across = s.pairs ? (uint16_t *)(g.ds + HALF * KEYS) : NULL};
    float *tile_dq = g.ds + 3 * HALF * KEYS / 2, *tile_dk = tile_dq + ROWS * w, *tile_dv = tile_dk + KEYS * w;
    uint32_t *room_k = (uint32_t *)(tile_dv + KEYS * w), *room_v = room_k + KEYS * w, *kt = room_v + KEYS * w, *vt = kt + KEYS * w;
    uint32_t *room_q = vt + KEYS * w, *room_do = room_q + ROWS * w, *down_k = room_do + ROWS * w, *down_q = down_k + KEYS * w, *down_do = down_q + ROWS * w;
    float *grown = (float *)(down_do + ROWS * w);
    int64_t heads_rows = a->sequence_rows * s.group;
    bool grows = !s.ready && grown + heads_rows * w <= scratch + CPU_SCRATCH_FLOATS;
    if (grows)
        memset(grown, 0, (size_t)(heads_rows * w) * sizeof *grown);
    int64_t step = s.pairs ? 2 * KEYS : KEYS;
    Words p_down = {(uint32_t *)g.p, 1, step}, ds_down = {(uint32_t *)g.ds, 1, step};
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
                product(kernel, g.p, KEYS, words_down(tile_q.across, r), k_turned, m, width, d_words, a->scale, 0);
                product(kernel, g.ds, KEYS, words_down(tile_do.across, r), v_turned, m, width, d_words, 1, 0);
                s.tile->gradient_half(&g, s.group, r, m, width, lse + first_head * q.rows + q0, delta + first_head * q.rows + q0, q.rows, a->begin + q0,
                                      a->end + q0, j0);
                int down = words_of(s, r), words = words_of(s, m), some = words_of(s, end < keys ? end : keys);
                product(kernel, tile_dv, w, p_down, (Words){do_down.data + down * do_down.step, 1, do_down.step}, width, w,
                        words, 1, 1);
                product(kernel, tile_dk, w, ds_down, (Words){q_down.data + down * q_down.step, 1, q_down.step}, width, w,
                        words, a->scale, 1);
                product(kernel, to + r * ldo, ldo, ds_across, k_down, m, w, some, a->scale, 1);
            }
            if (to == tile_dq)
                add_queries(dq, s, q0, rows, first_head, tile_dq, grown);
        }
        tile_store(dk, s, j0, keys, 1, kv_head, tile_dk, NULL);
        tile_store(dv, s, j0, keys, 1, kv_head, tile_dv, NULL);
    }
    if (grows)
        tile_store(dq, s, base, (int)a->sequence_rows, s.group, kv_head * s.ratio, grown, NULL);
}

CLONES static float row_dot(const float *a, const float *b, int n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* delta, and queries' gradients at 0. */
static void backward_row(const Arguments *x, float *room, int64_t t)
{
    const float *d = cpu_row(x->dout, t, 0, x->q.cols, room), *o = cpu_row(x->out, t, 0, x->q.cols, room + x->q.cols);
    for (int h = 0; h < x->a.heads; h++)
        x->delta[h * x->q.rows + t] = row_dot(d + h * x->s.d, o + h * x->s.d, x->s.d);
    memset(cpu_place(x->dq, t, 0), 0, (size_t)x->dq.cols * dtype_size(x->dq.dtype));
}

static void backward_units(const Arguments *x, float *scratch, int64_t begin, int64_t end)
{
    for (int64_t u = begin; u < end; u++)
        backward_unit(scratch, x->dq, x->dk, x->dv, x->dout, x->lse, x->delta, x->q, x->k, x->v, &x->a, x->s, u / x->a.kv_heads, (int)(u % x->a.kv_heads));
}

static void backward_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Arguments *x = arguments;
    int64_t rows = x->a.sequence_rows;
    for (int64_t t = begin; t < end; t++) {
        /* Heads go through a sequence a line of each row at a time. */
        if (x->k.rows == x->q.rows && rows <= TOGETHER_ROWS) {
            cpu_fetch_row(x->q, t);
            cpu_fetch_row(x->k, t);
            cpu_fetch_row(x->v, t);
        }
        if (t + AHEAD < end)
            cpu_fetch_row(x->out, t + AHEAD);
        backward_row(x, state->scratch[thread], t);
    }
    backward_units(x, state->scratch[thread], begin / rows * x->a.kv_heads, end / rows * x->a.kv_heads);
}

void cpu_attention_backward(Stream *st, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, const float *lse, float *delta,
                            Tensor q, Tensor k, Tensor v, const Attention *a)
{
    Arguments x = {q, k, v, out, dq, dk, dv, dout, (float *)(uintptr_t)lse, delta, *a, shape_of(a, q, k, v)};
    x.s.pairs &= has_words(dout);
    check_shapes(q, k, v, a, x.s, "attention_backward");
    check_shapes(dq, dk, dv, a, x.s, "attention_backward");
    if (by_sequences(a, cpu_threads(st))) {
        sequences_run(st, &x, backward_rows);
        return;
    }
    cpu_settle(st);
    CpuState *state = cpu_state(st);
    int threads = cpu_threads(st);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t t = 0; t < q.rows; t++)
        backward_row(&x, state->scratch[omp_get_thread_num()], t);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int64_t u = 0; u < a->sequences * a->kv_heads; u++)
        backward_units(&x, state->scratch[omp_get_thread_num()], u, u + 1);
}
