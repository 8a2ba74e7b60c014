/* The checkpoints of a run: taken between two steps as a copy in memory, which costs what copying costs, and written by a thread
 * while training goes on. One is written at a time. Finding the one to resume from is here too. */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include <pthread.h>
#include "dist/comm.h"
#include "train/metrics.h"
#include "train/run.h"
#include "train/state.h"

typedef struct Checkpoints {
    Run *run;
    Model *model;
    Optimizer *optimizer;
    Average *average;
    Metrics *log;        /* its lines reach the disk before a checkpoint counts */
    int64_t keep, keep_every;
    Snapshot snapshot;
    pthread_t thread;
    bool writing;
    bool written;        /* the thread has ended (atomic) */
    int status;
    Error error;
} Checkpoints;

/* Takes a copy and starts writing it. Nothing may be in writing: checkpoint_settle first. */
int checkpoint_begin(Checkpoints *c, const TrainState *s, Error *err);
/* If a checkpoint is in writing and has been written (or `wait`): -1 with the reason if that failed, when what there was of it
 * has been removed; else 0. */
int checkpoint_settle(Checkpoints *c, bool wait, Error *err);
void checkpoint_close(Checkpoints *c);

/* Loads the newest checkpoint that is whole into model, optimiser and state; damaged ones are named on standard error and passed
 * over. The first rank looks, all load the same. Sets run->done on all ranks too. */
int checkpoint_resume(Checkpoints *c, Grid *g, TrainState *s, Error *err);

#endif
