/* What a post-training run takes, before any rank starts. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "io/stats.h"
#include "train/cost.h"
#include "train/posttrain.h"

/* Of the first step, which is as large as any. */
static CostRun cost_of(PostTrain *p, const ModelConfig *c, const Plan *plan)
{
    const GridOptions *g = &p->options_of_grid;
    CostRun r = {.config = c, .stages = {(int)g->virtual_stages, g->ends_fewer}, .shard = (int)p->train.shard, .dtype = dtype_of_option(p->common.dtype),
                 .recompute = train_recompute(&p->train), .saves = p->train.save_every > 0, .sequence_length = plan->sequence_length,
                 .samples = (int64_t)plan->bins, .micro_batch = plan->whole.sequences};
    /* A rank may be left without a batch. */
    if (r.samples < plan->grid->extent[GRID_DP])
        r.samples = plan->grid->extent[GRID_DP];
    memcpy(r.extent, plan->grid->extent, sizeof r.extent);
    return r;
}

static int tell_run(PostTrain *p, const CostRun *r, Plan *plan, bool grouped, Error *err)
{
    CostRow rows[COST_ROWS];
    int n = cost_rows(r, rows, err);
    int64_t tokens = 0;
    if (n < 0)
        return -1;
    for (int64_t i = 0; i < plan->steps; i++) {
        plan_step(plan, i, grouped);
        tokens += plan_tokens(plan);
    }
    double flops = config_flops_per_token(r->config, p->length) * (double)tokens * (p->lora.rank ? 2.0 / 3 : 1), memory = 0;
    printf("%-34s %14" PRId64 "\n", "parameters", config_parameters(r->config));
    printf("%-34s %14zu\n", "records", p->examples.groups);
    printf("%-34s %14" PRId64 "\n", "steps", plan->steps);
    printf("%-34s %14" PRId64 "\n", "tokens", tokens);
    printf("%-34s %14.4g\n", "FLOPs", flops);
    /* What ranks send is not told: some tools pass forward twice. */
    for (int i = 0; i < n; i++)
        if (strncmp(rows[i].key, "sent_", 5) != 0)
            cost_rows_print(&rows[i], 1);
    if (p->train.peak_flops > 0)
        printf("%-34s %14.1f s\n", "time at 50 % of peak", flops / p->train.peak_flops / 0.5 / cost_ranks(r));
    for (int i = 0; i < n; i++)
        memory = strcmp(rows[i].key, "memory_bytes") == 0 ? rows[i].value : memory;
    const StatsItem items[] = {{"steps", (double)plan->steps}, {"tokens", (double)tokens}, {"flops", flops}, {"memory_bytes", memory}};
    return stats_write(p->common.stats, items, sizeof items / sizeof *items, NAN, err);
}

static int choose(PostTrain *p, CostRun like, Error *err)
{
    /* Sequences are made as long as context-parallel ranks want them, and passes as small as a pipeline does. */
    int64_t even = 2 * (int64_t)grid_options_ranks(&p->options_of_grid);
    like.sequence_length = (like.sequence_length + even - 1) / even * even;
    like.micro_batch = 0;
    return grid_options_choose(&p->options_of_grid, &like, strcmp(p->common.device, "cuda") == 0, err);
}

int posttrain_look_ahead(PostTrain *p, const int extent[GRID_DIMENSIONS], bool tell, Error *err)
{
    PostTrain q = *p; /* its adapters are this call's */
    char *base, *adapter;
    ModelConfig c;
    Grid g;
    if (posttrain_base(&q, &base, &adapter, err) < 0)
        return -1;
    char *path = memory_format("%s/config.json", base);
    int status = config_read(&c, path, err);
    free(path);
    free(base);
    free(adapter);
    grid_one(&g);
    memcpy(g.extent, extent, sizeof g.extent);
    if (status == 0) {
        Plan plan;
        bool grouped = p->tool->kind != EXAMPLES_CHAT;
        c.lora = p->lora.rank ? &q.plan_of_adapters : NULL;
        c.num_labels = p->tool->num_labels ? p->tool->num_labels : c.num_labels;
        posttrain_plan(p, &plan, &p->examples, &g);
        plan_step(&plan, 0, grouped);
        CostRun r = cost_of(p, &c, &plan);
        status = tell ? tell_run(p, &r, &plan, grouped, err) : choose(p, r, err);
        plan_close(&plan);
    }
    lora_plan_free(&q.plan_of_adapters);
    return status;
}
