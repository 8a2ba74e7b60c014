/* Products whose B is packed once: a weight for decoding, by cpu_pack, and one for all threads in a product by rows with other operations. */
#include "kernels/cpu/matmul.h"

#include <omp.h>

enum { TOGETHER_WORDS = 2 << 20 /* of B at most in a product by rows with other operations */ };

/* All of B's panels as `packed` wants them: this thread's of them. */
static void pack_share(const Product *whole, uint32_t *packed, int thread, int threads)
{
    int turn = 0;
    for (int64_t column = 0; column < whole->n; column += whole->block_columns) {
        Product one = *whole, *p = &one;
        int64_t columns = matmul_least(p->n - column, p->block_columns);
        matmul_columns(p, columns);
        for (int64_t begin = 0; begin < p->depth; begin += p->block_depth)
            for (int64_t j = 0; j < p->panels; j++)
                if (turn++ % threads == thread)
                    matmul_pack_panel(p, packed + column * p->depth + begin * p->vectors * p->kernel->lanes, j, column, columns, begin,
                                      matmul_least(p->depth - begin, p->block_depth));
    }
}

static int64_t packed_words(const Product *p)
{
    return matmul_round_up(p->n, p->kernel->lanes) * p->depth;
}

static void packed_prepare(const void *arguments, int thread, int threads)
{
    const Product *p = arguments;
    pack_share(p, (uint32_t *)(uintptr_t)p->packed, thread, threads);
}

static void packed_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    matmul_rows(arguments, state->panel_a[thread], begin, end);
}

/* Together with other operations, B packed once for all threads; not where it would not stay in the caches while rows pass by. */
bool matmul_packed_collect(Stream *s, Product *p)
{
    if (!cpu_state(s)->queue.open || (!p->b_direct && packed_words(p) > TOGETHER_WORDS))
        return false;
    if (!p->b_direct)
        p->packed = cpu_rows_room(s, p->m, (RowCut){.grain = p->kernel->mr}, packed_words(p));
    RowItem item = cpu_row_item(packed_rows, p->kernel->mr, p, sizeof *p);
    item.prepare = p->b_direct ? NULL : packed_prepare;
    cpu_rows(s, p->m, item);
    return true;
}

/* A product with W as the packed copy is cut: by the type that inputs and most results have (bf16's sums want all of k at once). */
static Product packed_product(Tensor c, Tensor a, Tensor w, Dtype type)
{
    Product p = {.c = c, .m = c.rows, .n = w.rows, .k = w.cols, .alpha = 1};
    p.a = (View){a.data, type, a.ld, 1, false};
    p.b = (View){w.data, w.dtype, w.ld, 1, w.dtype != type};
    p.c.dtype = type;
    matmul_plan(&p, type);
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
        matmul_blocks(s, &p);
}
