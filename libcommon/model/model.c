#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
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

/* Hands out pieces of one allocation, or with memory NULL only counts. */
typedef struct Cutter {
    Device *device;
    char *memory;
    size_t used;
} Cutter;

static void *cut(Cutter *c, size_t bytes)
{
    void *p = c->memory ? c->memory + c->used : NULL;
    c->used += (bytes + 63) / 64 * 64;
    return p;
}

static Tensor cut_tensor(Cutter *c, Dtype t, int64_t rows, int64_t cols)
{
    return tensor_make(c->device, t, cut(c, (size_t)(rows * cols) * dtype_size(t)), rows, cols);
}

/* The norms' and SwiGLU's outputs. */
static void lay_cheap(LayerSlot *l, const Model *m, int64_t rows, Cutter *k)
{
    l->y1 = cut_tensor(k, m->dtype, tp_rows(m, rows), m->config.hidden_size);
    l->y2 = cut_tensor(k, m->dtype, tp_rows(m, rows), m->config.hidden_size);
    l->activated = cut_tensor(k, m->dtype, rows, m->shape.intermediate);
}

static void lay_rest(LayerSlot *l, const Model *m, int64_t rows, Cutter *k)
{
    const PartShape *p = &m->shape;
    size_t floats = (size_t)rows * sizeof(float), mine = (size_t)tp_rows(m, rows) * sizeof(float);
    l->qkv = cut_tensor(k, m->dtype, rows, p->q + 2 * p->kv);
    l->attended = cut_tensor(k, m->dtype, rows, p->q);
    l->h2 = cut_tensor(k, DTYPE_F32, tp_rows(m, rows), m->config.hidden_size);
    l->gate_up = cut_tensor(k, m->dtype, rows, 2 * p->intermediate);
    l->r1 = cut(k, mine);
    l->r2 = cut(k, mine);
    l->lse = cut(k, floats * (size_t)p->heads);
    if (m->config.qk_norm) {
        l->raw_qk = cut_tensor(k, DTYPE_F32, rows, p->q + p->kv);
        l->rq = cut(k, floats * (size_t)p->heads);
        l->rk = cut(k, floats * (size_t)p->kv_heads);
    }
}

/* `before`: the layer before this one, NULL for the first; `kept` is what this layer has of its own. */
static void lay_layer(LayerSlot *l, const LayerSlot *before, const Model *m, Recompute kept, int64_t rows, Cutter *k)
{
    if (before)
        *l = *before;
    l->h1 = cut_tensor(k, DTYPE_F32, tp_rows(m, rows), m->config.hidden_size);
    if (!before || kept == RECOMPUTE_NONE)
        lay_cheap(l, m, rows, k);
    if (!before || kept != RECOMPUTE_LAYER)
        lay_rest(l, m, rows, k);
}

static void lay_slot(Slot *s, const Model *m, int64_t rows, Mode mode, Cutter *k)
{
    const ModelConfig *c = &m->config;
    const PartShape *p = &m->shape;
    int64_t h = c->hidden_size, mine = tp_rows(m, rows);
    int64_t kept = mode == MODE_TRAIN ? c->num_hidden_layers : 1;
    for (int64_t i = 0; i < kept; i++)
        lay_layer(&s->layers[i], i ? &s->layers[i - 1] : NULL, m, m->recompute, rows, k);
    for (int64_t i = kept; i < c->num_hidden_layers; i++)
        s->layers[i] = s->layers[0];
    s->branch = cut_tensor(k, m->dtype, mine, h);
    s->hidden = cut_tensor(k, m->dtype, mine, h);
    s->last_h = cut_tensor(k, DTYPE_F32, mine, h);
    s->last_r = cut(k, (size_t)mine * sizeof(float));
    if (m->part.tp_size > 1) {
        s->wide = cut(k, (size_t)(mine * m->part.tp_size * h) * sizeof(float));
        s->partial = cut(k, (size_t)(mine * m->part.tp_size * h) * sizeof(float));
        s->said = cut(k, ((size_t)m->part.tp_size + 1) * sizeof *s->said);
    }
    if (mode == MODE_TRAIN) {
        s->dhidden = s->dstream = cut_tensor(k, DTYPE_F32, mine, h);
        if (m->dtype != DTYPE_F32) {
            s->dhidden = cut_tensor(k, m->dtype, mine, h);
            s->dnarrow = cut_tensor(k, m->dtype, mine, h);
        }
        s->dbranch = cut_tensor(k, m->dtype, mine, h);
        s->dqkv = cut_tensor(k, m->dtype, rows, p->q + 2 * p->kv);
        s->dattended = cut_tensor(k, m->dtype, rows, p->q);
        s->dgate_up = cut_tensor(k, m->dtype, rows, 2 * p->intermediate);
        s->dactivated = cut_tensor(k, m->dtype, rows, p->intermediate);
        s->delta = cut(k, (size_t)(rows * p->heads) * sizeof(float));
    }
    if (!c->num_labels)
        s->chunk = cut_tensor(k, DTYPE_F32, HEAD_CHUNK, p->vocab);
    if (!c->num_labels && mode == MODE_TRAIN && m->dtype != DTYPE_F32)
        s->chunk_narrow = cut_tensor(k, m->dtype, HEAD_CHUNK, p->vocab);
    float **floats[] = {&s->chunk_logprob, &s->chunk_lse, &s->chunk_dlogprob, &s->chunk_dlse};
    for (size_t i = 0; i < 4; i++)
        *floats[i] = cut(k, HEAD_CHUNK * sizeof(float));
    s->chunk_best = cut(k, HEAD_CHUNK * sizeof(int32_t));
    int32_t **integers[] = {&s->tokens, &s->labels, &s->positions, &s->begin, &s->end, &s->window_begin};
    for (size_t i = 0; i < 6; i++)
        *integers[i] = cut(k, (size_t)rows * sizeof(int32_t));
}

size_t slot_bytes(const Model *m, int64_t rows, Mode mode)
{
    Cutter k = {0};
    Slot s = {.layers = memory_zalloc((size_t)m->config.num_hidden_layers, sizeof *s.layers)};
    lay_slot(&s, m, rows, mode, &k);
    free(s.layers);
    return k.used;
}

int slot_new(Slot *s, Model *m, int64_t rows, Mode mode, Error *err)
{
    memset(s, 0, sizeof *s);
    s->model = m;
    s->mode = mode;
    s->recompute = m->recompute;
    s->rows = rows;
    s->layers = memory_zalloc((size_t)m->config.num_hidden_layers, sizeof *s->layers);
    s->prepared = memory_alloc((size_t)rows, sizeof *s->prepared);
    size_t bytes = slot_bytes(m, rows, mode);
    s->memory = m->device->alloc(m->device, bytes);
    if (!s->memory) {
        slot_free(s);
        return error_set(err, "no memory for %zu bytes of activations", bytes);
    }
    Cutter k = {m->device, s->memory, 0};
    lay_slot(s, m, rows, mode, &k);
    return 0;
}

void slot_free(Slot *s)
{
    if (s->model && s->memory)
        s->model->device->release(s->model->device, s->memory);
    free(s->layers);
    free(s->prepared);
    memset(s, 0, sizeof *s);
}

/* Of tokens or labels, those of this rank. */
static int32_t *own_tokens(Slot *s, const int32_t *all)
{
    int32_t first = (int32_t)s->model->shape.first_token, count = (int32_t)s->model->shape.vocab;
    for (int64_t i = 0; i < s->used; i++)
        s->prepared[i] = all[i] >= first && all[i] < first + count ? all[i] - first : -1;
    return s->prepared;
}

static int32_t *windows(Slot *s, const int32_t *begin)
{
    for (int64_t i = 0; i < s->used; i++) {
        int64_t first = i - s->model->config.sliding_window + 1;
        s->prepared[i] = first > begin[i] ? (int32_t)first : begin[i];
    }
    return s->prepared;
}

/* Copies; `prepared` is free again afterwards. */
static int send(Slot *s, int32_t *to, const int32_t *from, Error *err)
{
    Model *m = s->model;
    m->device->copy(m->stream, to, from, (size_t)s->used * sizeof *to, COPY_TO_DEVICE);
    return from == s->prepared ? m->device->stream_wait(m->stream, err) : 0;
}

int slot_load(Slot *s, const Batch *b, Error *err)
{
    Model *m = s->model;
    if (b->rows > s->rows)
        return error_set(err, "a batch of %" PRId64 " tokens does not fit a slot of %" PRId64, b->rows, s->rows);
    int32_t last = 0;
    for (int64_t i = 0; i < b->rows; i++) {
        if (b->tokens[i] < 0 || b->tokens[i] >= m->config.vocab_size || b->labels[i] >= m->config.vocab_size)
            return error_set(err, "token %d lies outside the vocabulary of %" PRId64, b->tokens[i], m->config.vocab_size);
        last = b->positions[i] > last ? b->positions[i] : last;
    }
    if (last >= m->rope_positions) {
        int64_t wanted = m->rope_positions;
        while (wanted <= last)
            wanted *= 2;
        if (model_rope(m, wanted, err) < 0)
            return -1;
    }
    s->sequences = b->sequences;
    s->sequence_rows = b->sequence_rows;
    s->used = b->rows;
    s->mine = tp_rows(m, b->rows);
    bool split = m->part.tp_size > 1;
    if (send(s, s->tokens, split ? own_tokens(s, b->tokens) : b->tokens, err) < 0 || send(s, s->labels, split ? own_tokens(s, b->labels) : b->labels, err) < 0 ||
        send(s, s->positions, b->positions, err) < 0 || send(s, s->begin, b->begin, err) < 0 || send(s, s->end, b->end, err) < 0)
        return -1;
    return m->config.sliding_window > 0 ? send(s, s->window_begin, windows(s, b->begin), err) : 0;
}
