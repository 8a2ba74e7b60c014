/* fill, copy, add, scale: rows dealt to threads; scatter. */
#include "kernels/cpu/cpu.h"

#include <omp.h>
#include <string.h>

enum { PIECE = 1 << 13 }; /* elements that a thread takes at a time */

CLONES void cpu_narrow_row(uint16_t *to, const float *from, int64_t n)
{
    cpu_narrow(to, from, n);
}

CLONES void cpu_widen_row(float *to, const uint16_t *from, int64_t n)
{
    cpu_widen(to, from, n);
}

CLONES static void row_fill(float *x, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = value;
}

CLONES static void row_add(float *y, const float *x, int64_t n, float alpha)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += alpha * x[i];
}

CLONES static void row_scale(float *x, int64_t n, float alpha)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= alpha;
}

/* Contiguous matrices are one long row, cut into pieces so that threads share it; of others a piece is a row. The pieces of two
 * tensors of one shape are the same if both are contiguous. */
typedef struct Pieces {
    int64_t count, length, total;
    bool contiguous;
} Pieces;

static Pieces pieces_of(Tensor x, Tensor y)
{
    if (x.ld != x.cols || y.ld != y.cols)
        return (Pieces){x.rows, x.cols, x.rows * x.cols, false};
    return (Pieces){(x.rows * x.cols + PIECE - 1) / PIECE, PIECE, x.rows * x.cols, true};
}

/* Elements of piece i; *offset: where they begin in x. */
static int64_t piece(const Pieces *p, Tensor x, int64_t i, int64_t *offset)
{
    *offset = p->contiguous ? i * p->length : i * x.ld;
    return p->contiguous && p->total - *offset < p->length ? p->total - *offset : p->length;
}

/* The piece as a row of its own. */
static Tensor piece_row(Tensor x, int64_t offset, int64_t n)
{
    return (Tensor){(char *)x.data + (size_t)offset * dtype_size(x.dtype), x.device, x.dtype, 1, n, n};
}

static float *room_of(Stream *s, int64_t n)
{
    cpu_check(2 * n <= CPU_SCRATCH_FLOATS, "elementwise", "widths");
    return cpu_state(s)->scratch[omp_get_thread_num()];
}

void cpu_fill(Stream *s, Tensor x, float value)
{
    cpu_settle(s);
    Pieces p = pieces_of(x, x);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (p.total > PIECE)
    for (int64_t i = 0; i < p.count; i++) {
        int64_t offset, n = piece(&p, x, i, &offset);
        float *to = cpu_target(piece_row(x, offset, n), 0, 0, room_of(s, n));
        row_fill(to, n, value);
        cpu_store(piece_row(x, offset, n), 0, 0, n, to);
    }
}

static void row_copy(Tensor to, Tensor from)
{
    if (to.dtype == DTYPE_BF16 && from.dtype == DTYPE_F32)
        cpu_narrow_row(to.data, from.data, to.cols);
    else if (to.dtype == DTYPE_F32 && from.dtype == DTYPE_BF16)
        cpu_widen_row(to.data, from.data, to.cols);
    else
        dtype_convert(to.data, to.dtype, from.data, from.dtype, (size_t)to.cols);
}

typedef struct Copy {
    Tensor to, from;
} Copy;

static void copy_rows(const void *arguments, CpuState *state, int thread, int64_t begin, int64_t end)
{
    const Copy *a = arguments;
    (void)state, (void)thread;
    if (a->to.ld == a->to.cols && a->from.ld == a->from.cols)
        row_copy(piece_row(a->to, begin * a->to.ld, (end - begin) * a->to.cols), piece_row(a->from, begin * a->from.ld, (end - begin) * a->to.cols));
    else
        for (int64_t t = begin; t < end; t++)
            row_copy(piece_row(a->to, t * a->to.ld, a->to.cols), piece_row(a->from, t * a->from.ld, a->to.cols));
}

/* A row of bf16 may begin where the f32 does that it is made of. */
void cpu_copy(Stream *s, Tensor to, Tensor from)
{
    cpu_check(to.rows == from.rows && to.cols == from.cols, "copy", "shapes");
    if (cpu_state(s)->queue.open) {
        cpu_rows(s, to.rows, cpu_row_item(copy_rows, 8, &(Copy){to, from}, sizeof(Copy)));
        return;
    }
    Pieces p = pieces_of(to, from);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (p.total > PIECE)
    for (int64_t i = 0; i < p.count; i++) {
        int64_t a, b, n = piece(&p, to, i, &a);
        piece(&p, from, i, &b);
        row_copy(piece_row(to, a, n), piece_row(from, b, n));
    }
}

void cpu_scatter(Stream *s, Tensor to, Tensor from, const int32_t *rows)
{
    cpu_settle(s);
    cpu_check(to.cols == from.cols && to.dtype == from.dtype, "scatter", "shapes or types");
    size_t size = dtype_size(to.dtype), width = (size_t)from.cols * size;
    for (int64_t i = 0; i < from.rows; i++)
        if (rows[i] >= 0)
            memcpy((char *)to.data + (size_t)(rows[i] * to.ld) * size, (const char *)from.data + (size_t)(i * from.ld) * size, width);
}

void cpu_add(Stream *s, Tensor y, Tensor x, float alpha)
{
    cpu_settle(s);
    cpu_check(y.rows == x.rows && y.cols == x.cols, "add", "shapes");
    Pieces p = pieces_of(y, x);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (p.total > PIECE)
    for (int64_t i = 0; i < p.count; i++) {
        int64_t a, b, n = piece(&p, y, i, &a);
        piece(&p, x, i, &b);
        Tensor row = piece_row(y, a, n);
        float *room = room_of(s, n), *sum = (float *)(uintptr_t)cpu_row(row, 0, 0, n, room);
        row_add(sum, cpu_row(piece_row(x, b, n), 0, 0, n, room + n), n, alpha);
        cpu_store(row, 0, 0, n, sum);
    }
}

void cpu_scale(Stream *s, Tensor x, float alpha)
{
    cpu_settle(s);
    Pieces p = pieces_of(x, x);
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s)) if (p.total > PIECE)
    for (int64_t i = 0; i < p.count; i++) {
        int64_t offset, n = piece(&p, x, i, &offset);
        Tensor row = piece_row(x, offset, n);
        float *y = (float *)(uintptr_t)cpu_row(row, 0, 0, n, room_of(s, n));
        row_scale(y, n, alpha);
        cpu_store(row, 0, 0, n, y);
    }
}
