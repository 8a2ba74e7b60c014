/* The time of a step: a stated model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "train/cost.h"
#include "train/pipeline.h"

CostCluster cost_cluster_h100(void)
{
    return (CostCluster){.node = 8, .memory = 80e9, .flops = 989e12, .memory_bandwidth = 3.35e12, .intra_bandwidth = 450e9, .inter_bandwidth = 50e9,
                         .intra_latency = 3e-6, .inter_latency = 10e-6, .product_share = 0.62, .attention_share = 0.5, .memory_share = 0.8,
                         .link_share = 0.8, .overlap = 0.25, .spread = 0.01};
}

CostCluster cost_cluster_cpu(int ranks_here, int cores, double memory)
{
    /* One that has slept while it waited must first get a core from others that share it. */
    double latency = cores < ranks_here ? 50e-6 : 5e-6;
    return (CostCluster){.node = ranks_here, .core = fmin(1, (double)cores / ranks_here), .memory = memory, .flops = 2e11, .memory_bandwidth = 2e10, .packing = 2, .intra_bandwidth = 4e9, .inter_bandwidth = 1e9,
                         .intra_latency = latency, .inter_latency = 30e-6, .product_share = 0.8, .attention_share = 0.5, .memory_share = 0.8, .link_share = 0.8,
                         .spread = 0.01};
}

static int64_t stride_of(const CostRun *r, int dimension)
{
    int64_t stride = 1;
    for (int d = 0; d < dimension; d++)
        stride *= r->extent[d];
    return stride;
}

/* Seconds of one layer's forward pass, by what it does; and of the output layer's. */
typedef struct Pass {
    double products, attention, elementwise, tp, cp;
} Pass;

static double pass_all(Pass p)
{
    return p.products + p.attention + p.elementwise + p.tp + p.cp;
}

/* Of every layer and of the vocabulary, of the tensor-parallel rank that has most: the first. */
static PartShape share_of(const CostRun *r)
{
    return part_shape(&(ModelPart){.tp_size = r->extent[GRID_TP]}, r->config);
}

static double layer_weights(const CostRun *r)
{
    PartShape own = share_of(r);
    return (double)r->config->hidden_size * (double)(2 * own.q + 2 * own.kv + 3 * own.intermediate);
}

static Pass layer_forward(const CostRun *r, const CostCluster *c)
{
    PartShape own = share_of(r);
    double rows = (double)(r->micro_batch * r->sequence_length) / r->extent[GRID_CP], t = r->extent[GRID_TP], h = (double)r->config->hidden_size;
    double q = (double)own.q, kv = (double)own.kv, f = (double)own.intermediate;
    double size = r->dtype == DTYPE_F32 ? 4 : 2;
    CostLink tp = cost_link(c, 1, r->extent[GRID_TP]), cp = cost_link(c, stride_of(r, GRID_CP), r->extent[GRID_CP]);
    return (Pass){
        .products = 2 * rows * (2 * h * q + 2 * h * kv + 3 * h * f) / (c->flops * c->product_share),
        /* Scores and values of half of all pairs. */
        .attention = 2 * rows * (double)r->sequence_length * q / (c->flops * c->attention_share),
        /* Two norms with their residuals read and write 4 h each, RoPE 2 (q + kv), SwiGLU 3 f. */
        .elementwise = size * (rows * (8 * h / t + 2 * (q + kv) + 3 * f) + c->packing * layer_weights(r)) / (c->memory_bandwidth * c->memory_share),
        /* Two gathers, two sums that are scattered. */
        .tp = 4 * (1 - c->overlap) * cost_gather_ring(tp, r->extent[GRID_TP], size * rows * h),
        .cp = cost_gather_ring(cp, r->extent[GRID_CP], size * rows * r->extent[GRID_CP] * 2 * kv),
    };
}

static Pass layer_backward(const CostRun *r, const CostCluster *c)
{
    Pass f = layer_forward(r, c);
    bool again = r->recompute == RECOMPUTE_LAYER;
    return (Pass){.products = f.products * (again ? 3 : 2), .attention = f.attention * (again ? 3.5 : 2.5), /* flash attention computes scores again */
                  .elementwise = f.elementwise * (r->recompute == RECOMPUTE_NONE ? 2 : 3), .tp = f.tp * (again ? 2.25 : 1.5), .cp = f.cp * (again ? 3 : 2)};
}

/* The output layer's three products, all in the backward pass; its weights are cut over tp. */
static double head_seconds(const CostRun *r, const CostCluster *c)
{
    double rows = (double)(r->micro_batch * r->sequence_length) / r->extent[GRID_CP];
    double weights = (double)r->config->hidden_size * (double)share_of(r).vocab;
    return 6 * rows * weights / (c->flops * c->product_share) + 3 * c->packing * (r->dtype == DTYPE_F32 ? 4 : 2) * weights / (c->memory_bandwidth * c->memory_share);
}

/* What a rank of a stage holds. */
static ModelPart part_at(const CostRun *r, int stage)
{
    Grid g = {0};
    ModelPart p;
    Error ignored;
    memcpy(g.extent, r->extent, sizeof g.extent);
    g.place[GRID_PP] = stage;
    return part_of_grid(&p, r->config, &g, &r->stages, &ignored) < 0 ? (ModelPart){0} : p;
}

static int64_t layers_at(const ModelPart *p)
{
    int64_t layers = 0;
    for (int i = 0; i < p->ranges; i++)
        layers += p->range[i].count;
    return layers;
}

/* Parameters of a rank of the first stage, near enough for a time. */
static double parameters(const CostRun *r)
{
    const ModelConfig *m = r->config;
    ModelPart p = part_at(r, 0);
    double tables = (double)share_of(r).vocab * (double)m->hidden_size * (1 + (part_has_head(&p) && !m->tie_word_embeddings));
    return (double)layers_at(&p) * layer_weights(r) + tables;
}

/* A pass through one virtual stage, forward and backward, in seconds. */
static void chunk_seconds(const CostRun *r, const CostCluster *c, int stage, int chunk, double *forward, double *backward)
{
    ModelPart p = part_at(r, stage);
    LayerRange at = p.range[chunk];
    *forward = (double)at.count * pass_all(layer_forward(r, c));
    *backward = (double)at.count * pass_all(layer_backward(r, c)) + (at.head ? head_seconds(r, c) : 0);
}

/* A message between two stages, in seconds. */
static double message_seconds(const CostRun *r, const CostCluster *c)
{
    double rows = (double)(r->micro_batch * r->sequence_length) / r->extent[GRID_CP] / r->extent[GRID_TP];
    CostLink l = cost_link(c, stride_of(r, GRID_PP), r->extent[GRID_PP]);
    return r->extent[GRID_PP] > 1 ? l.latency + rows * (double)r->config->hidden_size * (r->engine == COST_LEAN ? 2 : 4) * l.per_byte : 0;
}

/* The stage with the longest pass through all its chunks, and the layers it has. */
static double busiest(const CostRun *r, const CostCluster *c, double *layers, double *head)
{
    double most = 0, one = pass_all(layer_forward(r, c)) + pass_all(layer_backward(r, c));
    /* Those in the middle take what is left over, the second first; the last has the head. */
    const int at[3] = {0, 1, r->extent[GRID_PP] - 1};
    for (int i = 0; i < 3; i++) {
        int stage = at[i] < r->extent[GRID_PP] ? at[i] : 0;
        ModelPart p = part_at(r, stage);
        double mine = (double)layers_at(&p), own_head = part_has_head(&p) ? head_seconds(r, c) : 0;
        if (mine * one + own_head > most) {
            most = mine * one + own_head;
            *layers = mine;
            *head = own_head;
        }
    }
    return most;
}

/* Gradients are scattered behind the last backward pass, weights gathered before the next forward pass; with gradients or weights cut
 * (shard 2, 3) that is done in every pass. What the passes do not hide is exposed. Between this machine's CPUs communication is work of the very
 * CPUs that compute: nothing is hidden. */
static double dp_seconds(const CostRun *r, const CostCluster *c, const CostTime *t)
{
    int64_t data = (int64_t)r->extent[GRID_CP] * r->extent[GRID_DP];
    double n = parameters(r);
    if (data == 1)
        return 0;
    CostLink l = cost_link(c, stride_of(r, GRID_CP), data);
    /* Rings over cp and dp; buckets of 40M numbers, or more where many ranks would wait for latencies (Megatron-LM's). */
    if (r->extent[GRID_CP] == 1)
        l = cost_link(c, stride_of(r, GRID_DP), data);
    double buckets = ceil(n / fmax(40e6, 1e6 * (double)data)), passes = (double)cost_passes(r), weight = r->engine == COST_LEAN ? 2 : 4;
    double scatter = buckets * cost_gather_ring(l, data, 4 * n / buckets), gather = buckets * cost_gather_ring(l, data, weight * n / buckets);
    if (r->shard >= 2)
        scatter *= passes;
    if (r->shard >= 3)
        gather *= 2 * passes;
    if (r->engine == COST_LMPIPE)
        return scatter + gather;
    double hide = r->shard >= 2 ? passes : 1, hide_gather = r->shard >= 3 ? passes : 1;
    return fmax(0, scatter - hide * t->backward) + fmax(0, gather - hide_gather * (r->shard >= 3 ? t->forward + t->backward : t->forward));
}

double cost_messages(int stages, int chunks, int64_t passes, double message, double forward, double backward)
{
    double p = stages, v = chunks, m = (double)passes;
    if (v == 1)
        return 2 * message * ((p - 1) * fmax(1, m / p) + fmax(0, fmin(m - 1, p - 2)));
    double hidden = fmin(forward, backward) + fabs(forward - backward) / (2 * v);
    return 2 * (v * p - 1) * message + v * fmax(0, m - p) * fmax(0, message - hidden);
}

int cost_time(const CostRun *r, const CostCluster *c, CostTime *t, Error *err)
{
    *t = (CostTime){0};
    if (cost_check(r, err) < 0)
        return -1;
    double layers = 0, head = 0, passes = (double)cost_passes(r), p = r->extent[GRID_PP], v = r->stages.chunks;
    double pass = busiest(r, c, &layers, &head);
    Pass f = layer_forward(r, c), b = layer_backward(r, c);
    t->forward = layers * pass_all(f);
    t->backward = layers * pass_all(b) + head;
    t->products = passes * (layers * (f.products + b.products) + head);
    t->attention = passes * layers * (f.attention + b.attention);
    t->elementwise = passes * layers * (f.elementwise + b.elementwise);
    t->tp = passes * layers * (f.tp + b.tp);
    t->cp = passes * layers * (f.cp + b.cp);
    /* v·max(M, P) + min(M, P) − 1 times a chunk's pass: for M >= P the well-known (P − 1)/(v·M). */
    double least = fmin(passes, p), most = fmax(passes, p), total = (double)r->config->num_hidden_layers * (pass_all(f) + pass_all(b)) + head_seconds(r, c);
    double idle = (v * (most - passes) + least - 1) / v;
    /* In its bubble the busiest stage waits for the others' passes, which may be shorter than its own. */
    t->bubble = p > 1 ? idle * (total - pass) / (p - 1) : 0;
    t->bubble_share = idle / passes;
    t->pp = p > 1 ? cost_messages(r->extent[GRID_PP], r->stages.chunks, cost_passes(r), message_seconds(r, c), t->forward / v, t->backward / v) : 0;
    t->dp = dp_seconds(r, c, t);
    /* Reads gradient, weight and moments, writes the latter three: 28 bytes a parameter. */
    t->optimizer = 28 * parameters(r) / (r->shard >= 1 ? r->extent[GRID_CP] * r->extent[GRID_DP] : 1) / (c->memory_bandwidth * c->memory_share);
    double busy = passes * pass + t->bubble + t->pp + t->dp + t->optimizer;
    /* Where cores are shared a rank that waits leaves its own to others, so that a bubble costs next to nothing (a tenth, by measurement), but all
     * ranks' work is done one after the other, and each message wakes somebody. */
    if (c->core > 0 && c->core < 1)
        busy = fmax(busy, (passes * total / p + t->dp + t->optimizer) / c->core + t->bubble / 10 + (p > 1 ? 2 * passes * v * message_seconds(r, c) : 0));
    int n = cost_ranks(r);
    t->stragglers = n > 1 ? busy * c->spread * sqrt(2 * log(n)) : 0;
    t->all = busy + t->stragglers;
    t->mfu = config_flops_per_token(r->config, r->sequence_length) * (double)(r->samples * r->sequence_length) / (n * c->flops * t->all);
    return 0;
}

typedef struct Simulated {
    const CostRun *run;
    const double *slow;
    double *seconds; /* [stages, chunks, 2] */
} Simulated;

static double stage_duration(void *context, int stage, int chunk, int64_t micro_batch, bool backward)
{
    (void)micro_batch;
    const Simulated *s = context;
    return s->seconds[(stage * s->run->stages.chunks + chunk) * 2 + backward] * (s->slow ? s->slow[stage] : 1);
}

int cost_simulate_run(const CostRun *r, const CostCluster *c, const double *slow, CostSimulation *out, Error *err)
{
    int stages = r->extent[GRID_PP], chunks = r->stages.chunks;
    Simulated s = {.run = r, .slow = slow, .seconds = memory_alloc((size_t)stages * (size_t)chunks * 2, sizeof *s.seconds)};
    for (int i = 0; i < stages; i++)
        for (int k = 0; k < chunks; k++)
            chunk_seconds(r, c, i, k, &s.seconds[(i * chunks + k) * 2], &s.seconds[(i * chunks + k) * 2 + 1]);
    CostLink l = cost_link(c, stride_of(r, GRID_PP), stages);
    double message = message_seconds(r, c) - (stages > 1 ? l.latency : 0);
    int status = cost_simulate(stages, chunks, cost_passes(r), stage_duration, &s, message, l.latency, out, err);
    free(s.seconds);
    return status;
}
