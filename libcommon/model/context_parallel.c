#include "model/context_parallel.h"

#include <stdlib.h>
#include "base/memory.h"

static bool alone(const Model *m)
{
    return m->part.cp_size <= 1;
}

int cp_load(Model *m, Slot *s, Error *err)
{
    if (alone(m))
        return 0;
    int64_t rows = s->sequences * s->key_rows;
    if (s->key_rows != s->sequence_rows * m->part.cp_size)
        return error_set(err, "a batch that is not dealt out to %d context-parallel ranks", m->part.cp_size);
    int32_t *orders = s->prepared;
    batch_orders(s->sequences, s->key_rows, m->part.cp_size, orders, orders + rows);
    m->device->copy(m->stream, s->dealt_order, orders, (size_t)rows * sizeof *orders, COPY_TO_DEVICE);
    m->device->copy(m->stream, s->whole_order, orders + rows, (size_t)rows * sizeof *orders, COPY_TO_DEVICE);
    return m->device->stream_wait(m->stream, err);
}

static Tensor all_rows(const Slot *s, Tensor x)
{
    return tensor_rows(x, 0, s->sequences * s->key_rows);
}

static void done(Model *m, int status)
{
    if (status < 0)
        m->failed = true;
}

/* Rows of `from` in another order. Rows are moved as the words that they are. */
static void reorder(Model *m, Tensor to, Tensor from, const int32_t *order)
{
    int64_t words = to.cols * (int64_t)dtype_size(to.dtype) / (int64_t)sizeof(float);
    m->device->ops->embedding_forward(m->stream, tensor_make(m->device, DTYPE_F32, to.data, to.rows, words),
                                      tensor_make(m->device, DTYPE_F32, from.data, from.rows, words), order);
}

Tensor cp_gather(Model *m, Slot *s, Tensor x)
{
    if (alone(m))
        return x;
    Tensor dealt = all_rows(s, s->dealt_keys), keys = all_rows(s, s->keys), mine = tensor_rows(dealt, m->part.cp->rank * x.rows, x.rows);
    m->device->ops->copy(m->stream, mine, x);
    if (!m->failed)
        done(m, comm_all_gather(m->part.cp, m->stream, mine.data, dealt.data, (size_t)(x.rows * x.cols) * dtype_size(x.dtype), &m->failure));
    reorder(m, keys, dealt, s->dealt_order);
    return keys;
}

Tensor cp_partial(Slot *s, Tensor dx)
{
    return alone(s->model) ? dx : all_rows(s, s->dkeys);
}

void cp_scatter(Model *m, Slot *s, Tensor dx)
{
    if (alone(m))
        return;
    Tensor dealt = all_rows(s, s->dealt_keys), mine = tensor_rows(dealt, m->part.cp->rank * dx.rows, dx.rows);
    reorder(m, dealt, all_rows(s, s->dkeys), s->whole_order);
    if (!m->failed)
        done(m, comm_reduce_scatter(m->part.cp, m->stream, dx.dtype, dealt.data, mine.data, (size_t)(dx.rows * dx.cols), &m->failure));
    m->device->ops->copy(m->stream, dx, mine);
}
