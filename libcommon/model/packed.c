#include "model/packed.h"

#include <stdlib.h>
#include "base/memory.h"

static int pack_weight(Model *m, int first, int last, Error *err)
{
    const Ops *ops = m->device->ops;
    Tensor w = param_acquire(&m->params.table, first, last);
    size_t bytes = ops->pack_bytes(w, m->dtype);
    m->packed[first] = m->device->alloc(m->device, bytes);
    if (m->packed[first])
        ops->pack(m->stream, m->packed[first], w, m->dtype);
    param_release(&m->params.table, first, last);
    return m->packed[first] ? 0 : error_set(err, "no memory for %zu bytes of packed weights", bytes);
}

int packed_open(Model *m, Error *err)
{
    if (!m->device->ops->pack || m->packed)
        return 0;
    param_refresh(&m->params.table);
    m->packed = memory_zalloc((size_t)m->params.table.count, sizeof *m->packed);
    int status = m->config.num_labels ? 0 : pack_weight(m, m->params.output, m->params.output, err);
    for (int64_t i = 0; i < m->config.num_hidden_layers && status == 0; i++) {
        const LayerParameters *p = &m->params.layers[i];
        const int products[][2] = {{p->q, p->v}, {p->o, p->o}, {p->gate, p->up}, {p->down, p->down}};
        for (size_t k = 0; k < 4 && status == 0; k++)
            status = pack_weight(m, products[k][0], products[k][1], err);
    }
    return status;
}

void packed_close(Model *m)
{
    for (int64_t i = 0; m->packed && i < (int64_t)m->params.table.count; i++)
        m->device->release(m->device, m->packed[i]);
    free(m->packed);
    m->packed = NULL;
}

void packed_product(Model *m, Tensor y, Tensor x, int first, int last)
{
    Tensor w = param_acquire(&m->params.table, first, last);
    if (m->packed && m->packed[first])
        m->device->ops->matmul_packed(m->stream, y, x, m->packed[first], w);
    else
        m->device->ops->matmul(m->stream, y, x, false, w, true, 1, 0);
    param_release(&m->params.table, first, last);
}
