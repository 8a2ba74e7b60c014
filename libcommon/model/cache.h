/* The KV cache: pages of PAGE_TOKENS tokens, counted by reference, so that the K samples of a prompt share its full pages;
 * the page that is not full is copied when a sequence is forked. */
#ifndef MODEL_CACHE_H
#define MODEL_CACHE_H

#include "model/model.h"

enum { PAGE_TOKENS = 64 };

typedef struct KvCache {
    Model *model;
    int64_t pages, free_count;
    int32_t *free_pages, *references;
    /* Counts: pages in use at most; pages that sequences held at most, a shared one once for each; how often a fork shared one. */
    int64_t held, most_used, most_held, shared;
    char **keys, **values; /* a layer each: [pages · PAGE_TOKENS, kv width] of the model's dtype, device */
    /* Scratch of a step, host and device. */
    int32_t *table, *length, *device_table, *device_length;
    int32_t *slots, *device_slots; /* of each row of the pass: where in the pages its keys and values go, −1: nowhere */
    int64_t table_stride, table_rows, slot_rows;
    int64_t least_rows; /* A pass is filled up to so many (1): where a product of fewer rows sums in another order, the owner sets it */
} KvCache;

typedef struct Sequence {
    int32_t *pages;
    int64_t page_count, page_capacity, length; /* tokens held */
} Sequence;

/* Room for `tokens` tokens in all, in sequences of at most max_length, of which at most max_batch are decoded at once. */
int cache_open(KvCache *c, Model *m, int64_t tokens, int64_t max_length, int64_t max_batch, Error *err);
void cache_close(KvCache *c);
/* Pages that so many tokens take. */
int64_t cache_pages(int64_t tokens);

/* A copy of `from` (which may be empty) that shares its full pages. */
int sequence_fork(KvCache *c, Sequence *to, const Sequence *from, Error *err);
void sequence_free(KvCache *c, Sequence *s);
/* Forgets what is behind the first `length` tokens, as many as it holds at most. It shares no page with another. */
void sequence_cut(KvCache *c, Sequence *s, int64_t length);

/* Runs prompts through the model and keeps their keys and values in empty sequences; logits[i] gets the logits behind the
 * last token of prompt i ([count, vocabulary], host; NULL: not wanted). The slot is MODE_SCORE with room for the longest prompt. */
int cache_prefill(KvCache *c, Slot *s, const int32_t *const *prompts, const int64_t *lengths, int64_t count, Sequence *sequences,
                  float *logits, Error *err);
/* One token more for each of `count` sequences. The slot and the logits have room for count or least_rows rows. */
int cache_decode(KvCache *c, Slot *s, const int32_t *tokens, Sequence *const *sequences, int64_t count, float *logits, Error *err);
/* counts[i] tokens more for sequence i, all in one pass: row after row, sequence after sequence they stand in the slot, which has room
 * for all of them, as the cache has table rows. labels: of each row, for a head (head.h). */
int cache_extend(KvCache *c, Slot *s, const int32_t *const *tokens, const int64_t *counts, Sequence *sequences, int64_t count, const int32_t *labels,
                 Error *err);

/* Called by the layers. */
void cache_store(KvCache *c, int64_t layer, Tensor k, Tensor v);
void cache_attend(KvCache *c, const Slot *s, int64_t layer, Tensor out, Tensor q);

#endif
