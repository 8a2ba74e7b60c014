/* Samples of a shard: sample g is tokens g·T … (g+1)·T of its documents laid end to end, the last one as label only. A
 * document's last token has no label, positions restart at each document, and attention stays inside it. Any sample can be
 * had at any time, so a resumed run needs no state but a number. */
#ifndef DATA_SAMPLES_H
#define DATA_SAMPLES_H

#include "data/batch.h"
#include "data/shard.h"

/* Samples that a shard holds at length T: (tokens − 1) / T. */
int64_t samples_count(const Shard *s, int64_t sequence_length);
/* Which sample is the n-th of a run: the first epoch takes them in order, later ones as permuted by (seed, epoch). */
int64_t samples_order(int64_t n, int64_t count, uint64_t seed);
/* Places sample g in sequence `slot` of a batch whose sequence_rows is T. */
void samples_place(const Shard *s, int64_t g, Batch *b, int64_t slot);

#endif
