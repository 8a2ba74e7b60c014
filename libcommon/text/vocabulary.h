/* What BPE needs: tokens by bytes, merges by pair. Built by tokenizer files' readers, used by the encoder. */
#ifndef TEXT_VOCABULARY_H
#define TEXT_VOCABULARY_H

#include <stdbool.h>
#include <stdint.h>
#include "base/memory.h"

typedef struct TokenBytes {
    uint32_t offset, length; /* in Vocabulary.bytes */
} TokenBytes;

typedef struct Merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty */
    int32_t rank, id;
} Merge;

typedef struct Vocabulary {
    Buffer bytes;
    TokenBytes *tokens;   /* [size], length 0: no such id */
    int64_t size;
    size_t token_capacity;
    int32_t *slots;       /* hash of bytes -> id + 1, open addressing */
    size_t slot_mask;
    Merge *merges;        /* hash of pairs, open addressing */
    size_t merge_mask;
    int32_t byte_id[256]; /* -1: the vocabulary lacks the byte */
} Vocabulary;

void vocabulary_add(Vocabulary *v, int32_t id, const char *bytes, size_t length);
/* After the last vocabulary_add. */
void vocabulary_index(Vocabulary *v);
int32_t vocabulary_find(const Vocabulary *v, const char *bytes, size_t length); /* -1: none */
void vocabulary_merges(Vocabulary *v, size_t count);                            /* room for so many */
void vocabulary_merge_add(Vocabulary *v, int32_t left, int32_t right, int32_t rank, int32_t id);
void vocabulary_free(Vocabulary *v);

static inline uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static inline size_t pair_hash(uint64_t pair)
{
    pair *= UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(pair ^ pair >> 32);
}

static inline const Merge *vocabulary_merge(const Vocabulary *v, int32_t left, int32_t right)
{
    uint64_t pair = pair_of(left, right);
    for (size_t h = pair_hash(pair);; h++) {
        const Merge *m = &v->merges[h & v->merge_mask];
        if (m->pair == pair)
            return m;
        if (m->pair == UINT64_MAX)
            return NULL;
    }
}

#endif
