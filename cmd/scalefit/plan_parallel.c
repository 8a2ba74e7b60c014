/* plan --published: memory and communication of a training on a grid of ranks by the formulas of papers and of Megatron-LM. What this
 * engine really takes is told of a run's folder (plan_run.c) and searched by plan --layout. */
#include <math.h>
#include <stdio.h>
#include "scalefit.h"

/* Sizes of the grid, and what a rank passes in a step. */
typedef struct Ranks {
    double t, c, p, d, v;      /* --tp --cp --pp --dp, virtual stages */
    double rows, passes;       /* tokens a pass of all of its cp ranks, passes a step */
} Ranks;

/* Bytes of a layer's activations of a pass on each tensor-parallel rank (Korthikanti et al. 2022, table 2): 16-bit numbers, dropout's masks,
 * four times the width between the feed-forward products. scores: 5 a s / h, 0 where they are not kept. */
static double layer_without_sequence(double numbers, double t, double scores)
{
    return numbers * (10 + 24 / t + scores / t);
}

static double layer_with_sequence(double numbers, double t, double scores)
{
    return numbers * (34 + scores) / t;
}

/* Those of the first stage of a pipeline: as many layers' worth as the model has, of fewer micro-batches than stages fewer, of virtual stages
 * more by the pieces that the warm-up passes too many. */
static double stage_share(const Ranks *r)
{
    return r->v > 1 ? 1 + (r->p - 1) / (r->p * r->v) : fmin(1, r->passes / r->p);
}

static void activations(const Settings *s, const PlanShape *m, const Ranks *r)
{
    bool j = s->json;
    double numbers = r->rows / r->c * m->hidden, scores = 5 * m->heads * (double)s->sequence / m->hidden, first = m->layers * stage_share(r);
    plan_row(j, "activations_scores_bytes", numbers * (34 + scores) * m->layers, "bytes", "activations, Korthikanti et al. 2022");
    plan_row(j, "activations_selective_bytes", numbers * 34 * m->layers, "bytes", "the same, attention recomputed");
    plan_row(j, "activations_recompute_bytes", numbers * 2 * m->layers, "bytes", "the same, all recomputed");
    if (!s->grid)
        return;
    plan_row(j, "activations_tp_bytes", layer_without_sequence(numbers, r->t, scores) * first, "bytes", "of a rank, first stage, --tp");
    plan_row(j, "activations_sp_bytes", layer_with_sequence(numbers, r->t, scores) * first, "bytes", "--tp with its sequence cut too");
    plan_row(j, "activations_sp_selective_bytes", layer_with_sequence(numbers, r->t, 0) * first, "bytes", "the same, attention recomputed");
    plan_row(j, "in_flight_layers", first, "", "layers' worth that the first stage keeps");
}

/* Megatron-LM's theoretical_memory_usage.py: the first stage, with the sequence cut over t and attention recomputed, and without. */
static void megatron(const Settings *s, const PlanShape *m, const Ranks *r)
{
    bool j = s->json;
    double h = m->hidden, numbers = r->rows / r->c * h, tables = m->vocab * h;
    double block = m->layers * (2 * h * m->query * (1 + m->kv / m->query) + 3 * h * m->feed), norms = (2 * m->layers + 1) * h;
    double fullest = (block / r->p + tables + (r->p == 1 && !s->shared_table ? tables : 0)) / r->t + norms / r->p;
    double ends = (8 * r->rows / r->c + numbers) * r->p, kept = stage_share(r), logits = r->p == 1 ? numbers * 4 * (1 + m->vocab / h) : 0;
    double plain = (layer_without_sequence(numbers, r->t, 0) * m->layers + ends) * kept + (r->p == 1 ? 2 * (numbers * m->vocab / h / r->t + numbers) : 0);
    plan_row(j, "params_megatron", fullest, "", "the fullest rank's parameters, Megatron-LM");
    plan_row(j, "states_megatron_bytes", 18 * fullest, "bytes", "weights, gradients, states: 18 each");
    plan_row(j, "states_megatron_sharded_bytes", (6 + 12 / (r->d * r->c)) * fullest, "bytes", "states shared: 6 + 12/dp each");
    plan_row(j, "activations_megatron_bytes", ((numbers * (18 + 4 * m->feed / h) * m->layers + ends) * kept + logits) / r->t, "bytes", "activations, sbh(18 + 4f/h)/t a layer");
    plan_row(j, "activations_megatron_plain_bytes", 1.05 * plain, "bytes", "without the sequence cut, sbh(10 + 24/t)");
}

/* Rajbhandari et al. 2020, table 1, of a rank's share of the parameters: states, gradients too, weights too. */
static void shards(const Settings *s, const Ranks *r)
{
    bool j = s->json;
    double n = s->params / (r->t * r->p), d = r->d * r->c;
    const struct {
        const char *key, *text;
        double bytes;
    } ways[] = {{"zero0_bytes", "weights, bf16 gradients, states: 16", 16}, {"zero1_bytes", "ZeRO-1: 4 + 12/d a parameter", 4 + 12 / d},
                {"zero2_bytes", "ZeRO-2: 2 + 14/d", 2 + 14 / d}, {"zero3_bytes", "ZeRO-3: 16/d", 16 / d},
                {"zero0_f32_bytes", "with f32 gradients: 18", 18}, {"zero1_f32_bytes", "ZeRO-1: 6 + 12/d", 6 + 12 / d},
                {"zero2_f32_bytes", "ZeRO-2: 2 + 16/d", 2 + 16 / d}, {"zero3_f32_bytes", "ZeRO-3: 18/d", 18 / d}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        plan_row(j, ways[i].key, ways[i].bytes * n, "bytes", ways[i].text);
}

static void both_ways(bool j, const char *key, const char *text, CostLink l, double p, double n, double times)
{
    char name[64], says[64];
    snprintf(name, sizeof name, "%s_ring_seconds", key);
    snprintf(says, sizeof says, "%s, ring", text);
    plan_row(j, name, times * cost_all_reduce_ring(l, p, n), "s", says);
    snprintf(name, sizeof name, "%s_tree_seconds", key);
    snprintf(says, sizeof says, "%s, tree", text);
    plan_row(j, name, times * cost_all_reduce_tree(l, p, n), "s", says);
}

/* What a rank sends in a step, and how long its links are busy with it. */
static void traffic(const Settings *s, const CostCluster *c, const PlanShape *m, const Ranks *r)
{
    bool j = s->json;
    double place = 2 * r->rows / r->c * m->hidden, layers = m->layers / r->p, n = s->params / (r->t * r->p), d = r->d * r->c;
    if (r->t > 1) {
        double times = 4 * layers * r->passes;
        plan_row(j, "tp_sum_bytes", place, "bytes", "--tp: one of 4 all-reduces a layer and pass");
        plan_row(j, "tp_sent_bytes", times * 2 * (r->t - 1) / r->t * place, "bytes", "--tp: sent in a step");
        both_ways(j, "tp", "--tp: a step's", cost_link(c, 1, r->t), r->t, place, times);
    }
    if (r->c > 1) {
        CostLink l = cost_link(c, r->t, r->c);
        double piece = 2 * 2 * r->rows / r->c * m->kv / r->t;
        plan_row(j, "cp_piece_bytes", piece, "bytes", "--cp: keys and values, a step of the ring");
        plan_row(j, "cp_seconds", (r->c - 1) * (l.latency + piece * l.per_byte), "s", "--cp: all steps of a layer's ring");
        plan_row(j, "cp_attention_seconds", 2 * r->rows / r->c * (double)s->sequence * m->query / r->t / (c->flops * c->attention_share), "s", "--cp: the attention that may hide it");
    }
    if (r->p > 1) {
        CostLink l = cost_link(c, r->t * r->c, r->p);
        double bubble = (r->p - 1) / (r->v * r->passes);
        plan_row(j, "pp_message_bytes", place / r->t, "bytes", "--pp: a message between stages");
        plan_row(j, "pp_message_seconds", l.latency + place / r->t * l.per_byte, "s", "--pp: its time");
        plan_row(j, "bubble", bubble, "", "bubble, (p - 1)/(v m) of the busy time");
        plan_row(j, "bubble_share", bubble / (1 + bubble), "", "bubble, of the whole");
    }
    if (d > 1) {
        CostLink l = cost_link(c, r->c == 1 ? r->t * r->c * r->p : r->t, d);
        plan_row(j, "dp_sent_bytes", 2 * (d - 1) / d * 4 * n, "bytes", "--dp: gradients, f32, sent in a step");
        plan_row(j, "dp_bf16_sent_bytes", 2 * (d - 1) / d * 2 * n, "bytes", "--dp: gradients, bf16");
        plan_row(j, "fsdp_sent_bytes", 3 * (d - 1) / d * 2 * n, "bytes", "--shard 3: three transfers, bf16");
        both_ways(j, "dp", "--dp: gradients, f32", l, d, 4 * n, 1);
        plan_row(j, "dp_scatter_ring_seconds", cost_gather_ring(l, d, 4 * n), "s", "--dp: half of it, ring");
        plan_row(j, "dp_scatter_tree_seconds", cost_gather_doubling(l, d, 4 * n), "s", "--dp: half of it, by doubling");
    }
}

void plan_parallel(const Settings *s, const PlanShape *m, const PlanGiven *g)
{
    const double *grid = g->grid;
    Ranks r = {grid[GRID_TP], grid[GRID_CP], grid[GRID_PP], grid[GRID_DP], s->virtual_stages > 1 ? (double)s->virtual_stages : 1, .rows = (double)(s->sequence * s->batch)};
    double batch = s->batch_tokens > 0 ? s->batch_tokens : PLAN_BATCH;
    r.passes = fmax(1, batch / (r.rows * r.d));
    activations(s, m, &r);
    megatron(s, m, &r);
    shards(s, &r);
    if (s->grid)
        traffic(s, &g->cluster, m, &r);
}
