/* Training state on disk: STEP/ is a model folder plus STEP/trainer/ with optimizer.safetensors (moments by parameter; the
 * metadata says which box of which global tensor an entry is, so that any grid can read it), average.safetensors where weights are
 * averaged, state.json (step, tokens, counters) and checksums.json (xxh3 of every file), by which a damaged checkpoint is found before it is used. */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include "model/model.h"
#include "train/average.h"
#include "train/optimizer.h"

typedef struct TrainState {
    int64_t step, tokens, skipped; /* optimiser steps done, tokens seen, steps skipped for a NaN */
    double flops;
    double best;   /* a task's best development score so far */
    int64_t stale; /* evaluations since then */
} TrainState;

/* A copy of all that a checkpoint holds, in host memory: training goes on while another thread writes it. */
typedef struct Snapshot {
    float *weights, *first, *second, *average; /* arenas of what is trained (param_trained); first use allocates them */
    int64_t optimizer_steps, averaged;
    TrainState state;
} Snapshot;

int snapshot_take(Snapshot *to, Model *m, const Optimizer *o, const Average *a, const TrainState *s, Error *err);
void snapshot_free(Snapshot *s);

int state_save(const char *folder, const Model *m, const Snapshot *s, Error *err);
/* Are all files there with the bytes that were written? */
int state_check(const char *folder, Error *err);
/* Reads weights, moments, average and counters into an open model and optimiser. */
int state_load(const char *folder, Model *m, Optimizer *o, Average *a, TrainState *s, Error *err);

#endif
