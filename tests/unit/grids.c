/* smoke: what grids of ranks (as threads) compute in one step against one rank: logits, loss and gradients, of micro-batches whose
 * documents cross the borders of chunks, with every dimension alone and together, tied and untied, in f32 and bf16. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "model/head.h"
#include "tests/unit/distance.h"
#include "tests/unit/tap.h"
#include "train/optimizer.h"
#include "train/passes.h"

enum { SEQUENCES = 2, LENGTH = 48, ROWS = SEQUENCES * LENGTH, MOST = 7 };

static const ModelConfig base = {.model_type = "llama", .vocab_size = 259, .hidden_size = 24, .intermediate_size = 40, .num_hidden_layers = 5,
                                 .num_attention_heads = 4, .num_key_value_heads = 2, .head_dim = 6, .max_position_embeddings = 64,
                                 .rms_norm_eps = 1e-5, .rope_theta = 1e4, .initializer_range = 0.3};

typedef struct Case {
    ModelConfig config;
    PartStages stages;
    int micro_batches; /* of the step, over all data-parallel ranks */
    Dtype dtype;
    Recompute recompute;
    /* One rank's results: */
    float *logits, *gradients; /* [MOST · ROWS, V], the table's arena */
    double loss;
    const ParameterTable *whole;
    /* The grid's greatest relative differences. */
    double logit, loss_apart, gradient;
    int64_t slots;
    char where[128];
    Error error;
} Case;

/* What one rank does. */
typedef struct Worker {
    Case *c;
    Grid *g;
    Model model;
    Batch whole, part;
    bool score;
    float *logits;
    HeadSums sums;
    double weight;
} Worker;

/* Micro-batch `number` of the step: documents of lengths that no chunk ends with, labels without weight. */
static void fill(Batch *b, int64_t number, int64_t vocabulary)
{
    batch_clear(b);
    for (int s = 0; s < SEQUENCES; s++)
        for (int at = 0, n; at < LENGTH; at += n) {
            int32_t tokens[LENGTH];
            float weights[LENGTH];
            uint64_t key = (uint64_t)(number * 1000 + s * 100 + at);
            n = 1 + (int)random_below(3, 2, key, 31);
            n = n > LENGTH - at ? LENGTH - at : n;
            for (int j = 0; j < n; j++) {
                tokens[j] = (int32_t)random_below(3, 1, key * 64 + (uint64_t)j, (uint64_t)vocabulary);
                weights[j] = (j + s) % 4 == 0 ? 0.0f : 0.5f + (float)(j % 3);
            }
            batch_place(b, s * LENGTH + at, tokens, NULL, weights, n, -1, 0, s);
        }
}

static int64_t number_of(const Worker *w, int64_t micro_batch)
{
    return micro_batch * w->g->extent[GRID_DP] + w->g->place[GRID_DP];
}

static const Batch *batch_of(Worker *w, int64_t micro_batch)
{
    fill(&w->whole, number_of(w, micro_batch), w->c->config.vocab_size);
    batch_deal(&w->part, &w->whole, w->g->place[GRID_CP], w->g->extent[GRID_CP]);
    return &w->part;
}

static int load(void *context, int64_t micro_batch, Slot *s, Error *err)
{
    return slot_load(s, batch_of(context, micro_batch), err);
}

static int head(void *context, int64_t micro_batch, Slot *s, Error *err)
{
    Worker *w = context;
    const Batch *b = batch_of(w, micro_batch);
    int64_t v = w->c->config.vocab_size, at = number_of(w, micro_batch) * ROWS;
    (void)err;
    if (!w->score) {
        head_cross_entropy(&w->model, s, b->labels, b->weights, 1 / w->weight, 1e-2, &w->sums);
        return 0;
    }
    float *logits = memory_alloc((size_t)(b->rows * v), sizeof *logits);
    int32_t dealt[ROWS], whole[ROWS];
    batch_orders(SEQUENCES, LENGTH, w->g->extent[GRID_CP], dealt, whole);
    head_logits_all(&w->model, s, logits);
    for (int64_t r = 0; r < b->rows; r++)
        memcpy(w->logits + (at + whole[w->g->place[GRID_CP] * b->rows + r]) * v, logits + r * v, (size_t)v * sizeof *logits);
    free(logits);
    return 0;
}

static int open_model(Case *c, Model *m, const ModelPart *part, Device *d, Error *err)
{
    if (model_open(m, &c->config, part, d, err) < 0)
        return -1;
    ParameterTable *t = &m->params.table;
    for (size_t i = 0; i < t->count; i++) /* norms too */
        if (t->items[i].deviation == 0)
            t->items[i].deviation = 0.5;
    param_initialise(t, 11);
    m->recompute = c->recompute;
    return model_compute_in(m, c->dtype, err);
}

/* Whether this rank keeps the states, and with them the gradient, of that float of the arena. */
static bool has(const Optimizer *o, size_t offset)
{
    for (int u = 0; u < o->table->unit_count; u++) {
        size_t begin, end;
        optimizer_slice(o, u, &begin, &end);
        if (offset >= begin && offset < end)
            return true;
    }
    return false;
}

static void compare_gradients(Case *c, const Optimizer *o)
{
    const ParameterTable *t = o->table;
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i], *w = c->whole->items;
        while (strcmp(w->name, p->name) != 0)
            w++;
        int64_t columns = w->ndim == 2 ? w->shape[1] : 1, width = p->ndim == 2 ? p->extent[1] : 1, first = p->ndim == 2 ? p->begin[1] : 0;
        float *want = memory_alloc(p->count, sizeof *want);
        for (int64_t r = 0; r < p->extent[0]; r++)
            memcpy(want + r * width, c->gradients + w->offset + (size_t)((p->begin[0] + r) * columns + first), (size_t)width * sizeof *want);
        for (size_t k = 0; k < p->count; k++)
            if (!has(o, p->offset + k))
                want[k] = t->gradients[p->offset + k];
        double d = distance(t->gradients + p->offset, want, p->count);
        if (d > c->gradient || isnan(d)) {
            c->gradient = isnan(d) ? INFINITY : d;
            snprintf(c->where, sizeof c->where, "%s", p->name);
        }
        free(want);
    }
}

/* Forward for the logits, then there and back: `first` true keeps what comes out, else it is compared. */
static int run(Worker *w, bool first, Error *err)
{
    Case *c = w->c;
    Grid *g = w->g;
    Model *m = &w->model;
    Passes p;
    Optimizer o;
    PassWork work = {.context = w, .load = load, .head = head, .last = true};
    size_t v = (size_t)c->config.vocab_size, logits = (size_t)c->micro_batches * ROWS * v;
    int64_t mine = c->micro_batches / g->extent[GRID_DP] + (g->place[GRID_DP] < c->micro_batches % g->extent[GRID_DP]);
    batch_new(&w->whole, SEQUENCES, LENGTH);
    batch_new(&w->part, SEQUENCES, LENGTH / g->extent[GRID_CP]);
    w->logits = memory_zalloc(logits, sizeof *w->logits);
    for (int64_t i = 0; i < c->micro_batches; i++) {
        fill(&w->whole, i, (int64_t)v);
        w->weight += w->whole.weight;
    }
    const AdamW how = {0.9, 0.95, 1e-8, 0, 0};
    if (optimizer_open(&o, m, g, 1, &how, err) < 0 || passes_open(&p, m, g, w->part.rows, MODE_TRAIN, err) < 0)
        return -1;
    w->score = true;
    if (passes_run(&p, mine, w->part.rows, false, &work, err) < 0)
        return -1;
    w->score = false;
    optimizer_clear(&o);
    if (passes_run(&p, mine, w->part.rows, true, &work, err) < 0 || optimizer_reduce(&o, err) < 0)
        return -1;
    double loss[1] = {g->place[GRID_TP] == 0 && part_has_head(&m->part) ? (w->sums.nll + 1e-2 * w->sums.z) / w->weight : 0};
    if (comm_sum_host(&g->world, loss, 1, err) < 0)
        return -1;
    if (first) {
        c->logits = w->logits;
        c->loss = loss[0];
        c->gradients = memory_alloc(m->params.table.total, sizeof *c->gradients);
        memcpy(c->gradients, m->params.table.gradients, m->params.table.total * sizeof *c->gradients);
    }
    /* One rank after the other: they write into the case. */
    for (int r = 0; r < g->size && !first; r++) {
        double turn = 0;
        if (comm_sum_host(&g->world, &turn, 1, err) < 0)
            return -1;
        if (r != g->rank)
            continue;
        c->loss_apart = fmax(c->loss_apart, fabs(loss[0] / c->loss - 1));
        c->slots = g->place[GRID_PP] == 0 && p.slot_count > c->slots ? p.slot_count : c->slots;
        compare_gradients(c, &o);
        /* What this rank has of the logits; the others' are zeros. */
        float *want = memory_zalloc(logits, sizeof *want);
        int64_t there = 0;
        for (size_t i = 0; i < logits; i++)
            if (w->logits[i] != 0) {
                want[i] = c->logits[i];
                there++;
            }
        c->logit = fmax(c->logit, distance(w->logits, want, logits));
        if (there != (part_has_head(&m->part) ? mine * w->part.rows * (int64_t)v : 0))
            c->logit = INFINITY;
        free(want);
    }
    if (!first)
        free(w->logits);
    passes_close(&p);
    optimizer_close(&o);
    batch_free(&w->whole);
    batch_free(&w->part);
    return 0;
}

static int rank_run(void *context, Grid *g)
{
    Worker w = {.c = context, .g = g};
    Error err = {{0}};
    Device *d = device_open("cpu", 1, &err);
    ModelPart part;
    if (part_of_grid(&part, &w.c->config, g, &w.c->stages, &err) < 0 || open_model(w.c, &w.model, &part, d, &err) < 0 || run(&w, false, &err) < 0) {
        w.c->error = err;
        return grid_failed(g, &err);
    }
    model_close(&w.model);
    device_close(d);
    return 0;
}

static void test(Case *c, int tp, int cp, int pp, int dp, int chunks, int micro_batches)
{
    const int extent[GRID_DIMENSIONS] = {tp, cp, pp, dp};
    static const char *const recomputed[] = {"", ", norms recomputed", ", layers recomputed"};
    bool narrow = c->dtype != DTYPE_F32;
    Error err = {{0}};
    Grid one;
    Worker w = {.c = c, .g = &one};
    Device *d = device_open("cpu", 1, &err);
    c->micro_batches = micro_batches;
    c->logit = c->gradient = c->loss_apart = 0;
    c->slots = 0;
    c->where[0] = c->error.text[0] = 0;
    grid_one(&one);
    c->stages.chunks = 1;
    if (!ok(open_model(c, &w.model, NULL, d, &err) == 0 && run(&w, true, &err) == 0, "one rank, %d micro-batches %s", micro_batches, err.text))
        return;
    c->whole = &w.model.params.table;
    c->stages.chunks = chunks;
    int status = grid_run(extent, rank_run, c, &c->error);
    ok(status == 0 && c->logit <= (narrow ? 3e-2 : 1e-5) && c->loss_apart <= (narrow ? 1e-2 : 1e-5) && c->gradient <= (narrow ? 8e-2 : 1e-4),
       "tp %d cp %d pp %d dp %d, %d chunks, %d micro-batches, %d layers, %s, %s%s: logits differ by %.2g, the loss by %.2g, gradients by %.2g (%s)%s", tp, cp, pp,
       dp, chunks, micro_batches, (int)c->config.num_hidden_layers, c->config.tie_word_embeddings ? "tied" : "untied", narrow ? "bf16" : "f32",
       recomputed[c->recompute], c->logit, c->loss_apart, c->gradient, c->where, c->error.text);
    if (pp > 1 && dp == 1 && chunks == 1)
        ok(c->slots == (pp < micro_batches ? pp : micro_batches), "the first stage holds %d micro-batches", (int)c->slots);
    free(c->logits);
    free(c->gradients);
    model_close(&w.model);
    device_close(d);
}

int main(void)
{
    Case c = {.config = base};
    test(&c, 1, 1, 1, 2, 1, 5);
    test(&c, 1, 2, 1, 1, 1, 2);
    test(&c, 1, 1, 2, 1, 1, 4);
    test(&c, 1, 1, 4, 1, 1, 7);
    test(&c, 1, 1, 4, 1, 1, 2);
    c.config.tie_word_embeddings = true;
    test(&c, 1, 1, 3, 1, 1, 3);
    test(&c, 1, 1, 2, 1, 2, 5);
    test(&c, 2, 1, 2, 1, 1, 2);
    test(&c, 1, 4, 1, 1, 1, 1);
    test(&c, 1, 3, 2, 1, 1, 2);
    c.config.num_hidden_layers = 8;
    test(&c, 1, 1, 4, 1, 2, 7);
    test(&c, 1, 1, 2, 2, 3, 7);
    c.config.tie_word_embeddings = false;
    test(&c, 1, 1, 2, 1, 4, 1);
    c.stages.ends_fewer = 1;
    test(&c, 1, 1, 4, 1, 1, 4);
    c.config = base;
    c.stages.ends_fewer = 0;
    c.config.sliding_window = 9;
    c.config.sliding_layers[0] = 5;
    c.config.qk_norm = c.config.qkv_bias = true;
    test(&c, 2, 2, 1, 1, 1, 1);
    test(&c, 2, 2, 2, 2, 1, 5);
    c.recompute = RECOMPUTE_NORMS;
    test(&c, 2, 1, 2, 2, 2, 4);
    c.recompute = RECOMPUTE_LAYER;
    test(&c, 1, 2, 2, 2, 1, 4);
    c.dtype = DTYPE_BF16;
    test(&c, 2, 2, 2, 1, 1, 3);
    return tap_end();
}
