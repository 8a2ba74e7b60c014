/* Memory of a rank. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/thread.h"
#include "model/tensor_parallel.h"
#include "train/cost_shape.h"

/* Runtime, libraries and communicators of a GPU's process; program and libraries of this one on CPUs, alone and as one of MPI's processes;
 * what a rank's thread has that writes a checkpoint: by measurement. */
static const double lean_program = 1.5e9, own_program = 7e6, mpi_program = 17.5e6, own_writing = 2e6;
/* Room for packed matrices, what one may take to go with other operations, and blocks of those that may not (kernels/cpu/cpu.h, matmul_packed.c
 * and matmul_plan.c); a thread's panels and scratch in f32 and bf16, by measurement; layers whose operations are collected together where attention is. */
static const double own_packed = 32 << 20, own_together = 8 << 20, own_block = 1.5e6, own_panels[2] = {0.9e6, 1.5e6}, own_layers = 3.25;

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

bool cost_lends(const int extent[GRID_DIMENSIONS], int shard)
{
    return extent[GRID_PP] == 1 && (shard < 2 || extent[GRID_CP] * extent[GRID_DP] == 1);
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

/* With --shard 2 and 3 an element that several tensor-parallel ranks hold must lie in the same slice on all of them (optimizer.c). The last of
 * them has least where something does not divide evenly. */
static bool slices_agree(const CostRun *r)
{
    CostShape s[2];
    Error ignored;
    const int place[2][GRID_DIMENSIONS] = {{0}, {[GRID_TP] = r->extent[GRID_TP] - 1}};
    bool agree = true;
    for (int stage = 0; stage < r->extent[GRID_PP] && agree; stage += r->extent[GRID_PP] > 1 ? r->extent[GRID_PP] - 1 : 1) {
        int open = 0;
        for (; open < 2; open++) {
            int at[GRID_DIMENSIONS];
            memcpy(at, place[open], sizeof at);
            at[GRID_PP] = stage;
            if (cost_shape_open(&s[open], r, at, &ignored) < 0)
                break;
        }
        const ParameterTable *a = &s[0].model.params.table, *b = &s[1].model.params.table;
        for (size_t i = 0; open == 2 && i < a->count; i++) {
            const Parameter *p = &a->items[i], *q = &b->items[i];
            const ParameterUnit *u = &a->units[p->unit], *v = &b->units[q->unit];
            agree &= p->replicas == 1 || (p->count == q->count && p->offset - u->offset == q->offset - v->offset && u->count == v->count);
        }
        while (open > 0)
            cost_shape_close(&s[--open]);
    }
    return agree;
}

int cost_check(const CostRun *r, Error *err)
{
    static const int first[GRID_DIMENSIONS];
    ModelPart p;
    if (cost_part(r, first, &p, err) < 0 || part_check(&p, r->config, err) < 0)
        return -1;
    if (r->extent[GRID_CP] > 1 && r->sequence_length % (2 * r->extent[GRID_CP]) != 0)
        return error_set(err, "--cp %d: a sequence of %" PRId64 " tokens does not fall into %d equal chunks", r->extent[GRID_CP], r->sequence_length,
                         2 * r->extent[GRID_CP]);
    if (r->extent[GRID_DP] > r->samples)
        return error_set(err, "--dp %d: a step has %" PRId64 " samples, fewer than ranks", r->extent[GRID_DP], r->samples);
    if (r->engine == COST_LMPIPE && r->shard > 1 && r->extent[GRID_TP] > 1 && r->extent[GRID_CP] * r->extent[GRID_DP] > 1 && !slices_agree(r))
        return error_set(err, "--shard %d with --tp %d: heads, the MLP's width or the vocabulary do not divide evenly; take --shard 1", r->shard, r->extent[GRID_TP]);
    return 0;
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

/* That messages between stages lie in. */
static int places_of(const CostRun *r, const CostShape *s)
{
    return r->extent[GRID_PP] > 1 ? s->schedule.receives + s->schedule.sends : 0;
}

/* Counted as Megatron-LM and Llama 3 lay it out. */
static void lean_memory(const CostRun *r, const CostShape *s, CostMemory *m)
{
    const ModelConfig *c = r->config;
    double n = (double)s->total, widest = (double)s->widest, data = r->extent[GRID_CP] * r->extent[GRID_DP], t = r->extent[GRID_TP];
    double layers = 0, rows = (double)s->rows;
    for (int i = 0; i < s->model.part.ranges; i++)
        layers += (double)s->model.part.range[i].count / s->model.part.ranges;
    m->weights = 2 * (r->shard >= 3 && data > 1 ? n / data + 2 * widest : n) + 2 * (double)s->frozen;
    m->gradients = 4 * (r->shard >= 2 && data > 1 ? n / data + 3 * widest : n);
    m->states = 12 * (r->shard >= 1 ? n / data : n);
    /* One layer is there whole while its backward pass runs. */
    m->activations = rows / t * (lean_token(c, r->recompute) * layers * m->slots + (r->recompute == RECOMPUTE_NONE ? 0 : lean_token(c, RECOMPUTE_NONE)));
    m->buffers = places_of(r, s) * rows / t * (double)c->hidden_size * 2 + 6.0 * HEAD_CHUNK * (double)c->vocab_size / t +
                 (r->extent[GRID_CP] > 1 ? 6 * rows * r->extent[GRID_CP] * (double)s->model.shape.kv : 0);
    m->program = lean_program;
}

/* What MPI ranks add up in lies in a piece of memory a group, and where it is longer than that also beside it (mpi.c). */
static double mpi_scratch(double bytes)
{
    const double piece = 16 << 20;
    return bytes <= piece ? bytes : 2 * piece;
}

static double mpi_memory(const CostRun *r, const CostShape *s)
{
    double size = (double)dtype_size(r->dtype), bytes = mpi_program;
    if (r->extent[GRID_TP] > 1)
        bytes += mpi_scratch((double)(s->rows * r->config->hidden_size) * size);
    if (r->extent[GRID_CP] > 1)
        bytes += mpi_scratch((double)(s->rows * r->extent[GRID_CP] * 2 * s->model.shape.kv) * size);
    if (r->extent[GRID_CP] * r->extent[GRID_DP] > 1)
        bytes += mpi_scratch(4 * (double)s->widest);
    return bytes;
}

static double process_memory(const CostRun *r)
{
    return r->process > 0 ? r->process : own_program;
}

/* Of a weight that stands whole. */
static double weight_bytes(const CostRun *r)
{
    return r->gpu && r->dtype != DTYPE_F32 ? 6 : 4;
}

/* Bytes of a layer's matrices that are packed to go with other operations, and of the output layer's, which is packed for the hidden states'
 * gradient once more if its rows, f32, are too long to be read as they lie (choose_direct in kernels/cpu/matmul_plan.c). */
static double packed_together(const CostShape *s, double size, bool steps)
{
    enum { NEAR = 256, LANES = 16 };
    const Model *m = &s->model;
    const PartShape *p = &m->shape;
    double h = (double)m->config.hidden_size, q = (double)p->q, kv = (double)p->kv, f = (double)p->intermediate, all = 0;
    const double products[] = {h * (q + 2 * kv), h * q, 2 * h * f, h * f}, head = part_has_head(&m->part) ? size * h * (double)p->vocab : 0;
    for (int i = 0; i < 4; i++)
        all += size * products[i] <= own_together ? size * products[i] : 0;
    int64_t width = m->config.hidden_size;
    int passes = steps && (size < 4 || width > NEAR || width % LANES != 0) ? 2 : 1;
    double layers = m->part.range[0].count < own_layers ? (double)m->part.range[0].count : own_layers;
    all *= s->sequence_rows <= 256 ? layers : 1;
    return head <= own_together && passes * head > all ? passes * head : all;
}

/* What a rank's products have beside their matrices: where operations are collected (layer.c) packed ones of several, else blocks of one. In
 * steps, or before them, when nothing is shared. */
static double panels(const CostRun *r, const CostShape *s, bool steps)
{
    const Model *m = &s->model;
    bool narrow = r->dtype != DTYPE_F32, together = r->extent[GRID_TP] * r->extent[GRID_CP] == 1 && !m->config.lora && !m->config.qk_norm &&
                                                    (!steps || r->shard < 2 || r->extent[GRID_DP] == 1);
    int threads = cost_ranks(r) > 1 ? 1 : r->threads > 0 ? r->threads : thread_default_count();
    double size = narrow ? 2 : 4, packed = together ? packed_together(s, size, steps) : 0, block = size * (double)s->largest;
    block = block < own_block ? block : own_block;
    packed = packed > block ? packed : block;
    /* Sums of a bf16 result want all of k at once: tokens, where hidden states have their gradient from the output layer. */
    double own = own_panels[narrow], deep = narrow && steps && part_has_head(&m->part) ? 128 * (double)m->shape.vocab : 0;
    return (packed < own_packed ? packed : own_packed) + threads * (own > deep ? own : deep);
}

/* Before the first step: whole weights, of the model through which all records pass the bytes of one and what such a pass keeps, and what products
 * have beside their matrices, which stays. */
typedef struct OwnFirst {
    double weights, activations, panels;
} OwnFirst;

static int own_first(const CostRun *r, const CostShape *s, OwnFirst *first, Error *err)
{
    CostRun that = *r;
    CostShape o;
    *first = (OwnFirst){0};
    if (r->first == 0)
        return 0;
    that.config = r->other ? r->other : r->config;
    that.micro_batch = r->first;
    if (cost_shape_open(&o, &that, s->place, err) < 0)
        return -1;
    *first = (OwnFirst){weight_bytes(r) * (double)(o.total + o.frozen), (double)slot_bytes(&o.model, o.rows, MODE_SCORE, 1), panels(&that, &o, false)};
    cost_shape_close(&o);
    return 0;
}

/* Whole weights, beside them for a moment a rank's slices of what will be shared, or until then another model. */
static double own_start(const CostRun *r, const CostShape *s, const CostMemory *m, const OwnFirst *first)
{
    double bytes = weight_bytes(r), data = r->extent[GRID_CP] * r->extent[GRID_DP], n = (double)(s->total + s->frozen);
    double slices = r->shard >= 3 && data > 1 ? 4 * n / data : 0, passed = first->activations + (r->other ? first->weights : 0);
    return bytes * n + fmax(slices, passed) + m->buffers + m->program;
}

/* As a run of this engine lays it out. */
static int own_memory(const CostRun *r, const CostShape *s, CostMemory *m, Error *err)
{
    const ModelConfig *c = r->config;
    double n = (double)s->total, data = r->extent[GRID_CP] * r->extent[GRID_DP], share = n / data;
    bool cut2 = r->shard >= 2 && data > 1, cut3 = r->shard >= 3 && data > 1;
    /* Beside slices the whole of three units' weights, with their working copy, and of three units' gradients (sharding.c). */
    double weights = cut3 ? weight_bytes(r) * (double)s->rooms : 0, gradients = cut2 ? 4 * (double)s->trained_rooms : 0;
    /* What is not trained is every rank's too, but where weights come by units. */
    m->weights = cut3 ? 4 * (share + (double)s->frozen / data) + weights : weight_bytes(r) * (n + (double)s->frozen);
    m->gradients = cut2 ? 4 * share + gradients : 4 * n;
    m->states = 8 * (r->shard >= 1 ? share : n);
    m->activations = (double)slot_bytes(&s->model, s->rows, MODE_TRAIN, m->slots);
    if (r->scored > r->micro_batch) /* it has one slot */
        m->activations += (double)slot_bytes(&s->model, s->sequence_rows * r->scored, MODE_TRAIN, 1) - (double)slot_bytes(&s->model, s->rows, MODE_TRAIN, 1);
    int64_t positions = r->sequence_length > c->max_position_embeddings ? r->sequence_length : c->max_position_embeddings;
    positions = positions < 8192 ? positions : r->sequence_length > 8192 ? r->sequence_length : 8192;
    OwnFirst first;
    if (own_first(r, s, &first, err) < 0)
        return -1;
    m->buffers = fmax(panels(r, s, true), first.panels) + places_of(r, s) * (double)(tp_rows(&s->model, s->rows) * c->hidden_size) * 4 +
                 (double)(positions * c->head_dim) * 4;
    /* Of its share weights and moments for checkpoints, which stay, and the weights of the final model where they do not lie together. */
    m->copy = ((r->saves ? 12 : 0) + (data > 1 ? 4 : 0)) * share;
    if (r->averages) {
        m->copy += r->saves ? 4 * share : 0;
        m->weights += 4 * (cut3 ? share : n);
    }
    m->program = process_memory(r) + (cost_ranks(r) > 1 ? mpi_memory(r, s) - own_program : 0) + (r->saves ? own_writing : 0);
    m->start = own_start(r, s, m, &first);
    return 0;
}

int cost_memory(const CostRun *r, const int place[GRID_DIMENSIONS], CostMemory *m, Error *err)
{
    CostShape s;
    *m = (CostMemory){0};
    if (cost_check(r, err) < 0 || cost_shape_open(&s, r, place, err) < 0)
        return -1;
    m->parameters = (double)(s.total + s.frozen);
    m->slots = s.schedule.slots > 0 ? s.schedule.slots : 1;
    int status = 0;
    if (r->engine == COST_LEAN)
        lean_memory(r, &s, m);
    else
        status = own_memory(r, &s, m, err);
    cost_shape_close(&s);
    m->all = m->weights + m->gradients + m->states + m->activations + m->buffers + m->copy + m->program;
    m->start = m->start > m->all ? m->start : 0;
    m->all = m->start > m->all ? m->start : m->all;
    return status;
}

int cost_memory_threads(const CostRun *r, double *bytes, Error *err)
{
    int others = r->extent[GRID_CP] * r->extent[GRID_DP], place[GRID_DIMENSIONS] = {0};
    *bytes = process_memory(r);
    for (place[GRID_PP] = 0; place[GRID_PP] < r->extent[GRID_PP]; place[GRID_PP]++)
        for (place[GRID_TP] = 0; place[GRID_TP] < r->extent[GRID_TP]; place[GRID_TP]++) {
            CostMemory m;
            if (cost_memory(r, place, &m, err) < 0)
                return -1;
            *bytes += others * (m.all - m.program + (r->saves ? own_writing : 0));
        }
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
        const int place[GRID_DIMENSIONS] = {[GRID_PP] = at[i]}; /* the first of its tensor-parallel ranks has most where things do not divide evenly */
        if (cost_memory(r, place, &one, err) < 0)
            return -1;
        if (one.all > m->all) {
            *m = one;
            *stage = at[i];
        }
    }
    return 0;
}
