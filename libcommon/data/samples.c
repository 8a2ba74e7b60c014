#include "data/samples.h"

#include <stdlib.h>
#include "base/memory.h"
#include "base/random.h"

int64_t samples_count(const Shard *s, int64_t sequence_length)
{
    return s->tokens > 0 ? (s->tokens - 1) / sequence_length : 0;
}

int64_t samples_order(int64_t n, int64_t count, uint64_t seed)
{
    int64_t epoch = n / count;
    if (epoch == 0)
        return n;
    return (int64_t)random_permute(seed, RANDOM_SHUFFLE + ((uint64_t)epoch << 8), (uint64_t)(n % count), (uint64_t)count);
}

void samples_place(const Shard *s, int64_t g, Batch *b, int64_t slot)
{
    int64_t length = b->sequence_rows, at = g * length, end = at + length, row = slot * length;
    int32_t *tokens = memory_alloc((size_t)length + 1, sizeof *tokens), *labels = memory_alloc((size_t)length, sizeof *labels);
    for (int64_t d = shard_document_at(s, at); at < end; d++) {
        int64_t first = at - s->start[d], n = s->length[d] - first;
        if (n <= 0)
            continue;
        if (n > end - at)
            n = end - at;
        bool more = first + n < s->length[d]; /* the document goes on: its next token is a label */
        shard_copy(s, d, first, n + more, tokens);
        for (int64_t i = 0; i < n; i++)
            labels[i] = i + 1 < n + more ? tokens[i + 1] : -1;
        batch_place(b, row, tokens, labels, NULL, n, -1, 0, d);
        row += n;
        at += n;
    }
    free(tokens);
    free(labels);
}
