#include "model/sharding.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/memory.h"
#include "base/random.h"
#include "model/lora.h"

enum { ALIGNMENT = 16 }; /* floats: 64 bytes */

typedef struct Layout {
    ModelParameters *p;
    const ModelPart *part;
    PartShape shape;
    size_t capacity;
} Layout;

/* A tensor, and the stretch of it that this rank holds along the dimension in which it is split. */
typedef struct Entry {
    int64_t rows, cols; /* cols 0: a vector */
    enum { WHOLE, ROWS, COLUMNS } split;
    int64_t begin, count;
    int replicas; /* 0: 1 where it is split, else all tensor-parallel ranks */
    double deviation, bound;
    float constant;
    bool adjacent; /* lies right behind the entry before */
} Entry;

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Entries from here on are another unit's. */
static void begin_unit(Layout *l)
{
    ParameterTable *t = &l->p->table;
    t->total = round_up(t->total, (size_t)ALIGNMENT * (size_t)(l->part->shards > 1 ? l->part->shards : 1));
    if (t->unit_count > 0)
        t->units[t->unit_count - 1].count = t->total - t->units[t->unit_count - 1].offset;
    t->units = memory_realloc(t->units, (size_t)t->unit_count + 1, sizeof *t->units);
    t->units[t->unit_count++] = (ParameterUnit){.offset = t->total, .first = (int)t->count};
}

/* Returns its place. */
static int add(Layout *l, char *name, Entry n)
{
    ParameterTable *t = &l->p->table;
    t->items = memory_grow(t->items, &l->capacity, t->count + 1, sizeof *t->items);
    Parameter *e = &t->items[t->count];
    int replicas = n.replicas ? n.replicas : n.split == WHOLE ? l->part->tp_size : 1;
    *e = (Parameter){.name = name, .ndim = n.cols ? 2 : 1, .shape = {n.rows, n.cols}, .extent = {n.rows, n.cols}, .split = (int)n.split - 1,
                     .replicas = replicas, .owner = l->part->tp_rank % replicas == 0,
                     .trainable = true, .decayed = n.cols > 0, .deviation = n.deviation, .bound = n.bound, .constant = n.constant, .adapter = -1};
    if (n.split != WHOLE) {
        e->begin[e->split] = n.begin;
        e->extent[e->split] = n.count;
    }
    e->count = (size_t)e->extent[0] * (size_t)(n.cols ? e->extent[1] : 1);
    if (!n.adjacent)
        t->total = round_up(t->total, ALIGNMENT);
    e->offset = t->total;
    e->unit = t->unit_count - 1;
    t->total += e->count;
    t->units[t->unit_count - 1].last = (int)t->count;
    return (int)t->count++;
}

static char *layer_name(int64_t layer, const char *what)
{
    return memory_format("model.layers.%" PRId64 ".%s", layer, what);
}

/* Columns of q, k, v, gate and up are a rank's own, so their rows are split; o and down read them, so their columns are. */
static void add_layer(Layout *l, const ModelConfig *c, int64_t i)
{
    LayerParameters *p = &l->p->layers[i];
    const PartShape *s = &l->shape;
    double deviation = c->initializer_range, deep = deviation / sqrt(2.0 * (double)c->num_hidden_layers);
    int64_t h = c->hidden_size, d = c->head_dim;
    begin_unit(l);
    const Entry norm = {.rows = h, .constant = 1}, head_norm = {.rows = d, .constant = 1}, bias = {.rows = h};
    Entry q = {.rows = c->num_attention_heads * d, .cols = h, .split = ROWS, .begin = s->first_head * d, .count = s->q, .deviation = deviation};
    Entry kv = {.rows = c->num_key_value_heads * d, .cols = h, .split = ROWS, .begin = s->first_kv_head * d, .count = s->kv,
                .replicas = s->kv_replicas, .deviation = deviation, .adjacent = true};
    Entry gate = {.rows = c->intermediate_size, .cols = h, .split = ROWS, .begin = s->first_intermediate, .count = s->intermediate, .deviation = deviation};
    Entry up = gate, o = q, down = gate;
    up.adjacent = true;
    o.split = down.split = COLUMNS;
    o.deviation = down.deviation = deep;
    o.cols = q.rows;
    down.cols = gate.rows;
    o.rows = down.rows = h;
    p->input_norm = add(l, layer_name(i, "input_layernorm.weight"), norm);
    /* Not behind v, which ends where a rank's own part of q lets it: where ranks share key-value heads, k, v and these would add up in one go
     * (tp_reduce), and neighbours in it must lie equally far apart on all ranks. */
    if (c->qk_norm) {
        p->q_norm = add(l, layer_name(i, "self_attn.q_norm.weight"), head_norm);
        p->k_norm = add(l, layer_name(i, "self_attn.k_norm.weight"), head_norm);
    }
    p->q = add(l, layer_name(i, "self_attn.q_proj.weight"), q);
    p->k = add(l, layer_name(i, "self_attn.k_proj.weight"), kv);
    p->v = add(l, layer_name(i, "self_attn.v_proj.weight"), kv);
    if (c->qkv_bias) {
        q.cols = kv.cols = 0;
        q.deviation = kv.deviation = 0;
        p->q_bias = add(l, layer_name(i, "self_attn.q_proj.bias"), q);
        p->k_bias = add(l, layer_name(i, "self_attn.k_proj.bias"), kv);
        p->v_bias = add(l, layer_name(i, "self_attn.v_proj.bias"), kv);
    }
    p->o = add(l, layer_name(i, "self_attn.o_proj.weight"), o);
    if (c->output_bias)
        p->o_bias = add(l, layer_name(i, "self_attn.o_proj.bias"), bias);
    p->post_norm = add(l, layer_name(i, "post_attention_layernorm.weight"), norm);
    p->gate = add(l, layer_name(i, "mlp.gate_proj.weight"), gate);
    p->up = add(l, layer_name(i, "mlp.up_proj.weight"), up);
    if (c->mlp_bias) {
        gate.cols = up.cols = 0;
        gate.deviation = up.deviation = 0;
        p->gate_bias = add(l, layer_name(i, "mlp.gate_proj.bias"), gate);
        p->up_bias = add(l, layer_name(i, "mlp.up_proj.bias"), up);
    }
    p->down = add(l, layer_name(i, "mlp.down_proj.weight"), down);
    if (c->mlp_bias)
        p->down_bias = add(l, layer_name(i, "mlp.down_proj.bias"), bias);
}

/* The last norm and what follows it. Where the embedding is the output layer too, the last stage of a pipeline has a copy. */
static void add_head(Layout *l, const ModelConfig *c, Entry table)
{
    ModelParameters *p = l->p;
    begin_unit(l);
    p->norm = add(l, memory_string("model.norm.weight"), (Entry){.rows = c->hidden_size, .constant = 1});
    if (c->num_labels && c->lora)
        begin_unit(l); /* what is trained is cut apart */
    if (c->num_labels)
        p->score = add(l, memory_string("score.weight"), (Entry){.rows = c->num_labels, .cols = c->hidden_size, .deviation = c->initializer_range});
    else if (!c->tie_word_embeddings)
        p->output = add(l, memory_string("lm_head.weight"), table);
    else if (p->embedding >= 0)
        p->output = p->embedding;
    else {
        begin_unit(l); /* cut as the first stage cuts its own */
        p->output = add(l, memory_string("model.embed_tokens.weight"), table);
        p->table.items[p->output].tied = true;
        p->table.items[p->output].owner = false;
    }
}

/* The first `count` entries are not trained from now on; before gradients are asked for. */
static void freeze(ParameterTable *t, size_t count)
{
    for (size_t i = 0; i < count; i++)
        t->items[i].trainable = false;
    t->frozen = count < t->count ? t->items[count].offset : t->total;
}

/* A and B of every adapter, behind all other entries, which are not trained then but for a reward model's score. B is split as its
 * layer's rows are, A as its columns are; what is whole gets a share of its gradient from every rank. */
static void add_adapters(Layout *l, const ModelConfig *c)
{
    ModelParameters *p = l->p;
    size_t frozen = p->score >= 0 ? (size_t)p->score : p->table.count;
    for (int64_t i = 0; i < c->num_hidden_layers; i++) {
        if (!part_has_layer(l->part, i))
            continue;
        begin_unit(l);
        const LayerParameters *lp = &p->layers[i];
        const int places[LORA_MODULES] = {lp->q, lp->k, lp->v, lp->o, lp->gate, lp->up, lp->down};
        for (int k = 0; k < LORA_MODULES; k++) {
            int64_t rank = lora_rank(c->lora, i, (LoraModule)k);
            if (rank == 0)
                continue;
            const Parameter of = p->table.items[places[k]];
            Entry a = {.rows = rank, .cols = of.shape[1], .bound = 1 / sqrt((double)of.shape[1])}, b = {.rows = of.shape[0], .cols = rank};
            if (of.split >= 0) {
                Entry *part = of.split ? &a : &b;
                part->split = of.split ? COLUMNS : ROWS;
                part->begin = of.begin[of.split];
                part->count = of.extent[of.split];
                part->replicas = of.replicas;
            }
            const char *module = lora_module_name((LoraModule)k);
            int at = add(l, memory_format(ADAPTER_PREFIX "model.layers.%" PRId64 ".%s.lora_A.weight", i, module), a);
            add(l, memory_format(ADAPTER_PREFIX "model.layers.%" PRId64 ".%s.lora_B.weight", i, module), b);
            p->table.items[places[k]].adapter = at;
            p->table.items[at].scale = (float)lora_scale(c->lora, i, (LoraModule)k);
        }
    }
    freeze(&p->table, frozen);
}

int param_open(ModelParameters *p, const ModelConfig *c, const ModelPart *part, Device *d, Stream *s, Error *err)
{
    memset(p, 0, sizeof *p);
    Layout l = {.p = p, .part = part, .shape = part_shape(part, c)};
    const Entry table = {.rows = c->vocab_size, .cols = c->hidden_size, .split = ROWS, .begin = l.shape.first_token, .count = l.shape.vocab,
                         .deviation = c->initializer_range};
    p->layers = memory_alloc((size_t)c->num_hidden_layers, sizeof *p->layers);
    memset(p->layers, -1, (size_t)c->num_hidden_layers * sizeof *p->layers);
    p->embedding = p->norm = p->output = p->score = -1;
    if (part_has_embedding(part)) {
        begin_unit(&l);
        p->embedding = add(&l, memory_string("model.embed_tokens.weight"), table);
        p->table.items[p->embedding].tied = c->tie_word_embeddings && !c->num_labels && !part_has_head(part);
    }
    for (int64_t i = 0; i < c->num_hidden_layers; i++)
        if (part_has_layer(part, i))
            add_layer(&l, c, i);
    if (part_has_head(part))
        add_head(&l, c, table);
    if (c->lora)
        add_adapters(&l, c);
    p->table.device = d;
    p->table.stream = s;
    begin_unit(&l); /* ends the last */
    p->table.unit_count--;
    p->table.weights = d ? d->alloc(d, p->table.total * sizeof(float)) : NULL;
    if (d && !p->table.weights) {
        size_t bytes = p->table.total * sizeof(float);
        param_close(p);
        return error_set(err, "no memory for %zu bytes of weights", bytes);
    }
    return 0;
}

void param_close(ModelParameters *p)
{
    ParameterTable *t = &p->table;
    for (size_t i = 0; i < t->count; i++)
        free(t->items[i].name);
    sharding_close(t);
    free(t->items);
    free(t->units);
    free(p->layers);
    if (t->weights)
        t->device->release(t->device, t->weights);
    if (t->gradients)
        t->device->release(t->device, t->gradients);
    if (t->working)
        t->device->release(t->device, t->working);
    memset(p, 0, sizeof *p);
}

int param_need_gradients(ParameterTable *t, Error *err)
{
    size_t bytes = param_trained_total(t) * sizeof(float);
    if (!t->gradients)
        t->gradients = t->device->alloc(t->device, bytes);
    return t->gradients ? 0 : error_set(err, "no memory for %zu bytes of gradients", bytes);
}

void param_lend(ParameterTable *t, size_t begin, size_t end)
{
    t->lent = begin;
    t->lent_end = end;
}

bool param_is_lent(const ParameterTable *t, int unit)
{
    const ParameterUnit *u = &t->units[unit];
    return u->offset < t->lent_end && u->offset + u->count > t->lent;
}

void param_clear(ParameterTable *t, int unit, size_t begin, size_t end)
{
    if (begin < end)
        t->device->ops->fill(t->stream, tensor_make(t->device, DTYPE_F32, param_kept_gradient(t, unit, begin), 1, (int64_t)(end - begin)), 0);
    t->units[unit].cleared = true;
}

void param_begin(ParameterTable *t, int entry)
{
    int unit = entry >= 0 ? t->items[entry].unit : -1;
    if (unit < 0 || !param_is_lent(t, unit) || t->units[unit].cleared)
        return;
    size_t begin, end;
    param_unit_trained(t, unit, &begin, &end);
    param_clear(t, unit, begin, end);
}

size_t param_trained_total(const ParameterTable *t)
{
    return t->total - t->frozen;
}

float *param_trained(const ParameterTable *t, float *arena, const Parameter *p)
{
    return arena + (p->offset - t->frozen);
}

bool param_within(const Parameter *p, size_t *begin, size_t *end)
{
    if (*begin < p->offset)
        *begin = p->offset;
    if (*end > p->offset + p->count)
        *end = p->offset + p->count;
    return *begin < *end;
}

int param_run(const ParameterTable *t, int i, ParameterKind kind, size_t *begin, size_t *end)
{
    const Parameter *p = &t->items[i];
    int next = i + 1, past = t->units[p->unit].last + 1;
    while (next < past && kind(&t->items[next]) == kind(p))
        next++;
    const Parameter *last = &t->items[next - 1];
    *begin = p->offset > *begin ? p->offset : *begin;
    *end = last->offset + last->count < *end ? last->offset + last->count : *end;
    return next;
}

int param_find(const ParameterTable *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->items[i].name, name) == 0)
            return (int)i;
    return -1;
}

int param_need_working(ParameterTable *t, Error *err)
{
    if (t->device->rounds)
        return 0;
    if (!t->working)
        t->working = t->device->alloc(t->device, t->total * sizeof *t->working);
    t->stale = true;
    return t->working ? 0 : error_set(err, "no memory for %zu bytes of bf16 weights", t->total * sizeof *t->working);
}

void param_unit_trained(const ParameterTable *t, int unit, size_t *begin, size_t *end)
{
    const ParameterUnit *u = &t->units[unit];
    *end = u->offset + u->count;
    *begin = u->offset > t->frozen ? u->offset : t->frozen < *end ? t->frozen : *end;
}

void param_unit_slice(const ParameterTable *t, int unit, const Comm *data, size_t *begin, size_t *end)
{
    size_t first, last, count;
    param_unit_trained(t, unit, &first, &last);
    comm_share(last - first, data->size, data->rank, begin, &count);
    *begin += first;
    *end = *begin + count;
}

void param_changed(ParameterTable *t)
{
    t->stale = true;
    if (t->sharding)
        sharding_changed(t);
}

void param_refresh(ParameterTable *t)
{
    /* What is sharded gets its copy when it comes. */
    size_t n = t->sharding && sharding_all(t) ? 0 : t->total;
    if (t->working && t->stale && n > 0)
        t->device->ops->copy(t->stream, tensor_make(t->device, DTYPE_BF16, t->working, 1, (int64_t)n), tensor_make(t->device, DTYPE_F32, t->weights, 1, (int64_t)n));
    t->stale = false;
}

void param_initialise_one(ParameterTable *t, size_t place, uint64_t seed)
{
    const Parameter *e = &t->items[place];
    uint64_t stream = RANDOM_INIT + (XXH64(e->name, strlen(e->name), 0) & ~UINT64_C(0xff));
    float *values = memory_alloc(e->count, sizeof *values);
    int64_t cols = e->ndim == 2 ? e->extent[1] : 1, whole = e->ndim == 2 ? e->shape[1] : 1;
#pragma omp parallel for num_threads(t->device->threads > 0 ? t->device->threads : 1)
    for (int64_t r = 0; r < e->extent[0]; r++)
        for (int64_t j = 0; j < cols; j++) {
            uint64_t index = (uint64_t)((e->begin[0] + r) * whole + e->begin[1] + j);
            values[r * cols + j] = e->bound > 0       ? (float)(e->bound * (2 * random_uniform(seed, stream, index) - 1))
                                   : e->deviation > 0 ? (float)(e->deviation * random_normal(seed, stream, index))
                                                      : e->constant;
        }
    param_store(t, e, values);
    t->device->stream_wait(t->stream, NULL);
    free(values);
    param_changed(t);
}

void param_initialise(ParameterTable *t, uint64_t seed)
{
    for (size_t i = 0; i < t->count; i++)
        param_initialise_one(t, i, seed);
}

/* Entries first … last, which begin at `data`. */
static Tensor stretch(const ParameterTable *t, void *data, Dtype type, int first, int last)
{
    const Parameter *a = &t->items[first];
    int64_t rows = 0, cols = a->ndim == 2 ? a->extent[1] : 1;
    for (int i = first; i <= last; i++)
        rows += t->items[i].extent[0];
    /* A vector is one row. */
    return a->ndim == 2 ? tensor_make(t->device, type, data, rows, cols) : tensor_make(t->device, type, data, 1, rows);
}

/* Floats of an entry behind the first of its unit. */
static size_t in_unit(const ParameterTable *t, const Parameter *p)
{
    return p->offset - t->units[p->unit].offset;
}

/* Do weights stand in rooms while they are used? */
static bool gathered(const ParameterTable *t)
{
    return t->sharding && sharding_all(t);
}

Tensor param_acquire(ParameterTable *t, int first, int last)
{
    const Parameter *p = &t->items[first];
    if (!t->working || p->ndim != 2)
        return param_acquire_f32(t, first, last);
    return stretch(t, gathered(t) ? sharding_working(t, p->unit) + in_unit(t, p) : t->working + p->offset, DTYPE_BF16, first, last);
}

Tensor param_acquire_f32(ParameterTable *t, int first, int last)
{
    const Parameter *p = &t->items[first];
    return stretch(t, gathered(t) ? sharding_weights(t, p->unit) + in_unit(t, p) : t->weights + p->offset, DTYPE_F32, first, last);
}

void param_release(ParameterTable *t, int first, int last)
{
    (void)t;
    (void)first;
    (void)last;
}

Tensor param_gradient(ParameterTable *t, int first, int last)
{
    const Parameter *p = &t->items[first];
    if (!t->gradients || !p->trainable)
        return (Tensor){0};
    size_t begin, end;
    param_unit_trained(t, p->unit, &begin, &end);
    return stretch(t, t->sharding ? sharding_gradients(t, p->unit) + (p->offset - begin) : param_trained(t, t->gradients, p), DTYPE_F32, first, last);
}

void param_keep(ParameterTable *t, int entry)
{
    if (gathered(t))
        sharding_keep(t, t->items[entry].unit);
}

void param_expect(ParameterTable *t, const int *entries, int count)
{
    if (t->sharding)
        sharding_expect(t, entries, count);
}

void param_finished(ParameterTable *t, int entry)
{
    if (entry >= 0 && t->last && t->finished)
        t->finished(t->finished_context, t->items[entry].unit);
}

float *param_kept_weight(const ParameterTable *t, int unit, size_t offset)
{
    return t->weights + (gathered(t) ? sharding_weight_place(t, unit, offset) : offset);
}

float *param_kept_trained(const ParameterTable *t)
{
    return t->weights + (gathered(t) ? sharding_share(t, t->frozen) : t->frozen);
}

float *param_kept_gradient(const ParameterTable *t, int unit, size_t offset)
{
    return t->gradients + (t->sharding ? sharding_place(t, unit, offset) : offset - t->frozen);
}

size_t param_kept_total(const ParameterTable *t)
{
    size_t n = param_trained_total(t), begin, end;
    if (!t->sharding || !sharding_all(t))
        return n;
    n = 0;
    for (int u = 0; u < t->unit_count; u++) {
        sharding_slice(t, u, &begin, &end);
        n += end - begin;
    }
    return n;
}

void param_store(ParameterTable *t, const Parameter *p, const float *values)
{
    size_t from = p->offset, to = p->offset + p->count;
    if (gathered(t)) {
        sharding_weight_slice(t, p->unit, &from, &to);
        if (!param_within(p, &from, &to))
            return;
    }
    t->device->copy(t->stream, param_kept_weight(t, p->unit, from), values + (from - p->offset), (to - from) * sizeof *values, COPY_TO_DEVICE);
}
