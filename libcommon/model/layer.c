/* The layers' forward and backward passes. Notation of the slots: h1 = residual stream into the attention block, y1 its norm,
 * h2 = h1 + attention's output, y2 its norm; the MLP's output goes to slot.branch and is added by the next norm. */
#include <math.h>
#include <stdlib.h>
#include "base/memory.h"
#include "model/cache.h"
#include "model/context_parallel.h"
#include "model/packed.h"
#include "model/tensor_parallel.h"

static Tensor used(Tensor x, int64_t rows)
{
    return x.data ? tensor_rows(x, 0, rows) : x;
}

/* Not where other ranks or a cache take part between operations, nor where adapters or norms of heads use a buffer in several shapes. */
static bool by_rows(const Slot *s)
{
    const Model *m = s->model;
    return m->device->ops->rows_begin && m->part.tp_size <= 1 && m->part.cp_size <= 1 && !m->config.lora && !m->config.qk_norm && !m->params.table.sharding && !s->cache;
}

void slot_rows_begin(Slot *s)
{
    if (by_rows(s))
        s->model->device->ops->rows_begin(s->model->stream);
}

void slot_rows_end(Slot *s)
{
    if (by_rows(s))
        s->model->device->ops->rows_end(s->model->stream);
}

static LayerSlot *layer_slot(Slot *s, int64_t layer)
{
    return &s->layers[layer - s->stage.first];
}

/* [T·heads, d] view of a contiguous range of columns that is all of x. */
static Tensor by_head(Tensor x, int64_t head_dim)
{
    return tensor_make(x.device, x.dtype, x.data, x.rows * (x.cols / head_dim), head_dim);
}

static Attention attention_of(const Slot *s, int64_t layer)
{
    const ModelConfig *c = &s->model->config;
    bool window = config_window(c, layer) > 0;
    return (Attention){.heads = (int)s->model->shape.heads, .kv_heads = (int)s->model->shape.kv_heads, .head_dim = (int)c->head_dim,
                       .scale = 1.0f / sqrtf((float)c->head_dim), .begin = window ? s->window_begin : s->begin, .end = s->end,
                       .sequences = s->sequences, .sequence_rows = s->sequence_rows, .key_rows = s->key_rows};
}

static void linear_forward(Model *m, Slot *s, Tensor y, Tensor x, int first, int last, int bias_first, int bias_last)
{
    packed_product(m, y, x, first, last);
    if (m->config.lora)
        lora_forward(m, s, y, x, first, last);
    if (bias_first >= 0)
        m->device->ops->bias_forward(m->stream, y, param_acquire(&m->params.table, bias_first, bias_last));
}

/* dx = dy·W (dx.data NULL: not wanted), dW += dyᵀ·x, dbias += Σ dy. */
static void linear_backward(Model *m, Slot *s, Tensor dx, Tensor dy, Tensor x, int first, int last, int bias_first, int bias_last)
{
    ParameterTable *t = &m->params.table;
    const Ops *ops = m->device->ops;
    Tensor dw = param_gradient(t, first, last);
    if (dw.data)
        ops->matmul(m->stream, dw, dy, true, x, false, 1, 1);
    if (bias_first >= 0) {
        Tensor dbias = param_gradient(t, bias_first, bias_last);
        if (dbias.data)
            ops->bias_backward(m->stream, dbias, dy);
    }
    if (dx.data) {
        ops->matmul(m->stream, dx, dy, false, param_acquire(t, first, last), false, 1, 0);
        param_release(t, first, last);
    }
    if (m->config.lora)
        lora_backward(m, s, dx, dy, x, first, last);
}

/* y [used, this rank's columns] = x [mine, H]·Wᵀ of everybody's rows. */
static void gathered_forward(Model *m, Slot *s, Tensor y, Tensor x, int first, int last, int bias_first, int bias_last)
{
    linear_forward(m, s, y, tp_gather(m, s, x), first, last, bias_first, bias_last);
}

/* dx [mine, H] from dy [used, this rank's columns]. */
static void gathered_backward(Model *m, Slot *s, Tensor dx, Tensor dy, Tensor x, int first, int last, int bias_first, int bias_last)
{
    bool read = m->config.lora || param_gradient(&m->params.table, first, last).data;
    Tensor all = read ? tp_gather(m, s, x) : x;
    linear_backward(m, s, tp_partial(s, dx), dy, all, first, last, bias_first, bias_last);
    tp_scatter(m, s, dx);
}

/* y [mine, H] = x [used, this rank's columns]·Wᵀ, added up over the ranks; the bias once, behind the sum. */
static void scattered_forward(Model *m, Slot *s, Tensor y, Tensor x, int weight, int bias)
{
    linear_forward(m, s, tp_partial(s, y), x, weight, weight, -1, -1);
    tp_scatter(m, s, y);
    if (bias >= 0)
        m->device->ops->bias_forward(m->stream, y, param_acquire(&m->params.table, bias, bias));
}

/* dx [used, this rank's columns] from dy [mine, H]. */
static void scattered_backward(Model *m, Slot *s, Tensor dx, Tensor dy, Tensor x, int weight, int bias)
{
    Tensor dbias = bias >= 0 ? param_gradient(&m->params.table, bias, bias) : (Tensor){0};
    if (dbias.data)
        m->device->ops->bias_backward(m->stream, dbias, dy);
    linear_backward(m, s, dx, tp_gather(m, s, dy), x, weight, weight, -1, -1);
}

static void rotate(Model *m, const Slot *s, Tensor qkv, bool backward)
{
    const PartShape *p = &m->shape;
    m->device->ops->rope(m->stream, tensor_columns(qkv, 0, p->q + p->kv), (int)(p->heads + p->kv_heads), (int)m->config.head_dim,
                         s->positions, m->cosine, m->sine, backward);
}

/* QK-norm works on contiguous copies, so that a head is a row. */
static void qk_norm_forward(Model *m, LayerSlot *l, const LayerParameters *p, Tensor qkv, Tensor scratch)
{
    const ModelConfig *c = &m->config;
    const Ops *ops = m->device->ops;
    int64_t widths[] = {m->shape.q, m->shape.kv}, at = 0;
    for (int i = 0; i < 2; i++) {
        Tensor part = tensor_columns(qkv, at, widths[i]);
        Tensor raw = tensor_make(m->device, DTYPE_F32, (float *)l->raw_qk.data + at * l->raw_qk.rows, qkv.rows, widths[i]);
        Tensor normed = tensor_make(m->device, scratch.dtype, scratch.data, qkv.rows, widths[i]);
        ops->copy(m->stream, raw, part);
        ops->rmsnorm_forward(m->stream, by_head(normed, c->head_dim), by_head(raw, c->head_dim), i ? l->rk : l->rq,
                             by_head(raw, c->head_dim), (Tensor){0}, param_acquire(&m->params.table, i ? p->k_norm : p->q_norm, i ? p->k_norm : p->q_norm),
                             (float)c->rms_norm_eps);
        ops->copy(m->stream, part, normed);
        at += widths[i];
    }
}

static void qk_norm_backward(Model *m, LayerSlot *l, const LayerParameters *p, Tensor dqkv, Tensor scratch)
{
    const ModelConfig *c = &m->config;
    const Ops *ops = m->device->ops;
    int64_t widths[] = {m->shape.q, m->shape.kv}, at = 0;
    for (int i = 0; i < 2; i++) {
        int norm = i ? p->k_norm : p->q_norm;
        Tensor part = tensor_columns(dqkv, at, widths[i]);
        Tensor raw = tensor_make(m->device, DTYPE_F32, (float *)l->raw_qk.data + at * l->raw_qk.rows, dqkv.rows, widths[i]);
        Tensor d = tensor_make(m->device, scratch.dtype, scratch.data, dqkv.rows, widths[i]);
        ops->copy(m->stream, d, part);
        ops->rmsnorm_backward(m->stream, by_head(d, c->head_dim), (Tensor){0}, param_gradient(&m->params.table, norm, norm), by_head(d, c->head_dim),
                              by_head(raw, c->head_dim), i ? l->rk : l->rq, param_acquire(&m->params.table, norm, norm), (Tensor){0});
        ops->copy(m->stream, part, d);
        at += widths[i];
    }
}

/* The MLP up to its last product. */
static void mlp_enter(Model *m, Slot *s, int64_t layer, Tensor x, Tensor sub)
{
    const Ops *ops = m->device->ops;
    const LayerParameters *p = &m->params.layers[layer];
    LayerSlot *l = layer_slot(s, layer);
    int64_t n = s->used, mine = s->mine;
    ops->rmsnorm_forward(m->stream, used(l->y2, mine), used(l->h2, mine), l->r2, x, sub, param_acquire(&m->params.table, p->post_norm, p->post_norm),
                         (float)m->config.rms_norm_eps);
    gathered_forward(m, s, used(l->gate_up, n), used(l->y2, mine), p->gate, p->up, p->gate_bias, p->up_bias);
    ops->swiglu_forward(m->stream, used(l->activated, n), used(l->gate_up, n));
}

/* Up to the MLP's last product, whose result goes to slot.branch in layer_forward alone: a recomputed layer does without. */
static void layer_enter(Model *m, Slot *s, int64_t layer, Tensor x, Tensor sub)
{
    const ModelConfig *c = &m->config;
    const Ops *ops = m->device->ops;
    const LayerParameters *p = &m->params.layers[layer];
    LayerSlot *l = layer_slot(s, layer);
    ParameterTable *t = &m->params.table;
    int64_t n = s->used, mine = s->mine, q = m->shape.q, kv = m->shape.kv;
    Tensor h1 = used(l->h1, mine), y1 = used(l->y1, mine), qkv = used(l->qkv, n);
    Tensor attended = used(l->attended, n), branch = used(s->branch, mine);
    ops->rmsnorm_forward(m->stream, y1, h1, l->r1, x, sub, param_acquire(t, p->input_norm, p->input_norm), (float)c->rms_norm_eps);
    gathered_forward(m, s, qkv, y1, p->q, p->v, p->q_bias, p->v_bias);
    if (c->qk_norm)
        qk_norm_forward(m, l, p, qkv, attended);
    rotate(m, s, qkv, false);
    Attention a = attention_of(s, layer);
    if (s->cache)
        cache_store(s->cache, layer, tensor_columns(qkv, q, kv), tensor_columns(qkv, q + kv, kv));
    if (s->decoding)
        cache_attend(s->cache, s, layer, attended, tensor_columns(qkv, 0, q));
    else {
        Tensor keys = cp_gather(m, s, tensor_columns(qkv, q, 2 * kv));
        ops->attention_forward(m->stream, attended, l->lse, tensor_columns(qkv, 0, q), tensor_columns(keys, 0, kv), tensor_columns(keys, kv, kv), &a);
    }
    scattered_forward(m, s, branch, attended, p->o, p->o_bias);
    mlp_enter(m, s, layer, h1, branch);
}

static void layer_forward(Model *m, Slot *s, int64_t layer, Tensor x, Tensor sub)
{
    const LayerParameters *p = &m->params.layers[layer];
    layer_enter(m, s, layer, x, sub);
    scattered_forward(m, s, used(s->branch, s->mine), used(layer_slot(s, layer)->activated, s->used), p->down, p->down_bias);
}

static int adapter_of(const Model *m, int64_t layer)
{
    const LayerParameters *p = &m->params.layers[layer];
    const int places[] = {p->q, p->k, p->v, p->o, p->gate, p->up, p->down};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (m->params.table.items[places[i]].adapter >= 0)
            return m->params.table.items[places[i]].adapter;
    return -1;
}

/* Says which units the stage's pass will ask for: a layer's, then its adapters'. */
static void expect(Model *m, Slot *s, bool backward)
{
    const ModelParameters *p = &m->params;
    if (!p->table.sharding)
        return;
    int *entries = s->asked, n = 0;
    if (!backward && s->stage.embedding)
        entries[n++] = p->embedding;
    if (backward && s->stage.head)
        entries[n++] = p->norm;
    for (int64_t i = 0; i < s->stage.count; i++) {
        int64_t layer = backward ? s->stage.first + s->stage.count - 1 - i : s->stage.first + i;
        int adapter = adapter_of(m, layer);
        entries[n++] = p->layers[layer].q;
        if (adapter >= 0)
            entries[n++] = adapter;
    }
    if (!backward && s->stage.head)
        entries[n++] = p->norm;
    param_expect(&m->params.table, entries, n);
}

void stage_forward(Model *m, Slot *s, Tensor in, Tensor out)
{
    const Ops *ops = m->device->ops;
    ParameterTable *t = &m->params.table;
    Tensor x = in, sub = {0};
    param_refresh(t);
    expect(m, s, false);
    if (s->stage.embedding) {
        x = used(s->layers[0].h1, s->mine);
        tp_embedding_forward(m, s, x);
        slot_add_noise(s, x);
    }
    slot_rows_begin(s);
    for (int64_t i = s->stage.first; i < s->stage.first + s->stage.count; i++) {
        layer_forward(m, s, i, x, sub);
        x = used(layer_slot(s, i)->h2, s->mine);
        sub = used(s->branch, s->mine);
    }
    if (s->stage.head) {
        ops->rmsnorm_forward(m->stream, used(s->hidden, s->mine), used(s->last_h, s->mine), s->last_r, x, sub,
                             param_acquire(t, m->params.norm, m->params.norm), (float)m->config.rms_norm_eps);
    } else {
        ops->copy(m->stream, out, x);
        if (sub.data)
            ops->add(m->stream, out, sub, 1);
    }
    slot_rows_end(s);
}

void model_forward(Model *m, Slot *s)
{
    stage_forward(m, s, (Tensor){0}, (Tensor){0});
}

/* What the slot's policy dropped of a layer. slot.branch is free in a backward pass. */
static void layer_recompute(Model *m, Slot *s, int64_t layer)
{
    const Ops *ops = m->device->ops;
    const LayerParameters *p = &m->params.layers[layer];
    LayerSlot *l = layer_slot(s, layer);
    ParameterTable *t = &m->params.table;
    int64_t n = s->used, mine = s->mine;
    float eps = (float)m->config.rms_norm_eps;
    Tensor h1 = used(l->h1, mine), h2 = used(l->h2, mine);
    if (s->recompute == RECOMPUTE_LAYER)
        layer_enter(m, s, layer, h1, (Tensor){0});
    if (s->recompute == RECOMPUTE_NORMS) {
        ops->rmsnorm_forward(m->stream, used(l->y1, mine), h1, l->r1, h1, (Tensor){0}, param_acquire(t, p->input_norm, p->input_norm), eps);
        ops->rmsnorm_forward(m->stream, used(l->y2, mine), h2, l->r2, h2, (Tensor){0}, param_acquire(t, p->post_norm, p->post_norm), eps);
        ops->swiglu_forward(m->stream, used(l->activated, n), used(l->gate_up, n));
    }
}

/* Where the gradient of x goes: to a buffer of its own, or if there is none to x, which a weight's gradient has been the last to read. */
static Tensor in_place(Tensor dx, Tensor x)
{
    return dx.data ? tensor_rows(dx, 0, x.rows) : x;
}

/* Gradients of gates and, without adapters, of norms' and SwiGLU's outputs take the place of what they are gradients of, where caches have
 * just had it. dh: gradient of the residual stream behind the layer on the way in, before it on the way out. Products read slot.dnarrow where there
 * is one: each norm leaves the same there. */
static void layer_backward(Model *m, Slot *s, int64_t layer, Tensor dh)
{
    const ModelConfig *c = &m->config;
    const Ops *ops = m->device->ops;
    const LayerParameters *p = &m->params.layers[layer];
    LayerSlot *l = layer_slot(s, layer);
    ParameterTable *t = &m->params.table;
    int64_t n = s->used, mine = s->mine, q = m->shape.q, kv = m->shape.kv;
    Tensor y1 = used(l->y1, mine), y2 = used(l->y2, mine), gate_up = used(l->gate_up, n), activated = used(l->activated, n);
    Tensor dy1 = in_place(s->dbranch, y1), dy2 = in_place(s->dbranch, y2), dactivated = in_place(s->dactivated, activated);
    Tensor dqkv = used(s->dqkv, n), qkv = used(l->qkv, n), dattended = used(s->dattended, n);
    Tensor narrow = used(s->dnarrow, mine), dread = narrow.data ? narrow : dh;
    slot_rows_begin(s);
    layer_recompute(m, s, layer);
    scattered_backward(m, s, dactivated, dread, activated, p->down, p->down_bias);
    ops->swiglu_backward(m->stream, gate_up, dactivated, gate_up);
    gathered_backward(m, s, dy2, gate_up, y2, p->gate, p->up, p->gate_bias, p->up_bias);
    ops->rmsnorm_backward(m->stream, dh, narrow, param_gradient(t, p->post_norm, p->post_norm), dy2, used(l->h2, mine), l->r2,
                          param_acquire(t, p->post_norm, p->post_norm), dh);
    scattered_backward(m, s, dattended, dread, used(l->attended, n), p->o, p->o_bias);
    Attention a = attention_of(s, layer);
    Tensor keys = cp_gather(m, s, tensor_columns(qkv, q, 2 * kv)), dkeys = cp_partial(s, tensor_columns(dqkv, q, 2 * kv));
    ops->attention_backward(m->stream, tensor_columns(dqkv, 0, q), tensor_columns(dkeys, 0, kv), tensor_columns(dkeys, kv, kv), dattended,
                            used(l->attended, n), l->lse, s->delta, tensor_columns(qkv, 0, q), tensor_columns(keys, 0, kv), tensor_columns(keys, kv, kv), &a);
    cp_scatter(m, s, tensor_columns(dqkv, q, 2 * kv));
    rotate(m, s, dqkv, true);
    if (c->qk_norm)
        qk_norm_backward(m, l, p, dqkv, dattended);
    gathered_backward(m, s, dy1, dqkv, y1, p->q, p->v, p->q_bias, p->v_bias);
    ops->rmsnorm_backward(m->stream, dh, narrow, param_gradient(t, p->input_norm, p->input_norm), dy1, used(l->h1, mine), l->r1,
                          param_acquire(t, p->input_norm, p->input_norm), dh);
    slot_rows_end(s);
}

void stage_backward(Model *m, Slot *s, Tensor dout, Tensor din)
{
    const Ops *ops = m->device->ops;
    ParameterTable *t = &m->params.table;
    Tensor dh = s->stage.head ? used(s->dstream, s->mine) : dout;
    expect(m, s, true);
    if (s->stage.head)
        ops->rmsnorm_backward(m->stream, dh, used(s->dnarrow, s->mine), param_gradient(t, m->params.norm, m->params.norm), used(s->dhidden, s->mine),
                              used(s->last_h, s->mine), s->last_r, param_acquire(t, m->params.norm, m->params.norm), (Tensor){0});
    else if (s->dnarrow.data)
        ops->copy(m->stream, used(s->dnarrow, s->mine), dh);
    if (s->stage.head) {
        param_finished(t, m->params.norm);
        param_finished(t, m->params.score);
        param_finished(t, m->params.output == m->params.embedding ? -1 : m->params.output);
    }
    for (int64_t i = s->stage.first + s->stage.count - 1; i >= s->stage.first; i--) {
        param_begin(t, m->params.layers[i].q);
        layer_backward(m, s, i, dh);
        param_finished(t, m->params.layers[i].q);
        param_finished(t, adapter_of(m, i));
    }
    if (s->stage.embedding) {
        param_begin(t, m->params.embedding);
        tp_embedding_backward(m, s, dh);
        param_finished(t, m->params.embedding);
    } else {
        ops->copy(m->stream, din, dh);
    }
}

void model_backward(Model *m, Slot *s)
{
    stage_backward(m, s, (Tensor){0}, (Tensor){0});
}
