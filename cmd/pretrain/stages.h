/* What each step trains on. A run is a row of stages: stretches of steps with one batch size, one sequence length and one mix of the
 * sources. All follows from the options and from token counts, so a resumed run needs no state but its step. */
#ifndef PRETRAIN_STAGES_H
#define PRETRAIN_STAGES_H

#include "base/option.h"
#include "data/blend.h"
#include "dist/comm.h"
#include "sources.h"

typedef struct Stage {
    int64_t first_step, steps;        /* of the run */
    int64_t sequence_length, samples; /* tokens a sample, samples a step */
    double *weights;                  /* [sources] of the mix; 0: the source rests */
    int64_t *used;                    /* [sources] tokens that earlier stages have read over */
} Stage;

typedef struct Stages {
    Stage *items;
    size_t count;
    int64_t steps, tokens; /* of the whole run */
} Stages;

/* What the options say. Ramps are "TOKENS:VALUE" (from so many tokens of the run on), phases "TOKENS:NAME=WEIGHT,NAME=WEIGHT". */
typedef struct StagePlan {
    int64_t sequence_length, batch_tokens, tokens, steps; /* one of tokens and steps is 0 */
    const OptionList *batch_ramp, *length_ramp, *phases;
} StagePlan;

/* Without sources (a dry run) no weights are made. */
int stages_open(Stages *s, const StagePlan *p, const Sources *sources, Error *err);
void stages_close(Stages *s);
/* From step `step` on the sources are mixed so; what follows is the same but for that. Stages move. */
void stages_mix(Stages *s, int64_t step, const double *weights, const Sources *sources);
const Stage *stages_at(const Stages *s, int64_t step);
int64_t stages_longest(const Stages *s);      /* sequence */
/* Samples a pass may have on a grid: no more than `most`, or where that is 0 as many as fit 4096 tokens of a rank and leave a pipeline
 * four passes a stage if there are so many samples; and no more than there are. */
int64_t stage_pass(const Stage *s, int64_t most, const int extent[GRID_DIMENSIONS]);
/* Passes that the busiest rank then makes in a step. */
int64_t stage_passes(const Stage *s, int64_t most, const int extent[GRID_DIMENSIONS]);

/* Deals out a stage's samples in order. */
typedef struct Dealer {
    const Stage *stage;
    const Sources *sources;
    Blend blend;
    size_t *source; /* of each item of the blend */
    uint64_t mark, *mark_used;
} Dealer;

void dealer_open(Dealer *d, const Stage *s, const Sources *sources);
void dealer_close(Dealer *d);
void dealer_seek(Dealer *d, int64_t sample); /* within the stage */
/* Goes there, and makes coming back to it or behind it cheap. */
void dealer_mark(Dealer *d, int64_t sample);
/* The next sample's source and its number in that source, which grows from epoch to epoch. */
const Source *dealer_next(Dealer *d, int64_t *number);

#endif
