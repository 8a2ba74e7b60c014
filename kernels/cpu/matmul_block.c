/* A matrix product by blocks. Where rows are many each thread takes a stretch of them, with panels of its own: what another core has
 * written last comes slowly, and nobody waits. Otherwise panels are shared, and blocks of rows (and of panels, where rows are few) are
 * dealt to the threads as they come. */
#include "kernels/cpu/matmul.h"

#include <omp.h>

enum { OWN_ROWS = 48 /* a thread, and panels are its own */ };

/* What a whole tile can't take: columns that end inside a vector, and bf16 results of the f32 kernels. */
static void edge_store(const Product *p, const float *from, int64_t ld, void *c, int64_t m, int64_t n, float beta)
{
    float row[MATMUL_PANEL];
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
    int64_t at = matmul_vector(p, j) * lanes, width = matmul_vector(p, j + 1) * lanes - at, n = columns - at < width ? columns - at : width;
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
    _Alignas(64) float tile[MATMUL_MR * MATMUL_PANEL];
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
        t.step = matmul_apart(m);
        matmul_pack(p, panel_a, t.step, p->a, row, m, begin, depth);
    }
    float beta = begin == 0 ? p->beta : 1;
    if (p->b_direct)
        panel_b = (const uint32_t *)p->b.data + begin * p->b.column + column;
    if (p->packed)
        panel_b = p->packed + column * p->depth + begin * p->vectors * p->kernel->lanes;
    for (int64_t j = panel; j < panel_end; j++)
        panel_rows(p, t, panel_b, j, row, m, column, columns, beta);
}

/* Units are `rows` of A (fewer behind) against one of `groups` of panels. */
typedef struct Units {
    int64_t rows, groups, count;
} Units;

static Units units_of(const Product *p, int64_t rows, int threads)
{
    int64_t blocks = (p->m + rows - 1) / rows, groups = threads == 1 || blocks >= 2 * threads ? 1 : matmul_least(p->panels, 4 * threads);
    return (Units){rows, groups, blocks * groups};
}

/* Words [begin, end) of k. */
static void unit_run(const Product *p, Units units, int64_t u, uint32_t *panel_a, const uint32_t *panel_b, int64_t column, int64_t columns,
                     int64_t begin, int64_t end)
{
    int64_t row = u / units.groups * units.rows, group = u % units.groups;
    for (int64_t k = begin; k < end; k += p->block_depth)
        block_rows(p, panel_a, panel_b, row, matmul_least(p->m - row, units.rows), group * p->panels / units.groups, (group + 1) * p->panels / units.groups,
                   column, columns, k, matmul_least(end - k, p->block_depth));
}

/* One thread's product, or with `team` that of all threads of the region it is called in. */
static void blocks_run(Product *p, uint32_t *panel_a, uint32_t *panel_b, int threads, bool team)
{
    int64_t rows = matmul_least(p->block_rows, matmul_round_up(team ? (p->m + 4 * threads - 1) / (4 * threads) : p->m, p->kernel->mr));
    if (p->packed) /* which is read once for a block of rows */
        rows = matmul_least(p->block_rows, matmul_round_up(p->m, p->kernel->mr));
    for (int64_t column = 0; column < p->n; column += p->block_columns) {
        int64_t columns = matmul_least(p->n - column, p->block_columns);
        matmul_columns(p, columns);
        Units units = units_of(p, rows, threads);
        /* Where B lies ready there is nothing to wait for: a block of rows goes through all of k at once. */
        bool ready = p->b_direct || p->packed;
        int64_t stretch = ready ? p->depth : p->block_depth;
        for (int64_t begin = 0; begin < p->depth; begin += stretch) {
            int64_t end = matmul_least(p->depth, begin + stretch);
            if (!team) {
                for (int64_t j = 0; j < p->panels && !ready; j++)
                    matmul_pack_panel(p, panel_b, j, column, columns, begin, end - begin);
                for (int64_t u = 0; u < units.count; u++)
                    unit_run(p, units, u, panel_a, panel_b, column, columns, begin, end);
                continue;
            }
            if (!ready) {
#pragma omp for schedule(static)
                for (int64_t j = 0; j < p->panels; j++)
                    matmul_pack_panel(p, panel_b, j, column, columns, begin, end - begin);
            }
#pragma omp for schedule(dynamic)
            for (int64_t u = 0; u < units.count; u++)
                unit_run(p, units, u, panel_a, panel_b, column, columns, begin, end);
        }
    }
}

void matmul_rows(const Product *whole, uint32_t *panel_a, int64_t begin, int64_t end)
{
    Product p = *whole;
    p.m = end - begin;
    p.c.data = (char *)p.c.data + (size_t)(begin * p.c.ld) * dtype_size(p.c.dtype);
    p.a.data = (const char *)p.a.data + (size_t)(begin * p.a.row) * dtype_size(p.a.dtype);
    blocks_run(&p, panel_a, panel_a + matmul_apart(p.block_rows) * p.block_depth, 1, false);
}

void matmul_share(const Product *whole, CpuState *state, int thread, int part, int parts)
{
    int64_t begin, end;
    cpu_share(whole->m, whole->kernel->mr, part, parts, &begin, &end);
    matmul_rows(whole, state->panel_a[thread], begin, end);
}

void matmul_blocks(Stream *s, const Product *whole)
{
    CpuState *state = cpu_state(s);
    int threads = whole->m * whole->n * whole->k < 1 << 16 ? 1 : cpu_threads(s);
    bool own = whole->m >= (int64_t)OWN_ROWS * threads && whole->own_panels;
#pragma omp parallel num_threads(threads)
    {
        Product one = *whole;
        int thread = omp_get_thread_num();
        if (own)
            matmul_share(whole, state, thread, thread, threads);
        else
            blocks_run(&one, state->panel_a[thread], state->panel_b, threads, true);
    }
}
