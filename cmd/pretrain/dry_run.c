#include "dry_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The run as it is in the stage of training whose passes are largest. */
static CostRun largest(const DryRun *d)
{
    CostRun most = d->run;
    int64_t rows = 0;
    for (size_t i = 0; i < d->stages->count; i++) {
        const Stage *s = &d->stages->items[i];
        int64_t pass = stage_pass(s, d->micro_batch, d->run.extent);
        if (pass * s->sequence_length <= rows)
            continue;
        rows = pass * s->sequence_length;
        most.sequence_length = s->sequence_length;
        most.samples = s->samples;
        most.micro_batch = pass;
    }
    return most;
}

static void print_row(const CostRow *r)
{
    if (strcmp(r->unit, "bytes") == 0)
        printf("%-34s %14.1f MB\n", r->text, r->value / 1e6);
    else if (strcmp(r->key, "bubble") == 0)
        printf("%-34s %14.1f %%\n", r->text, 100 * r->value);
    else
        printf("%-34s %14.0f\n", r->text, r->value);
}

int dry_run(const DryRun *d, Error *err)
{
    CostRun run = largest(d);
    CostRow rows[COST_ROWS];
    const ModelConfig *c = run.config;
    const Stages *s = d->stages;
    int n = cost_rows(&run, rows, err);
    double flops = 0;
    if (n < 0)
        return -1;
    for (size_t i = 0; i < s->count; i++)
        flops += config_flops_per_token(c, s->items[i].sequence_length) * (double)(s->items[i].steps * s->items[i].samples * s->items[i].sequence_length);
    printf("%-34s %14" PRId64 "\n", "parameters", config_parameters(c));
    printf("%-34s %14" PRId64 "\n", "without input table", config_parameters_compute(c));
    printf("%-34s %14" PRId64 "\n", "steps", s->steps);
    printf("%-34s %14" PRId64 "\n", "tokens", s->tokens);
    printf("%-34s %14.4g\n", "FLOPs", flops);
    for (int i = 0; i < n; i++)
        print_row(&rows[i]);
    if (d->peak_flops > 0)
        printf("%-34s %14.1f s\n", "time at 50 % of peak", flops / d->peak_flops / 0.5 / cost_ranks(&run));
    for (size_t i = 0; i < s->count && s->count > 1; i++)
        printf("from step %-12" PRId64 "%14" PRId64 " steps of %" PRId64 " samples of %" PRId64 " tokens\n", s->items[i].first_step, s->items[i].steps,
               s->items[i].samples, s->items[i].sequence_length);
    return 0;
}

int dry_run_choose(DryRun *d, int ranks, bool gpu, Error *err)
{
    CostCluster c = gpu ? cost_cluster_h100() : cost_cluster_cpu(ranks, (double)memory_available() / ranks);
    CostRun like = largest(d);
    CostChoice *found = NULL;
    size_t count = 0;
    like.micro_batch = d->micro_batch;
    if (d->run.stages.chunks == 1)
        like.stages.chunks = 0;
    if (cost_search(&like, ranks, &c, gpu ? 0 : ranks, &found, &count, err) < 0)
        return -1;
    int status = 0;
    if (!found[0].fits)
        status = error_set(err, "--grid auto: no grid of %d ranks fits into %.1f GB a rank; the least is %.1f GB", ranks, c.memory / 1e9, found[0].memory.all / 1e9);
    memcpy(d->run.extent, found[0].run.extent, sizeof d->run.extent);
    d->run.stages = found[0].run.stages;
    free(found);
    return status;
}
