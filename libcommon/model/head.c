#include "model/head.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

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

static Tensor chunk_logits(Model *m, Slot *s, int64_t first, int64_t n)
{
    Tensor z = tensor_rows(s->chunk, 0, n);
    m->device->ops->matmul(m->stream, z, tensor_rows(s->hidden, first, n), false, output_weight(m), true, 1, 0);
    return z;
}

/* The chunk's logits have become their gradient: on to the hidden states and the output layer. */
static void chunk_backward(Model *m, Slot *s, Tensor dz, int64_t first)
{
    const Ops *ops = m->device->ops;
    if (s->chunk_narrow.data) {
        Tensor narrow = tensor_rows(s->chunk_narrow, 0, dz.rows);
        ops->copy(m->stream, narrow, dz);
        dz = narrow;
    }
    ops->matmul(m->stream, tensor_rows(s->dhidden, first, dz.rows), dz, false, output_weight(m), false, 1, 0);
    Tensor dw = param_gradient(&m->params.table, m->params.output, m->params.output);
    if (dw.data)
        ops->matmul(m->stream, dw, dz, true, tensor_rows(s->hidden, first, dz.rows), false, 1, 1);
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

void head_cross_entropy(Model *m, Slot *s, const int32_t *labels, const float *weights, double scale, double z_loss, HeadSums *sums)
{
    const Ops *ops = m->device->ops;
    for (int64_t first = 0; first < s->used; first += HEAD_CHUNK) {
        int64_t n = s->used - first < HEAD_CHUNK ? s->used - first : HEAD_CHUNK;
        size_t bytes = (size_t)n * sizeof(float);
        if (!any_label(labels + first, weights + first, n)) {
            ops->fill(m->stream, tensor_rows(s->dhidden, first, n), 0);
            continue;
        }
        Tensor z = chunk_logits(m, s, first, n);
        ops->logits_forward(m->stream, z, s->labels + first, s->chunk_logprob, s->chunk_lse, NULL, NULL);
        float logprob[HEAD_CHUNK], lse[HEAD_CHUNK], dlogprob[HEAD_CHUNK], dlse[HEAD_CHUNK];
        download(m, logprob, s->chunk_logprob, bytes);
        download(m, lse, s->chunk_lse, bytes);
        for (int64_t i = 0; i < n; i++) {
            double w = labels[first + i] < 0 ? 0 : (double)weights[first + i];
            sums->nll -= w * (double)logprob[i];
            sums->weight += w;
            sums->z += w * (double)lse[i] * (double)lse[i];
            dlogprob[i] = (float)(-w * scale);
            dlse[i] = (float)(2 * z_loss * w * scale * (double)lse[i]);
        }
        upload(m, s->chunk_dlogprob, dlogprob, bytes);
        upload(m, s->chunk_dlse, dlse, bytes);
        ops->logits_backward(m->stream, z, s->labels + first, s->chunk_lse, s->chunk_dlogprob, s->chunk_dlse);
        chunk_backward(m, s, z, first);
    }
}

void head_logprobs(Model *m, Slot *s, const int32_t *labels, float *logprob, float *lse, int32_t *best)
{
    for (int64_t first = 0; first < s->used; first += HEAD_CHUNK) {
        int64_t n = s->used - first < HEAD_CHUNK ? s->used - first : HEAD_CHUNK;
        size_t bytes = (size_t)n * sizeof(float);
        if (!any_label(labels + first, NULL, n)) {
            memset(logprob + first, 0, bytes);
            if (lse)
                memset(lse + first, 0, bytes);
            if (best)
                memset(best + first, 0, bytes);
            continue;
        }
        Tensor z = chunk_logits(m, s, first, n);
        m->device->ops->logits_forward(m->stream, z, s->labels + first, s->chunk_logprob, s->chunk_lse, best ? s->chunk_best : NULL, NULL);
        download(m, logprob + first, s->chunk_logprob, bytes);
        if (lse)
            download(m, lse + first, s->chunk_lse, bytes);
        if (best)
            download(m, best + first, s->chunk_best, bytes);
    }
}

void head_backward(Model *m, Slot *s, const int32_t *labels, const float *lse, const float *dlogprob, const float *dlse)
{
    const Ops *ops = m->device->ops;
    for (int64_t first = 0; first < s->used; first += HEAD_CHUNK) {
        int64_t n = s->used - first < HEAD_CHUNK ? s->used - first : HEAD_CHUNK;
        size_t bytes = (size_t)n * sizeof(float);
        if (!any_label(labels + first, dlse ? NULL : dlogprob + first, n)) {
            ops->fill(m->stream, tensor_rows(s->dhidden, first, n), 0);
            continue;
        }
        Tensor z = chunk_logits(m, s, first, n);
        upload(m, s->chunk_lse, lse + first, bytes);
        upload(m, s->chunk_dlogprob, dlogprob + first, bytes);
        if (dlse)
            upload(m, s->chunk_dlse, dlse + first, bytes);
        ops->logits_backward(m->stream, z, s->labels + first, s->chunk_lse, s->chunk_dlogprob, dlse ? s->chunk_dlse : NULL);
        chunk_backward(m, s, z, first);
    }
}

void head_logits(Model *m, Slot *s, const int64_t *rows, int64_t n, float *out)
{
    int64_t v = m->config.vocab_size;
    for (int64_t i = 0; i < n; i++) {
        Tensor z = tensor_rows(s->chunk, 0, 1);
        m->device->ops->matmul(m->stream, z, tensor_rows(s->hidden, rows[i], 1), false, output_weight(m), true, 1, 0);
        download(m, out + i * v, z.data, (size_t)v * sizeof(float));
    }
}

void head_logits_all(Model *m, Slot *s, float *out)
{
    for (int64_t first = 0; first < s->used; first += HEAD_CHUNK) {
        int64_t n = s->used - first < HEAD_CHUNK ? s->used - first : HEAD_CHUNK;
        Tensor z = chunk_logits(m, s, first, n);
        download(m, out + first * z.cols, z.data, (size_t)(n * z.cols) * sizeof(float));
    }
}

void head_scores(Model *m, Slot *s, const int64_t *rows, int64_t n, float *scores)
{
    Tensor w = param_acquire(&m->params.table, m->params.score, m->params.score);
    for (int64_t i = 0; i < n; i++) {
        Tensor z = tensor_make(m->device, DTYPE_F32, s->chunk_logprob, 1, 1);
        m->device->ops->matmul(m->stream, z, tensor_rows(s->hidden, rows[i], 1), false, w, true, 1, 0);
        download(m, scores + i, z.data, sizeof(float));
    }
}

void head_scores_backward(Model *m, Slot *s, const int64_t *rows, int64_t n, const float *dscores)
{
    const Ops *ops = m->device->ops;
    Tensor w = param_acquire(&m->params.table, m->params.score, m->params.score);
    Tensor dw = param_gradient(&m->params.table, m->params.score, m->params.score);
    ops->fill(m->stream, tensor_rows(s->dhidden, 0, s->used), 0);
    for (int64_t i = 0; i < n; i++) {
        ops->add(m->stream, tensor_rows(s->dhidden, rows[i], 1), w, dscores[i]);
        if (dw.data)
            ops->add(m->stream, dw, tensor_rows(s->hidden, rows[i], 1), dscores[i]);
    }
}
