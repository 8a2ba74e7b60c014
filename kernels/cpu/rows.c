/* Operations whose rows (or sequences of rows) know nothing of one another, between rows_begin and rows_end: they are collected, and
 * when something else comes each thread takes its stretch of rows through all of them, a block at a time. What one has written the next
 * finds in the thread's own cache, and threads wait for one another once. Numbers do not change: a row is computed as it is alone. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <string.h>
#include "base/cpu.h"

enum { BLOCK = 128 /* rows that go through all operations together */ };

const RowKernel *cpu_row_kernel(const RowKernel *plain)
{
    return cpu_level() >= CPU_AVX512_BF16 ? row_kernel_avx512bf16() : plain;
}

static void run(Stream *s, const RowQueue *q)
{
    CpuState *state = cpu_state(s);
    int threads = q->rows < 2 * q->cut.grain ? 1 : cpu_threads(s);
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num();
        int64_t begin, end, step = q->cut.whole ? (BLOCK + q->cut.whole - 1) / q->cut.whole * q->cut.whole : BLOCK;
        cpu_share(q->rows, q->cut.grain, thread, threads, &begin, &end);
        if (q->count == 1)
            step = end - begin;
        for (int i = 0; i < q->count; i++)
            if (q->items[i].prepare)
                q->items[i].prepare(&q->items[i].args, thread, threads);
        if (q->prepared) {
#pragma omp barrier
        }
        for (int64_t at = begin; at < end; at += step)
            for (int i = 0; i < q->count; i++)
                q->items[i].run(&q->items[i].args, state, thread, at, end - at < step ? end : at + step);
        if (q->finished) {
#pragma omp barrier
        }
        for (int i = 0; i < q->count; i++)
            if (q->items[i].finish)
                q->items[i].finish(&q->items[i].args, thread, threads);
    }
}

void cpu_settle(Stream *s)
{
    RowQueue *q = &cpu_state(s)->queue;
    if (q->count > 0)
        run(s, q);
    q->count = 0;
    q->room = 0;
    q->prepared = q->finished = false;
    q->cut = (RowCut){.grain = 1};
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static RowCut both(RowCut a, RowCut b)
{
    return (RowCut){larger(a.grain, b.grain), larger(a.whole, b.whole), a.halves || b.halves};
}

static bool divides(int64_t a, int64_t b)
{
    return a == 0 || b == 0 || larger(a, b) % (a < b ? a : b) == 0;
}

/* Is what both ask for that of one of them, so that it suits the other too? */
static bool agree(RowCut a, RowCut b, int64_t rows)
{
    RowCut cut = both(a, b);
    if (cut.halves && rows % (2 * cut.grain) != 0)
        return false;
    return !cut.whole || (divides(a.grain, b.grain) && divides(a.whole, b.whole));
}

static bool full(const RowQueue *q, int64_t rows, RowCut cut)
{
    return q->count == ROW_ITEMS || (q->count > 0 && (q->rows != rows || !agree(q->cut, cut, rows)));
}

void cpu_rows(Stream *s, int64_t rows, RowItem item)
{
    RowQueue *q = &cpu_state(s)->queue;
    if (!q->open) {
        run(s, &(RowQueue){.rows = rows, .cut = item.cut, .count = 1, .prepared = item.prepare, .finished = item.finish, .items = {item}});
        q->room = 0;
        return;
    }
    if (full(q, rows, item.cut))
        cpu_settle(s);
    q->rows = rows;
    q->cut = both(q->cut, item.cut);
    q->prepared |= item.prepare != NULL;
    q->finished |= item.finish != NULL;
    q->items[q->count++] = item;
}

uint32_t *cpu_rows_room(Stream *s, int64_t rows, RowCut cut, int64_t words)
{
    RowQueue *q = &cpu_state(s)->queue;
    words = (words + 15) / 16 * 16;
    if (full(q, rows, cut) || q->room + words > CPU_PANEL_B_WORDS)
        cpu_settle(s);
    uint32_t *room = cpu_state(s)->panel_b + q->room;
    q->room += words;
    return room;
}

void cpu_rows_begin(Stream *s)
{
    cpu_settle(s);
    cpu_state(s)->queue.open = true;
}

void cpu_rows_end(Stream *s)
{
    cpu_settle(s);
    cpu_state(s)->queue.open = false;
}
