/* What a post-training run takes, before any rank starts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/folder.h"
#include "train/cost.h"
#include "train/posttrain.h"

static int config_of(const char *folder, ModelConfig *c, Error *err)
{
    char *path = memory_format("%s/config.json", folder);
    int status = config_read(c, path, err);
    free(path);
    return status;
}

/* A run that nobody has started: its plans are those of the grid's first rank. */
typedef struct Ahead {
    PostTrain *p;
    Plan plan, held_out;
    CostRun run;
    CostTraffic step, all; /* what a rank sends in the first step, and in the whole run */
    int64_t tokens;
    const char *first;     /* the model that all records pass first; NULL: none */
    ModelConfig other;     /* its, where it is not the one that is trained */
} Ahead;

static CostRun cost_of(const PostTrain *p, const ModelConfig *c, const Grid *g, int64_t sequence_length)
{
    const GridOptions *o = &p->options_of_grid;
    CostRun r = {.config = c, .stages = {(int)o->virtual_stages, o->ends_fewer}, .shard = (int)p->train.shard, .dtype = dtype_of_option(p->common.dtype),
                 .recompute = train_recompute(&p->train), .saves = p->train.save_every > 0, .averages = p->train.average_every > 0, .lends = true, .sequence_length = sequence_length,
                 .process = (double)memory_resident(), .micro_batch = 1, .threads = (int)p->common.threads, .gpu = strcmp(p->common.device, "cuda") == 0};
    memcpy(r.extent, g->extent, sizeof r.extent);
    return r;
}

/* The run as it is where it takes most memory: passes as large as any, and as many. */
static void make_room(CostRun *r, const Plan *plan)
{
    int64_t ranks = r->extent[GRID_DP], passes = (plan->batches + ranks - 1) / ranks, before = r->samples / r->micro_batch / ranks;
    r->micro_batch = plan->whole.sequences > r->micro_batch ? plan->whole.sequences : r->micro_batch;
    r->samples = r->micro_batch * ranks * (passes > before ? passes : before);
}

/* Of a pass that goes forward alone. */
static void make_room_forward(int64_t *sequences, const Plan *plan)
{
    *sequences = plan->whole.sequences > *sequences ? plan->whole.sequences : *sequences;
}

/* Chunks of rows that have a label, in what the rank has of a layout's batches. */
static int64_t measured(Plan *plan)
{
    int64_t chunks = 0;
    for (int64_t i = 0; i < plan_passes(plan); i++) {
        const Batch *b = plan_batch(plan, i);
        for (int64_t first = 0, last; first < b->rows; first = last) {
            bool any = false;
            last = first + HEAD_CHUNK < b->rows ? first + HEAD_CHUNK : b->rows;
            for (int64_t r = first; r < last; r++)
                any |= b->labels[r] >= 0;
            chunks += any;
        }
    }
    return chunks;
}

/* What a rank sends when what is laid out goes through. */
static int pass(const CostRun *r, const int place[GRID_DIMENSIONS], Plan *plan, CostWay way, bool measures, CostHeld *held, CostTraffic *to, Error *err)
{
    CostTraffic t;
    CostPasses p = {.count = plan_passes(plan), .rows = plan_rows(plan), .way = way};
    if (p.count == 0)
        return 0;
    if (measures && !r->config->num_labels && r->extent[GRID_TP] > 1)
        p.measured = measured(plan);
    if (cost_traffic_passes(r, place, &p, held, &t, err) < 0)
        return -1;
    cost_traffic_add(to, &t, 1);
    return 0;
}

/* A step, of what its plan has laid out (posttrain_pass). */
static int step(const Ahead *a, const int place[GRID_DIMENSIONS], Plan *plan, CostHeld *held, CostTraffic *to, Error *err)
{
    CostTraffic sums;
    bool ahead = a->p->tool->ahead, kept = ahead && a->run.extent[GRID_PP] == 1 && plan_passes(plan) == 1;
    if ((ahead && pass(&a->run, place, plan, COST_FORWARD, true, held, to, err) < 0) || pass(&a->run, place, plan, kept ? COST_BACK : COST_BOTH, !ahead, held, to, err) < 0 ||
        cost_traffic_sums(&a->run, place, held, &sums, err) < 0)
        return -1;
    cost_traffic_add(to, &sums, 1);
    return 0;
}

/* Which model passes all records before the first step. */
static int first_model(Ahead *a, Error *err)
{
    char *base, *adapter;
    a->first = a->p->tool->first ? a->p->tool->first(a->p) : NULL;
    if (!a->first || a->first == a->p->model_path)
        return 0;
    if (folder_base(a->first, NULL, &base, &adapter, err) < 0)
        return -1;
    int status = config_of(base, &a->other, err);
    a->run.other = &a->other;
    free(base);
    free(adapter);
    return status;
}

/* Nothing is shared yet. */
static int first_pass(Ahead *a, const int place[GRID_DIMENSIONS], Error *err)
{
    CostRun r = a->run;
    r.shard = 0;
    r.config = r.other ? r.other : r.config;
    plan_all(&a->plan);
    make_room_forward(&a->run.first, &a->plan);
    if (a->p->val)
        make_room_forward(&a->run.first, &a->held_out);
    int status = pass(&r, place, &a->plan, COST_FORWARD, true, NULL, &a->all, err);
    return status == 0 && a->p->val ? pass(&r, place, &a->held_out, COST_FORWARD, true, NULL, &a->all, err) : status;
}

/* The first rank's whole run. */
static int walk(Ahead *a, Error *err)
{
    static const int place[GRID_DIMENSIONS];
    const TrainOptions *o = &a->p->train;
    CostHeld held = COST_HELD_NOTHING;
    if (a->p->val) {
        plan_all(&a->held_out);
        make_room_forward(&a->run.scored, &a->held_out);
    }
    if (a->first && first_pass(a, place, err) < 0)
        return -1;
    for (int64_t i = 1; i <= a->plan.steps; i++) {
        plan_step(&a->plan, i - 1);
        a->tokens += plan_tokens(&a->plan);
        make_room(&a->run, &a->plan);
        bool looks = a->p->val && (i == a->plan.steps || (o->eval_every > 0 && i % o->eval_every == 0));
        if (step(a, place, &a->plan, &held, &a->all, err) < 0 || (looks && pass(&a->run, place, &a->held_out, COST_FORWARD, true, &held, &a->all, err) < 0))
            return -1;
    }
    CostTraffic merged;
    if (o->merge && cost_traffic_merge(&a->run, place, &held, &merged, err) < 0)
        return -1;
    if (o->merge)
        cost_traffic_add(&a->all, &merged, 1);
    return 0;
}

/* The first step of the first rank of the stage that takes most memory. */
static int first_step(Ahead *a, Error *err)
{
    CostMemory m;
    int place[GRID_DIMENSIONS] = {0};
    if (cost_memory_most(&a->run, &m, &place[GRID_PP], err) < 0)
        return -1;
    plan_step(&a->plan, 0);
    return step(a, place, &a->plan, NULL, &a->step, err);
}

static int tell_run(Ahead *a, Error *err)
{
    const PostTrain *p = a->p;
    const CostRun *r = &a->run;
    CostRow rows[COST_ROWS];
    if (first_model(a, err) < 0 || cost_check(r, err) < 0 || walk(a, err) < 0 || first_step(a, err) < 0)
        return -1;
    int n = cost_rows(r, &a->step, rows, err);
    if (n < 0)
        return -1;
    double flops = config_flops_per_token(r->config, p->length) * (double)a->tokens * (p->lora.rank ? 2.0 / 3 : 1);
    printf("%-34s %14" PRId64 "\n", "parameters", config_parameters(r->config));
    printf("%-34s %14zu\n", "records", p->examples.groups);
    printf("%-34s %14" PRId64 "\n", "steps", a->plan.steps);
    printf("%-34s %14" PRId64 "\n", "tokens", a->tokens);
    printf("%-34s %14.4g\n", "FLOPs", flops);
    cost_rows_print(rows, n);
    if (p->train.peak_flops > 0)
        printf("%-34s %14.1f s\n", "time at 50 % of peak", flops / p->train.peak_flops / 0.5 / cost_ranks(r));
    return p->common.stats ? cost_stats(p->common.stats, r, (double)a->plan.steps, (double)a->tokens, flops, &a->all, err) : 0;
}

static int choose(Ahead *a, Error *err)
{
    PostTrain *p = a->p;
    CostRun like = a->run;
    /* Sequences are made as long as context-parallel ranks want them, and passes as small as a pipeline does. */
    int64_t even = 2 * (int64_t)grid_options_ranks(&p->options_of_grid);
    like.sequence_length = (like.sequence_length + even - 1) / even * even;
    like.samples = (int64_t)a->plan.bins;
    like.micro_batch = 0;
    const CostStretch all = {1, like.sequence_length, like.samples};
    return grid_options_choose(&p->options_of_grid, p->set, &like, &all, 1, err);
}

int posttrain_look_ahead(PostTrain *p, const int extent[GRID_DIMENSIONS], bool tell, Error *err)
{
    PostTrain q = *p; /* its adapters are this call's */
    char *base, *adapter;
    ModelConfig c;
    Grid g;
    if (posttrain_base(&q, &base, &adapter, err) < 0)
        return -1;
    int status = config_of(base, &c, err);
    if (status == 0)
        status = posttrain_has_head(p, &c, base, err);
    free(base);
    free(adapter);
    grid_one(&g);
    memcpy(g.extent, extent, sizeof g.extent);
    if (status == 0) {
        Ahead a = {.p = p};
        c.lora = p->lora.rank ? &q.plan_of_adapters : NULL;
        c.num_labels = p->tool->num_labels ? p->tool->num_labels : c.num_labels;
        posttrain_plan(p, &a.plan, &p->examples, &g);
        if (p->val)
            posttrain_plan(p, &a.held_out, &p->held_out, &g);
        a.run = cost_of(p, &c, &g, a.plan.sequence_length);
        /* The first step is as large as any. A rank may be left without a batch. */
        plan_step(&a.plan, 0);
        make_room(&a.run, &a.plan);
        status = tell ? tell_run(&a, err) : choose(&a, err);
        plan_close(&a.plan);
        if (p->val)
            plan_close(&a.held_out);
    }
    lora_plan_free(&q.plan_of_adapters);
    return status;
}
