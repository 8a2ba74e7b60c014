/* The parts of mixshard: sources (a shard with a weight, its held-out documents and a place in its shuffled stream) and
 * phases (how many tokens of which source, in order). */
#ifndef MIXSHARD_MIX_H
#define MIXSHARD_MIX_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/option.h"
#include "data/shard.h"

typedef struct Source {
    char *name;
    const char *prefix;
    double weight, max_epochs;
    Shard shard;
    unsigned char *held;       /* a bit a document: never trained on; NULL where nothing is held out */
    int64_t *held_out;         /* documents of the held-out file, in order of their hash */
    size_t held_out_count;
    int64_t train_tokens;      /* tokens of documents that are not held */
    int64_t held_tokens, held_documents;
    int64_t wanted;            /* tokens over all phases */
    int64_t entries, used;     /* written so far */
    /* The stream: units (documents, or runs of seq_len tokens) in the order of a permutation for each epoch. */
    uint64_t seed, stream;
    int64_t unit_size, units;  /* unit_size 0: documents */
    int64_t epoch, index;      /* of the next unit */
    int64_t at, end;           /* what is left of the present one, in tokens of the shard */
} Source;

typedef struct Phase {
    double share;
    double *weight;   /* [sources], sums to 1 */
    int64_t *tokens;  /* [sources] */
    int64_t total;
} Phase;

typedef struct Mix {
    Source *sources;
    size_t count;
    Phase *phases;
    size_t phase_count;
    int64_t tokens;
} Mix;

/* NAME=WEIGHT:PREFIX operands; epochs are numbers or NAME=NUMBER. Only syntax: nothing is opened. */
int mix_parse(Mix *m, const OptionSet *set, const OptionList *phases, const OptionList *epochs, Error *err);
/* Opens the shards. */
int mix_open(Mix *m, uint64_t seed, int64_t unit_size, Error *err);
/* Chooses `tokens` of each source by a seeded hash of the documents. A document that is held out of one source is not
 * trained on in any. Memory: 8 bytes a document meanwhile. */
int mix_hold_out(Mix *m, int64_t tokens, uint64_t seed, Error *err);
/* Tokens a phase and source, by largest remainder; phases begin at whole samples. Error for a source that has too few. */
int mix_plan(Mix *m, int64_t tokens, int64_t sequence_length, Error *err);
void mix_free(Mix *m);

/* The next piece of a source, at most `limit` tokens of one document; goes on for ever, epoch after epoch. */
void source_next(Source *s, int64_t limit, int64_t *document, int64_t *begin, int64_t *n);

#endif
