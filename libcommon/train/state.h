/* Training state on disk: STEP/ is a model folder plus STEP/trainer/ with optimizer.safetensors (moments by parameter; the
 * metadata says which box of which global tensor an entry is, so that any grid can read it), state.json (step, tokens,
 * counters) and checksums.json (xxh3 of every file), by which a damaged checkpoint is found before it is used. */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include "model/model.h"
#include "train/optimizer.h"

typedef struct TrainState {
    int64_t step, tokens, skipped; /* optimiser steps done, tokens seen, steps skipped for a NaN */
    double flops;
    double best;   /* a task's best development score so far */
    int64_t stale; /* evaluations since then */
} TrainState;

int state_save(const char *folder, Model *m, const Optimizer *o, const TrainState *s, Error *err);
/* Reads weights, moments and counters into an open model and optimiser. Checksums are compared first. */
int state_load(const char *folder, Model *m, Optimizer *o, TrainState *s, Error *err);

#endif
