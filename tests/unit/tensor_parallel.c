/* smoke: ranks that share every layer (as threads) give the logits, losses, gradients, scores and cached decoding of one rank, for the
 * families of tests/data/models, whose logits and gradients are transformers' too, and for shapes that do not divide evenly. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "io/safetensors.h"
#include "model/cache.h"
#include "model/folder.h"
#include "model/head.h"
#include "model/tensor_parallel.h"
#include "tests/unit/distance.h"
#include "tests/unit/tap.h"

enum { SEQUENCES = 2, LENGTH = 25, ROWS = SEQUENCES * LENGTH, DECODED = 3 };

static const ModelConfig base = {.model_type = "llama", .vocab_size = 259, .hidden_size = 48, .intermediate_size = 75, .num_hidden_layers = 3,
                                 .num_attention_heads = 12, .num_key_value_heads = 3, .head_dim = 6, .max_position_embeddings = 64,
                                 .rms_norm_eps = 1e-5, .rope_theta = 1e4, .initializer_range = 0.3};

/* What a pass over the batch gives. */
typedef struct Pass {
    float *logits, *gradients, *decoded; /* [ROWS, V], the table's arena, [DECODED, V] */
    float logprob[ROWS], lse[ROWS], mean[ROWS], entropy[ROWS], scores[2];
    int32_t best[ROWS];
    double loss, z;
} Pass;

typedef struct Case {
    const char *folder;     /* of a model; NULL: config with random weights */
    ModelConfig config;
    Dtype dtype;
    Recompute recompute;
    Pass want;              /* of one rank */
    const ModelParameters *whole;
    const float *golden;    /* transformers' logits, or NULL */
    Batch batch;
    double logits, gradient, other;   /* greatest relative differences over the ranks */
    bool replicas_equal;
    char where[128];
    Error error;
} Case;

/* The tokens whose logits transformers has computed. */
static int golden_batch(Case *c, Safetensors *file, Error *err)
{
    char *path = memory_format("%s/golden.safetensors", c->folder);
    int status = safetensors_open(file, path, err);
    free(path);
    if (status < 0)
        return -1;
    const int32_t *tokens = (const int32_t *)(const void *)(file->data + safetensors_find(file, "tokens")->begin);
    c->golden = (const float *)(const void *)(file->data + safetensors_find(file, "logits")->begin);
    batch_new(&c->batch, 2, 20);
    for (int i = 0; i < 2; i++)
        batch_place(&c->batch, i * 20, tokens + i * 20, NULL, NULL, 20, -1, 0, i);
    return 0;
}

/* Documents of odd lengths, one that is padding's neighbour, labels without weight. */
static void make_batch(Batch *b, int64_t vocabulary)
{
    static const int lengths[] = {5, 20, 9, 16};
    batch_new(b, SEQUENCES, LENGTH);
    for (int i = 0, at = 0; i < 4; at += lengths[i++]) {
        int32_t tokens[LENGTH];
        float weights[LENGTH];
        for (int j = 0; j < lengths[i]; j++) {
            tokens[j] = (int32_t)random_below(3, 1, (uint64_t)(i * LENGTH + j), (uint64_t)vocabulary);
            weights[j] = (j + i) % 4 == 0 ? 0.0f : 0.5f + (float)(j % 3);
        }
        batch_place(b, at, tokens, NULL, weights, lengths[i], -1, 0, i);
    }
}

static int open_model(Case *c, Model *m, const ModelPart *part, Device *d, Error *err)
{
    if (c->folder)
        return folder_load(m, c->folder, &(FolderLoad){.part = part}, d, err) < 0 ? -1 : model_compute_in(m, c->dtype, err);
    if (model_open(m, &c->config, part, d, err) < 0)
        return -1;
    ParameterTable *t = &m->params.table;
    for (size_t i = 0; i < t->count; i++) /* norms and biases too */
        if (t->items[i].deviation == 0)
            t->items[i].deviation = 0.5;
    param_initialise(t, 11);
    return model_compute_in(m, c->dtype, err);
}

/* Two sequences of the first prompt, decoded; logits of the first. */
static int decode(Model *m, const int32_t *tokens, float *out, Error *err)
{
    KvCache cache;
    Slot s;
    Sequence sequences[2] = {{0}}, *both[2] = {&sequences[0], &sequences[1]};
    int64_t v = m->config.vocab_size, length = 5;
    float *logits = memory_alloc((size_t)(2 * v), sizeof *logits);
    int status = cache_open(&cache, m, 256, 64, 2, err);
    status |= slot_new(&s, m, 16, MODE_SCORE, err);
    status |= cache_prefill(&cache, &s, &tokens, &length, 1, sequences, out, err);
    status |= sequence_fork(&cache, &sequences[1], &sequences[0], err);
    for (int i = 1; i < DECODED && status == 0; i++) {
        int32_t next[2] = {tokens[length + i - 1], tokens[length + i - 1]};
        status |= cache_decode(&cache, &s, next, both, 2, logits, err);
        memcpy(out + i * v, logits, (size_t)v * sizeof *logits);
    }
    sequence_free(&cache, &sequences[0]);
    sequence_free(&cache, &sequences[1]);
    slot_free(&s);
    cache_close(&cache);
    free(logits);
    return status;
}

static int reduce_units(Model *m, Error *err)
{
    int status = 0;
    for (int u = 0; u < m->params.table.unit_count && status == 0; u++)
        status = tp_reduce(m, u, err);
    return status;
}

static int run_pass(Case *c, Model *m, Pass *p, Error *err)
{
    Slot s;
    const Batch *b = &c->batch;
    size_t v = (size_t)m->config.vocab_size, total = m->params.table.total;
    m->recompute = c->recompute;
    if (param_need_gradients(&m->params.table, err) < 0 || slot_new(&s, m, ROWS, MODE_TRAIN, err) < 0 || slot_load(&s, b, err) < 0)
        return -1;
    if (s.partial) { /* whatever lies there, it must not count */
        size_t rows = (size_t)(tp_rows(m, ROWS) * m->part.tp_size);
        memset(s.wide, 0xff, rows * (size_t)m->config.hidden_size * sizeof(float));
        memset(s.partial, 0xff, rows * (size_t)m->config.hidden_size * sizeof(float));
    }
    p->logits = memory_zalloc(ROWS * v, sizeof(float));
    p->decoded = memory_zalloc(DECODED * v, sizeof(float));
    p->gradients = memory_alloc(total, sizeof(float));
    memset(m->params.table.gradients, 0, total * sizeof(float));
    model_forward(m, &s);
    HeadSums sums = {0};
    if (m->config.num_labels) {
        const int64_t rows[2] = {4, 40};
        const float d[2] = {0.7f, -0.4f};
        head_scores(m, &s, rows, 2, p->scores);
        head_scores_backward(m, &s, rows, 2, d);
    } else {
        head_logits_all(m, &s, p->logits);
        head_measure(m, &s, b->labels, &(HeadRows){p->logprob, p->lse, p->best, p->mean, p->entropy});
        head_cross_entropy(m, &s, b->labels, b->weights, 1 / b->weight, 1e-2, &sums);
    }
    model_backward(m, &s);
    int status = reduce_units(m, err);
    memcpy(p->gradients, m->params.table.gradients, total * sizeof(float));
    p->loss = sums.nll;
    p->z = sums.z;
    if (status == 0 && !m->config.num_labels)
        status = decode(m, b->tokens, p->decoded, err);
    /* The way of a loss that depends on whole sequences: a pass over the chunks of its own. */
    if (status == 0 && !m->config.num_labels) {
        float dlogprob[ROWS], dlse[ROWS];
        for (int64_t i = 0; i < b->rows; i++) {
            double w = b->labels[i] < 0 ? 0 : (double)b->weights[i] / b->weight;
            dlogprob[i] = (float)-w;
            dlse[i] = (float)(2e-2 * w * (double)p->lse[i]);
        }
        memset(m->params.table.gradients, 0, total * sizeof(float));
        model_forward(m, &s);
        head_backward(m, &s, b->labels, p->lse, dlogprob, dlse);
        model_backward(m, &s);
        status = reduce_units(m, err);
        if (distance(m->params.table.gradients, p->gradients, total) > (c->dtype == DTYPE_F32 ? 2e-6 : 1e-2))
            status = error_set(err, "the head's two ways differ by %g", distance(m->params.table.gradients, p->gradients, total));
    }
    slot_free(&s);
    return status < 0 ? -1 : model_check(m, err);
}

static void pass_free(Pass *p)
{
    free(p->logits);
    free(p->gradients);
    free(p->decoded);
}

static void worse(Case *c, double *worst, double d, const char *where)
{
    if (d > *worst || isnan(d)) {
        *worst = isnan(d) ? INFINITY : d;
        snprintf(c->where, sizeof c->where, "%s", where);
    }
}

/* This rank's boxes of the gradients against the same boxes of one rank's. */
static void compare_gradients(Case *c, const ParameterTable *t, const float *gradients)
{
    const ParameterTable *whole = &c->whole->table;
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i], *w = whole->items;
        while (strcmp(w->name, p->name) != 0)
            w++;
        int64_t columns = w->ndim == 2 ? w->shape[1] : 1, width = p->ndim == 2 ? p->extent[1] : 1, first = p->ndim == 2 ? p->begin[1] : 0;
        float *want = memory_alloc(p->count, sizeof *want);
        for (int64_t r = 0; r < p->extent[0]; r++)
            memcpy(want + r * width, c->want.gradients + w->offset + (size_t)((p->begin[0] + r) * columns + first), (size_t)width * sizeof *want);
        worse(c, &c->gradient, distance(gradients + p->offset, want, p->count), p->name);
        free(want);
    }
}

/* Whether all ranks that hold the same box have its gradient in the same bits: norms' at the least. */
static bool same_on_all(Model *m, const float *gradients, Error *err)
{
    const Parameter *p = &m->params.table.items[m->params.norm];
    int ranks = m->part.tp_size;
    float *all = memory_alloc(p->count * (size_t)ranks, sizeof *all);
    bool same = comm_gather_host(m->part.tp, gradients + p->offset, all, p->count * sizeof *all, err) == 0;
    for (int r = 1; r < ranks; r++)
        same &= memcmp(all, all + (size_t)r * p->count, p->count * sizeof *all) == 0;
    free(all);
    return same;
}

static int rank_run(void *context, Grid *g)
{
    Case *c = context;
    Error err = {{0}};
    Device *d = device_open("cpu", 1, &err);
    ModelPart part = part_whole(&c->config);
    Model m;
    Pass p = {0};
    part.tp = &g->group[GRID_TP];
    part.tp_rank = part.tp->rank;
    part.tp_size = part.tp->size;
    if (open_model(c, &m, &part, d, &err) < 0 || run_pass(c, &m, &p, &err) < 0) {
        c->error = err;
        return grid_failed(g, &err);
    }
    size_t v = (size_t)m.config.vocab_size;
    bool same = same_on_all(&m, p.gradients, &err);
    /* One after the other: they write into the case. */
    for (int r = 0; r < g->size; r++) {
        double turn = 0;
        if (comm_sum_host(&g->world, &turn, 1, &err) < 0)
            return grid_failed(g, &err);
        if (r != g->rank)
            continue;
        c->replicas_equal &= same;
        compare_gradients(c, &m.params.table, p.gradients);
        if (m.config.num_labels) {
            worse(c, &c->other, distance(p.scores, c->want.scores, 2), "scores");
        } else {
            worse(c, &c->logits, distance(p.logits, c->want.logits, ROWS * v), "logits");
            if (c->golden)
                worse(c, &c->logits, distance(p.logits, c->golden, (size_t)c->batch.rows * v), "transformers' logits");
            worse(c, &c->logits, distance(p.decoded, c->want.decoded, DECODED * v), "decoded logits");
            worse(c, &c->other, distance(p.logprob, c->want.logprob, ROWS), "logprob");
            worse(c, &c->other, distance(p.lse, c->want.lse, ROWS), "lse");
            worse(c, &c->other, distance(p.mean, c->want.mean, ROWS), "mean logit");
            worse(c, &c->other, distance(p.entropy, c->want.entropy, ROWS), "entropy");
            worse(c, &c->other, fabs(p.loss / c->want.loss - 1), "loss");
            worse(c, &c->other, fabs(p.z / c->want.z - 1), "z");
            if (c->dtype == DTYPE_F32)
                worse(c, &c->other, memcmp(p.best, c->want.best, sizeof p.best) ? 1 : 0, "arg max");
        }
    }
    pass_free(&p);
    model_close(&m);
    device_close(d);
    return 0;
}

static void test_ranks(Case *c, const char *what, int ranks)
{
    const int extent[GRID_DIMENSIONS] = {ranks, 1, 1, 1};
    bool narrow = c->dtype != DTYPE_F32;
    c->logits = c->gradient = c->other = 0;
    c->replicas_equal = true;
    c->where[0] = 0;
    c->error.text[0] = 0;
    int status = grid_run(extent, rank_run, c, &c->error);
    ok(status == 0 && c->replicas_equal && c->logits <= (narrow ? 3e-2 : 1e-5) && c->other <= (narrow ? 1e-2 : 2e-6) && c->gradient <= (narrow ? 0.15 : 1e-5),
       "%s, tp %d: logits differ by %.2g, gradients by %.2g, losses by %.2g of themselves%s%s%s%s", what, ranks, c->logits, c->gradient, c->other,
       c->replicas_equal ? "" : "; replicas differ", c->where[0] ? "; worst: " : "", c->where, c->error.text);
}

/* One rank's pass, then those of several. */
static void test_case(Case *c, const char *what, const int *ranks, int count, Device *d)
{
    Error err = {{0}};
    Model m;
    if (!ok(open_model(c, &m, NULL, d, &err) == 0, "%s, one rank %s", what, err.text))
        return;
    Safetensors file = {0};
    if (c->folder && !ok(golden_batch(c, &file, &err) == 0, "%s: golden values %s", what, err.text))
        return;
    if (!c->folder)
        make_batch(&c->batch, m.config.vocab_size);
    c->config = m.config;
    c->whole = &m.params;
    if (!ok(run_pass(c, &m, &c->want, &err) == 0, "%s, one rank's pass %s", what, err.text))
        return;
    for (int i = 0; i < count; i++)
        test_ranks(c, what, ranks[i]);
    pass_free(&c->want);
    c->want = (Pass){0};
    batch_free(&c->batch);
    if (c->folder)
        safetensors_close(&file);
    model_close(&m);
}

int main(void)
{
    static const int few[] = {2, 3, 6}, many[] = {2, 4}, three[] = {2, 3}, wide[] = {2, 3, 12};
    Device *d = device_open("cpu", 1, NULL);
    Case c = {.config = base};
    test_case(&c, "untied, odd widths", few, 3, d);
    c.config.tie_word_embeddings = c.config.qk_norm = true;
    test_case(&c, "tied, QK-norm", wide, 3, d);
    c.config = base;
    c.config.qkv_bias = c.config.output_bias = c.config.mlp_bias = true;
    c.config.sliding_window = 4;
    c.config.sliding_layers[0] = 5;
    test_case(&c, "biases, sliding window", few, 3, d);
    for (int r = RECOMPUTE_NORMS; r <= RECOMPUTE_LAYER; r++) {
        c.recompute = (Recompute)r;
        test_case(&c, r == RECOMPUTE_NORMS ? "norms recomputed" : "layers recomputed", few, 2, d);
    }
    c.dtype = DTYPE_BF16;
    test_case(&c, "bf16, layers recomputed", few, 2, d);
    c.recompute = RECOMPUTE_NONE;
    c.config = base;
    test_case(&c, "bf16", few, 3, d);
    c.dtype = DTYPE_F32;
    c.config.num_labels = 1;
    test_case(&c, "reward model", few, 3, d);
    static const char *const families[] = {"llama2", "llama3", "mistral", "qwen2", "qwen3", "smollm2", "tinyllama", "qwen2-windows"};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        c = (Case){.folder = memory_format("tests/data/models/%s", families[i])};
        test_case(&c, families[i], strcmp(families[i], "smollm2") == 0 ? three : many, 2, d);
        free((char *)(uintptr_t)c.folder);
    }
    device_close(d);
    return tap_end();
}
