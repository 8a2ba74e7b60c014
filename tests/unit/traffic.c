/* smoke: what every rank of a grid sends in a step, and in a validation, to the byte as cost_traffic tells it: all dimensions, virtual stages,
 * tied and untied embeddings, --shard 0 to 3, recomputing, bf16, last passes that are not full, widths that do not divide evenly. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "model/head.h"
#include "tests/unit/tap.h"
#include "train/cost.h"
#include "train/optimizer.h"
#include "train/passes.h"

enum { LENGTH = 48, MICRO_BATCH = 2, VALIDATED = 3 };

typedef struct Case {
    ModelConfig config;
    CostRun run;
    Error error;
    int64_t wrong; /* counters that differ */
    char what[200];
} Case;

typedef struct Worker {
    Case *c;
    Grid *g;
    Model model;
    Batch whole, part;
    int64_t samples;
    float *logprob;
    HeadSums sums;
} Worker;

/* Samples of a pass; the last one of all has what is left. Every token has a label. */
static const Batch *batch_of(Worker *w, int64_t pass)
{
    const Grid *g = w->g;
    int64_t first = (pass * g->extent[GRID_DP] + g->place[GRID_DP]) * MICRO_BATCH, left = w->samples - first;
    batch_clear(&w->whole);
    for (int64_t i = 0; i < MICRO_BATCH && i < left; i++) {
        int32_t tokens[LENGTH + 1];
        for (int j = 0; j <= LENGTH; j++)
            tokens[j] = (int32_t)random_below(3, 1, (uint64_t)((first + i) * 100 + j), (uint64_t)w->c->config.vocab_size);
        batch_place(&w->whole, i * LENGTH, tokens, NULL, NULL, LENGTH, -1, 0, first + i);
    }
    batch_deal(&w->part, &w->whole, g->place[GRID_CP], g->extent[GRID_CP]);
    return &w->part;
}

static int load(void *context, int64_t pass, Slot *s, Error *err)
{
    return slot_load(s, batch_of(context, pass), err);
}

static int head_train(void *context, int64_t pass, Slot *s, Error *err)
{
    Worker *w = context;
    const Batch *b = batch_of(w, pass);
    head_cross_entropy(&w->model, s, b->labels, b->weights, 1e-3, 0, &w->sums);
    return model_check(&w->model, err);
}

static int head_score(void *context, int64_t pass, Slot *s, Error *err)
{
    Worker *w = context;
    head_logprobs(&w->model, s, batch_of(w, pass)->labels, w->logprob, NULL, NULL);
    return model_check(&w->model, err);
}

static int64_t passes_of(const Worker *w)
{
    int64_t all = (w->samples + MICRO_BATCH - 1) / MICRO_BATCH, ranks = w->g->extent[GRID_DP];
    return all / ranks + (w->c->run.shard > 1 ? all % ranks > 0 : w->g->place[GRID_DP] < all % ranks);
}

/* Counters since the last time against what was foretold, one rank after the other. */
static int compare(Worker *w, const char *when, int64_t before[GRID_GROUPS][COMM_KINDS], const CostTraffic *t, Error *err)
{
    Grid *g = w->g;
    for (int r = 0; r < g->size; r++) {
        double turn = 0;
        if (comm_sum_host(&g->world, &turn, 1, err) < 0)
            return -1;
        for (int i = 0; i < GRID_GROUPS && r == g->rank; i++)
            for (int k = COMM_ALL_GATHER; k < COMM_RECV; k++) {
                int64_t sent = grid_sent(g, i, (CommKind)k) - before[i][k];
                before[i][k] += sent;
                if ((double)sent != t->bytes[i][k] && w->c->wrong++ == 0)
                    snprintf(w->c->what, sizeof w->c->what, ": rank %d sends %lld bytes of %s %s in %s, not %.0f", r, (long long)sent, grid_group_name(i),
                             comm_kind_name((CommKind)k), when, t->bytes[i][k]);
            }
    }
    return 0;
}

/* A step, a validation, and a step behind it. */
static int run(Worker *w, Error *err)
{
    Case *c = w->c;
    Grid *g = w->g;
    Model *m = &w->model;
    const AdamW how = {0.9, 0.95, 1e-8, 0, 0};
    const PassWork train = {.context = w, .load = load, .head = head_train, .last = true}, score = {.context = w, .load = load, .head = head_score};
    Optimizer o;
    Passes p;
    CostTraffic t;
    CostHeld held = COST_HELD_NOTHING;
    int64_t before[GRID_GROUPS][COMM_KINDS] = {{0}};
    double norm;
    if (optimizer_open(&o, m, g, c->run.shard, &how, err) < 0 || passes_open(&p, m, g, w->part.rows, MODE_TRAIN, err) < 0)
        return -1;
    for (int step = 0; step < 2; step++) {
        w->samples = c->run.samples;
        optimizer_clear(&o);
        if (passes_run(&p, passes_of(w), w->part.rows, true, &train, err) < 0 || optimizer_reduce(&o, err) < 0 || optimizer_norm(&o, &norm, err) < 0 || optimizer_step(&o, 1e-4, norm, err) < 0 ||
            cost_traffic(&c->run, g->place, &held, &t, err) < 0 || compare(w, step ? "a step behind a validation" : "a step", before, &t, err) < 0)
            return -1;
        w->samples = VALIDATED;
        if (passes_run(&p, passes_of(w), w->part.rows, false, &score, err) < 0 || cost_traffic_scores(&c->run, g->place, VALIDATED, &held, &t, err) < 0 ||
            compare(w, "a validation", before, &t, err) < 0)
            return -1;
    }
    passes_close(&p);
    optimizer_close(&o);
    return 0;
}

static int rank_run(void *context, Grid *g)
{
    Worker w = {.c = context, .g = g};
    Error err = {{0}};
    Device *d = device_open("cpu", 1, &err);
    ModelPart part;
    batch_new(&w.whole, MICRO_BATCH, LENGTH);
    batch_new(&w.part, MICRO_BATCH, LENGTH / g->extent[GRID_CP]);
    w.logprob = memory_alloc((size_t)w.part.rows, sizeof *w.logprob);
    int status = part_of_grid(&part, &w.c->config, g, &w.c->run.stages, &err) < 0 || model_open(&w.model, &w.c->config, &part, d, &err) < 0;
    if (!status) {
        param_initialise(&w.model.params.table, 11);
        w.model.recompute = w.c->run.recompute;
        status = model_compute_in(&w.model, w.c->run.dtype, &err) < 0 || run(&w, &err) < 0;
    }
    if (status) {
        w.c->error = err;
        return grid_failed(g, &err);
    }
    model_close(&w.model);
    device_close(d);
    batch_free(&w.whole);
    batch_free(&w.part);
    free(w.logprob);
    return 0;
}

static void test(Case *c, int tp, int cp, int pp, int dp, int chunks, int shard, int64_t samples)
{
    static const char *const recomputed[] = {"", ", norms recomputed", ", layers recomputed"};
    const int extent[GRID_DIMENSIONS] = {tp, cp, pp, dp};
    c->run.config = &c->config;
    memcpy(c->run.extent, extent, sizeof extent);
    c->run.stages.chunks = chunks;
    c->run.shard = shard;
    c->run.sequence_length = LENGTH;
    c->run.micro_batch = MICRO_BATCH;
    c->run.samples = samples;
    c->wrong = 0;
    c->what[0] = c->error.text[0] = 0;
    int status = grid_run(extent, rank_run, c, &c->error);
    ok(status == 0 && c->wrong == 0, "tp %d cp %d pp %d dp %d, %d chunks, --shard %d, %d samples, %d layers, %s, %s%s%s %s", tp, cp, pp, dp, chunks, shard, (int)samples,
       (int)c->config.num_hidden_layers, c->config.tie_word_embeddings ? "tied" : "untied", c->run.dtype == DTYPE_F32 ? "f32" : "bf16",
       recomputed[c->run.recompute], c->what, c->error.text);
}

int main(void)
{
    Case c = {.config = {.model_type = "llama", .vocab_size = 259, .hidden_size = 24, .intermediate_size = 40, .num_hidden_layers = 5, .num_attention_heads = 4,
                         .num_key_value_heads = 2, .head_dim = 6, .max_position_embeddings = 64, .rms_norm_eps = 1e-5, .rope_theta = 1e4, .initializer_range = 0.3}};
    for (int tied = 0; tied < 2; tied++) {
        c.config.tie_word_embeddings = tied;
        for (int shard = 0; shard <= 3; shard++) {
            test(&c, 1, 1, 1, 3, 1, shard, 8);
            test(&c, 1, 2, 1, 2, 1, shard, 7);
            test(&c, 1, 1, 2, 2, 1, shard, 9);
            test(&c, 1, 1, 2, 2, 2, shard, 12);
            test(&c, 1, 2, 5, 1, 1, shard, 10);
        }
        for (int shard = 0; shard <= 1; shard++) { /* uneven widths have no slices in common */
            test(&c, 2, 2, 1, 2, 1, shard, 8);
            test(&c, 4, 1, 2, 1, 2, shard, 5);
        }
    }
    /* Many passes, of which only the first are counted one by one. */
    for (int shard = 2; shard <= 3; shard++) {
        test(&c, 1, 1, 2, 2, 2, shard, 131);
        test(&c, 1, 1, 3, 2, 1, shard, 150);
        test(&c, 1, 2, 1, 1, 1, shard, 31);
    }
    c.config.intermediate_size = 64;
    c.config.vocab_size = 256;
    for (int recompute = 0; recompute <= RECOMPUTE_LAYER; recompute++) {
        c.run.recompute = (Recompute)recompute;
        for (int shard = 1; shard <= 3; shard++)
            test(&c, 2, 2, 2, 2, 1, shard, 8);
        test(&c, 2, 2, 1, 1, 1, 1, 3);
    }
    c.run.dtype = DTYPE_BF16;
    c.config.qk_norm = c.config.qkv_bias = true;
    test(&c, 2, 2, 2, 1, 2, 1, 6);
    test(&c, 4, 1, 1, 2, 1, 3, 4);
    c.config.num_attention_heads = c.config.num_key_value_heads = 2;
    c.config.num_hidden_layers = 1;
    test(&c, 2, 1, 1, 2, 1, 3, 4);
    test(&c, 1, 1, 1, 4, 1, 2, 6);
    c.config.num_hidden_layers = 4;
    c.run.stages.ends_fewer = 1;
    test(&c, 1, 1, 2, 1, 3, 1, 6);
    test(&c, 1, 1, 3, 2, 1, 3, 16);
    return tap_end();
}
