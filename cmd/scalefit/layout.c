/* plan --layout: the grids of a cluster, best first, with what they take; one grid in detail; failures and checkpoints. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/json.h"
#include "scalefit.h"
#include "train/cost.h"

static const char *const recomputes[] = {"none", "norms", "layer"};

int layout_cluster(const Settings *s, CostCluster *c, Error *err)
{
    *c = cost_cluster_h100();
    c->flops = s->peak * 1e12;
    double node = c->node;
    const struct {
        const char *key;
        double *to, unit;
    } keys[] = {{"node", &node, 1}, {"memory", &c->memory, 1e9}, {"memory-bandwidth", &c->memory_bandwidth, 1e9}, {"intra-bandwidth", &c->intra_bandwidth, 1e9},
                {"inter-bandwidth", &c->inter_bandwidth, 1e9}, {"intra-latency", &c->intra_latency, 1e-6}, {"inter-latency", &c->inter_latency, 1e-6},
                {"products", &c->product_share, 1}, {"attention", &c->attention_share, 1}, {"links", &c->link_share, 1}, {"overlap", &c->overlap, 1},
                {"spread", &c->spread, 1}};
    for (size_t i = 0; i < s->cluster.count; i++)
        for (const char *at = s->cluster.values[i]; *at;) {
            size_t length = strcspn(at, "="), k = 0;
            char *end;
            double x = at[length] ? strtod(at + length + 1, &end) : NAN;
            while (k < sizeof keys / sizeof *keys && (strlen(keys[k].key) != length || memcmp(keys[k].key, at, length) != 0))
                k++;
            if (k == sizeof keys / sizeof *keys)
                return error_set(err, "--cluster %s: there is no '%.*s' (node, memory, memory-bandwidth, intra-bandwidth, inter-bandwidth, intra-latency, "
                                 "inter-latency, products, attention, links, overlap, spread)", s->cluster.values[i], (int)length, at);
            if (!(x >= 0 && isfinite(x)) || end == at + length + 1 || (*end && *end != ',') || (x == 0 && keys[k].unit != 1e-6 && strcmp(keys[k].key, "spread") != 0 && strcmp(keys[k].key, "overlap") != 0))
                return error_set(err, "--cluster %s: %s must be a positive number", s->cluster.values[i], keys[k].key);
            *keys[k].to = x * keys[k].unit;
            at = *end ? end + 1 : end;
        }
    c->node = (int)fmax(1, fmin(node, 1e6));
    return c->overlap <= 1 ? 0 : error_set(err, "--cluster: overlap is a share, at most 1");
}

static int one_of(const char *text, const char *const *names, int count)
{
    for (int i = 0; text && i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    return -1;
}

static int layout_run(const Settings *s, const ModelConfig *c, CostRun *r, Error *err)
{
    double batch = s->batch_tokens > 0 ? s->batch_tokens : PLAN_BATCH;
    *r = (CostRun){.config = c, .extent = {1, 1, 1, 1}, .stages = {.chunks = (int)s->virtual_stages}, .sequence_length = s->sequence,
                   .samples = (int64_t)(batch / (double)s->sequence), .micro_batch = s->micro_batch, .shard = (int)s->shard, .dtype = DTYPE_BF16, .gpu = true,
                   .recompute = (Recompute)one_of(s->recompute, recomputes, 3), .engine = strcmp(s->engine, "lmpipe") == 0 ? COST_LMPIPE : COST_LEAN,
                   .saves = true};
    return r->samples > 0 ? 0 : error_set(err, "--batch-tokens %g is less than a sequence of %" PRId64 " tokens", batch, s->sequence);
}

static char *grid_text(const CostRun *r)
{
    return memory_format("--tp %d --cp %d --pp %d --dp %d", r->extent[GRID_TP], r->extent[GRID_CP], r->extent[GRID_PP], r->extent[GRID_DP]);
}

/* Which part of its memory is largest, for those that do not fit. */
static const char *largest_part(const CostMemory *m)
{
    const struct {
        double bytes;
        const char *name;
    } parts[] = {{m->weights, "weights"}, {m->gradients, "gradients"}, {m->states, "optimiser states"}, {m->activations, "activations"}};
    int most = 0;
    for (int i = 1; i < 4; i++)
        most = parts[i].bytes > parts[most].bytes ? i : most;
    return parts[most].name;
}

static void json_choice(Buffer *b, const CostChoice *x)
{
    const CostRun *r = &x->run;
    buffer_format(b, "{\"tp\": %d, \"cp\": %d, \"pp\": %d, \"dp\": %d, \"virtual_stages\": %d, \"micro_batch\": %" PRId64 ", \"micro_batches\": %" PRId64
                     ", \"shard\": %d, \"recompute\": \"%s\", \"fits\": %s",
                  r->extent[GRID_TP], r->extent[GRID_CP], r->extent[GRID_PP], r->extent[GRID_DP], r->stages.chunks, r->micro_batch, cost_passes(r), r->shard,
                  recomputes[r->recompute], x->fits ? "true" : "false");
    const struct {
        const char *key;
        double value;
    } values[] = {{"mfu", x->time.mfu}, {"step_seconds", x->time.all}, {"bubble", x->time.bubble_share}, {"memory_bytes", x->memory.all},
                  {"weights_bytes", x->memory.weights}, {"gradients_bytes", x->memory.gradients}, {"optimizer_bytes", x->memory.states},
                  {"activations_bytes", x->memory.activations}, {"products_seconds", x->time.products}, {"attention_seconds", x->time.attention},
                  {"elementwise_seconds", x->time.elementwise}, {"tp_seconds", x->time.tp}, {"cp_seconds", x->time.cp}, {"bubble_seconds", x->time.bubble},
                  {"pp_seconds", x->time.pp}, {"dp_seconds", x->time.dp}, {"optimizer_seconds", x->time.optimizer}, {"straggler_seconds", x->time.stragglers}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        buffer_string(b, ", ");
        report_number(b, values[i].key, values[i].value);
    }
    buffer_byte(b, '}');
}

static void print_choice(const CostChoice *x, size_t number)
{
    const CostRun *r = &x->run;
    printf("%4zu %4d %4d %4d %5d %3d %3" PRId64 " %5" PRId64 " %-6s %5d %6.1f %6.1f %7.3f %7.1f\n", number, r->extent[GRID_TP], r->extent[GRID_CP],
           r->extent[GRID_PP], r->extent[GRID_DP], r->stages.chunks, r->micro_batch, cost_passes(r), recomputes[r->recompute], r->shard, 100 * x->time.mfu,
           100 * x->time.bubble_share, x->time.all, x->memory.all / 1e9);
}

static void print_details(const CostChoice *x)
{
    const CostTime *t = &x->time;
    const CostMemory *m = &x->memory;
    printf("seconds a step: products %.3f, attention %.3f, elementwise %.3f, exposed --tp %.3f, --cp %.3f, bubble %.3f, messages %.3f, "
           "gradients %.3f, optimiser %.3f, stragglers %.3f\n",
           t->products, t->attention, t->elementwise, t->tp, t->cp, t->bubble, t->pp, t->dp, t->optimizer, t->stragglers);
    printf("GB a GPU: weights %.1f, gradients %.1f, states %.1f, activations %.1f (%d in flight), buffers %.1f, program %.1f\n", m->weights / 1e9,
           m->gradients / 1e9, m->states / 1e9, m->activations / 1e9, m->slots, m->buffers / 1e9, m->program / 1e9);
}

/* The pipeline event by event: as it is, and with one stage slower. */
static int simulate(const Settings *s, const CostChoice *x, const CostCluster *c, CostSimulation out[2], Error *err)
{
    double *slow = memory_alloc((size_t)x->run.extent[GRID_PP], sizeof *slow);
    for (int i = 0; i < x->run.extent[GRID_PP]; i++)
        slow[i] = i == x->run.extent[GRID_PP] / 2 ? s->slow : 1;
    int status = cost_simulate_run(&x->run, c, NULL, &out[0], err);
    if (status == 0)
        status = cost_simulate_run(&x->run, c, slow, &out[1], err);
    free(slow);
    return status;
}

/* The grid that --grid names; what other options leave open is chosen. */
static int one_grid(const Settings *s, const CostRun *like, const CostCluster *c, CostChoice **out, size_t *count, Error *err)
{
    double v[GRID_DIMENSIONS];
    CostRun r = *like;
    if (parse_numbers("grid", s->grid, v, GRID_DIMENSIONS, err) < 0)
        return -1;
    for (int d = 0; d < GRID_DIMENSIONS; d++) {
        r.extent[d] = (int)fmin(v[d], INT32_MAX);
        if (r.extent[d] != v[d])
            return error_set(err, "--grid %s: whole numbers are wanted", s->grid);
    }
    *out = memory_zalloc(1, sizeof **out);
    *count = 1;
    return cost_choose(&r, c, *out, err);
}

static void print_table(const CostChoice *x, size_t count, size_t top)
{
    printf("%4s %4s %4s %4s %5s %3s %3s %5s %-6s %5s %6s %6s %7s %7s\n", "", "tp", "cp", "pp", "dp", "v", "b", "M", "again", "shard", "MFU %", "bubble", "s/step", "GB");
    for (size_t i = 0; i < count && i < top && x[i].fits; i++)
        print_choice(&x[i], i + 1);
}

/* Where nothing fits: what takes least, and how many such GPUs hold so much. */
static void print_least(const CostChoice *x, size_t count, const CostCluster *c)
{
    size_t least = 0;
    for (size_t i = 1; i < count; i++)
        least = x[i].memory.all < x[least].memory.all ? i : least;
    const CostMemory *m = &x[least].memory;
    char *grid = grid_text(&x[least].run);
    double ranks = cost_ranks(&x[least].run), room = c->memory - m->program - m->activations - m->buffers;
    printf("no grid fits; the least is taken by %s: %.1f GB a GPU of %.0f", grid, m->all / 1e9, c->memory / 1e9);
    if (room > 0)
        printf("; weights, gradients and states alone would fill %.0f GPUs", ceil(ranks * (m->weights + m->gradients + m->states) / room));
    printf("\n");
    free(grid);
}

/* Why the fastest of those that do not fit do not. */
static void print_others(const CostChoice *x, size_t count, const CostCluster *c)
{
    size_t first = 0, shown = 0;
    while (first < count && x[first].fits)
        first++;
    if (first == 0)
        print_least(x, count, c);
    else if (first < count)
        printf("%zu of %zu grids do not fit into %.0f GB, such as\n", count - first, count, c->memory / 1e9);
    for (size_t i = first; i < count && shown < 5; i++, shown++) {
        char *grid = grid_text(&x[i].run);
        printf("  %s: %.1f GB at least, most of it %s (recompute %s; MFU would be %.1f %%)\n", grid, x[i].memory.all / 1e9, largest_part(&x[i].memory),
               recomputes[x[i].run.recompute], 100 * x[i].time.mfu);
        free(grid);
    }
}

/* Young's and Daly's intervals of a cluster. */
static void failures(const Settings *s, double gpus, double *mtbf, double *young, double *daly, double *lost)
{
    double delta = s->checkpoint_seconds, m = s->mtbf_hours * 3600 / gpus;
    interval_young_daly(delta, m, young, daly);
    *mtbf = m;
    *lost = delta / *daly + *daly / (2 * m) + s->restart_seconds / m;
}

int command_layout(const Settings *s, Error *err)
{
    ModelConfig config;
    CostRun like;
    CostCluster c;
    CostChoice *found = NULL;
    size_t count = 0;
    if (s->gpus != floor(s->gpus) || s->gpus > INT32_MAX)
        return error_set(err, "--gpus %g: a grid has a whole number of them", s->gpus);
    if (layout_cluster(s, &c, err) < 0 || plan_model(s, &config, err) < 0 || layout_run(s, &config, &like, err) < 0)
        return -1;
    int status = s->grid ? one_grid(s, &like, &c, &found, &count, err) : cost_search(&like, (int64_t)s->gpus, &c, (int)s->tp_most, &found, &count, err);
    CostSimulation simulated[2];
    memset(simulated, 0, sizeof simulated);
    if (status == 0)
        status = simulate(s, &found[0], &c, simulated, err);
    if (status < 0) {
        free(found);
        return -1;
    }
    double mtbf, young, daly, lost, gpus = cost_ranks(&found[0].run);
    failures(s, gpus, &mtbf, &young, &daly, &lost);
    double days = s->tokens > 0 ? s->tokens / (double)(like.samples * like.sequence_length) * found[0].time.all / 86400 / (1 - lost) : NAN;
    if (s->json) {
        Buffer b = {0};
        size_t shown = 0, fitting = 0;
        while (fitting < count && found[fitting].fits)
            fitting++;
        buffer_string(&b, "{\"layouts\": [");
        for (size_t i = 0; i < count && (i < (size_t)s->top || i - fitting < 5); i++)
            if (i < (size_t)s->top || i >= fitting) {
                buffer_string(&b, shown++ ? ",\n  " : "\n  ");
                json_choice(&b, &found[i]);
            }
        buffer_format(&b, "\n ],\n \"grids\": %zu, \"fitting\": %zu, ", count, fitting);
        const struct {
            const char *key;
            double value;
        } values[] = {{"simulated_pipeline_seconds", simulated[0].seconds}, {"simulated_bubble", simulated[0].bubble}, {"simulated_slow_seconds", simulated[1].seconds},
                      {"interruption_seconds", mtbf}, {"checkpoint_interval_young", young}, {"checkpoint_interval_daly", daly}, {"lost_share", lost}, {"days", days}};
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            buffer_string(&b, i ? ", " : "");
            report_number(&b, values[i].key, values[i].value);
        }
        buffer_string(&b, "}\n");
        fwrite(b.data, 1, b.length, stdout);
        buffer_free(&b);
    } else {
        if (found[0].fits || s->grid)
            print_table(found, count, (size_t)s->top);
        if (found[0].fits || s->grid) {
            if (!found[0].fits)
                print_choice(&found[0], 1);
            printf("The first: ");
            print_details(&found[0]);
            printf("its pipeline simulated: %.3f s, bubble %.1f %% (formula %.1f %%); with one stage %.0f %% slower %.3f s\n", simulated[0].seconds,
                   100 * simulated[0].bubble, 100 * found[0].time.bubble_share, 100 * (s->slow - 1), simulated[1].seconds);
            printf("a failure every %.2f h; a checkpoint that blocks %.0f s every %.1f min (Young %.1f, Daly %.1f) loses %.1f %% of the time\n", mtbf / 3600,
                   s->checkpoint_seconds, daly / 60, young / 60, daly / 60, 100 * lost);
            if (isfinite(days))
                printf("%.4g tokens take %.1f days\n", s->tokens, days);
        }
        if (!s->grid)
            print_others(found, count, &c);
    }
    free(found);
    return 0;
}
