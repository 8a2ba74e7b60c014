#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/stats.h"
#include "train/cost.h"

/* Ranks that anybody would have as threads of one process. */
enum { MOST_THREADS = 256 };

static void add(CostRow *rows, int *n, const char *key, const char *text, const char *unit, double value)
{
    CostRow *r = &rows[(*n)++];
    *r = (CostRow){.unit = unit, .value = value};
    snprintf(r->key, sizeof r->key, "%s", key);
    snprintf(r->text, sizeof r->text, "%s", text);
}

/* What the first rank of the stage sends in a step, under the names that --stats has for it. */
static void add_traffic(CostRow *rows, int *n, const CostTraffic *t)
{
    for (int g = 0; g < GRID_GROUPS; g++)
        for (int k = 0; k < COMM_KINDS; k++) {
            CostRow *r = &rows[*n];
            if (t->bytes[g][k] == 0)
                continue;
            ++*n;
            *r = (CostRow){.unit = "bytes", .value = t->bytes[g][k]};
            char *key = grid_sent_key(g, (CommKind)k);
            snprintf(r->key, sizeof r->key, "%s_bytes", key);
            free(key);
            snprintf(r->text, sizeof r->text, "sent a step: %s%s %s", g == GRID_DATA || g == GRID_EMBED ? "" : "--", grid_group_name(g), comm_kind_name((CommKind)k));
        }
}

int cost_rows(const CostRun *r, const CostTraffic *sent, CostRow rows[COST_ROWS], Error *err)
{
    CostMemory m;
    CostTraffic t;
    int stage = 0, n = 0;
    if (cost_check(r, err) < 0 || cost_memory_most(r, &m, &stage, err) < 0)
        return -1;
    const int place[GRID_DIMENSIONS] = {[GRID_PP] = stage};
    if (!sent && cost_traffic(r, place, NULL, &t, err) < 0)
        return -1;
    if (cost_ranks(r) > 1) {
        add(rows, &n, "ranks", "ranks", "", cost_ranks(r));
        add(rows, &n, "rank_parameters", "parameters of a rank", "", m.parameters);
    }
    if (r->extent[GRID_PP] > 1) {
        add(rows, &n, "stage", "fullest pipeline stage", "", stage);
        add(rows, &n, "micro_batches", "micro-batches a step", "", (double)cost_passes(r));
        add(rows, &n, "in_flight", "of them in flight, times virtual stages", "", m.slots);
    }
    add(rows, &n, "weights_bytes", "weights", "bytes", m.weights);
    add(rows, &n, "gradients_bytes", "gradients", "bytes", m.gradients);
    add(rows, &n, "optimizer_bytes", "optimiser states", "bytes", m.states);
    add(rows, &n, "activations_bytes", "activations", "bytes", m.activations);
    add(rows, &n, "buffers_bytes", cost_ranks(r) > 1 ? "tables, packed weights, communication" : "tables, packed weights", "bytes", m.buffers);
    add(rows, &n, "copy_bytes", "copy for models, checkpoints", "bytes", m.copy);
    add(rows, &n, "program_bytes", "program and libraries", "bytes", m.program);
    if (m.start > 0)
        add(rows, &n, "start_bytes", "at most before the first step", "bytes", m.start);
    add(rows, &n, "memory_bytes", "memory in all", "bytes", m.all);
    if (cost_ranks(r) > 1 && cost_ranks(r) <= MOST_THREADS) {
        double threads;
        if (cost_memory_threads(r, &threads, err) < 0)
            return -1;
        add(rows, &n, "threads_bytes", "all ranks, threads of a process", "bytes", threads);
    }
    add_traffic(rows, &n, sent ? sent : &t);
    if (r->extent[GRID_PP] > 1) {
        CostCluster even = cost_cluster_h100();
        CostTime time;
        if (cost_time(r, &even, &time, err) < 0)
            return -1;
        add(rows, &n, "bubble", "bubble, idle over busy time", "", time.bubble_share);
    }
    return n;
}

int cost_stats(const char *path, const CostRun *r, double steps, double tokens, double flops, const CostTraffic *sent, Error *err)
{
    static const int first[GRID_DIMENSIONS];
    StatsItem items[5 + GRID_GROUPS * COMM_KINDS] = {{"steps", steps}, {"tokens", tokens}, {"flops", flops}};
    char *keys[GRID_GROUPS * COMM_KINDS];
    CostMemory m;
    size_t n = 5, count = 0;
    double threads;
    if (cost_memory(r, first, &m, err) < 0 || cost_memory_threads(r, &threads, err) < 0)
        return -1;
    items[3] = (StatsItem){"rank_peak_bytes", m.all};
    items[4] = (StatsItem){"peak_bytes", threads};
    for (int g = 0; g < GRID_GROUPS; g++)
        for (int k = 0; k < COMM_KINDS; k++)
            if (sent->bytes[g][k] > 0) {
                keys[count] = grid_sent_key(g, (CommKind)k);
                items[n++] = (StatsItem){keys[count++], sent->bytes[g][k]};
            }
    int status = stats_write(path, items, n, NAN, err);
    while (count > 0)
        free(keys[--count]);
    return status;
}

static void print_row(const CostRow *r)
{
    if (strncmp(r->key, "sent_", 5) == 0)
        printf("%-34s %14.6f MB\n", r->text, r->value / 1e6);
    else if (strcmp(r->unit, "bytes") == 0)
        printf("%-34s %14.1f MB\n", r->text, r->value / 1e6);
    else if (strcmp(r->key, "bubble") == 0)
        printf("%-34s %14.1f %%\n", r->text, 100 * r->value);
    else
        printf("%-34s %14.0f\n", r->text, r->value);
}

void cost_rows_print(const CostRow *rows, int n)
{
    for (int i = 0; i < n; i++)
        print_row(&rows[i]);
}
