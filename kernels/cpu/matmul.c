/* C = alpha·op(A)·op(B) + beta·C after Goto and van de Geijn (2008): B is packed in panels of up to three vectors of columns, and a
 * micro-kernel multiplies a few rows of A with a panel while their part of C stays in registers. Both are read where they lie if
 * their rows (or A's columns) are near one another and need no change. Where rows are many each thread takes a stretch of them, with
 * panels of its own: what another core has written last comes slowly, and nobody waits. Otherwise panels are shared, and blocks of rows
 * (and of panels, where rows are few) are dealt to the threads as they come. A weight's gradient, whose k are a batch's rows, is the sum of
 * two halves of k, one for each half of the threads: rows that they have had before, or have just now with other operations. Nothing else
 * of k is split, and nothing by the number of threads, so every element is summed in the same order whatever that is.
 *
 * The micro-kernels see 32-bit words: an f32, or where the CPU multiplies bf16 a pair of bf16 that follow each other along k.
 * Where it does not, bf16 is widened to f32 as it is packed. An f32 B beside a bf16 A is rounded as it is packed, to what the product of
 * a rounded copy would read. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <string.h>
#include "base/cpu.h"

enum { SMALL_ROWS = 8, MR_MAX = 8, PANEL_MAX = 48, NEAR_WORDS = 256 /* rows of a kilobyte */, SETS_WORDS = 128 };
/* Words of B's panels along k, of B's block, of A's block: a panel in the first cache, the others in the second and third. */
enum { DEPTH = 192, PANEL_WORDS = 384 << 10, BLOCK_WORDS = 48 << 10, OWN_ROWS = 48 /* a thread, and panels are its own */ };
enum { TOGETHER_WORDS = 2 << 20 /* of B at most in a product by rows with other operations */ };
enum { HALVES_DEPTH = 512 /* k at least in a sum of two halves */, HALVES_WORDS = 1 << 20 /* C at most */, HALVES_TOGETHER = 200 << 10 /* with other operations */ };
enum { HALVES_ROWS = 256 /* of k, which halves are multiples of */, HALVES_BLOCK = 128 /* words along k, of which those are some */ };
_Static_assert((int)HALVES_WORDS <= (int)CPU_PANEL_B_WORDS, "the second half's sums have room");

#define TARGET
#define LANES 4
#define MR 4
#include "kernels/cpu/matmul_tile.h"
#undef LANES
#undef MR

const MatmulKernel matmul_kernel_scalar = {4, 4, matmul_run, cpu_transpose};

void cpu_transpose(uint32_t *out, int64_t ldo, const uint32_t *in, int64_t ldi, int64_t rows, int64_t cols)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++)
            out[j * ldo + i] = in[i * ldi + j];
}

const MatmulKernel *cpu_matmul_kernel(void)
{
    switch (cpu_level()) {
    case CPU_AVX512_BF16:
    case CPU_AVX512:
        return &matmul_kernel_avx512;
    case CPU_AVX2:
        return &matmul_kernel_avx2;
    default:
        return &matmul_kernel_scalar;
    }
}

/* Element (i, l) of a matrix lies at data[i·row + l·column]. */
typedef struct View {
    const void *data;
    Dtype dtype;
    int64_t row, column;
    bool rounded; /* f32, read as bf16 */
} View;

/* A product and how it is cut. Depths and offsets along k are in words. */
typedef struct Product {
    const MatmulKernel *kernel;
    Tensor c;
    View a, b;
    bool pairs, a_direct, b_direct; /* direct: read where it lies */
    const uint32_t *packed;      /* all of B's panels, a block of columns behind the other, in each a block of k; NULL: packed here */
    int64_t m, n, k, depth;      /* k elements, depth words */
    int64_t vectors, panels;     /* of the block of columns at hand */
    int64_t block_rows, block_depth, block_columns;
    float alpha, beta;
} Product;

/* out[w·ld + i] = (x[2w·ldx + i], x[(2w + 1)·ldx + i]), a vector at a time. */
CLONES static void pack_pairs(uint32_t *out, int64_t ld, const uint16_t *x, int64_t ldx, int64_t m, int64_t words)
{
    enum { VECTOR = 16 };
    for (int64_t w = 0; w < words; w++, out += ld, x += 2 * ldx) {
        int64_t i = 0;
        for (; i + VECTOR <= m; i += VECTOR)
            for (int l = 0; l < VECTOR; l++)
                out[i + l] = x[i + l] | (uint32_t)x[ldx + i + l] << 16;
        for (; i < m; i++)
            out[i] = x[i] | (uint32_t)x[ldx + i] << 16;
    }
}

/* The same of f32, rounded. */
CLONES static void pack_rounded_pairs(uint32_t *out, int64_t ld, const float *x, int64_t ldx, int64_t m, int64_t words)
{
    for (int64_t w = 0; w < words; w++, out += ld, x += 2 * ldx)
        for (int64_t i = 0; i < m; i++)
            out[i] = cpu_half(x[i]) | (uint32_t)cpu_half(x[ldx + i]) << 16;
}

/* out[w] = (x[2w], x[2w + 1]), rounded. */
CLONES static void round_words(uint32_t *out, const float *x, int64_t words)
{
    for (int64_t w = 0; w < words; w++)
        out[w] = cpu_half(x[2 * w]) | (uint32_t)cpu_half(x[2 * w + 1]) << 16;
}

static const RowKernel plain = {.pairs = pack_pairs, .rounded_pairs = pack_rounded_pairs, .rounded_words = round_words};

CLONES static void widen_row(uint32_t *out, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (uint32_t)x[i] << 16;
}

CLONES static void round_row(uint32_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        union {
            uint32_t u;
            float f;
        } number = {.u = x[i]};
        x[i] = (uint32_t)cpu_half(number.f) << 16;
    }
}

static uint16_t half_at(View x, int64_t i, int64_t l)
{
    return ((const uint16_t *)x.data)[i * x.row + l * x.column];
}

/* Rows of bf16 that can be read as words where they lie. */
static bool has_whole_pairs(View x, int64_t k)
{
    return x.row != 1 && x.row % 2 == 0 && k % 2 == 0 && (uintptr_t)x.data % sizeof(uint32_t) == 0;
}

/* Words of pairs from f32 that is rounded: rows (at most PANEL_MAX) become words a strip at a time, which then change places. */
static void pack_rounded(const Product *p, uint32_t *out, int64_t ld, View x, int64_t first, int64_t m, int64_t begin, int64_t n)
{
    enum { STRIP = 64 };
    const RowKernel *kernel = cpu_row_kernel(&plain);
    const float *number = x.data;
    _Alignas(64) uint32_t words[PANEL_MAX * STRIP];
    int64_t whole = p->k / 2 - begin < n ? p->k / 2 - begin : n; /* words of two numbers */
    if (x.row == 1)
        kernel->rounded_pairs(out, ld, number + 2 * begin * x.column + first, x.column, m, whole);
    for (int64_t w = 0; w < whole && x.row != 1; w += STRIP) {
        int64_t some = whole - w < STRIP ? whole - w : STRIP;
        for (int64_t i = 0; i < m; i++)
            kernel->rounded_words(words + i * STRIP, number + (first + i) * x.row + 2 * (begin + w), some);
        cpu_matmul_kernel()->transpose(out + w * ld, ld, words, STRIP, m, some);
    }
    for (int64_t i = 0; i < m && whole < n; i++)
        out[whole * ld + i] = cpu_half(number[(first + i) * x.row + (p->k - 1) * x.column]);
}

/* out[w·ld + i] = word begin+w of row first+i, for m rows and n words. */
static void pack(const Product *p, uint32_t *out, int64_t ld, View x, int64_t first, int64_t m, int64_t begin, int64_t n)
{
    const uint16_t *half = x.data;
    const uint32_t *word = x.data;
    if (p->pairs && x.rounded) {
        pack_rounded(p, out, ld, x, first, m, begin, n);
    } else if (p->pairs && x.row == 1) {
        int64_t whole = p->k / 2 - begin < n ? p->k / 2 - begin : n;
        cpu_row_kernel(&plain)->pairs(out, ld, half + 2 * begin * x.column + first, x.column, m, whole);
        if (whole < n)
            for (int64_t i = 0; i < m; i++)
                out[whole * ld + i] = half[(p->k - 1) * x.column + first + i];
    } else if (p->pairs && has_whole_pairs(x, p->k)) {
        cpu_matmul_kernel()->transpose(out, ld, word + first * (x.row / 2) + begin, x.row / 2, m, n);
    } else if (p->pairs) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t w = 0; w < n; w++) {
                int64_t l = 2 * (begin + w);
                out[w * ld + i] = half_at(x, first + i, l) | (l + 1 < p->k ? (uint32_t)half_at(x, first + i, l + 1) << 16 : 0);
            }
    } else if (x.dtype == DTYPE_BF16 && x.row == 1) {
        for (int64_t w = 0; w < n; w++)
            widen_row(out + w * ld, half + (begin + w) * x.column + first, m);
    } else if (x.dtype == DTYPE_BF16) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t w = 0; w < n; w++)
                out[w * ld + i] = (uint32_t)half_at(x, first + i, begin + w) << 16;
    } else if (x.row == 1) {
        for (int64_t w = 0; w < n; w++)
            memcpy(out + w * ld, word + (begin + w) * x.column + first, (size_t)m * sizeof *out);
    } else {
        cpu_matmul_kernel()->transpose(out, ld, word + first * x.row + begin, x.row, m, n);
    }
    for (int64_t w = 0; w < n && x.rounded && !p->pairs; w++)
        round_row(out + w * ld, m);
}

/* Panel j of a block of columns holds vectors [panel_vector(j), panel_vector(j + 1)). */
static int64_t panel_vector(const Product *p, int64_t j)
{
    return j * p->vectors / p->panels;
}

static void pack_panel(const Product *p, uint32_t *panel_b, int64_t j, int64_t column, int64_t columns, int64_t begin, int64_t depth)
{
    int lanes = p->kernel->lanes;
    int64_t at = panel_vector(p, j) * lanes, width = panel_vector(p, j + 1) * lanes - at;
    int64_t n = columns - at < width ? columns - at : width;
    uint32_t *out = panel_b + at * depth;
    if (n < width)
        memset(out, 0, (size_t)(width * depth) * sizeof *out);
    pack(p, out, width, p->b, column + at, n, begin, depth);
}

/* What a whole tile can't take: columns that end inside a vector, and bf16 results of the f32 kernels. */
static void edge_store(const Product *p, const float *from, int64_t ld, void *c, int64_t m, int64_t n, float beta)
{
    float row[PANEL_MAX];
    for (int64_t i = 0; i < m; i++, from += ld) {
        if (p->c.dtype == DTYPE_BF16) {
            for (int64_t j = 0; j < n; j++)
                row[j] = p->alpha * from[j];
            cpu_narrow_row((uint16_t *)c + i * p->c.ld, row, n);
        } else {
            float *to = (float *)c + i * p->c.ld;
            for (int64_t j = 0; j < n; j++)
                to[j] = beta == 0 ? p->alpha * from[j] : p->alpha * from[j] + beta * to[j];
        }
    }
}

/* Rows [row, row+m) of C against panel j. `t` has A's words and depth; panel_b is where the block's first panel begins. */
static void panel_rows(const Product *p, MatmulTile t, const uint32_t *panel_b, int64_t j, int64_t row, int64_t m, int64_t column,
                       int64_t columns, float beta)
{
    int lanes = p->kernel->lanes;
    int64_t at = panel_vector(p, j) * lanes, width = panel_vector(p, j + 1) * lanes - at, n = columns - at < width ? columns - at : width;
    size_t size = dtype_size(p->c.dtype);
    char *c = (char *)p->c.data + (size_t)(row * p->c.ld + column + at) * size;
    bool narrow = p->c.dtype == DTYPE_BF16;
    t.b = panel_b + (p->b_direct ? at : at * t.k);
    t.ldb = p->b_direct ? p->b.column : width;
    t.c = c;
    t.ldc = p->c.ld;
    t.alpha = p->alpha;
    t.beta = beta;
    t.narrow = narrow;
    if (n == width && (!narrow || p->pairs)) {
        p->kernel->run(&t, m, (int)(width / lanes));
        return;
    }
    _Alignas(64) float tile[MR_MAX * PANEL_MAX];
    const uint32_t *a = t.a;
    t.c = tile;
    t.ldc = width;
    t.alpha = 1;
    t.beta = 0;
    t.narrow = false;
    for (int64_t i = 0; i < m; i += p->kernel->mr) {
        int64_t some = m - i < p->kernel->mr ? m - i : p->kernel->mr;
        t.a = a + i * t.row;
        p->kernel->run(&t, some, (int)(width / lanes));
        edge_store(p, tile, width, c + (size_t)(i * p->c.ld) * size, some, n, beta);
    }
}

/* Words from one step of k to the next in a packed block of A: an odd number of cache lines, so that a tile's lie in many sets. */
static int64_t apart(int64_t rows)
{
    int64_t lines = (rows + 15) / 16;
    return (lines | 1) * 16;
}

static void block_rows(const Product *p, uint32_t *panel_a, const uint32_t *panel_b, int64_t row, int64_t m, int64_t panel, int64_t panel_end,
                       int64_t column, int64_t columns, int64_t begin, int64_t depth)
{
    MatmulTile t = {.k = depth};
    if (p->a_direct) {
        int64_t scale = p->pairs ? 2 : 1;
        t.row = p->a.row == 1 ? 1 : p->a.row / scale;
        t.step = p->a.column;
        t.a = (const uint32_t *)p->a.data + row * t.row + begin * t.step;
    } else {
        t.a = panel_a;
        t.row = 1;
        t.step = apart(m);
        pack(p, panel_a, t.step, p->a, row, m, begin, depth);
    }
    float beta = begin == 0 ? p->beta : 1;
    if (p->b_direct)
        panel_b = (const uint32_t *)p->b.data + begin * p->b.column + column;
    if (p->packed)
        panel_b = p->packed + column * p->depth + begin * p->vectors * p->kernel->lanes;
    for (int64_t j = panel; j < panel_end; j++)
        panel_rows(p, t, panel_b, j, row, m, column, columns, beta);
}

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Sizes of blocks. A bf16 C can't hold partial sums, so there k is one block; otherwise a panel of B shall fit the first cache and
 * a block of A the second. */
static void plan(Product *p)
{
    int mr = p->kernel->mr, lanes = p->kernel->lanes;
    p->depth = p->pairs ? (p->k + 1) / 2 : p->k;
    p->block_depth = p->c.dtype == DTYPE_BF16 ? p->depth : least(p->depth, DEPTH);
    p->block_columns = PANEL_WORDS / p->block_depth / PANEL_MAX * PANEL_MAX;
    p->block_columns = least(p->block_columns < PANEL_MAX ? PANEL_MAX : p->block_columns, round_up(p->n, lanes));
    p->block_rows = BLOCK_WORDS / p->block_depth / mr * mr;
    p->block_rows = p->block_rows < mr ? mr : least(p->block_rows, 256);
    cpu_check(p->block_columns * p->block_depth <= CPU_PANEL_B_WORDS && apart(p->block_rows) * p->block_depth <= CPU_PANEL_A_WORDS, "matmul", "inner sizes");
    /* Or rows whose cache lines lie in many sets. */
    bool near = p->a.row != 1 || p->a.column <= NEAR_WORDS || (p->a.column <= 4 * NEAR_WORDS && p->a.column % SETS_WORDS != 0);
    p->b_direct = p->b.dtype == DTYPE_F32 && !p->b.rounded && p->b.row == 1 && p->b.column <= NEAR_WORDS && p->b.column % lanes == 0 && p->n % lanes == 0;
    p->a_direct = p->pairs ? has_whole_pairs(p->a, p->k) : p->a.dtype == DTYPE_F32 && near;
}

CLONES static void dot_rows(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t m, int64_t k,
                            float alpha, float beta)
{
    for (int64_t i = 0; i < m; i++) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t l = 0; l < k; l++)
            sum += a[i * lda + l] * b[l];
        c[i * ldc] = beta == 0 ? alpha * sum : alpha * sum + beta * c[i * ldc];
    }
}

/* Few rows times a transposed weight: every row of B is read once, nothing is packed. */
static void small_rows(Stream *s, Tensor c, Tensor a, Tensor b, float alpha, float beta)
{
    int threads = cpu_threads(s);
    if (c.cols * a.cols < 1 << 14)
        threads = 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t j = 0; j < c.cols; j++)
        dot_rows(f32(c) + j, c.ld, f32(a), a.ld, f32(b) + j * b.ld, c.rows, a.cols, alpha, beta);
}

/* Units are `rows` of A (fewer behind) against one of `groups` of panels. */
typedef struct Units {
    int64_t rows, groups, count;
} Units;

static Units units_of(const Product *p, int64_t rows, int threads)
{
    int64_t blocks = (p->m + rows - 1) / rows, groups = threads == 1 || blocks >= 2 * threads ? 1 : least(p->panels, 4 * threads);
    return (Units){rows, groups, blocks * groups};
}

/* Words [begin, end) of k. */
static void unit_run(const Product *p, Units units, int64_t u, uint32_t *panel_a, const uint32_t *panel_b, int64_t column, int64_t columns,
                     int64_t begin, int64_t end)
{
    int64_t row = u / units.groups * units.rows, group = u % units.groups;
    for (int64_t k = begin; k < end; k += p->block_depth)
        block_rows(p, panel_a, panel_b, row, least(p->m - row, units.rows), group * p->panels / units.groups, (group + 1) * p->panels / units.groups,
                   column, columns, k, least(end - k, p->block_depth));
}

/* One thread's product, or with `team` that of all threads of the region it is called in. */
static void product_part(Product *p, uint32_t *panel_a, uint32_t *panel_b, int threads, bool team)
{
    int lanes = p->kernel->lanes;
    int64_t rows = least(p->block_rows, round_up(team ? (p->m + 4 * threads - 1) / (4 * threads) : p->m, p->kernel->mr));
    if (p->packed) /* which is read once for a block of rows */
        rows = least(p->block_rows, round_up(p->m, p->kernel->mr));
    for (int64_t column = 0; column < p->n; column += p->block_columns) {
        int64_t columns = least(p->n - column, p->block_columns);
        p->vectors = (columns + lanes - 1) / lanes;
        p->panels = (p->vectors + 2) / 3;
        Units units = units_of(p, rows, threads);
        /* Where B lies ready there is nothing to wait for: a block of rows goes through all of k at once. */
        bool ready = p->b_direct || p->packed;
        int64_t stretch = ready ? p->depth : p->block_depth;
        for (int64_t begin = 0; begin < p->depth; begin += stretch) {
            int64_t end = least(p->depth, begin + stretch);
            if (!team) {
                for (int64_t j = 0; j < p->panels && !ready; j++)
                    pack_panel(p, panel_b, j, column, columns, begin, end - begin);
                for (int64_t u = 0; u < units.count; u++)
                    unit_run(p, units, u, panel_a, panel_b, column, columns, begin, end);
                continue;
            }
            if (!ready) {
#pragma omp for schedule(static)
                for (int64_t j = 0; j < p->panels; j++)
                    pack_panel(p, panel_b, j, column, columns, begin, end - begin);
            }
#pragma omp for schedule(dynamic)
            for (int64_t u = 0; u < units.count; u++)
                unit_run(p, units, u, panel_a, panel_b, column, columns, begin, end);
        }
    }
}

static void rows_of(Product *p, int64_t begin, int64_t end)
{
    p->m = end - begin;
    p->c.data = (char *)p->c.data + (size_t)(begin * p->c.ld) * dtype_size(p->c.dtype);
    p->a.data = (const char *)p->a.data + (size_t)(begin * p->a.row) * dtype_size(p->a.dtype);
}

static void rows_run(const Product *whole, CpuState *state, int thread, int part, int parts)
{
    Product one = *whole;
    uint32_t *panel_a = state->panel_a[thread];
    int64_t begin, end;
    cpu_share(one.m, one.kernel->mr, part, parts, &begin, &end);
    rows_of(&one, begin, end);
    product_part(&one, panel_a, panel_a + apart(one.block_rows) * one.block_depth, 1, false);
}

/* Has this thread panels of its own, with room behind its block of A? */
static bool own_panels(const Product *p)
{
    return (apart(p->block_rows) + p->block_columns) * p->block_depth <= CPU_PANEL_A_WORDS;
}

/* A weight's gradient; its block of k is then HALVES_BLOCK. */
static bool in_halves(const Product *p)
{
    return p->a.row == 1 && p->a.column != 1 && p->k >= HALVES_DEPTH && p->c.dtype == DTYPE_F32 && p->m * p->n <= HALVES_WORDS && own_panels(p);
}

/* [begin, end) of half h of k. The second one's sums go to `room` until the first one's are there. */
static Product half_of(const Product *whole, int h, float *room, int64_t begin, int64_t end)
{
    Product p = *whole;
    int64_t first, last;
    cpu_share(p.k, HALVES_ROWS, h, 2, &first, &last);
    begin = begin > first ? begin : first;
    end = least(end, last);
    p.a.data = (const char *)p.a.data + (size_t)(begin * p.a.column) * dtype_size(p.a.dtype);
    p.b.data = (const char *)p.b.data + (size_t)(begin * p.b.column) * dtype_size(p.b.dtype);
    p.k = end - begin;
    p.depth = p.pairs ? (p.k + 1) / 2 : p.k;
    if (h == 1 || begin > first)
        p.beta = begin > first;
    if (h == 1) {
        p.c.data = room;
        p.c.ld = p.n;
    }
    return p;
}

CLONES static void rows_add(float *c, int64_t ldc, const float *more, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++)
            c[i * ldc + j] += more[i * n + j];
}

static void halves_add(const Product *whole, const float *room, int thread, int threads)
{
    int64_t begin, end;
    cpu_share(whole->m, 1, thread, threads, &begin, &end);
    rows_add(f32(whole->c) + begin * whole->c.ld, whole->c.ld, room + begin * whole->n, end - begin, whole->n);
}

static void halves_run(Stream *s, const Product *whole)
{
    CpuState *state = cpu_state(s);
    float *room = (float *)state->panel_b;
    const Product half[2] = {half_of(whole, 0, room, 0, whole->k), half_of(whole, 1, room, 0, whole->k)};
#pragma omp parallel num_threads(cpu_threads(s))
    {
        int thread = omp_get_thread_num(), threads = omp_get_num_threads(), first = threads / 2;
        if (threads == 1) {
            rows_run(&half[0], state, 0, 0, 1);
            rows_run(&half[1], state, 0, 0, 1);
        } else if (thread < first) {
            rows_run(&half[0], state, thread, thread, first);
        } else {
            rows_run(&half[1], state, thread, thread - first, threads - first);
        }
#pragma omp barrier
        halves_add(whole, room, thread, threads);
    }
}

/* Room for the second half's sums, and the product: its rows along k go by with those of other operations. */
typedef struct Halves {
    Product whole;
    float *room;
} Halves;

static void halves_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Halves *x = arguments;
    for (int h = 0; h < 2; h++) {
        Product p = half_of(&x->whole, h, x->room, begin, end);
        if (p.k > 0)
            rows_run(&p, state, thread, 0, 1);
    }
}

static void halves_finish(const void *arguments, int thread, int threads)
{
    const Halves *x = arguments;
    halves_add(&x->whole, x->room, thread, threads);
}

static bool halves_collect(Stream *s, const Product *p)
{
    const RowCut cut = {.grain = HALVES_ROWS, .whole = HALVES_ROWS, .halves = true};
    if (!cpu_state(s)->queue.open || cpu_threads(s) > 2 || p->k % (2 * HALVES_ROWS) != 0 || p->m * p->n > HALVES_TOGETHER)
        return false;
    const Halves x = {*p, (float *)cpu_rows_room(s, p->k, cut, p->m * p->n)};
    RowItem item = cpu_row_item(halves_rows, 0, &x, sizeof x);
    item.cut = cut;
    item.finish = halves_finish;
    cpu_rows(s, p->k, item);
    return true;
}

static void product_run(Stream *s, const Product *whole)
{
    if (in_halves(whole)) {
        halves_run(s, whole);
        return;
    }
    CpuState *state = cpu_state(s);
    int threads = whole->m * whole->n * whole->k < 1 << 16 ? 1 : cpu_threads(s);
    bool own = whole->m >= (int64_t)OWN_ROWS * threads && own_panels(whole);
#pragma omp parallel num_threads(threads)
    {
        Product one = *whole;
        int thread = omp_get_thread_num();
        if (own)
            rows_run(whole, state, thread, thread, threads);
        else
            product_part(&one, state->panel_a[thread], state->panel_b, threads, true);
    }
}

/* All of B's panels as `packed` wants them: this thread's of them. */
static void pack_share(const Product *whole, uint32_t *packed, int thread, int threads)
{
    int64_t lanes = whole->kernel->lanes;
    int turn = 0;
    for (int64_t column = 0; column < whole->n; column += whole->block_columns) {
        Product one = *whole, *p = &one;
        int64_t columns = least(p->n - column, p->block_columns);
        p->vectors = (columns + lanes - 1) / lanes;
        p->panels = (p->vectors + 2) / 3;
        for (int64_t begin = 0; begin < p->depth; begin += p->block_depth)
            for (int64_t j = 0; j < p->panels; j++)
                if (turn++ % threads == thread)
                    pack_panel(p, packed + column * p->depth + begin * p->vectors * lanes, j, column, columns, begin, least(p->depth - begin, p->block_depth));
    }
}

static int64_t packed_words(const Product *p)
{
    return round_up(p->n, p->kernel->lanes) * p->depth;
}

static void product_prepare(const void *arguments, int thread, int threads)
{
    const Product *p = arguments;
    pack_share(p, (uint32_t *)(uintptr_t)p->packed, thread, threads);
}

static void product_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    Product one = *(const Product *)arguments;
    rows_of(&one, begin, end);
    product_part(&one, state->panel_a[thread], NULL, 1, false);
}

/* Together with other operations, B packed once for all threads; not where it would not stay in the caches while rows pass by. */
static bool product_collect(Stream *s, Product *p)
{
    if (!cpu_state(s)->queue.open || (!p->b_direct && packed_words(p) > TOGETHER_WORDS))
        return false;
    if (!p->b_direct)
        p->packed = cpu_rows_room(s, p->m, (RowCut){.grain = p->kernel->mr}, packed_words(p));
    RowItem item = cpu_row_item(product_rows, p->kernel->mr, p, sizeof *p);
    item.prepare = p->b_direct ? NULL : product_prepare;
    cpu_rows(s, p->m, item);
    return true;
}

/* bf16 stays in pairs where the CPU multiplies it. */
static void choose_kernel(Product *p, Dtype type)
{
    p->kernel = cpu_matmul_kernel();
    if (type == DTYPE_BF16 && cpu_level() >= CPU_AVX512_BF16) {
        p->kernel = &matmul_kernel_avx512bf16;
        p->pairs = true;
    }
}

static void set_operands(Product *p, Tensor a, bool ta, Tensor b, bool tb)
{
    p->a = (View){a.data, a.dtype, ta ? 1 : a.ld, ta ? a.ld : 1, false};
    p->b = (View){b.data, b.dtype, tb ? b.ld : 1, tb ? 1 : b.ld, a.dtype != b.dtype}; /* "rows" are C's columns */
    plan(p);
}

void cpu_matmul(Stream *s, Tensor c, Tensor a, bool ta, Tensor b, bool tb, float alpha, float beta)
{
    Product p = {.c = c, .m = c.rows, .n = c.cols, .k = ta ? a.rows : a.cols, .alpha = alpha, .beta = beta};
    cpu_check((ta ? a.cols : a.rows) == p.m && (tb ? b.rows : b.cols) == p.n && (tb ? b.cols : b.rows) == p.k, "matmul", "shapes");
    cpu_check((a.dtype == b.dtype || b.dtype == DTYPE_F32) && (a.dtype == DTYPE_F32 || a.dtype == DTYPE_BF16) && (c.dtype == DTYPE_F32 || (c.dtype == DTYPE_BF16 && beta == 0)),
              "matmul", "types");
    if (p.m == 0 || p.n == 0)
        return;
    if (p.k == 0) {
        if (beta == 0)
            cpu_fill(s, c, 0);
        else if (beta != 1)
            cpu_scale(s, c, beta);
        return;
    }
    if (p.m <= SMALL_ROWS && !ta && tb && a.dtype == DTYPE_F32 && c.dtype == DTYPE_F32) {
        cpu_settle(s);
        small_rows(s, c, a, b, alpha, beta);
        return;
    }
    choose_kernel(&p, a.dtype);
    set_operands(&p, a, ta, b, tb);
    if (in_halves(&p))
        p.block_depth = HALVES_BLOCK;
    if (in_halves(&p) ? halves_collect(s, &p) : !ta && product_collect(s, &p))
        return;
    cpu_settle(s);
    product_run(s, &p);
}

/* A product with W as the packed copy is cut: by the type that inputs and most results have (bf16's sums want all of k at once). */
static Product packed_product(Tensor c, Tensor a, Tensor w, Dtype type)
{
    Product p = {.c = c, .m = c.rows, .n = w.rows, .k = w.cols, .alpha = 1};
    choose_kernel(&p, type);
    p.a = (View){a.data, type, a.ld, 1, false};
    p.b = (View){w.data, w.dtype, w.ld, 1, w.dtype != type};
    p.c.dtype = type;
    plan(&p);
    p.c.dtype = c.dtype;
    p.b_direct = false;
    return p;
}

size_t cpu_pack_bytes(Tensor w, Dtype type)
{
    Product p = packed_product((Tensor){0}, (Tensor){0}, w, type);
    return (size_t)packed_words(&p) * sizeof(uint32_t);
}

void cpu_pack(Stream *s, void *packed, Tensor w, Dtype type)
{
    cpu_settle(s);
    const Product whole = packed_product((Tensor){0}, (Tensor){0}, w, type);
    int threads = cpu_threads(s);
#pragma omp parallel num_threads(threads)
    pack_share(&whole, packed, omp_get_thread_num(), threads);
}

void cpu_matmul_packed(Stream *s, Tensor c, Tensor a, const void *packed, Tensor w)
{
    cpu_settle(s);
    cpu_check(a.rows == c.rows && a.cols == w.cols && c.cols == w.rows, "matmul_packed", "shapes");
    cpu_check((a.dtype == w.dtype || w.dtype == DTYPE_F32) && (c.dtype == DTYPE_F32 || c.dtype == DTYPE_BF16), "matmul_packed", "types");
    Product p = packed_product(c, a, w, a.dtype);
    p.packed = packed;
    if (p.m > 0)
        product_run(s, &p);
}
