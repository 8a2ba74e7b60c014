/* A source's documents: which are held out, and the shuffled stream of the others. */
#include "mix.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "base/random.h"

int mix_open(Mix *m, uint64_t seed, int64_t unit_size, Error *err)
{
    for (size_t i = 0; i < m->count; i++) {
        Source *s = &m->sources[i];
        if (shard_open(&s->shard, s->prefix, err) < 0)
            return -1;
        s->train_tokens = s->shard.tokens;
        s->seed = seed;
        /* By name, so that the order of the operands changes no source's own order. */
        s->stream = RANDOM_SHUFFLE + (XXH3_64bits(s->name, strlen(s->name)) << 8);
        s->unit_size = unit_size;
        s->units = unit_size ? s->shard.tokens / unit_size + (s->shard.tokens % unit_size != 0) : s->shard.documents;
    }
    return 0;
}

static bool is_held(const Source *s, int64_t d)
{
    return s->held && (s->held[d >> 3] >> (d & 7) & 1);
}

void source_next(Source *s, int64_t limit, int64_t *document, int64_t *begin, int64_t *n)
{
    const int64_t *start = s->shard.start;
    for (;;) {
        while (s->at == s->end) {
            if (s->index == s->units) {
                s->index = 0;
                s->epoch++;
            }
            int64_t unit = (int64_t)random_permute(s->seed, s->stream + ((uint64_t)s->epoch << 40), (uint64_t)s->index++, (uint64_t)s->units);
            s->at = s->unit_size ? unit * s->unit_size : start[unit];
            s->end = !s->unit_size ? start[unit + 1] : s->shard.tokens - s->at < s->unit_size ? s->shard.tokens : s->at + s->unit_size;
        }
        int64_t d = shard_document_at(&s->shard, s->at), end = start[d + 1] < s->end ? start[d + 1] : s->end;
        if (!is_held(s, d)) {
            *document = d;
            *begin = s->at - start[d];
            *n = end - s->at < limit ? end - s->at : limit;
            s->at += *n;
            return;
        }
        s->at = end;
    }
}

/* ---- Held out ---- */

typedef struct Chosen {
    uint64_t hash;
    int64_t document;
} Chosen;

static bool chosen_less(const Chosen *a, const Chosen *b)
{
    return a->hash != b->hash ? a->hash < b->hash : a->document < b->document;
}

static int chosen_compare(const void *a, const void *b)
{
    return chosen_less(b, a) - chosen_less(a, b);
}

static int hash_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void heap_down(Chosen *heap, size_t count)
{
    for (size_t i = 0, child; (child = 2 * i + 1) < count; i = child) {
        child += child + 1 < count && chosen_less(&heap[child], &heap[child + 1]);
        if (!chosen_less(&heap[i], &heap[child]))
            break;
        Chosen t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
    }
}

static void heap_up(Chosen *heap, size_t i)
{
    for (size_t parent; i > 0 && chosen_less(&heap[parent = (i - 1) / 2], &heap[i]); i = parent) {
        Chosen t = heap[i];
        heap[i] = heap[parent];
        heap[parent] = t;
    }
}

/* The documents of smallest hash that have `tokens` tokens together: a heap with the largest hash on top, from which goes
 * what is not needed any more. */
static int source_choose(Source *s, const uint64_t *hash, int64_t tokens, Error *err)
{
    const int32_t *length = s->shard.length;
    Chosen *heap = NULL;
    size_t count = 0, capacity = 0;
    int64_t sum = 0;
    for (int64_t d = 0; d < s->shard.documents; d++) {
        Chosen one = {hash[d], d};
        if (length[d] == 0 || (sum >= tokens && !chosen_less(&one, &heap[0])))
            continue;
        heap = memory_grow(heap, &capacity, count + 1, sizeof *heap);
        heap[count] = one;
        heap_up(heap, count++);
        sum += length[d];
        while (sum - length[heap[0].document] >= tokens) {
            sum -= length[heap[0].document];
            heap[0] = heap[--count];
            heap_down(heap, count);
        }
    }
    if (sum < tokens) {
        free(heap);
        return error_set(err, "%s: --holdout wants %" PRId64 " tokens, %s has %" PRId64, s->name, tokens, s->prefix, sum);
    }
    qsort(heap, count, sizeof *heap, chosen_compare);
    s->held_out = memory_alloc(count, sizeof *s->held_out);
    s->held_out_count = count;
    for (size_t i = 0; i < count; i++)
        s->held_out[i] = heap[i].document;
    free(heap);
    return 0;
}

/* Of the ids, whatever width the shard keeps them in: of 16 bits each where they fit. */
static uint64_t document_hash(const Shard *s, int64_t document, uint64_t seed, Buffer *narrow)
{
    const unsigned char *ids = s->data + s->pointer[document];
    size_t n = (size_t)s->length[document];
    if (s->item_size == 2)
        return XXH3_64bits_withSeed(ids, 2 * n, seed);
    narrow->length = 0;
    buffer_reserve(narrow, 2 * n);
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        memcpy(&id, ids + 4 * i, 4);
        if (id < 0 || id > UINT16_MAX)
            return XXH3_64bits_withSeed(ids, 4 * n, seed);
        uint16_t x = (uint16_t)id;
        memcpy(narrow->data + 2 * i, &x, 2);
    }
    return XXH3_64bits_withSeed(narrow->data, 2 * n, seed);
}

int mix_hold_out(Mix *m, int64_t tokens, uint64_t seed, Error *err)
{
    if (tokens == 0)
        return 0;
    int status = 0;
    size_t all = 0, capacity = 0;
    uint64_t *out = NULL, **hash = memory_zalloc(m->count, sizeof *hash);
    Buffer narrow = {0};
    for (size_t i = 0; i < m->count && status == 0; i++) {
        Source *s = &m->sources[i];
        hash[i] = memory_alloc((size_t)s->shard.documents + 1, sizeof **hash);
        for (int64_t d = 0; d < s->shard.documents; d++)
            hash[i][d] = document_hash(&s->shard, d, seed, &narrow);
        status = source_choose(s, hash[i], tokens, err);
        out = memory_grow(out, &capacity, all + s->held_out_count, sizeof *out);
        for (size_t k = 0; k < s->held_out_count; k++)
            out[all++] = hash[i][s->held_out[k]];
    }
    if (status == 0)
        qsort(out, all, sizeof *out, hash_compare);
    for (size_t i = 0; i < m->count && status == 0; i++) {
        Source *s = &m->sources[i];
        s->held = memory_zalloc((size_t)s->shard.documents / 8 + 1, 1);
        for (int64_t d = 0; d < s->shard.documents; d++)
            if (s->shard.length[d] > 0 && bsearch(&hash[i][d], out, all, sizeof *out, hash_compare)) {
                s->held[d >> 3] |= (unsigned char)(1 << (d & 7));
                s->held_documents++;
                s->held_tokens += s->shard.length[d];
            }
        s->train_tokens -= s->held_tokens;
    }
    for (size_t i = 0; i < m->count; i++)
        free(hash[i]);
    free(hash);
    free(out);
    buffer_free(&narrow);
    return status;
}
