/* Memory of a rank, and what it sends. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/tensor_parallel.h"
#include "train/cost.h"
#include "train/pipeline.h"

/* Runtime, libraries and communicators of a GPU's process; program and libraries of this one on CPUs, by measurement. */
static const double lean_program = 1.5e9, own_program = 12e6;

int cost_ranks(const CostRun *r)
{
    int64_t all = 1;
    for (int d = 0; d < GRID_DIMENSIONS; d++)
        all = all > INT32_MAX / r->extent[d] ? INT32_MAX : all * r->extent[d];
    return (int)all;
}

int64_t cost_passes(const CostRun *r)
{
    int64_t all = (r->samples + r->micro_batch - 1) / r->micro_batch, d = r->extent[GRID_DP];
    return (all + d - 1) / d;
}

static int64_t between(int64_t least, int64_t n, int64_t most)
{
    return n < least ? least : n > most ? most : n;
}

int64_t cost_micro_batch(int64_t sequence_length, int64_t samples, int64_t most, const int extent[GRID_DIMENSIONS])
{
    int64_t ranks = extent[GRID_DP], share = (samples + ranks - 1) / ranks, n = 4096 * extent[GRID_CP] / sequence_length;
    if (most)
        return most < share ? most : share;
    return between(1, extent[GRID_PP] > 1 ? between(1, samples / (4 * ranks * extent[GRID_PP]), n) : n, share);
}

/* What a rank of the stage holds; the first of its tensor-parallel ranks has the most where it does not come out even. */
static int part_at(const CostRun *r, int stage, ModelPart *p, Error *err)
{
    Grid g = {0};
    memcpy(g.extent, r->extent, sizeof g.extent);
    g.place[GRID_PP] = stage;
    g.group[GRID_DATA].size = r->extent[GRID_CP] * r->extent[GRID_DP];
    if (part_of_grid(p, r->config, &g, &r->stages, err) < 0)
        return -1;
    p->tp = p->cp = NULL;
    return 0;
}

int cost_check(const CostRun *r, Error *err)
{
    ModelPart p;
    if (part_at(r, 0, &p, err) < 0 || part_check(&p, r->config, err) < 0)
        return -1;
    if (r->extent[GRID_CP] > 1 && r->sequence_length % (2 * r->extent[GRID_CP]) != 0)
        return error_set(err, "--cp %d: a sequence of %" PRId64 " tokens does not fall into %d equal chunks", r->extent[GRID_CP], r->sequence_length,
                         2 * r->extent[GRID_CP]);
    if (r->extent[GRID_DP] > r->samples)
        return error_set(err, "--dp %d: a step has %" PRId64 " samples, fewer than ranks", r->extent[GRID_DP], r->samples);
    return 0;
}

/* A model without memory, to ask for sizes. */
typedef struct Shape {
    Model model;
    PipelineSchedule schedule;
    int64_t rows;      /* of a pass, on this rank */
    size_t total, widest; /* floats of all weights, and of the largest unit */
} Shape;

static int shape_open(Shape *s, const CostRun *r, int stage, Error *err)
{
    memset(s, 0, sizeof *s);
    Model *m = &s->model;
    m->config = *r->config;
    m->dtype = r->dtype;
    m->recompute = r->recompute;
    if (part_at(r, stage, &m->part, err) < 0 || part_check(&m->part, r->config, err) < 0)
        return -1;
    m->shape = part_shape(&m->part, r->config);
    s->rows = r->micro_batch * r->sequence_length / r->extent[GRID_CP];
    if (param_open(&m->params, r->config, &m->part, NULL, NULL, err) < 0)
        return -1;
    const ParameterTable *t = &m->params.table;
    s->total = t->total;
    for (int i = 0; i < t->unit_count; i++)
        s->widest = t->units[i].count > s->widest ? t->units[i].count : s->widest;
    pipeline_size(&s->schedule, r->extent[GRID_PP], stage, m->part.ranges, cost_passes(r), true);
    return 0;
}

static void shape_close(Shape *s)
{
    param_close(&s->model.params);
}

/* Megatron's count of what a layer keeps of a token (Korthikanti et al. 2022, with attention that stores no scores and with SwiGLU):
 * inputs and outputs of the norms, q, its result, k, v, gate, up and their product, and the log-sum-exp of each head. */
static double lean_token(const ModelConfig *c, Recompute kept)
{
    double h = (double)c->hidden_size, q = (double)(c->num_attention_heads * c->head_dim), kv = (double)(c->num_key_value_heads * c->head_dim);
    double f = (double)c->intermediate_size, lse = 4 * (double)c->num_attention_heads;
    switch (kept) {
    case RECOMPUTE_NONE:
        return 2 * (4 * h + 2 * q + 2 * kv + 3 * f) + lse;
    case RECOMPUTE_NORMS:
        return 2 * (2 * h + 2 * q + 2 * kv + 2 * f) + lse;
    case RECOMPUTE_LAYER:
        break;
    }
    return 2 * h;
}

int cost_memory(const CostRun *r, int stage, CostMemory *m, Error *err)
{
    Shape s;
    *m = (CostMemory){0};
    if (cost_check(r, err) < 0 || shape_open(&s, r, stage, err) < 0)
        return -1;
    const ModelConfig *c = r->config;
    double n = (double)s.total, widest = (double)s.widest, data = r->extent[GRID_CP] * r->extent[GRID_DP], t = r->extent[GRID_TP];
    bool narrow = r->dtype != DTYPE_F32;
    double slice = r->shard >= 1 ? n / data : n, held = r->shard >= 3 ? n / data + 2 * widest : n, gradients = r->shard >= 2 ? n / data + widest : n;
    int places = r->extent[GRID_PP] > 1 ? s.schedule.receives + s.schedule.sends : 0;
    m->parameters = n;
    m->slots = s.schedule.slots > 0 ? s.schedule.slots : 1;
    if (r->engine == COST_LEAN) {
        double layers = 0, rows = (double)s.rows;
        for (int i = 0; i < s.model.part.ranges; i++)
            layers += (double)s.model.part.range[i].count / s.model.part.ranges;
        m->weights = 2 * held;
        m->gradients = 4 * gradients;
        m->states = 12 * slice;
        /* One layer is there whole while its backward pass runs. */
        m->activations = rows / t * (lean_token(c, r->recompute) * layers * m->slots + (r->recompute == RECOMPUTE_NONE ? 0 : lean_token(c, RECOMPUTE_NONE)));
        m->buffers = places * rows / t * (double)c->hidden_size * 2 + 6.0 * HEAD_CHUNK * (double)c->vocab_size / t +
                     (r->extent[GRID_CP] > 1 ? 6 * rows * r->extent[GRID_CP] * (double)s.model.shape.kv : 0);
        m->program = lean_program;
    } else {
        m->weights = (narrow ? 6 : 4) * held;
        m->gradients = 4 * gradients;
        m->states = 8 * slice;
        m->activations = (double)slot_bytes(&s.model, s.rows, MODE_TRAIN, m->slots);
        int64_t positions = r->sequence_length > c->max_position_embeddings ? r->sequence_length : c->max_position_embeddings;
        positions = positions < 8192 ? positions : r->sequence_length > 8192 ? r->sequence_length : 8192;
        m->buffers = places * (double)(tp_rows(&s.model, s.rows) * c->hidden_size) * 4 + (double)(positions * c->head_dim) * 4;
        /* Of its share of the weights for the final model, and while a checkpoint is written of weights and states too (checkpoint.c). */
        m->copy = (r->saves ? 16 : 4) * n / data;
        m->program = own_program;
    }
    m->all = m->weights + m->gradients + m->states + m->activations + m->buffers + m->copy + m->program;
    shape_close(&s);
    return 0;
}

int cost_memory_most(const CostRun *r, CostMemory *m, int *stage, Error *err)
{
    /* The first stage has most in flight and the embedding, the last the head; those in between are like the second. */
    const int at[3] = {0, r->extent[GRID_PP] - 1, 1};
    *m = (CostMemory){0};
    for (int i = 0; i < 3; i++) {
        CostMemory one;
        if (at[i] >= r->extent[GRID_PP])
            continue;
        if (cost_memory(r, at[i], &one, err) < 0)
            return -1;
        if (one.all > m->all) {
            *m = one;
            *stage = at[i];
        }
    }
    return 0;
}

/* What the first rank of a group sends of a sum of n numbers (comm.c). */
static double sum_bytes(size_t n, int ranks)
{
    size_t begin, mine;
    comm_share(n, ranks, 0, &begin, &mine);
    return 4 * (double)(n - mine + (size_t)(ranks - 1) * mine);
}

static void tp_traffic(const CostRun *r, const Shape *s, CostTraffic *t)
{
    const ModelPart *p = &s->model.part;
    const ParameterTable *table = &s->model.params.table;
    double passes = (double)cost_passes(r), others = p->tp_size - 1, layers = 0, chunks = (double)((s->rows + HEAD_CHUNK - 1) / HEAD_CHUNK);
    double numbers = others * (double)(tp_rows(&s->model, s->rows) * r->config->hidden_size), size = (double)dtype_size(r->dtype);
    bool again = r->recompute == RECOMPUTE_LAYER;
    if (others == 0)
        return;
    for (int i = 0; i < p->ranges; i++)
        layers += (double)p->range[i].count;
    /* A layer gathers rows before q k v and before gate up, adds up behind o and behind down; backwards it gathers those rows and the
     * gradients of both sums, and adds up the gradients of both gathers. */
    t->tp_all_gather = passes * layers * numbers * size * (again ? 8 : 6);
    t->tp_reduce_scatter = passes * layers * numbers * size * (again ? 5 : 4);
    if (part_has_embedding(p)) {
        t->tp_reduce_scatter += passes * numbers * 4;
        t->tp_all_gather += passes * numbers * 4;
    }
    if (part_has_head(p)) {
        t->tp_all_gather += passes * (numbers * size + others * chunks * (double)sizeof(ChunkSaid));
        t->tp_reduce_scatter += passes * numbers * size;
    }
    /* Once a step, what several ranks hold. Neighbours in the table with as many holders go together. */
    for (size_t i = 0, next; i < table->count; i = next) {
        const Parameter *first = &table->items[i], *last = first;
        for (next = i + 1; next < table->count && table->items[next].replicas == first->replicas; next++)
            last = &table->items[next];
        if (first->replicas > 1)
            t->tp_sum += sum_bytes(last->offset + last->count - first->offset, first->replicas);
    }
}

static void dp_traffic(const CostRun *r, const Shape *s, int stage, CostTraffic *t)
{
    const ParameterTable *table = &s->model.params.table;
    int data = r->extent[GRID_CP] * r->extent[GRID_DP], stages = r->extent[GRID_PP];
    for (int i = 0; i < table->unit_count && data > 1; i++) {
        size_t n = table->units[i].count;
        double slice = (double)(data - 1) * (double)n / data;
        if (r->shard == 0) {
            t->dp_sum += sum_bytes(n, data);
            continue;
        }
        t->dp_reduce_scatter += 4 * slice * (r->shard >= 2 ? (double)cost_passes(r) : 1);
        t->dp_all_gather += (r->engine == COST_LEAN ? 2 : 4) * slice * (r->shard >= 3 ? 2 * (double)cost_passes(r) : 1);
    }
    for (size_t i = 0; i < table->count && stages > 1 && (stage == 0 || stage == stages - 1); i++)
        if (table->items[i].tied)
            t->embed_sum += sum_bytes(table->items[i].count / (size_t)(r->shard > 0 ? data : 1), 2);
}

int cost_traffic(const CostRun *r, int stage, CostTraffic *t, Error *err)
{
    Shape s;
    *t = (CostTraffic){0};
    if (cost_check(r, err) < 0 || shape_open(&s, r, stage, err) < 0)
        return -1;
    double passes = (double)cost_passes(r), layers = 0, size = (double)dtype_size(r->dtype), rows = (double)s.rows;
    int stages = r->extent[GRID_PP], chunks = s.model.part.ranges;
    for (int i = 0; i < chunks; i++)
        layers += (double)s.model.part.range[i].count;
    tp_traffic(r, &s, t);
    double keys = (r->extent[GRID_CP] - 1) * rows * 2 * (double)s.model.shape.kv * size;
    t->cp_all_gather = passes * layers * keys * (r->recompute == RECOMPUTE_LAYER ? 3 : 2);
    t->cp_reduce_scatter = passes * layers * keys;
    /* Forward out of every virtual stage but the last of all, backward out of every one but the first. */
    double messages = stages > 1 ? 2 * chunks - (stage == 0) - (stage == stages - 1) : 0;
    t->pp_send = passes * messages * (double)(tp_rows(&s.model, s.rows) * r->config->hidden_size) * (r->engine == COST_LEAN ? 2 : 4);
    dp_traffic(r, &s, stage, t);
    t->all = t->tp_all_gather + t->tp_reduce_scatter + t->tp_sum + t->cp_all_gather + t->cp_reduce_scatter + t->pp_send + t->dp_reduce_scatter +
             t->dp_all_gather + t->dp_sum + t->embed_sum;
    shape_close(&s);
    return 0;
}
