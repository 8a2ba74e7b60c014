/* Training byte-level BPE: the merges that Hugging Face's BpeTrainer finds (tokenizers/src/models/bpe/trainer.rs), for any
 * number of threads. Each step takes the pair with the largest count; ties go to the smallest left id, then the smallest
 * right id, ids being the alphabet's in order of code points and then the merges'. Counts are 64-bit, so they do not wrap
 * where the reference's 32 bits do. */
#ifndef TEXT_BPE_TRAIN_H
#define TEXT_BPE_TRAIN_H

#include <stdbool.h>
#include <stdint.h>
#include "base/memory.h"

/* Pieces and how often they came; one a thread while counting. */
typedef struct PieceCounts {
    Arena bytes;
    struct PieceSlot *slots;
    size_t used, mask; /* mask + 1 slots */
} PieceCounts;

void pieces_new(PieceCounts *p);
void pieces_add(PieceCounts *p, Span piece, uint64_t count);
void pieces_merge(PieceCounts *into, const PieceCounts *from);
void pieces_free(PieceCounts *p);

typedef struct BpeMerge {
    int32_t left, right; /* internal ids: alphabet first, then merges in order */
} BpeMerge;

typedef struct BpeResult {
    unsigned char alphabet[256]; /* bytes, in the order of their byte-level characters */
    int alphabet_size;
    BpeMerge *merges;
    size_t merge_count;
} BpeResult;

/* Stops when alphabet and merges are `size` tokens, or no pair is seen min_frequency (at least 1) times. whole_alphabet: all
 * 256 bytes, else those seen. */
void bpe_train(const PieceCounts *p, int64_t size, uint64_t min_frequency, bool whole_alphabet, BpeResult *out);
void bpe_result_free(BpeResult *r);
/* Bytes of token `id` appended to out. */
void bpe_token_bytes(const BpeResult *r, int32_t id, Buffer *out);

#endif
