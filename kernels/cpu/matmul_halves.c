/* A weight's gradient, whose k are a batch's rows, is the sum of two halves of k, one for each half of the threads: rows that they have
 * had before, or have just now with other operations. Nothing else of k is split. */
#include "kernels/cpu/matmul.h"

#include <omp.h>

enum { HALVES_TOGETHER = 200 << 10 /* of C at most with other operations */, HALVES_ROWS = 256 /* of k, which halves are multiples of */ };
_Static_assert((int)HALVES_ROWS % (2 * (int)MATMUL_HALVES_BLOCK) == 0, "blocks of k begin where other operations' rows do");

/* [begin, end) of half h of k. The second one's sums go to `room` until the first one's are there. */
static Product half_of(const Product *whole, int h, float *room, int64_t begin, int64_t end)
{
    Product p = *whole;
    int64_t first, last;
    cpu_share(p.k, HALVES_ROWS, h, 2, &first, &last);
    begin = begin > first ? begin : first;
    end = matmul_least(end, last);
    p.a.data = (const char *)p.a.data + (size_t)(begin * p.a.column) * dtype_size(p.a.dtype);
    p.b.data = (const char *)p.b.data + (size_t)(begin * p.b.column) * dtype_size(p.b.dtype);
    p.k = end - begin;
    p.depth = matmul_words(&p, p.k);
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

void matmul_halves(Stream *s, const Product *whole)
{
    CpuState *state = cpu_state(s);
    float *room = (float *)state->panel_b;
    const Product half[2] = {half_of(whole, 0, room, 0, whole->k), half_of(whole, 1, room, 0, whole->k)};
#pragma omp parallel num_threads(cpu_threads(s))
    {
        int thread = omp_get_thread_num(), threads = omp_get_num_threads(), first = threads / 2;
        if (threads == 1) {
            matmul_share(&half[0], state, 0, 0, 1);
            matmul_share(&half[1], state, 0, 0, 1);
        } else if (thread < first) {
            matmul_share(&half[0], state, thread, thread, first);
        } else {
            matmul_share(&half[1], state, thread, thread - first, threads - first);
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
            matmul_rows(&p, state->panel_a[thread], 0, p.m);
    }
}

static void halves_finish(const void *arguments, int thread, int threads)
{
    const Halves *x = arguments;
    halves_add(&x->whole, x->room, thread, threads);
}

bool matmul_halves_collect(Stream *s, const Product *p)
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
