#include "dry_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/memory.h"
#include "data/samples.h"

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

/* The run as it is in a stage of training. */
static CostRun run_at(const DryRun *d, const Stage *s)
{
    CostRun r = d->run;
    r.sequence_length = s->sequence_length;
    r.samples = s->samples;
    r.micro_batch = stage_pass(s, d->micro_batch, r.extent);
    return r;
}

/* An evaluation: all held-out sources one after the other. */
static int evaluation(const DryRun *d, const CostRun *r, CostHeld *held, CostTraffic *all, Error *err)
{
    static const int first[GRID_DIMENSIONS];
    int64_t length = r->sequence_length;
    *all = (CostTraffic){0};
    for (size_t i = 0; i < d->held_out->count; i++) {
        CostTraffic t;
        int64_t samples = d->eval_tokens / length < 1 ? 1 : d->eval_tokens / length, there = samples_count(&d->held_out->items[i].shard, length);
        if (cost_traffic_scores(r, first, samples < there ? samples : there, held, &t, err) < 0)
            return -1;
        cost_traffic_add(all, &t, 1);
    }
    return 0;
}

/* What the first rank sends in the whole run: its steps, and the evaluations, which may leave a step something to go on with. */
static int traffic(const DryRun *d, CostTraffic *all, Error *err)
{
    static const int first[GRID_DIMENSIONS];
    const Stages *s = d->stages;
    int64_t every = d->held_out->count && d->eval_every > 0 ? d->eval_every : s->steps + 1;
    *all = (CostTraffic){0};
    for (size_t i = 0; i < s->count; i++) {
        const Stage *at = &s->items[i];
        CostRun r = run_at(d, at);
        CostHeld held = COST_HELD_NOTHING;
        CostTraffic step, looked, behind;
        if (cost_traffic(&r, first, NULL, &step, err) < 0 || evaluation(d, &r, &held, &looked, err) < 0 || cost_traffic(&r, first, &held, &behind, err) < 0)
            return -1;
        int64_t end = at->first_step + at->steps, evaluations = end / every - at->first_step / every;
        int64_t after = (end - 1) / every - (at->first_step > 0 ? (at->first_step - 1) / every : 0);
        if (end == s->steps && d->held_out->count && end % every != 0)
            evaluations++;
        cost_traffic_add(all, &step, (double)(at->steps - after));
        cost_traffic_add(all, &behind, (double)after);
        cost_traffic_add(all, &looked, (double)evaluations);
    }
    return 0;
}

int dry_run(const DryRun *d, Error *err)
{
    CostRun run = largest(d);
    CostRow rows[COST_ROWS];
    CostTraffic sent;
    const ModelConfig *c = run.config;
    const Stages *s = d->stages;
    double flops = 0;
    for (size_t i = 0; i < s->count; i++) {
        CostRun at = run_at(d, &s->items[i]);
        if (cost_check(&at, err) < 0)
            return -1;
    }
    int n = cost_rows(&run, NULL, rows, err);
    if (n < 0)
        return -1;
    for (size_t i = 0; i < s->count; i++)
        flops += config_flops_per_token(c, s->items[i].sequence_length) * (double)(s->items[i].steps * s->items[i].samples * s->items[i].sequence_length);
    printf("%-34s %14" PRId64 "\n", "parameters", config_parameters(c));
    printf("%-34s %14" PRId64 "\n", "without input table", config_parameters_compute(c));
    printf("%-34s %14" PRId64 "\n", "steps", s->steps);
    printf("%-34s %14" PRId64 "\n", "tokens", s->tokens);
    printf("%-34s %14.4g\n", "FLOPs", flops);
    cost_rows_print(rows, n);
    if (d->peak_flops > 0)
        printf("%-34s %14.1f s\n", "time at 50 % of peak", flops / d->peak_flops / 0.5 / cost_ranks(&run));
    for (size_t i = 0; i < s->count && s->count > 1; i++)
        printf("from step %-12" PRId64 "%14" PRId64 " steps of %" PRId64 " samples of %" PRId64 " tokens\n", s->items[i].first_step, s->items[i].steps,
               s->items[i].samples, s->items[i].sequence_length);
    return d->stats && (traffic(d, &sent, err) < 0 || cost_stats(d->stats, &run, (double)s->steps, (double)s->tokens, flops, &sent, err) < 0) ? -1 : 0;
}

int dry_run_choose(const DryRun *d, GridOptions *g, const OptionSet *set, Error *err)
{
    const Stages *s = d->stages;
    CostRun like = largest(d);
    CostStretch *run = memory_alloc(s->count, sizeof *run);
    for (size_t i = 0; i < s->count; i++)
        run[i] = (CostStretch){(double)s->items[i].steps, s->items[i].sequence_length, s->items[i].samples};
    like.micro_batch = d->micro_batch;
    int status = grid_options_choose(g, set, &like, run, s->count, err);
    free(run);
    return status;
}
