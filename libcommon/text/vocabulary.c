#include "text/vocabulary.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

void vocabulary_add(Vocabulary *v, int32_t id, const char *bytes, size_t length)
{
    if (id >= v->size) {
        size_t old = v->token_capacity;
        v->tokens = memory_grow(v->tokens, &v->token_capacity, (size_t)id + 1, sizeof *v->tokens);
        memset(v->tokens + old, 0, (v->token_capacity - old) * sizeof *v->tokens);
        v->size = id + 1;
    }
    v->tokens[id] = (TokenBytes){(uint32_t)v->bytes.length, (uint32_t)length};
    buffer_append(&v->bytes, bytes, length);
}

static size_t bytes_hash(const char *bytes, size_t length)
{
    return (size_t)XXH3_64bits(bytes, length);
}

void vocabulary_index(Vocabulary *v)
{
    size_t n = 64;
    while (n < (size_t)v->size * 2)
        n *= 2;
    free(v->slots);
    v->slots = memory_zalloc(n, sizeof *v->slots);
    v->slot_mask = n - 1;
    for (int64_t id = 0; id < v->size; id++) {
        TokenBytes t = v->tokens[id];
        if (t.length == 0 || vocabulary_find(v, v->bytes.data + t.offset, t.length) >= 0)
            continue;
        size_t h = bytes_hash(v->bytes.data + t.offset, t.length);
        while (v->slots[h & v->slot_mask])
            h++;
        v->slots[h & v->slot_mask] = (int32_t)id + 1;
    }
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        v->byte_id[b] = vocabulary_find(v, &byte, 1);
    }
}

int32_t vocabulary_find(const Vocabulary *v, const char *bytes, size_t length)
{
    for (size_t h = bytes_hash(bytes, length);; h++) {
        int32_t slot = v->slots[h & v->slot_mask];
        if (!slot)
            return -1;
        TokenBytes t = v->tokens[slot - 1];
        if (t.length == length && memcmp(v->bytes.data + t.offset, bytes, length) == 0)
            return slot - 1;
    }
}

void vocabulary_merges(Vocabulary *v, size_t count)
{
    size_t n = 64;
    while (n < count * 2)
        n *= 2;
    v->merges = memory_alloc(n, sizeof *v->merges);
    memset(v->merges, 0xff, n * sizeof *v->merges);
    v->merge_mask = n - 1;
}

void vocabulary_merge_add(Vocabulary *v, int32_t left, int32_t right, int32_t rank, int32_t id)
{
    uint64_t pair = pair_of(left, right);
    size_t h = pair_hash(pair);
    while (v->merges[h & v->merge_mask].pair != UINT64_MAX && v->merges[h & v->merge_mask].pair != pair)
        h++;
    if (v->merges[h & v->merge_mask].pair == UINT64_MAX)
        v->merges[h & v->merge_mask] = (Merge){pair, rank, id};
}

void vocabulary_free(Vocabulary *v)
{
    buffer_free(&v->bytes);
    free(v->tokens);
    free(v->slots);
    free(v->merges);
    memset(v, 0, sizeof *v);
}
