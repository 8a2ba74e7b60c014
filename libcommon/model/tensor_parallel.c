#include "model/tensor_parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/sharding.h"

int tp_open(Model *m, Error *err)
{
    const ModelPart *p = &m->part;
    m->first_token = memory_alloc((size_t)p->tp_size + 1, sizeof *m->first_token);
    for (int r = 0; r < p->tp_size; r++) {
        ModelPart other = *p;
        other.tp_rank = r;
        m->first_token[r] = part_shape(&other, &m->config).first_token;
    }
    m->first_token[p->tp_size] = m->config.vocab_size;
    if (!p->tp || m->shape.kv_replicas <= 1 || m->shape.kv_replicas >= p->tp_size)
        return 0;
    int status = comm_split(p->tp, p->tp_rank / m->shape.kv_replicas, "kv", &m->replicas, err);
    m->replicas.counted = p->tp;
    return status;
}

void tp_close(Model *m)
{
    free(m->first_token);
    if (m->replicas.ops)
        comm_close(&m->replicas);
}

int64_t tp_rows(const Model *m, int64_t rows)
{
    return (rows + m->part.tp_size - 1) / m->part.tp_size;
}

static bool alone(const Model *m)
{
    return m->part.tp_size == 1;
}

static void done(Model *m, int status)
{
    if (status < 0)
        m->failed = true;
}

static Tensor wide(Slot *s, void *memory, Tensor like)
{
    return tensor_make(like.device, like.dtype, memory, s->used, like.cols);
}

Tensor tp_gather(Model *m, Slot *s, Tensor x)
{
    if (alone(m))
        return x;
    if (!m->failed)
        done(m, comm_all_gather(m->part.tp, m->stream, x.data, s->wide, (size_t)(x.rows * x.cols) * dtype_size(x.dtype), &m->failure));
    return wide(s, s->wide, x);
}

Tensor tp_partial(Slot *s, Tensor y)
{
    return alone(s->model) ? y : wide(s, s->partial, y);
}

void tp_scatter(Model *m, Slot *s, Tensor y)
{
    if (alone(m))
        return;
    Tensor all = tensor_make(m->device, y.dtype, s->partial, s->mine * m->part.tp_size, y.cols);
    if (all.rows > s->used)
        m->device->ops->fill(m->stream, tensor_rows(all, s->used, all.rows - s->used), 0);
    if (!m->failed)
        done(m, comm_reduce_scatter(m->part.tp, m->stream, y.dtype, all.data, y.data, (size_t)(y.rows * y.cols), &m->failure));
}

void tp_embedding_forward(Model *m, Slot *s, Tensor x)
{
    Tensor table = param_acquire_f32(&m->params.table, m->params.embedding, m->params.embedding);
    m->device->ops->embedding_forward(m->stream, tp_partial(s, x), table, s->tokens);
    param_release(&m->params.table, m->params.embedding, m->params.embedding);
    tp_scatter(m, s, x);
}

void tp_embedding_backward(Model *m, Slot *s, Tensor dx)
{
    Tensor dtable = param_gradient(&m->params.table, m->params.embedding, m->params.embedding);
    if (dtable.data)
        m->device->ops->embedding_backward(m->stream, dtable, tp_gather(m, s, dx), s->tokens);
}

/* The rank whose tokens a label is one of. */
static int rank_of(const Model *m, int32_t label)
{
    int r = 0;
    while (label >= m->first_token[r + 1])
        r++;
    return r;
}

/* Of at most HEAD_CHUNK rows, what all ranks say goes to `all`, on the device. */
static void words_gather(Model *m, Slot *s, Tensor z, const int32_t *labels, const HeadRows *out, ChunkSaid *all)
{
    const Ops *ops = m->device->ops;
    ChunkSaid *here = s->said;
    ops->logits_forward(m->stream, z, labels, here->logprob, here->lse, out->best ? here->best : NULL, out->mean ? here->mean : NULL,
                        out->entropy ? here->entropy : NULL);
    if (out->best)
        ops->logits_forward(m->stream, z, here->best, here->best_logprob, here->lse, NULL, NULL, NULL);
    if (!m->failed)
        done(m, comm_all_gather(m->part.tp, m->stream, here, all, sizeof *here, &m->failure));
}

/* Row `at` of what the ranks have said, put together as row i of *out. */
static void words_join(Model *m, const ChunkSaid *said, int64_t at, int32_t label, const HeadRows *out, int64_t i)
{
    int ranks = m->part.tp_size;
    double most = -INFINITY, sum = 0, top = -INFINITY;
    for (int r = 0; r < ranks; r++)
        most = fmax(most, (double)said[r].lse[at]);
    for (int r = 0; r < ranks; r++)
        sum += exp((double)said[r].lse[at] - most);
    double all = most + log(sum);
    out->lse[i] = (float)all;
    m->astray |= !isfinite(said[m->part.tp_rank].lse[at]);
    const ChunkSaid *owner = &said[label < 0 ? 0 : rank_of(m, label)];
    out->logprob[i] = label < 0 ? 0 : (float)((double)owner->logprob[at] + (double)owner->lse[at] - all);
    double total = 0, entropy = 0;
    for (int r = 0; r < ranks; r++) {
        double share = (double)said[r].lse[at] - all; /* log of the probability that lies with this rank */
        total += (double)said[r].mean[at] * (double)(m->first_token[r + 1] - m->first_token[r]);
        entropy += exp(share) * ((double)said[r].entropy[at] - share);
    }
    if (out->mean)
        out->mean[i] = (float)(total / (double)m->config.vocab_size);
    if (out->entropy)
        out->entropy[i] = (float)entropy;
    if (out->best)
        out->best[i] = 0;
    for (int r = 0; r < ranks && out->best; r++) {
        double logit = (double)said[r].best_logprob[at] + (double)said[r].lse[at];
        if (logit > top) {
            top = logit;
            out->best[i] = (int32_t)m->first_token[r] + said[r].best[at];
        }
    }
}

void tp_measure(Model *m, Slot *s, Tensor z, int64_t first, const int32_t *labels, const HeadRows *out)
{
    int ranks = m->part.tp_size;
    int64_t pieces = (z.rows + HEAD_CHUNK - 1) / HEAD_CHUNK;
    for (int64_t p = 0, at = 0; p < pieces; p++, at += HEAD_CHUNK) {
        int64_t n = z.rows - at < HEAD_CHUNK ? z.rows - at : HEAD_CHUNK;
        words_gather(m, s, tensor_rows(z, at, n), s->labels + first + at, out, s->said + 1 + p * ranks);
    }
    m->device->copy(m->stream, s->heard, s->said + 1, (size_t)(ranks * pieces) * sizeof *s->heard, COPY_TO_HOST);
    m->device->stream_wait(m->stream, NULL);
    for (int64_t i = 0; i < z.rows; i++)
        words_join(m, s->heard + i / HEAD_CHUNK * ranks, i % HEAD_CHUNK, labels[i], out, i);
}

void tp_label_gradients(const Model *m, const int32_t *labels, int64_t n, const float *dlogprob, const float *dlse, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        bool mine = labels[i] >= 0 && rank_of(m, labels[i]) == m->part.tp_rank;
        out[i] = (dlse ? dlse[i] : 0) - (labels[i] >= 0 && !mine ? dlogprob[i] : 0);
    }
}

void tp_logits(Model *m, Tensor z, float *out)
{
    int ranks = m->part.tp_size;
    int64_t most = 0, v = m->config.vocab_size;
    for (int r = 0; r < ranks; r++)
        most = m->first_token[r + 1] - m->first_token[r] > most ? m->first_token[r + 1] - m->first_token[r] : most;
    size_t room = (size_t)(z.rows * most);
    float *mine = memory_zalloc(room, sizeof *mine), *all = alone(m) ? mine : memory_alloc(room * (size_t)ranks, sizeof *all);
    m->device->copy(m->stream, mine, z.data, (size_t)(z.rows * z.cols) * sizeof *mine, COPY_TO_HOST);
    m->device->stream_wait(m->stream, NULL);
    if (!alone(m) && !m->failed)
        done(m, comm_gather_host(m->part.tp, mine, all, room * sizeof *all, &m->failure));
    for (int r = 0; r < ranks && !m->failed; r++) {
        int64_t width = m->first_token[r + 1] - m->first_token[r];
        for (int64_t i = 0; i < z.rows; i++)
            memcpy(out + i * v + m->first_token[r], all + (size_t)r * room + (size_t)(i * width), (size_t)width * sizeof *out);
    }
    free(mine);
    if (all != mine)
        free(all);
}

/* Ranks that hold a part each of a parameter's gradient, 0: there is nothing to add up. */
static int sharers(const Parameter *p)
{
    return p->trainable && p->replicas > 1 ? p->replicas : 0;
}

int tp_reduce(Model *m, int unit, Error *err)
{
    ParameterTable *t = &m->params.table;
    if (alone(m) || !t->gradients)
        return 0;
    for (int i = t->units[unit].first, next; i <= t->units[unit].last; i = next) {
        size_t begin = 0, end = t->total;
        int ranks = sharers(&t->items[i]);
        if (t->sharding)
            sharding_slice(t, unit, &begin, &end);
        next = param_run(t, i, sharers, &begin, &end);
        if (ranks > 0 && begin < end &&
            comm_sum(ranks == m->part.tp_size ? m->part.tp : &m->replicas, m->stream, DTYPE_F32, param_kept_gradient(t, unit, begin), end - begin, err) < 0)
            return -1;
    }
    return 0;
}
