/* What a rank's passes see: samples of the stage that the run is in, or of a held-out source, placed in batches. Passes go round the
 * data-parallel ranks, so that a sample's step is its number's, whatever the grid; the ranks of a pipeline and of one tensor see the
 * same, those of a context a part of each sample. */
#ifndef PRETRAIN_FEED_H
#define PRETRAIN_FEED_H

#include "data/batch.h"
#include "dist/comm.h"
#include "sources.h"
#include "stages.h"

typedef struct Feed {
    const Grid *grid;
    const Sources *sources;
    bool shuffle;
    bool even;           /* all ranks do as many passes, some an empty one */
    uint64_t seed;
    const Stage *stage;  /* that the run is in, NULL: none yet */
    Dealer dealer;
    int64_t micro_batch; /* samples a pass */
    Batch whole, part;   /* of one pass; part: what this rank has of it */
    /* Of what is passed now: */
    const Source *source; /* held out; NULL: the stage's mix */
    int64_t first, samples, placed; /* the pass that the batch holds, -1: none */
} Feed;

/* Makes the stage the current one. `most` samples a pass, as stage_pass takes it. */
void feed_enter(Feed *f, const Stage *stage, int64_t most);
void feed_leave(Feed *f);
/* What follows passes samples first … first+samples-1 of the stage, or those of a source. */
void feed_begin(Feed *f, const Source *source, int64_t first, int64_t samples);
/* Passes of this rank. */
int64_t feed_passes(const Feed *f);
/* What this rank has of its pass number `pass`, until the next is asked for; f->whole is all of it. */
const Batch *feed_batch(Feed *f, int64_t pass);

#endif
