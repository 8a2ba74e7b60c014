/* Token shards: Megatron's indexed dataset (megatron/core/datasets/indexed_dataset.py), PREFIX.bin + PREFIX.idx, uint16 for
 * vocabularies under 65,500, else int32, one entry a document. Whatever the files claim is checked against their sizes
 * before it is used. */
#ifndef DATA_SHARD_H
#define DATA_SHARD_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct Shard {
    char *prefix;
    int item_size;            /* 2: uint16, 4: int32 */
    int64_t documents, tokens; /* entries, and their lengths' sum */
    const int32_t *length;    /* tokens of each document */
    const int64_t *pointer;   /* byte offset in .bin */
    int64_t *start;           /* [documents + 1] tokens before each document */
    uint64_t number;           /* XXH3 of all tokens and where documents end, once shard_check_ids has read them */
    const unsigned char *data;
    struct ShardMapping *mapping;
} Shard;

int shard_open(Shard *s, const char *prefix, Error *err);
void shard_close(Shard *s);
/* Copies tokens begin … begin+n of a document. */
void shard_copy(const Shard *s, int64_t document, int64_t begin, int64_t n, int32_t *out);
/* The document that holds token `at` of the concatenation of all documents. */
int64_t shard_document_at(const Shard *s, int64_t at);
/* Error if any id is not below `vocabulary`; reads everything once, and so has the content's number too. */
int shard_check_ids(Shard *s, int64_t vocabulary, Error *err);

typedef struct ShardWriter ShardWriter;

/* Both files appear whole or not at all, the index last. */
ShardWriter *shard_writer_open(const char *prefix, int64_t vocabulary, Error *err);
int shard_writer_add(ShardWriter *w, const int32_t *tokens, int64_t n, Error *err);
int64_t shard_writer_tokens(const ShardWriter *w);
int64_t shard_writer_documents(const ShardWriter *w);
int shard_writer_close(ShardWriter *w, Error *err);
void shard_writer_abandon(ShardWriter *w);

#endif
