#include "data/samples.h"

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
    for (int64_t d = shard_document_at(s, at); at < end; d++) {
        int64_t first = at - s->start[d], n = s->length[d] - first;
        if (n <= 0)
            continue;
        if (n > end - at)
            n = end - at;
        bool more = first + n < s->length[d]; /* the document goes on: its next token is a label */
        int32_t *tokens = b->tokens + row, *labels = b->labels + row; /* read where they will stand */
        shard_copy(s, d, first, n, tokens);
        shard_copy(s, d, first + 1, n - 1 + more, labels);
        if (!more)
            labels[n - 1] = -1;
        batch_place(b, row, tokens, labels, NULL, n, -1, 0, d);
        row += n;
        at += n;
    }
}
