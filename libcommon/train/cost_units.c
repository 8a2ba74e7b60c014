/* What ranks send of weights and gradients that they do not hold: which units a pass asks for (layer.c, lora.c, head.c), one after the other,
 * and what sharding.c does then. */
#include <string.h>
#include "train/cost_counter.h"

static double weight_bytes(const Counter *k, int unit)
{
    return 4 * (double)(k->shape.model.params.table.units[unit].count / (size_t)counter_data_size(k));
}

double counter_gradient_bytes(const Counter *k, int unit)
{
    size_t begin, end;
    param_unit_trained(&k->shape.model.params.table, unit, &begin, &end);
    return 4 * (double)((end - begin) / (size_t)counter_data_size(k));
}

/* A unit is asked for: what sharding.c does with those it holds. true: it was not there; *left the one that made room, -1: none. */
static bool hold(int held[2], int unit, int *left)
{
    *left = -1;
    if (held[0] == unit)
        return false;
    bool new = held[1] != unit;
    if (new)
        *left = held[1];
    held[1] = held[0];
    held[0] = unit;
    return new;
}

typedef struct Held {
    int *weights, gradients[2];
} Held;

/* The weights of an entry's unit are asked for. */
static void use_weights(Counter *k, Held *h, int entry)
{
    int left, unit = k->shape.model.params.table.items[entry].unit;
    if (k->run->shard >= 3 && hold(h->weights, unit, &left))
        counter_send(k, GRID_DATA, COMM_ALL_GATHER, (counter_data_size(k) - 1) * weight_bytes(k, unit));
}

static void gradient_leaves(Counter *k, int unit)
{
    if (unit >= 0)
        counter_send(k, GRID_DATA, COMM_REDUCE_SCATTER, (counter_data_size(k) - 1) * counter_gradient_bytes(k, unit));
}

/* And its gradient, where it is trained. */
static void use_gradients(Counter *k, Held *h, int entry)
{
    const Parameter *p = &k->shape.model.params.table.items[entry];
    int left;
    if (p->trainable && hold(h->gradients, p->unit, &left))
        gradient_leaves(k, left);
}

/* Nothing more comes to it in this step. entry -1: there is none. */
static void gradient_finished(Counter *k, Held *h, int entry)
{
    int unit = entry < 0 ? -1 : k->shape.model.params.table.items[entry].unit, i = h->gradients[0] == unit ? 0 : 1;
    if (unit < 0 || h->gradients[i] != unit)
        return;
    gradient_leaves(k, unit);
    if (i == 0)
        h->gradients[0] = h->gradients[1];
    h->gradients[1] = -1;
}

/* The adapter of the first of the layers first … last that has one, -1: none has. A layer's adapters are one unit. */
static int adapter(const Counter *k, int first, int last)
{
    for (int i = first; i <= last; i++)
        if (k->shape.model.params.table.items[i].adapter >= 0)
            return k->shape.model.params.table.items[i].adapter;
    return -1;
}

/* A product of a layer's weights first … last, then what their adapters add. */
static void use_product(Counter *k, Held *h, int first, int last, bool backward)
{
    int beside = adapter(k, first, last);
    use_weights(k, h, first);
    if (backward)
        use_gradients(k, h, first);
    if (beside >= 0)
        use_weights(k, h, beside);
    if (beside >= 0 && backward)
        use_gradients(k, h, beside);
}

/* Up to the last product (layer_enter). */
static void enter_layer(Counter *k, Held *h, const LayerParameters *p)
{
    use_product(k, h, p->q, p->v, false);
    use_product(k, h, p->o, p->o, false);
    use_product(k, h, p->gate, p->up, false);
    if (p->gate_bias >= 0)
        use_weights(k, h, p->gate_bias);
}

static void layer_forward(Counter *k, Held *h, const LayerParameters *p)
{
    enter_layer(k, h, p);
    use_product(k, h, p->down, p->down, false);
    if (p->down_bias >= 0)
        use_weights(k, h, p->down_bias);
}

static void layer_backward(Counter *k, Held *h, const LayerParameters *p)
{
    if (k->run->recompute == RECOMPUTE_LAYER)
        enter_layer(k, h, p);
    use_product(k, h, p->down, p->down, true);
    use_product(k, h, p->gate, p->up, true);
    use_product(k, h, p->o, p->o, true);
    use_product(k, h, p->q, p->v, true);
    use_weights(k, h, p->input_norm);
    use_gradients(k, h, p->input_norm);
}

/* One pass through a stage. */
static void unit_pass(Counter *k, Held *h, LayerRange at, bool backward, bool last)
{
    const ModelParameters *p = &k->shape.model.params;
    int output = p->output >= 0 ? p->output : p->score;
    if (!backward && at.embedding)
        use_weights(k, h, p->embedding);
    for (int64_t i = 0; i < at.count && !backward; i++)
        layer_forward(k, h, &p->layers[at.first + i]);
    if (at.head && !backward)
        use_weights(k, h, p->norm);
    if (at.head && backward == (k->passes.way != COST_FORWARD)) {
        use_weights(k, h, output);
        if (backward)
            use_gradients(k, h, output);
    }
    if (!backward)
        return;
    if (at.head) {
        use_gradients(k, h, p->norm);
        use_weights(k, h, p->norm);
    }
    if (at.head && last) {
        gradient_finished(k, h, p->norm);
        gradient_finished(k, h, output == p->embedding ? -1 : output);
    }
    for (int64_t i = at.first + at.count - 1; i >= at.first; i--) {
        const LayerParameters *l = &p->layers[i];
        layer_backward(k, h, l);
        if (last)
            gradient_finished(k, h, l->q);
        if (last)
            gradient_finished(k, h, adapter(k, l->q, l->down));
    }
    if (at.embedding)
        use_gradients(k, h, p->embedding);
}

static void some_unit_passes(Counter *k, int held[2], int64_t passes)
{
    const CostRun *r = k->run;
    const ModelPart *part = &k->shape.model.part;
    Held h = {held, {-1, -1}};
    PipelineSchedule s;
    pipeline_open(&s, r->extent[GRID_PP], k->place[GRID_PP], part->ranges, passes, k->passes.way != COST_FORWARD);
    for (size_t i = 0; i < s.count; i++)
        if (s.actions[i].verb == PIPELINE_COMPUTE && (s.actions[i].backward || k->passes.way != COST_BACK))
            unit_pass(k, &h, part->range[s.actions[i].chunk], s.actions[i].backward, s.actions[i].micro_batch == passes - 1);
    pipeline_close(&s);
    gradient_leaves(k, h.gradients[1]);
    gradient_leaves(k, h.gradients[0]);
}

/* Of very many passes each further group of as many as there are stages sends the same. */
void counter_unit_passes(Counter *k, int held[2])
{
    int64_t stages = k->run->extent[GRID_PP], passes = k->passes.count, few = stages * (stages + 4) + passes % stages;
    if (counter_data_size(k) == 1 || k->run->shard < 2)
        return;
    if (passes <= few + stages) {
        some_unit_passes(k, held, passes);
        return;
    }
    Counter at[2] = {*k, *k};
    CostTraffic t[2] = {{{{0}}, 0}};
    for (int i = 0; i < 2; i++) {
        CostHeld h = {{held[0], held[1]}};
        at[i].to = &t[i];
        some_unit_passes(&at[i], h.units, few + i * stages);
        if (i == 1)
            memcpy(held, h.units, sizeof h.units);
    }
    double more = (double)(passes - few) / (double)stages;
    cost_traffic_add(k->to, &t[0], 1 - more);
    cost_traffic_add(k->to, &t[1], more);
}

/* Every weight that has an adapter, in the table's order (lora_merge). */
void counter_unit_merge(Counter *k, int held[2])
{
    const ParameterTable *t = &k->shape.model.params.table;
    Held h = {held, {-1, -1}};
    for (size_t i = 0; i < t->count && counter_data_size(k) > 1; i++)
        if (t->items[i].adapter >= 0) {
            use_weights(k, &h, (int)i);
            use_weights(k, &h, t->items[i].adapter);
        }
}
