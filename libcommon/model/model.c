#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "model/packed.h"
#include "model/rope.h"
#include "model/tensor_parallel.h"

int model_open(Model *m, const ModelConfig *c, const ModelPart *part, Device *d, Error *err)
{
    memset(m, 0, sizeof *m);
    m->config = *c;
    m->part = part ? *part : part_whole(c);
    if (part_check(&m->part, c, err) < 0)
        return -1;
    m->shape = part_shape(&m->part, c);
    m->device = d;
    m->stream = d->stream_new(d);
    if (!m->stream)
        return error_set(err, "device %s gives no stream", d->name);
    if (tp_open(m, err) < 0 || param_open(&m->params, c, &m->part, d, m->stream, err) < 0 ||
        model_rope(m, c->max_position_embeddings < 8192 ? c->max_position_embeddings : 8192, err) < 0) {
        model_close(m);
        return -1;
    }
    return 0;
}

int model_check(const Model *m, Error *err)
{
    if (m->failed)
        *err = m->failure;
    return m->failed ? -1 : 0;
}

int model_compute_in(Model *m, Dtype t, Error *err)
{
    m->dtype = t;
    return t == DTYPE_F32 ? 0 : param_need_working(&m->params.table, err);
}

void model_close(Model *m)
{
    if (!m->device)
        return;
    packed_close(m);
    if (m->params.table.items)
        param_close(&m->params);
    m->device->release(m->device, m->cosine);
    m->device->release(m->device, m->sine);
    if (m->stream)
        m->device->stream_free(m->stream);
    tp_close(m);
    free(m->tokenizer_folder);
    memset(m, 0, sizeof *m);
}

int model_rope(Model *m, int64_t positions, Error *err)
{
    size_t half = (size_t)m->config.head_dim / 2, n = (size_t)positions * half;
    Device *d = m->device;
    d->release(d, m->cosine);
    d->release(d, m->sine);
    m->cosine = d->alloc(d, n * sizeof(float));
    m->sine = d->alloc(d, n * sizeof(float));
    if (!m->cosine || !m->sine)
        return error_set(err, "no memory for position tables of %" PRId64 " tokens", positions);
    float *c = memory_alloc(n, sizeof *c), *s = memory_alloc(n, sizeof *s);
    rope_table(&m->config, positions, c, s);
    d->copy(m->stream, m->cosine, c, n * sizeof *c, COPY_TO_DEVICE);
    d->copy(m->stream, m->sine, s, n * sizeof *s, COPY_TO_DEVICE);
    int status = d->stream_wait(m->stream, err);
    free(c);
    free(s);
    m->rope_positions = positions;
    return status;
}
