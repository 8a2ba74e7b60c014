/* What a rank sends, by group and kind, to the byte. It follows the engine's own order of work: tensor_parallel.c, context_parallel.c,
 * passes.c, optimizer.c; cost_units.c has what sharding.c does. */
#include <string.h>
#include "model/tensor_parallel.h"
#include "train/cost_counter.h"

void counter_send(Counter *k, int group, CommKind kind, double bytes)
{
    k->to->bytes[group][kind] += bytes;
    k->to->all += bytes;
}

int counter_data_size(const Counter *k)
{
    return k->run->extent[GRID_CP] * k->run->extent[GRID_DP];
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

static int data_rank(const Counter *k)
{
    return k->place[GRID_CP] + k->run->extent[GRID_CP] * k->place[GRID_DP];
}

static bool goes_forward(const Counter *k)
{
    return k->passes.way != COST_BACK;
}

static bool goes_backward(const Counter *k)
{
    return k->passes.way != COST_FORWARD;
}

/* The layers of all virtual stages. */
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
    const ModelParameters *m = &k->shape.model.params;
    double passes = (double)k->passes.count, others = p->tp_size - 1, layers = layers_of(p), size = (double)dtype_size(r->dtype);
    double numbers = others * (double)(tp_rows(&k->shape.model, k->passes.rows) * r->config->hidden_size);
    int again = r->recompute == RECOMPUTE_LAYER, forward = goes_forward(k), backward = goes_backward(k);
    if (others == 0)
        return;
    /* A layer gathers rows before q k v and before gate up, adds up behind o and behind down; backwards it gathers those rows and the
     * gradients of both sums, and adds up the gradients of both gathers. */
    int gathers = forward * 2 + backward * (4 + 2 * again), scatters = forward * 2 + backward * (2 + again);
    counter_send(k, GRID_TP, COMM_ALL_GATHER, passes * layers * numbers * size * gathers);
    counter_send(k, GRID_TP, COMM_REDUCE_SCATTER, passes * layers * numbers * size * scatters);
    if (part_has_embedding(p)) {
        counter_send(k, GRID_TP, COMM_REDUCE_SCATTER, forward * passes * numbers * 4);
        counter_send(k, GRID_TP, COMM_ALL_GATHER, backward && m->table.items[m->embedding].trainable ? passes * numbers * 4 : 0);
    }
    /* Gradients of scores are made where their rows are. */
    bool rows = part_has_head(p) && !(backward && r->config->num_labels);
    counter_send(k, GRID_TP, COMM_ALL_GATHER, rows ? passes * numbers * size + others * (double)k->passes.measured * (double)sizeof(ChunkSaid) : 0);
    counter_send(k, GRID_TP, COMM_REDUCE_SCATTER, rows && backward ? passes * numbers * size : 0);
}

static void cp_passes(Counter *k)
{
    const CostRun *r = k->run;
    double keys = (r->extent[GRID_CP] - 1) * (double)k->passes.rows * 2 * (double)k->shape.model.shape.kv * (double)dtype_size(r->dtype);
    double all = (double)k->passes.count * layers_of(&k->shape.model.part) * keys;
    int again = r->recompute == RECOMPUTE_LAYER;
    counter_send(k, GRID_CP, COMM_ALL_GATHER, all * (goes_forward(k) + goes_backward(k) * (1 + again)));
    counter_send(k, GRID_CP, COMM_REDUCE_SCATTER, all * goes_backward(k));
}

/* Forward out of every virtual stage but the last of all, backward out of every one but the first. */
static void pp_passes(Counter *k)
{
    const CostRun *r = k->run;
    int stages = r->extent[GRID_PP], chunks = k->shape.model.part.ranges;
    double all = (double)k->passes.count * (double)(tp_rows(&k->shape.model, k->passes.rows) * r->config->hidden_size) * 4;
    if (stages == 1)
        return;
    counter_send(k, GRID_PP, COMM_SEND, all * goes_forward(k) * (chunks - (k->place[GRID_PP] == stages - 1)));
    counter_send(k, GRID_PP_BACK, COMM_SEND, all * goes_backward(k) * (chunks - (k->place[GRID_PP] == 0)));
}

/* Once a step, what several tensor-parallel ranks hold. Neighbours in a unit with as many holders go together; where ranks share gradients, of
 * each its slice. */
static void tp_sums(Counter *k)
{
    const ParameterTable *table = &k->shape.model.params.table;
    const Comm data = {.rank = data_rank(k), .size = counter_data_size(k)};
    bool sliced = k->run->shard > 1 && data.size > 1;
    for (size_t i = 0, next; i < table->count; i = next) {
        const Parameter *first = &table->items[i], *last = first;
        for (next = i + 1; next < table->count && table->items[next].replicas == first->replicas && table->items[next].unit == first->unit &&
                           table->items[next].trainable == first->trainable; next++)
            last = &table->items[next];
        size_t begin = first->offset, end = last->offset + last->count;
        if (sliced) {
            size_t from, to;
            param_unit_slice(table, first->unit, &data, &from, &to);
            begin = from > begin ? from : begin;
            end = to < end ? to : end;
        }
        if (first->trainable && first->replicas > 1 && begin < end)
            counter_send(k, GRID_TP, COMM_SUM, sum_bytes(end - begin, first->replicas, k->place[GRID_TP] % first->replicas));
    }
}

/* Gradients come together and weights go round once a step, where every rank holds all of them. */
static void data_sums(Counter *k)
{
    const CostRun *r = k->run;
    const ParameterTable *table = &k->shape.model.params.table;
    int data = counter_data_size(k), stages = r->extent[GRID_PP];
    for (int i = 0; i < table->unit_count && data > 1; i++) {
        size_t first, last;
        param_unit_trained(table, i, &first, &last);
        double others = (double)(data - 1) * counter_gradient_bytes(k, i);
        if (r->shard == 0)
            counter_send(k, GRID_DATA, COMM_SUM, sum_bytes(last - first, data, data_rank(k)));
        if (r->shard == 1)
            counter_send(k, GRID_DATA, COMM_REDUCE_SCATTER, others);
        if (r->shard == 1 || r->shard == 2)
            counter_send(k, GRID_DATA, COMM_ALL_GATHER, others);
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
        if (p->tied && p->trainable && param_within(p, &begin, &end))
            counter_send(k, GRID_EMBED, COMM_SUM, sum_bytes(end - begin, 2, k->place[GRID_PP] > 0));
    }
}

static int counter_open(Counter *k, const CostRun *r, const int place[GRID_DIMENSIONS], CostTraffic *t, Error *err)
{
    *k = (Counter){.run = r, .place = place, .to = t};
    *t = (CostTraffic){0};
    return cost_check(r, err) < 0 || cost_shape_open(&k->shape, r, place, err) < 0 ? -1 : 0;
}

int cost_traffic_passes(const CostRun *r, const int place[GRID_DIMENSIONS], const CostPasses *p, CostHeld *held, CostTraffic *t, Error *err)
{
    Counter k;
    CostHeld fresh = COST_HELD_NOTHING;
    if (counter_open(&k, r, place, t, err) < 0)
        return -1;
    k.passes = *p;
    tp_passes(&k);
    cp_passes(&k);
    pp_passes(&k);
    counter_unit_passes(&k, held ? held->units : fresh.units);
    cost_shape_close(&k.shape);
    return 0;
}

int cost_traffic_sums(const CostRun *r, const int place[GRID_DIMENSIONS], CostHeld *held, CostTraffic *t, Error *err)
{
    Counter k;
    if (counter_open(&k, r, place, t, err) < 0)
        return -1;
    tp_sums(&k);
    data_sums(&k);
    cost_shape_close(&k.shape);
    if (held) /* the step has changed the weights: what was gathered is old */
        *held = COST_HELD_NOTHING;
    return 0;
}

int cost_traffic_merge(const CostRun *r, const int place[GRID_DIMENSIONS], CostHeld *held, CostTraffic *t, Error *err)
{
    Counter k;
    if (counter_open(&k, r, place, t, err) < 0)
        return -1;
    counter_unit_merge(&k, held->units);
    cost_shape_close(&k.shape);
    return 0;
}

static int64_t chunks_in(const CostRun *r, int64_t samples)
{
    return (samples * (r->sequence_length / r->extent[GRID_CP]) + HEAD_CHUNK - 1) / HEAD_CHUNK;
}

/* The passes of so many samples of pretrain's. Ranks that share gradients or weights all make as many (feed.c); chunks of the output layer's
 * rows have a label where samples are, which the last pass may have fewer of than it has room for. */
static CostPasses passes_of(const CostRun *r, const int place[GRID_DIMENSIONS], int64_t samples, CostWay way)
{
    int64_t ranks = r->extent[GRID_DP], at = place[GRID_DP], whole = samples / r->micro_batch, rest = samples % r->micro_batch, all = whole + (rest > 0);
    return (CostPasses){.count = all / ranks + (r->shard > 1 ? all % ranks > 0 : at < all % ranks), .way = way,
                        .rows = r->micro_batch * r->sequence_length / r->extent[GRID_CP],
                        .measured = (whole / ranks + (at < whole % ranks)) * chunks_in(r, r->micro_batch) + (whole % ranks == at ? chunks_in(r, rest) : 0)};
}

int cost_traffic(const CostRun *r, const int place[GRID_DIMENSIONS], CostHeld *held, CostTraffic *t, Error *err)
{
    CostTraffic sums;
    const CostPasses p = passes_of(r, place, r->samples, COST_BOTH);
    if (cost_traffic_passes(r, place, &p, held, t, err) < 0 || cost_traffic_sums(r, place, held, &sums, err) < 0)
        return -1;
    cost_traffic_add(t, &sums, 1);
    return 0;
}

int cost_traffic_scores(const CostRun *r, const int place[GRID_DIMENSIONS], int64_t samples, CostHeld *held, CostTraffic *t, Error *err)
{
    const CostPasses p = passes_of(r, place, samples, COST_FORWARD);
    return cost_traffic_passes(r, place, &p, held, t, err);
}
