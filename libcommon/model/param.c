#include "model/param.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/memory.h"
#include "base/random.h"

enum { ALIGNMENT = 16 }; /* floats: 64 bytes */

typedef struct Layout {
    ModelParameters *p;
    size_t capacity;
} Layout;

/* Adds an entry; `adjacent` puts it right behind the one before. Returns its place. */
static int add(Layout *l, char *name, int64_t rows, int64_t cols, double deviation, float constant, bool adjacent)
{
    ParameterTable *t = &l->p->table;
    t->items = memory_grow(t->items, &l->capacity, t->count + 1, sizeof *t->items);
    Parameter *e = &t->items[t->count];
    *e = (Parameter){.name = name, .ndim = cols ? 2 : 1, .shape = {rows, cols}, .extent = {rows, cols}, .split = -1, .owner = true,
                     .groups = 1u << GRID_CP | 1u << GRID_DP,
                     .trainable = true, .decayed = cols > 0, .deviation = deviation, .constant = constant};
    e->count = (size_t)rows * (size_t)(cols ? cols : 1);
    if (!adjacent)
        t->total = (t->total + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    e->offset = t->total;
    t->total += e->count;
    return (int)t->count++;
}

static char *layer_name(int64_t layer, const char *what)
{
    return memory_format("model.layers.%" PRId64 ".%s", layer, what);
}

static void add_layer(Layout *l, const ModelConfig *c, int64_t i)
{
    LayerParameters *p = &l->p->layers[i];
    memset(p, -1, sizeof *p);
    int64_t h = c->hidden_size, q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    int64_t f = c->intermediate_size;
    double s = c->initializer_range, deep = s / sqrt(2.0 * (double)c->num_hidden_layers);
    p->input_norm = add(l, layer_name(i, "input_layernorm.weight"), h, 0, 0, 1, false);
    p->q = add(l, layer_name(i, "self_attn.q_proj.weight"), q, h, s, 0, false);
    p->k = add(l, layer_name(i, "self_attn.k_proj.weight"), kv, h, s, 0, true);
    p->v = add(l, layer_name(i, "self_attn.v_proj.weight"), kv, h, s, 0, true);
    if (c->qkv_bias) {
        p->q_bias = add(l, layer_name(i, "self_attn.q_proj.bias"), q, 0, 0, 0, false);
        p->k_bias = add(l, layer_name(i, "self_attn.k_proj.bias"), kv, 0, 0, 0, true);
        p->v_bias = add(l, layer_name(i, "self_attn.v_proj.bias"), kv, 0, 0, 0, true);
    }
    if (c->qk_norm) {
        p->q_norm = add(l, layer_name(i, "self_attn.q_norm.weight"), c->head_dim, 0, 0, 1, false);
        p->k_norm = add(l, layer_name(i, "self_attn.k_norm.weight"), c->head_dim, 0, 0, 1, false);
    }
    p->o = add(l, layer_name(i, "self_attn.o_proj.weight"), h, q, deep, 0, false);
    if (c->output_bias)
        p->o_bias = add(l, layer_name(i, "self_attn.o_proj.bias"), h, 0, 0, 0, false);
    p->post_norm = add(l, layer_name(i, "post_attention_layernorm.weight"), h, 0, 0, 1, false);
    p->gate = add(l, layer_name(i, "mlp.gate_proj.weight"), f, h, s, 0, false);
    p->up = add(l, layer_name(i, "mlp.up_proj.weight"), f, h, s, 0, true);
    if (c->mlp_bias) {
        p->gate_bias = add(l, layer_name(i, "mlp.gate_proj.bias"), f, 0, 0, 0, false);
        p->up_bias = add(l, layer_name(i, "mlp.up_proj.bias"), f, 0, 0, 0, true);
    }
    p->down = add(l, layer_name(i, "mlp.down_proj.weight"), h, f, deep, 0, false);
    if (c->mlp_bias)
        p->down_bias = add(l, layer_name(i, "mlp.down_proj.bias"), h, 0, 0, 0, false);
}

int param_open(ModelParameters *p, const ModelConfig *c, Device *d, Stream *s, Error *err)
{
    memset(p, 0, sizeof *p);
    Layout l = {.p = p};
    p->layers = memory_alloc((size_t)c->num_hidden_layers, sizeof *p->layers);
    p->embedding = add(&l, memory_string("model.embed_tokens.weight"), c->vocab_size, c->hidden_size, c->initializer_range, 0, false);
    for (int64_t i = 0; i < c->num_hidden_layers; i++)
        add_layer(&l, c, i);
    p->norm = add(&l, memory_string("model.norm.weight"), c->hidden_size, 0, 0, 1, false);
    p->output = p->score = -1;
    if (c->num_labels)
        p->score = add(&l, memory_string("score.weight"), c->num_labels, c->hidden_size, c->initializer_range, 0, false);
    else if (c->tie_word_embeddings)
        p->output = p->embedding;
    else
        p->output = add(&l, memory_string("lm_head.weight"), c->vocab_size, c->hidden_size, c->initializer_range, 0, false);
    p->table.device = d;
    p->table.stream = s;
    p->table.total = (p->table.total + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    p->table.weights = d->alloc(d, p->table.total * sizeof(float));
    if (!p->table.weights) {
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
    free(t->items);
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

void param_freeze(ParameterTable *t, size_t count)
{
    for (size_t i = 0; i < count; i++)
        t->items[i].trainable = false;
    t->frozen = count < t->count ? t->items[count].offset : t->total;
}

size_t param_trained_total(const ParameterTable *t)
{
    return t->total - t->frozen;
}

float *param_trained(const ParameterTable *t, float *arena, const Parameter *p)
{
    return arena + (p->offset - t->frozen);
}

int param_need_working(ParameterTable *t, Error *err)
{
    if (!t->working)
        t->working = t->device->alloc(t->device, t->total * sizeof *t->working);
    t->stale = true;
    return t->working ? 0 : error_set(err, "no memory for %zu bytes of bf16 weights", t->total * sizeof *t->working);
}

void param_changed(ParameterTable *t)
{
    t->stale = true;
}

void param_refresh(ParameterTable *t)
{
    if (t->working && t->stale)
        t->device->ops->copy(t->stream, tensor_make(t->device, DTYPE_BF16, t->working, 1, (int64_t)t->total),
                             tensor_make(t->device, DTYPE_F32, t->weights, 1, (int64_t)t->total));
    t->stale = false;
}

void param_initialise(ParameterTable *t, uint64_t seed)
{
    for (size_t i = 0; i < t->count; i++) {
        Parameter *e = &t->items[i];
        uint64_t stream = RANDOM_INIT + (XXH64(e->name, strlen(e->name), 0) & ~UINT64_C(0xff));
        float *values = memory_alloc(e->count, sizeof *values);
        int64_t cols = e->ndim == 2 ? e->extent[1] : 1, whole = e->ndim == 2 ? e->shape[1] : 1;
#pragma omp parallel for num_threads(t->device->threads > 0 ? t->device->threads : 1)
        for (int64_t r = 0; r < e->extent[0]; r++)
            for (int64_t j = 0; j < cols; j++) {
                uint64_t index = (uint64_t)((e->begin[0] + r) * whole + e->begin[1] + j);
                values[r * cols + j] = e->deviation > 0 ? (float)(e->deviation * random_normal(seed, stream, index)) : e->constant;
            }
        t->device->copy(t->stream, t->weights + e->offset, values, e->count * sizeof *values, COPY_TO_DEVICE);
        t->device->stream_wait(t->stream, NULL);
        free(values);
    }
    param_changed(t);
}

/* begin: the arena's first float among the weights. */
static Tensor stretch(const ParameterTable *t, void *arena, size_t begin, Dtype type, int first, int last)
{
    char *data = (char *)arena + (t->items[first].offset - begin) * dtype_size(type);
    const Parameter *a = &t->items[first];
    int64_t rows = 0, cols = a->ndim == 2 ? a->extent[1] : 1;
    for (int i = first; i <= last; i++)
        rows += t->items[i].extent[0];
    /* A vector is one row. */
    return a->ndim == 2 ? tensor_make(t->device, type, data, rows, cols) : tensor_make(t->device, type, data, 1, rows);
}

Tensor param_acquire(ParameterTable *t, int first, int last)
{
    return t->working && t->items[first].ndim == 2 ? stretch(t, t->working, 0, DTYPE_BF16, first, last) : param_acquire_f32(t, first, last);
}

Tensor param_acquire_f32(ParameterTable *t, int first, int last)
{
    return stretch(t, t->weights, 0, DTYPE_F32, first, last);
}

void param_release(ParameterTable *t, int first, int last)
{
    (void)t;
    (void)first;
    (void)last;
}

Tensor param_gradient(ParameterTable *t, int first, int last)
{
    if (!t->gradients || !t->items[first].trainable)
        return (Tensor){0};
    return stretch(t, t->gradients, t->frozen, DTYPE_F32, first, last);
}
