#include "model/cache.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/head.h"

int cache_open(KvCache *c, Model *m, int64_t tokens, int64_t max_length, int64_t max_batch, Error *err)
{
    memset(c, 0, sizeof *c);
    c->model = m;
    c->pages = cache_pages(tokens);
    c->free_count = c->pages;
    c->free_pages = memory_alloc((size_t)c->pages, sizeof *c->free_pages);
    c->references = memory_zalloc((size_t)c->pages, sizeof *c->references);
    for (int64_t i = 0; i < c->pages; i++)
        c->free_pages[i] = (int32_t)(c->pages - 1 - i);
    size_t layers = (size_t)m->config.num_hidden_layers, width = (size_t)m->shape.kv;
    size_t bytes = (size_t)c->pages * PAGE_TOKENS * width * dtype_size(m->dtype);
    c->keys = memory_zalloc(layers, sizeof *c->keys);
    c->values = memory_zalloc(layers, sizeof *c->values);
    c->table_stride = cache_pages(max_length) + 1;
    c->least_rows = 1;
    c->table_rows = max_batch;
    size_t cells = (size_t)(c->table_stride * max_batch);
    c->table = memory_alloc(cells, sizeof *c->table);
    c->length = memory_alloc((size_t)max_batch, sizeof *c->length);
    c->device_table = m->device->alloc(m->device, cells * sizeof(int32_t));
    c->device_length = m->device->alloc(m->device, (size_t)max_batch * sizeof(int32_t));
    bool fine = c->device_table && c->device_length;
    for (size_t i = 0; i < layers && fine; i++) {
        c->keys[i] = m->device->alloc(m->device, bytes);
        c->values[i] = m->device->alloc(m->device, bytes);
        fine = c->keys[i] && c->values[i];
    }
    if (fine)
        return 0;
    cache_close(c);
    return error_set(err, "no memory for a KV cache of %" PRId64 " tokens", tokens);
}

void cache_close(KvCache *c)
{
    if (!c->model)
        return;
    Device *d = c->model->device;
    for (int64_t i = 0; i < c->model->config.num_hidden_layers; i++) {
        d->release(d, c->keys[i]);
        d->release(d, c->values[i]);
    }
    d->release(d, c->device_table);
    d->release(d, c->device_slots);
    d->release(d, c->device_length);
    free(c->keys);
    free(c->values);
    free(c->table);
    free(c->slots);
    free(c->length);
    free(c->free_pages);
    free(c->references);
    memset(c, 0, sizeof *c);
}

int64_t cache_pages(int64_t tokens)
{
    return (tokens + PAGE_TOKENS - 1) / PAGE_TOKENS;
}

/* `count` pages more are held. */
static void count_held(KvCache *c, int64_t count)
{
    c->held += count;
    int64_t used = c->pages - c->free_count;
    c->most_held = c->held > c->most_held ? c->held : c->most_held;
    c->most_used = used > c->most_used ? used : c->most_used;
}

static int page_take(KvCache *c, Sequence *s, Error *err)
{
    if (c->free_count == 0)
        return error_set(err, "the KV cache is full (%" PRId64 " tokens)", c->pages * PAGE_TOKENS);
    if (s->page_count + 1 >= c->table_stride)
        return error_set(err, "a sequence is longer than the KV cache was opened for");
    size_t capacity = (size_t)s->page_capacity;
    s->pages = memory_grow(s->pages, &capacity, (size_t)s->page_count + 1, sizeof *s->pages);
    s->page_capacity = (int64_t)capacity;
    int32_t page = c->free_pages[--c->free_count];
    c->references[page] = 1;
    s->pages[s->page_count++] = page;
    count_held(c, 1);
    return 0;
}

int sequence_fork(KvCache *c, Sequence *to, const Sequence *from, Error *err)
{
    *to = (Sequence){0};
    int64_t full = from->length / PAGE_TOKENS;
    size_t capacity = 0;
    to->pages = memory_grow(NULL, &capacity, (size_t)full + 1, sizeof *to->pages);
    to->page_capacity = (int64_t)capacity;
    for (int64_t i = 0; i < full; i++) {
        to->pages[i] = from->pages[i];
        c->references[from->pages[i]]++;
    }
    to->page_count = full;
    to->length = from->length;
    c->shared += full;
    count_held(c, full);
    if (from->length % PAGE_TOKENS == 0)
        return 0;
    if (page_take(c, to, err) < 0)
        return -1;
    Model *m = c->model;
    size_t page = (size_t)PAGE_TOKENS * (size_t)m->shape.kv * dtype_size(m->dtype);
    size_t at = (size_t)to->pages[full] * page, old = (size_t)from->pages[full] * page;
    for (int64_t i = 0; i < m->config.num_hidden_layers; i++) {
        m->device->copy(m->stream, c->keys[i] + at, c->keys[i] + old, page, COPY_ON_DEVICE);
        m->device->copy(m->stream, c->values[i] + at, c->values[i] + old, page, COPY_ON_DEVICE);
    }
    return 0;
}

void sequence_free(KvCache *c, Sequence *s)
{
    for (int64_t i = 0; i < s->page_count; i++)
        if (--c->references[s->pages[i]] == 0)
            c->free_pages[c->free_count++] = s->pages[i];
    c->held -= s->page_count;
    free(s->pages);
    *s = (Sequence){0};
}

void sequence_cut(KvCache *c, Sequence *s, int64_t length)
{
    for (; s->page_count > cache_pages(length); s->page_count--, c->held--)
        if (--c->references[s->pages[s->page_count - 1]] == 0)
            c->free_pages[c->free_count++] = s->pages[s->page_count - 1];
    s->length = length;
}

void cache_store(KvCache *c, int64_t layer, Tensor k, Tensor v)
{
    Model *m = c->model;
    m->device->ops->scatter(m->stream, tensor_make(m->device, k.dtype, c->keys[layer], c->pages * PAGE_TOKENS, k.cols), k, c->device_slots);
    m->device->ops->scatter(m->stream, tensor_make(m->device, v.dtype, c->values[layer], c->pages * PAGE_TOKENS, v.cols), v, c->device_slots);
}

/* Room for the slots of so many rows, all nowhere. */
static int slots_begin(KvCache *c, int64_t rows, Error *err)
{
    Device *d = c->model->device;
    if (rows > c->slot_rows) {
        d->release(d, c->device_slots);
        c->slots = memory_realloc(c->slots, (size_t)rows, sizeof *c->slots);
        c->device_slots = d->alloc(d, (size_t)rows * sizeof *c->slots);
        c->slot_rows = c->device_slots ? rows : 0;
        if (!c->device_slots)
            return error_set(err, "no memory for a pass of %" PRId64 " rows", rows);
    }
    for (int64_t i = 0; i < rows; i++)
        c->slots[i] = -1;
    return 0;
}

static int32_t slot_of(const Sequence *q, int64_t position)
{
    return q->pages[position / PAGE_TOKENS] * PAGE_TOKENS + (int32_t)(position % PAGE_TOKENS);
}

static void slots_send(KvCache *c, int64_t rows)
{
    c->model->device->copy(c->model->stream, c->device_slots, c->slots, (size_t)rows * sizeof *c->slots, COPY_TO_DEVICE);
}

void cache_attend(KvCache *c, const Slot *s, int64_t layer, Tensor out, Tensor q)
{
    Model *m = c->model;
    const ModelConfig *f = &m->config;
    PagedKeys pages = {.keys = c->keys[layer], .values = c->values[layer], .dtype = m->dtype, .page_tokens = PAGE_TOKENS,
                       .table = c->device_table, .length = c->device_length, .table_stride = c->table_stride};
    int64_t window = config_window(f, layer);
    (void)s;
    m->device->ops->attention_decode(m->stream, out, q, &pages, (int)m->shape.heads, (int)m->shape.kv_heads, (int)f->head_dim,
                                     1.0f / sqrtf((float)f->head_dim), window);
}

/* lengths: how many tokens row b sees, NULL: all that its sequence has. */
static int table_fill(KvCache *c, Sequence *const *sequences, const int32_t *lengths, int64_t count, Error *err)
{
    if (count > c->table_rows)
        return error_set(err, "a batch of %" PRId64 " sequences, the KV cache was opened for %" PRId64, count, c->table_rows);
    for (int64_t b = 0; b < count; b++) {
        memcpy(c->table + b * c->table_stride, sequences[b]->pages, (size_t)sequences[b]->page_count * sizeof *c->table);
        c->length[b] = lengths ? lengths[b] : (int32_t)sequences[b]->length;
    }
    Model *m = c->model;
    m->device->copy(m->stream, c->device_table, c->table, (size_t)(count * c->table_stride) * sizeof *c->table, COPY_TO_DEVICE);
    m->device->copy(m->stream, c->device_length, c->length, (size_t)count * sizeof *c->length, COPY_TO_DEVICE);
    return m->device->stream_wait(m->stream, err);
}

static void forward_with(KvCache *c, Slot *s, bool decoding)
{
    s->cache = c;
    s->decoding = decoding;
    model_forward(c->model, s);
    s->cache = NULL;
    s->decoding = false;
}

/* Prompts lie packed in one stretch, each a document of its own. */
static int prefill_packed(KvCache *c, Slot *s, const int32_t *const *prompts, const int64_t *lengths, int64_t count, Sequence *sequences,
                          int64_t rows, float *logits, Error *err)
{
    Sequence **pointers = memory_alloc((size_t)count, sizeof *pointers);
    int64_t *last = memory_alloc((size_t)count, sizeof *last), at = 0;
    Batch b;
    batch_new(&b, 1, rows > c->least_rows ? rows : c->least_rows);
    int status = slots_begin(c, b.rows, err);
    for (int64_t i = 0; i < count && status == 0; i++) {
        batch_place(&b, at, prompts[i], NULL, NULL, lengths[i], -1, 0, i);
        last[i] = at + lengths[i] - 1;
        pointers[i] = &sequences[i];
        while (status == 0 && sequences[i].page_count * PAGE_TOKENS < lengths[i])
            status = page_take(c, &sequences[i], err);
        for (int64_t k = 0; k < lengths[i] && status == 0; k++)
            c->slots[at + k] = slot_of(&sequences[i], k);
        sequences[i].length = lengths[i];
        at += lengths[i];
    }
    if (status == 0) {
        slots_send(c, b.rows);
        status = table_fill(c, pointers, NULL, count, err);
    }
    if (status == 0)
        status = slot_load(s, &b, err);
    if (status == 0) {
        forward_with(c, s, false);
        if (logits)
            head_logits(c->model, s, last, count, logits);
    }
    batch_free(&b);
    free(pointers);
    free(last);
    return status;
}

int cache_prefill(KvCache *c, Slot *s, const int32_t *const *prompts, const int64_t *lengths, int64_t count, Sequence *sequences,
                  float *logits, Error *err)
{
    /* Under a sliding window the attention's blocks of keys lie as a tile's first row sees them, so others would change a prompt's bits. */
    bool alone = c->model->config.sliding_window > 0;
    for (int64_t first = 0, n; first < count; first += n) {
        int64_t rows = 0;
        for (n = 0; first + n < count && n < c->table_rows && (n == 0 || (!alone && rows + lengths[first + n] <= s->rows)); n++)
            rows += lengths[first + n];
        if (rows > s->rows)
            return error_set(err, "a prompt of %" PRId64 " tokens does not fit %" PRId64, rows, s->rows);
        if (prefill_packed(c, s, prompts + first, lengths + first, n, sequences + first, rows, logits ? logits + first * c->model->config.vocab_size : NULL, err) < 0)
            return -1;
    }
    return 0;
}

int cache_decode(KvCache *c, Slot *s, const int32_t *tokens, Sequence *const *sequences, int64_t count, float *logits, Error *err)
{
    int64_t rows = count > c->least_rows ? count : c->least_rows;
    Sequence **filled = memory_alloc((size_t)rows, sizeof *filled);
    Batch b;
    batch_new(&b, 1, rows);
    int status = slots_begin(c, rows, err);
    for (int64_t i = 0; i < rows && status == 0; i++) {
        int64_t from = i < count ? i : 0; /* the first sequence once more, for nothing */
        filled[i] = sequences[from];
        if (i < count && sequences[i]->length == sequences[i]->page_count * PAGE_TOKENS)
            status = page_take(c, sequences[i], err);
        b.tokens[i] = tokens[from];
        if (i < count && status == 0)
            c->slots[i] = slot_of(sequences[i], sequences[i]->length);
        b.positions[i] = i < count ? (int32_t)sequences[i]->length++ : b.positions[0];
    }
    if (status == 0) {
        slots_send(c, rows);
        status = table_fill(c, filled, NULL, rows, err);
    }
    free(filled);
    if (status == 0)
        status = slot_load(s, &b, err);
    if (status == 0) {
        forward_with(c, s, true);
        head_logits_all(c->model, s, logits);
    }
    batch_free(&b);
    return status;
}

/* A row attends to the pages as a decoded token does, up to itself: the keys of all rows are stored before any of them looks. */
int cache_extend(KvCache *c, Slot *s, const int32_t *const *tokens, const int64_t *counts, Sequence *sequences, int64_t count, const int32_t *labels,
                 Error *err)
{
    int64_t rows = 0, at = 0;
    for (int64_t i = 0; i < count; i++)
        rows += counts[i];
    Sequence **owner = memory_alloc((size_t)rows, sizeof *owner);
    int32_t *lengths = memory_alloc((size_t)rows, sizeof *lengths);
    Batch b;
    batch_new(&b, 1, rows);
    int status = slots_begin(c, rows, err);
    for (int64_t i = 0; i < count && status == 0; i++) {
        Sequence *q = &sequences[i];
        while (status == 0 && q->page_count * PAGE_TOKENS < q->length + counts[i])
            status = page_take(c, q, err);
        for (int64_t t = 0; t < counts[i] && status == 0; t++, at++) {
            owner[at] = q;
            b.tokens[at] = tokens[i][t];
            b.labels[at] = labels[at];
            c->slots[at] = slot_of(q, q->length);
            b.positions[at] = (int32_t)q->length;
            lengths[at] = (int32_t)++q->length;
        }
    }
    if (status == 0) {
        slots_send(c, rows);
        status = table_fill(c, owner, lengths, rows, err);
    }
    if (status == 0)
        status = slot_load(s, &b, err);
    if (status == 0)
        forward_with(c, s, true);
    batch_free(&b);
    free(owner);
    free(lengths);
    return status;
}
