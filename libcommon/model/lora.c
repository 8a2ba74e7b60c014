#include "model/lora.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/memory.h"
#include "model/model.h"

static const char *const names[LORA_MODULES] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};

const char *lora_module_name(LoraModule m)
{
    return names[m];
}

void lora_plan_extend(LoraPlan *p, int64_t layers)
{
    if (layers <= p->layers)
        return;
    size_t old = (size_t)p->layers * LORA_MODULES, n = (size_t)layers * LORA_MODULES;
    p->ranks = memory_realloc(p->ranks, n, sizeof *p->ranks);
    p->alphas = memory_realloc(p->alphas, n, sizeof *p->alphas);
    memset(p->ranks + old, 0, (n - old) * sizeof *p->ranks);
    memset(p->alphas + old, 0, (n - old) * sizeof *p->alphas);
    p->layers = layers;
}

int lora_targets(unsigned *targets, const char *wanted, Error *err)
{
    bool all = strcmp(wanted, "all-linear") == 0;
    *targets = all ? (1u << LORA_MODULES) - 1 : 0;
    for (const char *at = wanted; !all && *at;) {
        size_t n = strcspn(at, ",");
        unsigned before = *targets, found = 0;
        for (int i = 0; i < LORA_MODULES; i++) {
            const char *last = strchr(names[i], '.') + 1;
            if (strlen(last) == n && memcmp(last, at, n) == 0)
                found = 1u << i;
        }
        if (!found)
            return error_set(err, "--lora-targets: '%.*s' is none of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, all-linear", (int)n, at);
        *targets = before | found;
        at += n + (at[n] == ',');
    }
    return *targets ? 0 : error_set(err, "--lora-targets names no layer");
}

void lora_plan_free(LoraPlan *p)
{
    free(p->ranks);
    free(p->alphas);
    free(p->base);
    memset(p, 0, sizeof *p);
}

int64_t lora_rank(const LoraPlan *p, int64_t layer, LoraModule m)
{
    if (!p->layers)
        return p->targets >> m & 1 ? p->rank : 0;
    return layer < p->layers ? p->ranks[layer * LORA_MODULES + m] : 0;
}

double lora_alpha(const LoraPlan *p, int64_t layer, LoraModule m)
{
    return p->layers ? p->alphas[layer * LORA_MODULES + m] : p->alpha;
}

double lora_scale(const LoraPlan *p, int64_t layer, LoraModule m)
{
    double r = (double)lora_rank(p, layer, m);
    return lora_alpha(p, layer, m) / (p->rslora ? sqrt(r) : r);
}

int64_t lora_rank_max(const LoraPlan *p)
{
    int64_t most = p->layers ? 0 : p->rank;
    for (int64_t i = 0; i < p->layers * LORA_MODULES; i++)
        most = p->ranks[i] > most ? p->ranks[i] : most;
    return most;
}

/* By name, so that every grid draws alike. */
static uint64_t draw_of(const Model *m, const Slot *s, int entry)
{
    const char *name = m->params.table.items[entry].name;
    return slot_draw(s, XXH64(name, strlen(name), 0));
}

/* Of an adapter's inputs this rank may have some columns alone. */
static int64_t first_column(const Model *m, int a)
{
    return m->params.table.items[a].begin[1];
}

/* x as the adapter at `entry` sees it: with dropout a masked copy in the slot's scratch. */
static Tensor seen(Model *m, Slot *s, Tensor x, int entry)
{
    if (!s->random.draw || m->config.lora->dropout <= 0)
        return x;
    Tensor masked = tensor_make(m->device, x.dtype, s->lora_x.data, x.rows, x.cols);
    m->device->ops->dropout(m->stream, masked, x, first_column(m, entry), s->random.keys, draw_of(m, s, entry), (float)m->config.lora->dropout, false);
    return masked;
}

/* to += scale·a·b or, where t, a·bᵀ. A bf16 sum is rounded as its summands are, so the product is made beside it, in the scratch that
 * masked inputs take: those are not read any more. */
static void add_product(Model *m, Slot *s, Tensor to, Tensor a, Tensor b, bool t, float scale)
{
    if (to.dtype == DTYPE_F32) {
        m->device->ops->matmul(m->stream, to, a, false, b, t, scale, 1);
        return;
    }
    Tensor product = tensor_make(m->device, to.dtype, s->lora_x.data, to.rows, to.cols);
    m->device->ops->matmul(m->stream, product, a, false, b, t, scale, 0);
    m->device->ops->add(m->stream, to, product, 1);
}

void lora_forward(Model *m, Slot *s, Tensor y, Tensor x, int first, int last)
{
    ParameterTable *t = &m->params.table;
    const Ops *ops = m->device->ops;
    int64_t at = 0;
    for (int i = first; i <= last; at += t->items[i++].extent[0]) {
        int a = t->items[i].adapter;
        if (a < 0)
            continue;
        Tensor u = tensor_make(m->device, m->dtype, s->lora_u.data, x.rows, t->items[a].extent[0]);
        ops->matmul(m->stream, u, seen(m, s, x, a), false, param_acquire(t, a, a), true, 1, 0);
        add_product(m, s, tensor_columns(y, at, t->items[i].extent[0]), u, param_acquire(t, a + 1, a + 1), true, t->items[a].scale);
        param_release(t, a, a);
        param_release(t, a + 1, a + 1);
    }
}

/* U = drop(x)·Aᵀ is computed again: it costs little and no layer has to keep it. */
void lora_backward(Model *m, Slot *s, Tensor dx, Tensor dy, Tensor x, int first, int last)
{
    ParameterTable *t = &m->params.table;
    const Ops *ops = m->device->ops;
    int64_t at = 0;
    for (int i = first; i <= last; at += t->items[i++].extent[0]) {
        int a = t->items[i].adapter;
        if (a < 0)
            continue;
        int64_t r = t->items[a].extent[0];
        float scale = t->items[a].scale;
        Tensor u = tensor_make(m->device, m->dtype, s->lora_u.data, x.rows, r), du = tensor_make(m->device, m->dtype, s->lora_du.data, x.rows, r);
        Tensor in = seen(m, s, x, a), out = tensor_columns(dy, at, t->items[i].extent[0]), wa = param_acquire(t, a, a), wb = param_acquire(t, a + 1, a + 1);
        ops->matmul(m->stream, u, in, false, wa, true, 1, 0);
        ops->matmul(m->stream, param_gradient(t, a + 1, a + 1), out, true, u, false, scale, 1);
        ops->matmul(m->stream, du, out, false, wb, false, scale, 0);
        ops->matmul(m->stream, param_gradient(t, a, a), du, true, in, false, 1, 1);
        if (dx.data && in.data == x.data) {
            add_product(m, s, dx, du, wa, false, 1);
        } else if (dx.data) {
            ops->matmul(m->stream, in, du, false, wa, false, 1, 0);
            ops->dropout(m->stream, dx, in, first_column(m, a), s->random.keys, draw_of(m, s, a), (float)m->config.lora->dropout, true);
        }
        param_release(t, a, a);
        param_release(t, a + 1, a + 1);
    }
}

void lora_merge(Model *m)
{
    ParameterTable *t = &m->params.table;
    size_t own = t->count;
    param_expect(t, NULL, 0);
    for (size_t i = 0; i < t->count; i++) {
        int a = t->items[i].adapter, w = (int)i;
        if (a < 0)
            continue;
        m->device->ops->matmul(m->stream, param_acquire_f32(t, w, w), param_acquire_f32(t, a + 1, a + 1), false, param_acquire_f32(t, a, a), false,
                               t->items[a].scale, 1);
        param_keep(t, w);
        own = (size_t)a < own ? (size_t)a : own;
    }
    while (t->count > own)
        free(t->items[--t->count].name);
    while (t->unit_count > 0 && t->units[t->unit_count - 1].first >= (int)own)
        t->unit_count--;
    const ParameterUnit *last = &t->units[t->unit_count - 1];
    t->total = last->offset + last->count;
    t->frozen = 0;
    for (size_t i = 0; i < own; i++) {
        t->items[i].adapter = -1;
        t->items[i].trainable = true;
    }
    m->config.lora = NULL;
    param_changed(t);
}
