#include "data/batch.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

void batch_new(Batch *b, int64_t sequences, int64_t sequence_rows)
{
    memset(b, 0, sizeof *b);
    b->sequences = sequences;
    b->sequence_rows = b->key_rows = sequence_rows;
    b->rows = sequences * sequence_rows;
    size_t n = (size_t)b->rows;
    b->tokens = memory_alloc(n, sizeof *b->tokens);
    b->labels = memory_alloc(n, sizeof *b->labels);
    b->weights = memory_alloc(n, sizeof *b->weights);
    b->positions = memory_alloc(n, sizeof *b->positions);
    b->begin = memory_alloc(n, sizeof *b->begin);
    b->end = memory_alloc(n, sizeof *b->end);
    b->document = memory_alloc(n, sizeof *b->document);
    b->documents = memory_alloc(n, sizeof *b->documents);
    b->document_capacity = n;
    batch_clear(b);
}

void batch_clear(Batch *b)
{
    for (int64_t i = 0; i < b->rows; i++) {
        b->tokens[i] = 0;
        b->labels[i] = -1;
        b->weights[i] = 0;
        b->positions[i] = 0;
        b->begin[i] = (int32_t)i;
        b->end[i] = (int32_t)i + 1;
        b->document[i] = -1;
    }
    b->document_count = 0;
    b->sample = 0;
    b->weight = 0;
    b->tokens_used = 0;
}

void batch_free(Batch *b)
{
    free(b->tokens);
    free(b->labels);
    free(b->weights);
    free(b->positions);
    free(b->begin);
    free(b->end);
    free(b->document);
    free(b->documents);
    memset(b, 0, sizeof *b);
}

void batch_place(Batch *b, int64_t first, const int32_t *tokens, const int32_t *labels, const float *weights, int64_t n,
                 int32_t group, int32_t rank, int64_t source)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t row = first + i;
        b->tokens[row] = tokens[i];
        b->labels[row] = labels ? labels[i] : i + 1 < n ? tokens[i + 1] : -1;
        b->weights[row] = b->labels[row] < 0 ? 0 : weights ? weights[i] : 1;
        b->positions[row] = (int32_t)i;
        b->begin[row] = (int32_t)first;
        b->end[row] = (int32_t)row + 1;
        b->document[row] = (int32_t)b->document_count;
        b->weight += b->weights[row];
    }
    b->tokens_used += n;
    b->documents = memory_grow(b->documents, &b->document_capacity, b->document_count + 1, sizeof *b->documents);
    b->documents[b->document_count++] = (BatchDocument){first, n, group, rank, source};
}

/* Row `i` of what a rank has of one sequence of `rows` stands there in it. */
static int64_t dealt_place(int64_t i, int64_t rows, int rank, int ranks)
{
    int64_t chunk = rows / (2 * ranks);
    return i < chunk ? rank * chunk + i : (2 * ranks - 1 - rank) * chunk + i - chunk;
}

void batch_deal(Batch *to, const Batch *from, int rank, int ranks)
{
    int64_t share = from->sequence_rows / ranks;
    to->sequences = from->sequences;
    to->sequence_rows = share;
    to->key_rows = from->key_rows;
    to->rows = from->rows / ranks;
    to->documents = memory_grow(to->documents, &to->document_capacity, from->document_count, sizeof *to->documents);
    memcpy(to->documents, from->documents, from->document_count * sizeof *to->documents);
    to->document_count = from->document_count;
    to->sample = from->sample;
    to->weight = 0;
    to->tokens_used = 0;
    for (int64_t row = 0; row < to->rows; row++) {
        int64_t i = row / share * from->sequence_rows + dealt_place(row % share, from->sequence_rows, rank, ranks);
        to->tokens[row] = from->tokens[i];
        to->labels[row] = from->labels[i];
        to->weights[row] = from->weights[i];
        to->positions[row] = from->positions[i];
        to->begin[row] = from->begin[i];
        to->end[row] = from->end[i];
        to->document[row] = from->document[i];
        to->weight += to->weights[row];
    }
}

void batch_orders(int64_t sequences, int64_t sequence_rows, int ranks, int32_t *dealt, int32_t *whole)
{
    int64_t share = sequence_rows / ranks;
    for (int64_t j = 0; j < sequences * sequence_rows; j++) {
        int64_t rank = j / (sequences * share), row = j % (sequences * share);
        int64_t i = row / share * sequence_rows + dealt_place(row % share, sequence_rows, (int)rank, ranks);
        whole[j] = (int32_t)i;
        dealt[i] = (int32_t)j;
    }
}

typedef struct PackItem {
    int64_t length;
    size_t index;
} PackItem;

static int compare_longer_first(const void *a, const void *b)
{
    const PackItem *x = a, *y = b;
    if (x->length != y->length)
        return x->length > y->length ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* Bins in chains by the room they have left, so that an item finds the tightest bin in O(room / 64) steps by a bit map
 * instead of looking at every bin. */
size_t batch_pack_bfd(const int64_t *lengths, size_t count, int64_t room, size_t *bin, int64_t *offset)
{
    PackItem *items = memory_alloc(count, sizeof *items);
    for (size_t i = 0; i < count; i++)
        items[i] = (PackItem){lengths[i], i};
    qsort(items, count, sizeof *items, compare_longer_first);
    size_t words = (size_t)room / 64 + 1;
    uint64_t *some = memory_zalloc(words, sizeof *some);             /* bit r: a bin with room r left exists */
    size_t *head = memory_alloc((size_t)room + 1, sizeof *head);     /* newest such bin */
    size_t *next = memory_alloc(count, sizeof *next);
    int64_t *left = memory_alloc(count, sizeof *left);
    size_t bins = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t n = items[i].length;
        size_t chosen = (size_t)-1;
        if (n <= room) {
            size_t w = (size_t)n / 64;
            uint64_t bits = some[w] & (~UINT64_C(0) << (n % 64));
            while (bits == 0 && ++w < words)
                bits = some[w];
            if (bits) {
                size_t r = w * 64 + (size_t)__builtin_ctzll(bits);
                chosen = head[r];
                head[r] = next[chosen];
                if (head[r] == (size_t)-1)
                    some[w] &= ~(UINT64_C(1) << (r % 64));
            }
        }
        if (chosen == (size_t)-1) {
            chosen = bins++;
            left[chosen] = n > room ? 0 : room;
        }
        bin[items[i].index] = chosen;
        offset[items[i].index] = n > room ? 0 : room - left[chosen];
        if (n <= room) {
            size_t r = (size_t)(left[chosen] -= n);
            next[chosen] = some[r / 64] >> (r % 64) & 1 ? head[r] : (size_t)-1;
            head[r] = chosen;
            some[r / 64] |= UINT64_C(1) << (r % 64);
        }
    }
    free(items);
    free(some);
    free(head);
    free(next);
    free(left);
    return bins;
}
