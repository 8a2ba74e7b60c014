/* shard PREFIX VOCABULARY LENGTH DOCUMENTS: a token shard of random ids, documents of LENGTH tokens, for measurements. */
#include <stdio.h>
#include <stdlib.h>
#include "base/memory.h"
#include "base/random.h"
#include "data/shard.h"

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    Error err;
    int64_t vocabulary = atoll(argv[2]), length = atoll(argv[3]), documents = atoll(argv[4]);
    ShardWriter *w = shard_writer_open(argv[1], vocabulary, &err);
    int32_t *tokens = memory_alloc((size_t)length, sizeof *tokens);
    int status = w ? 0 : -1;
    for (int64_t d = 0; d < documents && status == 0; d++) {
        for (int64_t i = 0; i < length; i++)
            tokens[i] = (int32_t)(random_uniform(1, 1, (uint64_t)(d * length + i)) * (double)vocabulary);
        status = shard_writer_add(w, tokens, length, &err);
    }
    if (status == 0)
        status = shard_writer_close(w, &err);
    free(tokens);
    if (status < 0)
        fprintf(stderr, "shard: %s\n", err.text);
    return status < 0;
}
