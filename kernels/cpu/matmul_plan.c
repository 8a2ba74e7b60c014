/* How a matrix product is cut into blocks. */
#include "kernels/cpu/matmul.h"

#include "base/cpu.h"

/* Words of B's panels along k, of B's block, of A's block: a panel in the first cache, the others in the second and third. */
enum { DEPTH = 192, PANEL_WORDS = 384 << 10, BLOCK_WORDS = 48 << 10 };
enum { NEAR_WORDS = 256 /* rows of a kilobyte */, SETS_WORDS = 128 };
enum { MANY_ROWS = 2048 /* for which B is packed where its lines crowd the first cache's sets */ };
enum { HALVES_DEPTH = 512 /* k at least in a sum of two halves */, HALVES_WORDS = 1 << 20 /* C at most */ };
_Static_assert((int)HALVES_WORDS <= (int)CPU_PANEL_B_WORDS, "the second half's sums have room");

/* bf16 stays in pairs where the CPU multiplies it. */
static void choose_kernel(Product *p, Dtype type)
{
    p->kernel = cpu_matmul_kernel();
    if (type == DTYPE_BF16 && cpu_level() >= CPU_AVX512_BF16) {
        p->kernel = &matmul_kernel_avx512bf16;
        p->pairs = true;
    }
}

/* A bf16 C can't hold partial sums, so there k is one block; otherwise a panel of B shall fit the first cache and a block of A the second. */
static void choose_blocks(Product *p)
{
    int mr = p->kernel->mr, lanes = p->kernel->lanes;
    p->depth = matmul_words(p, p->k);
    p->block_depth = p->c.dtype == DTYPE_BF16 ? p->depth : matmul_least(p->depth, DEPTH);
    p->block_columns = PANEL_WORDS / p->block_depth / MATMUL_PANEL * MATMUL_PANEL;
    p->block_columns = matmul_least(p->block_columns < MATMUL_PANEL ? MATMUL_PANEL : p->block_columns, matmul_round_up(p->n, lanes));
    p->block_rows = BLOCK_WORDS / p->block_depth / mr * mr;
    p->block_rows = p->block_rows < mr ? mr : matmul_least(p->block_rows, 256);
    int64_t block_a = matmul_apart(p->block_rows) * p->block_depth, block_b = p->block_columns * p->block_depth;
    cpu_check(block_b <= CPU_PANEL_B_WORDS && block_a <= CPU_PANEL_A_WORDS, "matmul", "inner sizes");
    p->own_panels = block_a + block_b <= CPU_PANEL_A_WORDS;
}

/* Do the cache lines of a panel of B whose rows lie `ld` words apart leave room in the first cache's 64 sets of 12? */
static bool spread(int64_t ld, int64_t depth)
{
    enum { LINE = 16, SETS = 64, MOST = 10 };
    int64_t lines = MATMUL_PANEL / LINE, step = (ld + LINE - 1) / LINE, apart = matmul_least(step & -step, SETS), sets = matmul_least(SETS / apart * lines, SETS);
    return depth * lines <= MOST * sets;
}

static void choose_direct(Product *p)
{
    /* Or rows whose cache lines lie in many sets. */
    bool near = p->a.row != 1 || p->a.column <= NEAR_WORDS || (p->a.column <= 4 * NEAR_WORDS && p->a.column % SETS_WORDS != 0);
    int lanes = p->kernel->lanes;
    p->b_direct = p->b.dtype == DTYPE_F32 && !p->b.rounded && p->b.row == 1 && p->b.column <= NEAR_WORDS && p->b.column % lanes == 0 && p->n % lanes == 0 &&
                  (p->m < MANY_ROWS || spread(p->b.column, p->block_depth));
    p->a_direct = p->pairs ? matmul_whole_pairs(p->a, p->k) : p->a.dtype == DTYPE_F32 && near;
}

/* A weight's gradient, whose k are a batch's rows. */
static bool in_halves(const Product *p)
{
    return p->a.row == 1 && p->a.column != 1 && p->k >= HALVES_DEPTH && p->c.dtype == DTYPE_F32 && p->m * p->n <= HALVES_WORDS && p->own_panels;
}

void matmul_plan(Product *p, Dtype type)
{
    choose_kernel(p, type);
    choose_blocks(p);
    p->halves = in_halves(p);
    if (p->halves)
        p->block_depth = MATMUL_HALVES_BLOCK;
    choose_direct(p);
}

void matmul_columns(Product *p, int64_t columns)
{
    int lanes = p->kernel->lanes;
    p->vectors = (columns + lanes - 1) / lanes;
    p->panels = (p->vectors + 2) / 3;
}
