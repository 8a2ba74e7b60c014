/* What a rank sends, by group and kind, to the byte. It follows the engine's own order of work: tensor_parallel.c, context_parallel.c,
 * passes.c, optimizer.c and, for weights and gradients that are not held, sharding.c. */
#include <string.h>
#include "model/tensor_parallel.h"
#include "train/cost_shape.h"

typedef struct Counter {
    const CostRun *run;
    const int *place;
    CostShape shape;
    CostTraffic *to;
    int64_t samples;
    bool backward;
} Counter;

static void send(Counter *k, int group, CommKind kind, double bytes)
{
    k->to->bytes[group][kind] += bytes;
    k->to->all += bytes;
}

void cost_traffic_add(CostTraffic *to, const CostTraffic *t, double times)
{
    for (int g = 0; g < GRID_GROUPS; g++)
        for (int i = 0; i < COMM_KINDS; i++)
            to->bytes[g][i] += times * t->bytes[g][i];
    to->all += times * t->all;
}

/* What a rank of a group sends of a sum of n numbers (comm.c). */
static double sum_bytes(size_t n, int size, int rank)
{
    size_t begin, mine;
    comm_share(n, size, rank, &begin, &mine);
    return 4 * (double)(n - mine + (size_t)(size - 1) * mine);
}

static int data_size(const CostRun *r)
{
    return r->extent[GRID_CP] * r->extent[GRID_DP];
}

static int data_rank(const Counter *k)
{
    return k->place[GRID_CP] + k->run->extent[GRID_CP] * k->place[GRID_DP];
}

/* Passes of this rank's pipeline; ranks that share gradients or weights all make as many (feed.c). */
static int64_t passes_of(const Counter *k)
{
    int64_t all = (k->samples + k->run->micro_batch - 1) / k->run->micro_batch, ranks = k->run->extent[GRID_DP];
    bool even = k->run->shard > 1;
    return all / ranks + (even ? all % ranks > 0 : k->place[GRID_DP] < all % ranks);
}

static double chunks_in(const CostRun *r, int64_t samples)
{
    return (double)((samples * (r->sequence_length / r->extent[GRID_CP]) + HEAD_CHUNK - 1) / HEAD_CHUNK);
}

/* Chunks of the output layer's rows that have a label: those of samples, which the last pass may have fewer of than it has room for. */
static double chunks_of(const Counter *k)
{
    const CostRun *r = k->run;
    int64_t whole = k->samples / r->micro_batch, rest = k->samples % r->micro_batch, ranks = r->extent[GRID_DP], place = k->place[GRID_DP];
    return (double)(whole / ranks + (place < whole % ranks)) * chunks_in(r, r->micro_batch) + (whole % ranks == place ? chunks_in(r, rest) : 0);
}

static double layers_of(const ModelPart *p)
{
    int64_t layers = 0;
    for (int i = 0; i < p->ranges; i++)
        layers += p->range[i].count;
    return (double)layers;
}

static void tp_passes(Counter *k)
{
    const CostRun *r = k->run;
    const ModelPart *p = &k->shape.model.part;
    double passes = (double)passes_of(k), others = p->tp_size - 1, layers = layers_of(p), size = (double)dtype_size(r->dtype);
    double numbers = others * (double)(tp_rows(&k->shape.model, k->shape.rows) * r->config->hidden_size);
    bool again = r->recompute == RECOMPUTE_LAYER;
    if (others == 0)
        return;
    /* A layer gathers rows before q k v and before gate up, adds up behind o and behind down; backwards it gathers those rows and the
     * gradients of both sums, and adds up the gradients of both gathers. */
    double gathers = !k->backward ? 2 : again ? 8 : 6, scatters = !k->backward ? 2 : again ? 5 : 4;
    send(k, GRID_TP, COMM_ALL_GATHER, passes * layers * numbers * size * gathers);
    send(k, GRID_TP, COMM_REDUCE_SCATTER, passes * layers * numbers * size * scatters);
    if (part_has_embedding(p)) {
        send(k, GRID_TP, COMM_REDUCE_SCATTER, passes * numbers * 4);
        send(k, GRID_TP, COMM_ALL_GATHER, k->backward ? passes * numbers * 4 : 0);
    }
    if (part_has_head(p)) {
        send(k, GRID_TP, COMM_ALL_GATHER, passes * numbers * size + others * chunks_of(k) * (double)sizeof(ChunkSaid));
        send(k, GRID_TP, COMM_REDUCE_SCATTER, k->backward ? passes * numbers * size : 0);
    }
}

static void cp_passes(Counter *k)
{
    const CostRun *r = k->run;
    double passes = (double)passes_of(k), keys = (r->extent[GRID_CP] - 1) * (double)k->shape.rows * 2 * (double)k->shape.model.shape.kv * (double)dtype_size(r->dtype);
    double all = passes * layers_of(&k->shape.model.part) * keys;
    send(k, GRID_CP, COMM_ALL_GATHER, all * (!k->backward ? 1 : r->recompute == RECOMPUTE_LAYER ? 3 : 2));
    send(k, GRID_CP, COMM_REDUCE_SCATTER, k->backward ? all : 0);
}

/* Forward out of every virtual stage but the last of all, backward out of every one but the first. */
static void pp_passes(Counter *k)
{
    const CostRun *r = k->run;
    int stages = r->extent[GRID_PP], chunks = k->shape.model.part.ranges;
    double place = (double)(tp_rows(&k->shape.model, k->shape.rows) * r->config->hidden_size) * 4;
    if (stages == 1)
        return;
    send(k, GRID_PP, COMM_SEND, (double)passes_of(k) * (chunks - (k->place[GRID_PP] == stages - 1)) * place);
    send(k, GRID_PP_BACK, COMM_SEND, k->backward ? (double)passes_of(k) * (chunks - (k->place[GRID_PP] == 0)) * place : 0);
}

/* Once a step, what several tensor-parallel ranks hold. Neighbours in a unit with as many holders go together; where ranks share gradients, of
 * each its slice. */
static void tp_sums(Counter *k)
{
    const ParameterTable *table = &k->shape.model.params.table;
    const Comm data = {.rank = data_rank(k), .size = data_size(k->run)};
    bool sliced = k->run->shard > 1 && data.size > 1;
    for (size_t i = 0, next; i < table->count; i = next) {
        const Parameter *first = &table->items[i], *last = first;
        for (next = i + 1; next < table->count && table->items[next].replicas == first->replicas && table->items[next].unit == first->unit; next++)
            last = &table->items[next];
        size_t begin = first->offset, end = last->offset + last->count;
        if (sliced) {
            size_t from, to;
            param_unit_slice(table, first->unit, &data, &from, &to);
            begin = from > begin ? from : begin;
            end = to < end ? to : end;
        }
        if (first->replicas > 1 && begin < end)
            send(k, GRID_TP, COMM_SUM, sum_bytes(end - begin, first->replicas, k->place[GRID_TP] % first->replicas));
    }
}

static size_t slice_bytes(const Counter *k, int unit)
{
    return k->shape.model.params.table.units[unit].count / (size_t)data_size(k->run) * 4;
}

/* Gradients come together and weights go round once a step, where every rank holds all of them. */
static void data_step(Counter *k)
{
    const CostRun *r = k->run;
    const ParameterTable *table = &k->shape.model.params.table;
    int data = data_size(r), stages = r->extent[GRID_PP];
    for (int i = 0; i < table->unit_count && data > 1; i++) {
        double others = (double)(data - 1) * (double)slice_bytes(k, i);
        if (r->shard == 0)
            send(k, GRID_DATA, COMM_SUM, sum_bytes(table->units[i].count, data, data_rank(k)));
        if (r->shard == 1)
            send(k, GRID_DATA, COMM_REDUCE_SCATTER, others);
        if (r->shard == 1 || r->shard == 2)
            send(k, GRID_DATA, COMM_ALL_GATHER, others);
    }
    /* The copies of a tied embedding, each rank of what it steps. */
    const Comm like = {.size = data, .rank = data_rank(k)};
    for (size_t i = 0; i < table->count && stages > 1; i++) {
        const Parameter *p = &table->items[i];
        size_t begin, end;
        if (r->shard > 0)
            param_unit_slice(table, p->unit, &like, &begin, &end);
        else
            param_unit_trained(table, p->unit, &begin, &end);
        if (p->tied && param_within(p, &begin, &end))
            send(k, GRID_EMBED, COMM_SUM, sum_bytes(end - begin, 2, k->place[GRID_PP] > 0));
    }
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

static void use_weights(Counter *k, Held *h, int unit)
{
    int left;
    if (k->run->shard >= 3 && hold(h->weights, unit, &left))
        send(k, GRID_DATA, COMM_ALL_GATHER, (double)(data_size(k->run) - 1) * (double)slice_bytes(k, unit));
}

static void gradient_leaves(Counter *k, int unit)
{
    if (unit >= 0)
        send(k, GRID_DATA, COMM_REDUCE_SCATTER, (double)(data_size(k->run) - 1) * (double)slice_bytes(k, unit));
}

static void use_gradients(Counter *k, Held *h, int unit)
{
    int left;
    if (hold(h->gradients, unit, &left))
        gradient_leaves(k, left);
}

/* Nothing more comes to it in this step. */
static void gradient_finished(Counter *k, Held *h, int unit)
{
    int i = h->gradients[0] == unit ? 0 : h->gradients[1] == unit ? 1 : -1;
    if (i < 0)
        return;
    gradient_leaves(k, unit);
    if (i == 0)
        h->gradients[0] = h->gradients[1];
    h->gradients[1] = -1;
}

/* One pass through a stage, in the order in which it asks for units. */
static void unit_pass(Counter *k, Held *h, LayerRange at, bool backward, bool last)
{
    const ModelParameters *p = &k->shape.model.params;
    const Parameter *items = p->table.items;
    if (!backward && at.embedding)
        use_weights(k, h, items[p->embedding].unit);
    for (int64_t i = 0; i < at.count && !backward; i++)
        use_weights(k, h, items[p->layers[at.first + i].q].unit);
    if (at.head && !backward)
        use_weights(k, h, items[p->norm].unit);
    if (at.head && backward == k->backward) {
        use_weights(k, h, items[p->output].unit);
        if (backward)
            use_gradients(k, h, items[p->output].unit);
    }
    if (!backward)
        return;
    if (at.head) {
        use_gradients(k, h, items[p->norm].unit);
        use_weights(k, h, items[p->norm].unit);
        if (last)
            gradient_finished(k, h, items[p->norm].unit);
        if (last && p->output != p->embedding)
            gradient_finished(k, h, items[p->output].unit);
    }
    for (int64_t i = at.count - 1; i >= 0; i--) {
        use_weights(k, h, items[p->layers[at.first + i].q].unit);
        use_gradients(k, h, items[p->layers[at.first + i].q].unit);
        if (last)
            gradient_finished(k, h, items[p->layers[at.first + i].q].unit);
    }
    if (at.embedding)
        use_gradients(k, h, items[p->embedding].unit);
}

/* What --shard 2 and 3 send in so many passes. */
static void some_unit_passes(Counter *k, int held[2], int64_t passes)
{
    const CostRun *r = k->run;
    const ModelPart *part = &k->shape.model.part;
    Held h = {held, {-1, -1}};
    PipelineSchedule s;
    pipeline_open(&s, r->extent[GRID_PP], k->place[GRID_PP], part->ranges, passes, k->backward);
    for (size_t i = 0; i < s.count; i++)
        if (s.actions[i].verb == PIPELINE_COMPUTE)
            unit_pass(k, &h, part->range[s.actions[i].chunk], s.actions[i].backward, s.actions[i].micro_batch == passes - 1);
    pipeline_close(&s);
    gradient_leaves(k, h.gradients[1]);
    gradient_leaves(k, h.gradients[0]);
}

/* Of very many passes each further group of as many as there are stages sends the same. */
static void unit_passes(Counter *k, int held[2])
{
    int64_t stages = k->run->extent[GRID_PP], passes = passes_of(k), few = stages * (stages + 4) + passes % stages;
    if (data_size(k->run) == 1 || k->run->shard < 2)
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

static int count(const CostRun *r, const int place[GRID_DIMENSIONS], int64_t samples, bool backward, CostHeld *held, CostTraffic *t, Error *err)
{
    Counter k = {.run = r, .place = place, .to = t, .samples = samples, .backward = backward};
    CostHeld fresh = COST_HELD_NOTHING;
    *t = (CostTraffic){0};
    if (cost_check(r, err) < 0 || cost_shape_open(&k.shape, r, place, err) < 0)
        return -1;
    tp_passes(&k);
    cp_passes(&k);
    pp_passes(&k);
    unit_passes(&k, held ? held->units : fresh.units);
    if (backward) {
        tp_sums(&k);
        data_step(&k);
    }
    cost_shape_close(&k.shape);
    return 0;
}

int cost_traffic(const CostRun *r, const int place[GRID_DIMENSIONS], CostHeld *held, CostTraffic *t, Error *err)
{
    int status = count(r, place, r->samples, true, held, t, err);
    if (held) /* the step has changed the weights: what was gathered is old */
        *held = COST_HELD_NOTHING;
    return status;
}

int cost_traffic_scores(const CostRun *r, const int place[GRID_DIMENSIONS], int64_t samples, CostHeld *held, CostTraffic *t, Error *err)
{
    return count(r, place, samples, false, held, t, err);
}
