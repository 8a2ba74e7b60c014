/* Slots: one allocation for what a pass keeps, one for what it needs while it runs. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "model/context_parallel.h"
#include "model/lora.h"
#include "model/tensor_parallel.h"

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

static bool on_host(const Model *m)
{
    return !m->device || m->device->is_host;
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

/* The layers of the longest stage of this rank. */
static int64_t most_layers(const ModelPart *p)
{
    int64_t most = 0;
    for (int i = 0; i < p->ranges; i++)
        most = p->range[i].count > most ? p->range[i].count : most;
    return most;
}

/* What a slot of so many rows drops: the model's policy, and on a CPU norms and SwiGLU too where their outputs are so much longer than the
 * caches that to read them again takes as long as to compute them. */
static Recompute recompute_of(const Model *m, int64_t rows)
{
    enum { CHEAP_BYTES = 64 << 20 };
    LayerSlot layer;
    Cutter k = {0};
    lay_cheap(&layer, m, rows, &k);
    return m->recompute == RECOMPUTE_NONE && on_host(m) && k.used * (size_t)most_layers(&m->part) > CHEAP_BYTES ? RECOMPUTE_NORMS : m->recompute;
}

/* What activations take of the gradients' arena (param_lend), from the embedding's on, or where that is the output layer too, whose backward pass is
 * the first, from those of the first layer on. */
typedef struct Loan {
    size_t begin; /* floats of the arena of weights */
    Cutter cutter;
} Loan;

/* false: there is none, of a model that is trained in part or goes through in stages. */
static bool loan_open(Loan *l, const Model *m, Mode mode)
{
    const ParameterTable *t = &m->params.table;
    if (!t->lends || mode != MODE_TRAIN || t->frozen > 0 || t->sharding || m->part.ranges != 1 || !part_has_embedding(&m->part) || !part_has_head(&m->part))
        return false;
    int first = m->params.output == m->params.embedding ? m->params.layers[m->part.range[0].first].q : m->params.embedding;
    *l = (Loan){.begin = t->units[t->items[first].unit].offset};
    l->cutter = (Cutter){.device = m->device, .memory = t->gradients ? (char *)(t->gradients + l->begin) : NULL};
    return true;
}

/* Is there room for so many bytes before the layer's own gradients? */
static bool loan_has(const Loan *l, const Model *m, int64_t layer, size_t bytes)
{
    const ParameterTable *t = &m->params.table;
    size_t end = t->units[t->items[m->params.layers[m->part.range[0].first + layer].q].unit].offset;
    return l->cutter.used + bytes <= (end - l->begin) * sizeof(float);
}

/* What must last until the backward pass, and the batch. */
static void lay_kept(Slot *s, const Model *m, int64_t rows, Mode mode, Cutter *k)
{
    int64_t layers = most_layers(&m->part), kept = mode == MODE_TRAIN ? layers : 1, mine = tp_rows(m, rows);
    Loan loan;
    bool lent = loan_open(&loan, m, mode);
    s->recompute = recompute_of(m, rows);
    for (int64_t i = 0; i < kept; i++) {
        LayerSlot *before = i ? &s->layers[i - 1] : NULL, counted = {0};
        Cutter count = {0};
        lay_layer(&counted, before, m, s->recompute, rows, &count);
        lay_layer(&s->layers[i], before, m, s->recompute, rows, lent && loan_has(&loan, m, i, count.used) ? &loan.cutter : k);
    }
    s->lent = lent ? loan.begin : 0;
    s->lent_end = s->lent + (lent ? loan.cutter.used / sizeof(float) : 0);
    for (int64_t i = kept; i < layers; i++)
        s->layers[i] = s->layers[0];
    if (part_has_head(&m->part)) {
        s->hidden = cut_tensor(k, m->dtype, mine, m->config.hidden_size);
        s->last_h = cut_tensor(k, DTYPE_F32, mine, m->config.hidden_size);
        s->last_r = cut(k, (size_t)mine * sizeof(float));
    }
    int32_t **integers[] = {&s->tokens, &s->labels, &s->positions, &s->begin, &s->end, &s->window_begin};
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        *integers[i] = cut(k, (size_t)rows * sizeof(int32_t));
}

static int64_t chunk_rows(const Model *m, int64_t mine)
{
    int64_t chunk = model_head_chunk(m), most = mine * m->part.tp_size;
    return most > 0 && most < chunk ? most : chunk;
}

/* Words of all ranks about a chunk of logits. */
static int64_t said_count(const Model *m, int64_t mine)
{
    return m->part.tp_size * ((chunk_rows(m, mine) + HEAD_CHUNK - 1) / HEAD_CHUNK);
}

static void lay_head(Slot *s, const Model *m, int64_t mine, Mode mode, Cutter *k)
{
    const ModelConfig *c = &m->config;
    int64_t chunk = chunk_rows(m, mine);
    if (m->part.tp_size > 1)
        s->said = cut(k, (size_t)(said_count(m, mine) + 1) * sizeof *s->said);
    if (mode == MODE_TRAIN)
        s->dhidden = s->dstream = cut_tensor(k, DTYPE_F32, mine, c->hidden_size);
    if (mode == MODE_TRAIN && m->dtype != DTYPE_F32)
        s->dhidden = cut_tensor(k, m->dtype, mine, c->hidden_size);
    float **floats[] = {&s->chunk_logprob, &s->chunk_lse, &s->chunk_dlogprob, &s->chunk_dlse};
    for (size_t i = 0; i < 4; i++)
        *floats[i] = cut(k, (size_t)(mine > chunk ? mine : chunk) * sizeof(float));
    s->chunk_best = cut(k, (size_t)(mine > chunk ? mine : chunk) * sizeof(int32_t));
}

/* A CPU writes the narrow gradient of a row over its logits. */
static void lay_logits(Slot *s, const Model *m, int64_t mine, Mode mode, Cutter *k)
{
    int64_t chunk = chunk_rows(m, mine), n = m->shape.vocab;
    s->chunk = cut_tensor(k, DTYPE_F32, chunk, n);
    if (mode != MODE_TRAIN || m->dtype == DTYPE_F32)
        return;
    if (on_host(m))
        s->chunk_narrow = tensor_columns(tensor_make(m->device, m->dtype, s->chunk.data, chunk, 2 * n), 0, n);
    else
        s->chunk_narrow = cut_tensor(k, m->dtype, chunk, n);
}

/* What backward passes through layers use up. */
static void lay_backward(Slot *s, const Model *m, int64_t rows, Cutter *k)
{
    const PartShape *p = &m->shape;
    int64_t h = m->config.hidden_size, mine = tp_rows(m, rows);
    if (m->part.cp_size > 1)
        s->dkeys = cut_tensor(k, m->dtype, rows * m->part.cp_size, 2 * p->kv);
    if (m->dtype != DTYPE_F32)
        s->dnarrow = cut_tensor(k, m->dtype, mine, h);
    s->dqkv = cut_tensor(k, m->dtype, rows, p->q + 2 * p->kv);
    s->dattended = cut_tensor(k, m->dtype, rows, p->q);
    if (m->config.lora) { /* whose gradients read inputs once more */
        s->dbranch = cut_tensor(k, m->dtype, mine, h);
        s->dactivated = cut_tensor(k, m->dtype, rows, p->intermediate);
    }
    s->delta = cut(k, (size_t)(rows * p->heads) * sizeof(float));
}

static void lay_adapters(Slot *s, const Model *m, int64_t rows, Mode mode, Cutter *k)
{
    const LoraPlan *l = m->config.lora;
    int64_t widest = m->config.hidden_size;
    widest = m->shape.q > widest ? m->shape.q : widest;
    widest = m->shape.intermediate > widest ? m->shape.intermediate : widest;
    s->lora_u = cut_tensor(k, m->dtype, rows, lora_rank_max(l));
    if (mode == MODE_TRAIN)
        s->lora_du = cut_tensor(k, m->dtype, rows, lora_rank_max(l));
    if ((mode == MODE_TRAIN && l->dropout > 0) || m->dtype != DTYPE_F32)
        s->lora_x = cut_tensor(k, m->dtype, rows, widest);
}

/* What is used up within a pass. */
static void lay_scratch(Slot *s, const Model *m, int64_t rows, Mode mode, Cutter *k)
{
    const PartShape *p = &m->shape;
    int64_t h = m->config.hidden_size, mine = tp_rows(m, rows);
    s->branch = cut_tensor(k, m->dtype, mine, h);
    if (m->part.tp_size > 1) {
        s->wide = cut(k, (size_t)(mine * m->part.tp_size * h) * sizeof(float));
        s->partial = cut(k, (size_t)(mine * m->part.tp_size * h) * sizeof(float));
    }
    if (m->part.cp_size > 1) {
        int64_t keys = rows * m->part.cp_size;
        s->dealt_keys = cut_tensor(k, m->dtype, keys, 2 * p->kv);
        s->keys = cut_tensor(k, m->dtype, keys, 2 * p->kv);
        s->dealt_order = cut(k, (size_t)keys * sizeof *s->dealt_order);
        s->whole_order = cut(k, (size_t)keys * sizeof *s->whole_order);
    }
    if (m->config.lora)
        lay_adapters(s, m, rows, mode, k);
    if (part_has_head(&m->part))
        lay_head(s, m, mine, mode, k);
    /* The head is through with its logits when a backward pass begins: both take the same place. */
    size_t begin = k->used, behind;
    if (mode == MODE_TRAIN)
        lay_backward(s, m, rows, k);
    behind = k->used;
    k->used = begin;
    if (part_has_head(&m->part) && !m->config.num_labels)
        lay_logits(s, m, mine, mode, k);
    k->used = k->used > behind ? k->used : behind;
}

static size_t bytes_of(void (*lay)(Slot *, const Model *, int64_t, Mode, Cutter *), const Model *m, int64_t rows, Mode mode)
{
    Cutter k = {0};
    Slot s = {.layers = memory_zalloc((size_t)most_layers(&m->part) + 1, sizeof *s.layers)};
    lay(&s, m, rows, mode, &k);
    free(s.layers);
    return k.used;
}

size_t slot_bytes(const Model *m, int64_t rows, Mode mode, int slots)
{
    return (size_t)slots * bytes_of(lay_kept, m, rows, mode) + bytes_of(lay_scratch, m, rows, mode);
}

static int lay_out(Slot *s, void **memory, void (*lay)(Slot *, const Model *, int64_t, Mode, Cutter *), Error *err)
{
    Device *d = s->model->device;
    size_t bytes = bytes_of(lay, s->model, s->rows, s->mode);
    *memory = d->alloc(d, bytes);
    if (!*memory)
        return error_set(err, "no memory for %zu bytes of activations", bytes);
    Cutter k = {d, *memory, 0};
    lay(s, s->model, s->rows, s->mode, &k);
    return 0;
}

static void host_open(Slot *s)
{
    const Model *m = s->model;
    size_t layers = (size_t)most_layers(&m->part);
    s->layers = memory_zalloc(layers + 1, sizeof *s->layers);
    s->prepared = memory_alloc((size_t)(m->part.cp_size > 1 ? 2 * s->rows * m->part.cp_size : s->rows), sizeof *s->prepared);
    s->heard = m->part.tp_size > 1 ? memory_alloc((size_t)said_count(m, tp_rows(m, s->rows)), sizeof *s->heard) : NULL;
    s->asked = memory_alloc(2 * layers + 2, sizeof *s->asked);
}

int slot_new(Slot *s, Model *m, int64_t rows, Mode mode, Error *err)
{
    *s = (Slot){.model = m, .mode = mode, .rows = rows};
    host_open(s);
    slot_stage(s, 0);
    ParameterTable *t = &m->params.table;
    if ((t->lends && mode == MODE_TRAIN && param_need_gradients(t, err) < 0) || lay_out(s, &s->memory, lay_kept, err) < 0 || lay_out(s, &s->scratch, lay_scratch, err) < 0) {
        slot_free(s);
        return -1;
    }
    if (s->lent < s->lent_end)
        param_lend(t, s->lent, s->lent_end);
    return 0;
}

int slot_beside(Slot *s, const Slot *first, Error *err)
{
    *s = *first;
    s->memory = s->scratch = NULL;
    s->random = (SlotRandom){0};
    host_open(s);
    if (lay_out(s, &s->memory, lay_kept, err) == 0 && (!first->random.keys || slot_randomise(s, (double)first->random.neftune, err) == 0))
        return 0;
    slot_free(s);
    return -1;
}

void slot_stage(Slot *s, int chunk)
{
    s->stage = s->model->part.range[chunk];
}

void slot_free(Slot *s)
{
    if (s->model) {
        if (s->lent < s->lent_end)
            param_lend(&s->model->params.table, 0, 0);
        s->model->device->release(s->model->device, s->memory);
        s->model->device->release(s->model->device, s->scratch);
    }
    slot_random_free(s);
    free(s->layers);
    free(s->prepared);
    free(s->heard);
    free(s->asked);
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

static int32_t *windows(Slot *s, const int32_t *begin, const int32_t *end)
{
    for (int64_t i = 0; i < s->used; i++) {
        int64_t first = end[i] - s->model->config.sliding_window;
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
    s->key_rows = b->key_rows;
    s->used = b->rows;
    s->mine = tp_rows(m, b->rows);
    bool split = m->part.tp_size > 1;
    if (send(s, s->tokens, split ? own_tokens(s, b->tokens) : b->tokens, err) < 0 || send(s, s->labels, split ? own_tokens(s, b->labels) : b->labels, err) < 0 ||
        send(s, s->positions, b->positions, err) < 0 || send(s, s->begin, b->begin, err) < 0 || send(s, s->end, b->end, err) < 0)
        return -1;
    if (s->random.draw)
        slot_random_load(s, b);
    if (cp_load(m, s, err) < 0)
        return -1;
    return m->config.sliding_window > 0 ? send(s, s->window_begin, windows(s, b->begin, b->end), err) : 0;
}
