#include "model/head.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/packed.h"
#include "model/tensor_parallel.h"

static Tensor output_weight(Model *m)
{
    return param_acquire(&m->params.table, m->params.output, m->params.output);
}

/* Does anything in these rows count? Chunks of prompt or padding are passed over. */
static bool any_label(const int32_t *labels, const float *weights, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (labels[i] >= 0 && (!weights || weights[i] != 0))
            return true;
    return false;
}

/* The last hidden states of all rows, and where their gradients go until all chunks have been through. */
typedef struct Rows {
    Tensor hidden, dhidden;
} Rows;

/* The output layer's unit is asked for whether a chunk needs it or not: ranks that share it must do alike. */
static Rows rows_open(Model *m, Slot *s, bool backward)
{
    int output = m->params.output >= 0 ? m->params.output : m->params.score;
    param_acquire(&m->params.table, output, output);
    if (backward)
        param_gradient(&m->params.table, output, output);
    return (Rows){tp_gather(m, s, tensor_rows(s->hidden, 0, s->mine)), backward ? tp_partial(s, tensor_rows(s->dhidden, 0, s->mine)) : (Tensor){0}};
}

static void rows_close(Model *m, Slot *s)
{
    tp_scatter(m, s, tensor_rows(s->dhidden, 0, s->mine));
}

int64_t model_head_chunk(const Model *m)
{
    if (m->device && !m->device->is_host)
        return HEAD_CHUNK_GPU;
    if (m->part.tp_size > 1)
        return HEAD_CHUNK;
    int64_t rows = HEAD_LOGITS_CPU / m->config.vocab_size / HEAD_CHUNK * HEAD_CHUNK;
    return rows < HEAD_CHUNK ? HEAD_CHUNK : rows > HEAD_CHUNK_CPU ? HEAD_CHUNK_CPU : rows;
}

/* Rows of the chunk that begins at `first`. */
static int64_t rows_next(const Model *m, const Slot *s, int64_t first)
{
    int64_t most = model_head_chunk(m);
    return s->used - first < most ? s->used - first : most;
}

/* [n, this rank's tokens]. */
static Tensor chunk_logits(Model *m, Slot *s, Tensor hidden, int64_t first, int64_t n)
{
    Tensor z = tensor_rows(s->chunk, 0, n);
    packed_product(m, z, tensor_rows(hidden, first, n), m->params.output, m->params.output);
    return z;
}

/* The logits' gradient, as products read it: on to the hidden states and the output layer. */
static void chunk_backward(Model *m, const Rows *r, Tensor dz, int64_t first)
{
    const Ops *ops = m->device->ops;
    ops->matmul(m->stream, tensor_rows(r->dhidden, first, dz.rows), dz, false, output_weight(m), false, 1, 0);
    Tensor dw = param_gradient(&m->params.table, m->params.output, m->params.output);
    if (dw.data)
        ops->matmul(m->stream, dw, dz, true, tensor_rows(r->hidden, first, dz.rows), false, 1, 1);
}

static void download(Model *m, void *to, const void *from, size_t bytes)
{
    m->device->copy(m->stream, to, from, bytes, COPY_TO_HOST);
    m->device->stream_wait(m->stream, NULL);
}

static void upload(Model *m, void *to, const void *from, size_t bytes)
{
    m->device->copy(m->stream, to, from, bytes, COPY_TO_DEVICE);
}

/* The arrays from row `first` on. */
static HeadRows rows_from(const HeadRows *r, int64_t first)
{
    return (HeadRows){r->logprob + first, r->lse ? r->lse + first : NULL, r->best ? r->best + first : NULL, r->mean ? r->mean + first : NULL,
                      r->entropy ? r->entropy + first : NULL};
}

/* A chunk's rows, on the host. labels and out: the chunk's. */
static void chunk_read(Model *m, Slot *s, Tensor z, int64_t first, const int32_t *labels, const HeadRows *out)
{
    if (m->part.tp_size > 1) {
        tp_measure(m, s, z, first, labels, out);
        return;
    }
    size_t bytes = (size_t)z.rows * sizeof(float);
    float *mean = s->chunk_dlogprob, *entropy = s->chunk_dlse; /* not in use yet */
    m->device->ops->logits_forward(m->stream, z, s->labels + first, s->chunk_logprob, s->chunk_lse, out->best ? s->chunk_best : NULL, out->mean ? mean : NULL,
                                   out->entropy ? entropy : NULL);
    download(m, out->logprob, s->chunk_logprob, bytes);
    download(m, out->lse, s->chunk_lse, bytes);
    if (out->best)
        download(m, out->best, s->chunk_best, bytes);
    if (out->mean)
        download(m, out->mean, mean, bytes);
    if (out->entropy)
        download(m, out->entropy, entropy, bytes);
}

/* Where the gradient of the logits z goes that products read: z itself, or a narrow tensor, whose rows may begin where z's do. */
static Tensor chunk_gradient(Slot *s, Tensor z)
{
    return s->chunk_narrow.data ? tensor_rows(s->chunk_narrow, 0, z.rows) : z;
}

/* The logits' gradient. Arrays on the host, the chunk's; dlse may be NULL. */
static Tensor chunk_differentiate(Model *m, Slot *s, Tensor z, int64_t first, const int32_t *labels, const float *lse, const float *dlogprob,
                                const float *dlse)
{
    size_t bytes = (size_t)z.rows * sizeof(float);
    float own[HEAD_CHUNK_GPU];
    if (m->part.tp_size > 1) {
        tp_label_gradients(m, labels, z.rows, dlogprob, dlse, own);
        dlse = own;
    }
    upload(m, s->chunk_lse, lse, bytes);
    upload(m, s->chunk_dlogprob, dlogprob, bytes);
    if (dlse)
        upload(m, s->chunk_dlse, dlse, bytes);
    m->device->ops->logits_backward(m->stream, z, s->labels + first, s->chunk_lse, s->chunk_dlogprob, dlse ? s->chunk_dlse : NULL);
    Tensor dz = chunk_gradient(s, z);
    if (dz.dtype != z.dtype)
        m->device->ops->copy(m->stream, dz, z);
    return dz;
}

/* best and entropy are there where sums->measure is set. */
static void add_sums(HeadSums *sums, const int32_t *labels, const float *weights, const HeadRows *rows, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double w = labels[i] < 0 ? 0 : (double)weights[i];
        sums->nll -= w * (double)rows->logprob[i];
        sums->weight += w;
        sums->z += w * (double)rows->lse[i] * (double)rows->lse[i];
        if (!sums->measure || w <= 0)
            continue;
        sums->right += rows->best[i] == labels[i];
        sums->entropy += (double)rows->entropy[i];
        sums->rows++;
    }
}

/* Rows of the next chunk, in which every HEAD_CHUNK of rows has some that count, or none has (*counts). weights NULL: all that have a label
 * do. */
static int64_t rows_that_count(const Model *m, const Slot *s, const int32_t *labels, const float *weights, int64_t first, bool *counts)
{
    int64_t rows = 0, most = rows_next(m, s, first);
    for (*counts = false; rows < most; *counts = true) {
        int64_t n = most - rows < HEAD_CHUNK ? most - rows : HEAD_CHUNK;
        if (!any_label(labels + first + rows, weights ? weights + first + rows : NULL, n))
            return rows ? rows : n;
        rows += n;
    }
    return rows;
}

/* Without a z-loss the gradients are known before the logits are, and nothing is read back until all chunks are through: a GPU never
 * waits for the host. */
static void cross_entropy_at_once(Model *m, Slot *s, const int32_t *labels, const float *weights, double scale, HeadSums *sums)
{
    const Ops *ops = m->device->ops;
    Rows rows = rows_open(m, s, true);
    float a[HEAD_CHUNK_GPU], b[HEAD_CHUNK_GPU], entropy[HEAD_CHUNK_GPU];
    int32_t best[HEAD_CHUNK_GPU];
    const HeadRows read = {.logprob = a, .lse = b, .best = best, .entropy = entropy};
    bool counts;
    slot_rows_begin(s);
    for (int64_t first = 0, n; first < s->used; first += n) {
        n = rows_that_count(m, s, labels, weights, first, &counts);
        if (!counts) {
            ops->fill(m->stream, tensor_rows(rows.dhidden, first, n), 0);
            continue;
        }
        for (int64_t i = 0; i < n; i++)
            a[i] = labels[first + i] < 0 ? 0 : (float)(-(double)weights[first + i] * scale);
        upload(m, s->chunk_dlogprob + first, a, (size_t)n * sizeof *a);
        Tensor z = chunk_logits(m, s, rows.hidden, first, n), dz = chunk_gradient(s, z);
        if (sums->measure)
            ops->logits_forward(m->stream, z, s->labels + first, s->chunk_logprob + first, s->chunk_lse + first, s->chunk_best + first, NULL,
                                s->chunk_dlse + first);
        ops->logits_gradient(m->stream, dz, z, s->labels + first, s->chunk_dlogprob + first, s->chunk_logprob + first, s->chunk_lse + first);
        chunk_backward(m, &rows, dz, first);
    }
    slot_rows_end(s);
    for (int64_t first = 0, n; first < s->used; first += n) {
        n = rows_that_count(m, s, labels, weights, first, &counts);
        if (!counts)
            continue;
        download(m, a, s->chunk_logprob + first, (size_t)n * sizeof *a);
        download(m, b, s->chunk_lse + first, (size_t)n * sizeof *b);
        if (sums->measure) {
            download(m, best, s->chunk_best + first, (size_t)n * sizeof *best);
            download(m, entropy, s->chunk_dlse + first, (size_t)n * sizeof *entropy);
        }
        add_sums(sums, labels + first, weights + first, &read, n);
    }
    rows_close(m, s);
}

void head_cross_entropy(Model *m, Slot *s, const int32_t *labels, const float *weights, double scale, double z_loss, HeadSums *sums)
{
    if (m->part.tp_size <= 1 && z_loss == 0) {
        cross_entropy_at_once(m, s, labels, weights, scale, sums);
        return;
    }
    Rows rows = rows_open(m, s, true);
    bool counts;
    for (int64_t first = 0, n; first < s->used; first += n) {
        n = rows_that_count(m, s, labels, weights, first, &counts);
        if (!counts) {
            m->device->ops->fill(m->stream, tensor_rows(rows.dhidden, first, n), 0);
            continue;
        }
        Tensor z = chunk_logits(m, s, rows.hidden, first, n);
        float logprob[HEAD_CHUNK_GPU], lse[HEAD_CHUNK_GPU], entropy[HEAD_CHUNK_GPU], dlogprob[HEAD_CHUNK_GPU], dlse[HEAD_CHUNK_GPU];
        int32_t best[HEAD_CHUNK_GPU];
        const HeadRows read = {.logprob = logprob, .lse = lse, .best = sums->measure ? best : NULL, .entropy = sums->measure ? entropy : NULL};
        chunk_read(m, s, z, first, labels + first, &read);
        for (int64_t i = 0; i < n; i++) {
            double w = labels[first + i] < 0 ? 0 : (double)weights[first + i];
            dlogprob[i] = (float)(-w * scale);
            dlse[i] = (float)(2 * z_loss * w * scale * (double)lse[i]);
        }
        add_sums(sums, labels + first, weights + first, &read, n);
        chunk_backward(m, &rows, chunk_differentiate(m, s, z, first, labels + first, lse, dlogprob, dlse), first);
    }
    rows_close(m, s);
}

void head_measure(Model *m, Slot *s, const int32_t *labels, const HeadRows *out)
{
    Rows rows = rows_open(m, s, false);
    bool counts;
    for (int64_t first = 0, n; first < s->used; first += n) {
        n = rows_that_count(m, s, labels, NULL, first, &counts);
        HeadRows chunk = rows_from(out, first);
        float unwanted[HEAD_CHUNK_GPU];
        chunk.lse = out->lse ? chunk.lse : unwanted;
        if (counts) {
            chunk_read(m, s, chunk_logits(m, s, rows.hidden, first, n), first, labels + first, &chunk);
            continue;
        }
        void *const arrays[] = {chunk.logprob, chunk.lse, chunk.best, chunk.mean, chunk.entropy};
        for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
            if (arrays[i])
                memset(arrays[i], 0, (size_t)n * sizeof(float));
    }
}

void head_logprobs(Model *m, Slot *s, const int32_t *labels, float *logprob, float *lse, int32_t *best)
{
    head_measure(m, s, labels, &(HeadRows){.logprob = logprob, .lse = lse, .best = best});
}

void head_backward(Model *m, Slot *s, const int32_t *labels, const float *lse, const float *dlogprob, const float *dlse)
{
    Rows rows = rows_open(m, s, true);
    bool counts;
    for (int64_t first = 0, n; first < s->used; first += n) {
        n = rows_that_count(m, s, labels, dlse ? NULL : dlogprob, first, &counts);
        if (!counts) {
            m->device->ops->fill(m->stream, tensor_rows(rows.dhidden, first, n), 0);
            continue;
        }
        Tensor z = chunk_logits(m, s, rows.hidden, first, n);
        chunk_backward(m, &rows, chunk_differentiate(m, s, z, first, labels + first, lse + first, dlogprob + first, dlse ? dlse + first : NULL), first);
    }
    rows_close(m, s);
}

void head_logits(Model *m, Slot *s, const int64_t *rows, int64_t n, float *out)
{
    Tensor hidden = rows_open(m, s, false).hidden;
    /* Together where that changes no bit; slot.branch is free behind a pass. */
    int64_t most = m->packed ? HEAD_CHUNK : 1;
    for (int64_t first = 0, some; first < n; first += some) {
        some = n - first < most ? n - first : most;
        for (int64_t i = 0; i < some && most > 1; i++)
            m->device->ops->copy(m->stream, tensor_rows(s->branch, i, 1), tensor_rows(hidden, rows[first + i], 1));
        Tensor z = most > 1 ? chunk_logits(m, s, s->branch, 0, some) : chunk_logits(m, s, hidden, rows[first], 1);
        tp_logits(m, z, out + first * m->config.vocab_size);
    }
}

void head_logits_all(Model *m, Slot *s, float *out)
{
    Tensor hidden = rows_open(m, s, false).hidden;
    for (int64_t first = 0, n; first < s->used; first += n) {
        n = rows_next(m, s, first);
        tp_logits(m, chunk_logits(m, s, hidden, first, n), out + first * m->config.vocab_size);
    }
}

void head_scores(Model *m, Slot *s, const int64_t *rows, int64_t n, float *scores)
{
    Tensor w = param_acquire(&m->params.table, m->params.score, m->params.score), hidden = rows_open(m, s, false).hidden;
    for (int64_t i = 0; i < n; i++) {
        Tensor z = tensor_make(m->device, DTYPE_F32, s->chunk_logprob, 1, 1);
        m->device->ops->matmul(m->stream, z, tensor_rows(hidden, rows[i], 1), false, w, true, 1, 0);
        download(m, scores + i, z.data, sizeof(float));
    }
}

/* As the scores' product has rounded it: slot.branch is free behind a pass. */
static Tensor score_weight(Model *m, Slot *s)
{
    Tensor w = param_acquire(&m->params.table, m->params.score, m->params.score), rounded = tensor_rows(s->branch, 0, 1);
    if (w.dtype == m->dtype)
        return w;
    m->device->ops->copy(m->stream, rounded, w);
    return rounded;
}

void head_scores_backward(Model *m, Slot *s, const int64_t *rows, int64_t n, const float *dscores)
{
    const Ops *ops = m->device->ops;
    Tensor w = score_weight(m, s);
    Tensor dw = param_gradient(&m->params.table, m->params.score, m->params.score);
    ops->fill(m->stream, tensor_rows(s->dhidden, 0, s->mine), 0);
    int64_t begin = m->part.tp_rank * s->mine;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = rows[i] - begin;
        if (row < 0 || row >= s->mine)
            continue; /* another rank's */
        ops->add(m->stream, tensor_rows(s->dhidden, row, 1), w, dscores[i]);
        if (dw.data)
            ops->add(m->stream, dw, tensor_rows(s->hidden, row, 1), dscores[i]);
    }
}
