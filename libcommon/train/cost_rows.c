#include "train/cost.h"

static void add(CostRow *rows, int *n, const char *key, const char *text, const char *unit, double value)
{
    rows[(*n)++] = (CostRow){key, text, unit, value};
}

static void add_used(CostRow *rows, int *n, const char *key, const char *text, double value)
{
    if (value > 0)
        add(rows, n, key, text, "bytes", value);
}

int cost_rows(const CostRun *r, CostRow rows[COST_ROWS], Error *err)
{
    CostMemory m;
    CostTraffic t;
    int stage = 0, n = 0;
    if (cost_check(r, err) < 0 || cost_memory_most(r, &m, &stage, err) < 0 || cost_traffic(r, stage, &t, err) < 0)
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
    add(rows, &n, "buffers_bytes", cost_ranks(r) > 1 ? "tables, communication buffers" : "tables", "bytes", m.buffers);
    add(rows, &n, "copy_bytes", "copy for models, checkpoints", "bytes", m.copy);
    add(rows, &n, "program_bytes", "program and libraries", "bytes", m.program);
    add(rows, &n, "memory_bytes", "memory in all", "bytes", m.all);
    add_used(rows, &n, "sent_tp_all_gather_bytes", "sent a step: --tp all-gather", t.tp_all_gather);
    add_used(rows, &n, "sent_tp_reduce_scatter_bytes", "sent a step: --tp reduce-scatter", t.tp_reduce_scatter);
    add_used(rows, &n, "sent_tp_sum_bytes", "sent a step: --tp sum", t.tp_sum);
    add_used(rows, &n, "sent_cp_all_gather_bytes", "sent a step: --cp all-gather", t.cp_all_gather);
    add_used(rows, &n, "sent_cp_reduce_scatter_bytes", "sent a step: --cp reduce-scatter", t.cp_reduce_scatter);
    add_used(rows, &n, "sent_pp_bytes", "sent a step: --pp messages", t.pp_send);
    add_used(rows, &n, "sent_embed_bytes", "sent a step: tied embeddings", t.embed_sum);
    add_used(rows, &n, "sent_dp_bytes", "sent a step: gradients and weights", t.dp_sum + t.dp_reduce_scatter + t.dp_all_gather);
    if (r->extent[GRID_PP] > 1) {
        CostCluster even = cost_cluster_h100();
        CostTime time;
        if (cost_time(r, &even, &time, err) < 0)
            return -1;
        add(rows, &n, "bubble", "bubble, idle over busy time", "", time.bubble_share);
    }
    return n;
}
