/* The checkpoints of a run: taken between two steps as a copy in memory, which costs what copying costs, and written by a thread
 * while training goes on, by each rank what it holds. One is written at a time; when all ranks have written theirs, it counts.
 * Finding the one to resume from is here too, and the models that a run keeps besides. Of a grid all ranks call these together. */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include <pthread.h>
#include "dist/comm.h"
#include "train/metrics.h"
#include "train/run.h"
#include "train/state.h"

typedef struct Checkpoints {
    Run *run;
    Grid *grid;
    Model *model;
    Optimizer *optimizer;
    Average *average;
    Metrics *log;        /* its lines reach the disk before a checkpoint counts */
    int64_t keep, keep_every;
    Snapshot snapshot;
    pthread_t thread;
    bool writing, threaded;
    bool written;        /* the thread has ended (atomic) */
    int status;
    Error error;
} Checkpoints;

/* Takes the memory that copies need, by taking one: a run that has begun is not ended for lack of it, nor held up by fresh pages. */
int checkpoint_prepare(Checkpoints *c, const TrainState *s, Error *err);
/* Takes a copy and starts writing it. Nothing may be in writing: checkpoint_settle first. */
int checkpoint_begin(Checkpoints *c, const TrainState *s, Error *err);
/* Is one in writing that this rank has written its part of? */
bool checkpoint_written(const Checkpoints *c);
/* If a checkpoint is in writing, waits until all ranks have written it, and makes it the newest: -1 with the reason if that failed,
 * when what there was of it has been removed; else 0. */
int checkpoint_settle(Checkpoints *c, Error *err);
/* Waits for this rank's thread. */
void checkpoint_close(Checkpoints *c);

/* Loads the newest checkpoint that is whole into model, optimiser and state; damaged ones are named on standard error and passed
 * over. All ranks look, each at its share. Sets run->done on all ranks too. */
int checkpoint_resume(Checkpoints *c, TrainState *s, Error *err);

/* Writes a model of the run, `best`, `average` or `final`, which ends it: weights (device memory) are an arena of what is trained. */
int checkpoint_keep(Checkpoints *c, const float *weights, Dtype type, const char *name, Error *err);

#endif
