/* Training state on disk: STEP/ is a model folder plus STEP/trainer/ with
 *
 *   optimizer.safetensors  moments by parameter; the metadata says which box of which global tensor an entry is
 *   average.safetensors    the same of averaged weights, where weights are averaged
 *   state.json             step, tokens, counters, and how many ranks have written
 *   checksums.json         xxh3 of what a rank wrote: files, and its boxes of the model; the first rank's of the vocabulary and other texts
 *                          too; a damaged checkpoint is found before it is used
 *
 * Of several ranks each writes what it holds, the first under these names, rank N under optimizer-N.safetensors and so on; the
 * model is one file that all write into. Any grid reads what any other has written. */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include "model/box.h"
#include "model/model.h"
#include "train/average.h"
#include "train/optimizer.h"

typedef struct TrainState {
    int64_t step, tokens, skipped; /* optimiser steps done, tokens seen, steps skipped for a NaN */
    double flops;
    double best;   /* a task's best development score so far */
    int64_t stale; /* evaluations since then */
} TrainState;

/* What a rank writes of arenas of what is trained: its slices (optimizer.h), which are nobody else's. */
typedef struct ArenaShare {
    ArenaStretch *stretches; /* [n], a unit each */
    int n;
    size_t count; /* floats in all */
    int rank, ranks;
} ArenaShare;

ArenaShare share_open(const Optimizer *o);
void share_close(ArenaShare *s);
/* Where they lie one after the other in an arena of weights that the host can read; NULL: they do not. */
const float *share_in_place(const ArenaShare *s, const Optimizer *o, const float *arena);
/* Copies them from an arena in device memory to the host, one after the other; states: the arena is one of the optimiser's, else of weights. */
void share_copy(const ArenaShare *s, const Optimizer *o, float *to, const float *arena, bool states);

/* A copy of all that a rank writes of a checkpoint, in host memory: training goes on while another thread writes it. */
typedef struct Snapshot {
    ArenaShare share;
    float *weights, *first, *second, *average; /* [share.count]; the first copy allocates them */
    int64_t optimizer_steps, averaged;
    TrainState state;
} Snapshot;

int snapshot_take(Snapshot *to, const Optimizer *o, const Average *a, const TrainState *s, Error *err);
void snapshot_free(Snapshot *s);

/* Makes the files that all ranks write into: the first rank's. */
int state_begin(const char *folder, const Model *m, Error *err);
/* Writes this rank's part, after state_begin has returned on the first. Touches no device. */
int state_save(const char *folder, const Model *m, const Snapshot *s, Error *err);
/* Are the files there with the bytes that were written? Of several ranks each looks at its share. */
int state_check(const char *folder, int rank, int ranks, Error *err);
/* Reads weights, moments, average and counters into an open model and optimiser, whatever grid has written them. */
int state_load(const char *folder, Model *m, Optimizer *o, Average *a, TrainState *s, Error *err);

#endif
