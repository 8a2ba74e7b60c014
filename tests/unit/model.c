/* smoke: logits, loss and every gradient equal transformers' (tests/reference/model_golden.py), for the families that load.
 * usage: model [FOLDER…] — other folders with a golden.safetensors; with -o DIR what was loaded is written to DIR/NAME too. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/memory.h"
#include "io/safetensors.h"
#include "model/cache.h"
#include "model/folder.h"
#include "model/folder_parts.h"
#include "model/head.h"
#include "tests/unit/distance.h"
#include "tests/unit/tap.h"

static const void *golden_find(const Safetensors *g, const char *name)
{
    const SafetensorsEntry *e = safetensors_find(g, name);
    return e ? g->data + e->begin : NULL;
}

/* Ten tokens prefilled and ten decoded one by one, in two sequences of which one is a fork, against the full pass. */
static void test_cache(const char *family, Model *m, const int32_t *tokens, const float *want, double tolerance)
{
    int64_t v = m->config.vocab_size;
    Error err = {{0}};
    KvCache c;
    Slot s;
    Sequence sequences[2] = {{0}}, *both[2] = {&sequences[0], &sequences[1]};
    float *logits = memory_alloc((size_t)(2 * v), sizeof *logits);
    int64_t length = 10;
    int status = cache_open(&c, m, 400, 64, 2, &err);
    status |= slot_new(&s, m, 32, MODE_SCORE, &err);
    status |= cache_prefill(&c, &s, &tokens, &length, 1, sequences, logits, &err);
    double worst = distance(logits, want + 9 * v, (size_t)v);
    status |= sequence_fork(&c, &sequences[1], &sequences[0], &err);
    for (int i = 10; i < 20 && status == 0; i++) {
        int32_t next[2] = {tokens[i], tokens[i]};
        status |= cache_decode(&c, &s, next, both, 2, logits, &err);
        worst = fmax(worst, fmax(distance(logits, want + i * v, (size_t)v), distance(logits + v, want + i * v, (size_t)v)));
    }
    ok(status == 0 && worst < tolerance, "%s: decoding from the cache gives the logits of a full pass (%.2g) %s", family, worst, err.text);
    sequence_free(&c, &sequences[0]);
    sequence_free(&c, &sequences[1]);
    ok(c.free_count * PAGE_TOKENS == 448, "%s: every page is free again", family);
    slot_free(&s);
    cache_close(&c);
    free(logits);
}

/* One pass forward and backward; the loss. */
static double pass(Model *m, Slot *s, const Batch *b)
{
    HeadSums sums = {0};
    memset(m->params.table.gradients, 0, m->params.table.total * sizeof(float));
    for (int i = 0; i < m->params.table.unit_count; i++)
        m->params.table.units[i].cleared = false;
    model_forward(m, s);
    head_cross_entropy(m, s, b->labels, b->weights, 1 / b->weight, 0, &sums);
    model_backward(m, s);
    return sums.nll / sums.weight;
}

/* What a policy of recomputation drops comes back with the same bits; bf16 comes near f32. `first` are the f32 gradients.
 * Activations stand on their own, then in place of gradients where there is room; `lent` counts the latter. */
static void test_policies(const char *family, bool drawn, Model *m, const Batch *b, double loss, const float *first, const int32_t *tokens, float *logits, int *lent)
{
    static const struct {
        Dtype dtype;
        Recompute recompute;
    } ways[] = {{DTYPE_F32, RECOMPUTE_NORMS}, {DTYPE_F32, RECOMPUTE_LAYER}, {DTYPE_BF16, RECOMPUTE_NONE}, {DTYPE_BF16, RECOMPUTE_NORMS},
                {DTYPE_BF16, RECOMPUTE_LAYER}};
    size_t total = m->params.table.total;
    float *half = memory_zalloc(total, sizeof *half);
    int same = 1;
    double error = 0, off = 0;
    for (size_t i = 0; i < 2 * (sizeof ways / sizeof *ways); i++) {
        const size_t way = i / 2;
        Slot s;
        Error err;
        m->recompute = ways[way].recompute;
        m->params.table.lends = i % 2;
        if (model_compute_in(m, ways[way].dtype, &err) < 0 || slot_new(&s, m, 40, MODE_TRAIN, &err) < 0 || slot_load(&s, b, &err) < 0)
            return;
        double got = pass(m, &s, b);
        const float *g = m->params.table.gradients;
        if (ways[way].dtype == DTYPE_BF16 && ways[way].recompute == RECOMPUTE_NONE && !m->params.table.lends) {
            memcpy(half, g, total * sizeof *half);
            error = distance(g, first, total);
            off = fabs(got / loss - 1);
            head_logits_all(m, &s, logits);
        }
        same &= memcmp(g, ways[way].dtype == DTYPE_F32 ? first : half, total * sizeof *half) == 0;
        *lent += s.lent < s.lent_end;
        slot_free(&s);
    }
    m->params.table.lends = false;
    ok(same, "%s: recomputing norms or layers changes no bit, in f32 and in bf16, wherever activations stand", family);
    /* Weights as they are drawn for families_check.py are larger than trained ones, so that every path counts, and so are roundings. */
    ok(off < (drawn ? 5e-2 : 2e-3) && error < (drawn ? 0.5 : 5e-2), "%s: bf16 changes the loss by %.2g and the gradient by %.2g of itself", family, off,
       error);
    /* A pass rounds attention's probabilities to bf16 where the CPU multiplies bf16, decoding does not. */
    test_cache(family, m, tokens, logits, drawn ? 0.2 : 5e-2);
    free(half);
}

static void test_family(const char *folder, const char *out, Device *d, int *lent)
{
    const char *family = strrchr(folder, '/') ? strrchr(folder, '/') + 1 : folder;
    Error err = {{0}};
    Model m;
    Slot s;
    Safetensors g;
    char *golden = memory_format("%s/golden.safetensors", folder);
    if (!ok(folder_load(&m, folder, NULL, d, &err) == 0 && safetensors_open(&g, golden, &err) == 0 &&
                slot_new(&s, &m, 40, MODE_TRAIN, &err) == 0 && param_need_gradients(&m.params.table, &err) == 0,
            "%s loads %s", family, err.text))
        return;
    if (out) {
        char *copy = memory_format("%s/%s", out, family);
        ok(mkdir(copy, 0777) == 0 && folder_begin(&m, DTYPE_F32, copy, &err) == 0 &&
               parts_write(&m, m.params.table.weights, &(ArenaStretch){0, param_trained_total(&m.params.table)}, 1, DTYPE_F32, copy, NULL, &err) == 0,
            "%s is written again %s", family, err.text);
        free(copy);
    }
    Batch b;
    int64_t v = m.config.vocab_size;
    batch_new(&b, 2, 20);
    const int32_t *tokens = golden_find(&g, "tokens");
    for (int i = 0; i < 2; i++)
        batch_place(&b, i * 20, tokens + i * 20, NULL, NULL, 20, -1, 0, i);
    HeadSums sums = {0};
    slot_load(&s, &b, &err);
    model_forward(&m, &s);
    float *logits = memory_alloc((size_t)(40 * v), sizeof *logits);
    int64_t rows[40];
    for (int i = 0; i < 40; i++)
        rows[i] = i;
    head_logits(&m, &s, rows, 40, logits);
    double e = distance(logits, golden_find(&g, "logits"), (size_t)(40 * v));
    ok(e < 1e-5, "%s: logits differ by %.2g", family, e);
    test_cache(family, &m, tokens, golden_find(&g, "logits"), 5e-5);
    head_cross_entropy(&m, &s, b.labels, b.weights, 1 / b.weight, 0, &sums);
    model_backward(&m, &s);
    double loss = *(const float *)golden_find(&g, "loss");
    ok(fabs(sums.nll / sums.weight / loss - 1) < 1e-6, "%s: loss %.6f, wanted %.6f", family, sums.nll / sums.weight, loss);
    double worst = 0;
    const char *where = "";
    for (size_t i = 0; i < m.params.table.count; i++) {
        const Parameter *p = &m.params.table.items[i];
        char *name = memory_format("grad.%s", p->name);
        const float *want = golden_find(&g, name);
        e = want ? distance(m.params.table.gradients + p->offset, want, p->count) : INFINITY;
        if (e > worst) {
            worst = e;
            where = p->name;
        }
        free(name);
    }
    ok(worst < 1e-4, "%s: worst gradient differs by %.2g (%s)", family, worst, where);
    /* The same through log-probabilities and a second pass over the chunks. */
    float logprob[40], lse[40], dlogprob[40];
    float *first = memory_alloc(m.params.table.total, 4);
    memcpy(first, m.params.table.gradients, m.params.table.total * 4);
    memset(m.params.table.gradients, 0, m.params.table.total * 4);
    model_forward(&m, &s);
    head_logprobs(&m, &s, b.labels, logprob, lse, NULL);
    for (int i = 0; i < 40; i++)
        dlogprob[i] = (float)(-b.weights[i] / b.weight);
    head_backward(&m, &s, b.labels, lse, dlogprob, NULL);
    model_backward(&m, &s);
    e = distance(m.params.table.gradients, first, m.params.table.total);
    ok(e < 1e-5, "%s: fused and two-pass heads agree (%.2g)", family, e);
    loss = pass(&m, &s, &b);
    memcpy(first, m.params.table.gradients, m.params.table.total * sizeof *first);
    test_policies(family, out != NULL, &m, &b, loss, first, tokens, logits, lent);
    batch_free(&b);
    slot_free(&s);
    model_close(&m);
    safetensors_close(&g);
    free(logits);
    free(first);
    free(golden);
}

/* Many rows of which whole stretches count nothing: the pass that knows its gradients beforehand and leaves those out against the one for a
 * z-loss, here too small to be seen. */
static void test_chunks(const char *folder, Device *d)
{
    enum { SEQUENCES = 90, LENGTH = 20, ROWS = SEQUENCES * LENGTH };
    Error err = {{0}};
    Model m;
    Slot s;
    Batch b;
    int32_t tokens[LENGTH];
    if (!ok(folder_load(&m, folder, NULL, d, &err) == 0 && param_need_gradients(&m.params.table, &err) == 0 && slot_new(&s, &m, ROWS, MODE_TRAIN, &err) == 0,
            "a slot of %d rows %s", ROWS, err.text))
        return;
    ok(s.chunk.rows > HEAD_CHUNK, "takes %d rows of logits at once", (int)s.chunk.rows);
    batch_new(&b, SEQUENCES, LENGTH);
    for (int i = 0; i < SEQUENCES; i++) {
        for (int t = 0; t < LENGTH; t++)
            tokens[t] = (int32_t)((i * 31 + t * 17 + i * t) % m.config.vocab_size);
        batch_place(&b, i * LENGTH, tokens, NULL, NULL, LENGTH, -1, 0, i);
    }
    for (int i = 0; i < ROWS; i++) {
        b.weights[i] = (i >= 200 && i < 800) || i < 3 ? 0 : 1 + (float)(i % 3);
        b.labels[i] = i >= 1536 && i < 1700 ? -1 : b.labels[i];
    }
    slot_load(&s, &b, &err);
    size_t total = m.params.table.total;
    HeadSums sums[2] = {{0}};
    float *first = memory_zalloc(total, sizeof *first);
    for (int i = 0; i < 2; i++) {
        memset(m.params.table.gradients, 0, total * sizeof *first);
        model_forward(&m, &s);
        head_cross_entropy(&m, &s, b.labels, b.weights, 1e-3, i ? 1e-30 : 0, &sums[i]);
        model_backward(&m, &s);
        if (i == 0)
            memcpy(first, m.params.table.gradients, total * sizeof *first);
    }
    double e = distance(m.params.table.gradients, first, total);
    ok(e < 1e-6 && fabs(sums[0].nll / sums[1].nll - 1) < 1e-6 && sums[0].weight == sums[1].weight && sums[0].weight > 0,
       "gradients with and without rows that count nothing differ by %.2g", e);
    free(first);
    batch_free(&b);
    slot_free(&s);
    model_close(&m);
}

int main(int argc, char **argv)
{
    Device *d = device_open("cpu", 2, NULL);
    static const char *const families[] = {"llama2", "llama3", "mistral", "qwen2", "qwen3", "smollm2", "tinyllama", "qwen2-windows"};
    const char *out = argc > 2 && strcmp(argv[1], "-o") == 0 ? argv[2] : NULL;
    int lent = 0;
    for (int i = out ? 3 : 1; i < argc; i++)
        test_family(argv[i], out, d, &lent);
    for (size_t i = 0; argc == 1 && i < sizeof families / sizeof *families; i++) {
        char *folder = memory_format("tests/data/models/%s", families[i]);
        test_family(folder, NULL, d, &lent);
        free(folder);
    }
    ok(argc > 1 || lent > 0, "activations stood in place of gradients in %d passes", lent);
    if (argc == 1)
        test_chunks("tests/data/models/llama3", d);
    device_close(d);
    return tap_end();
}
