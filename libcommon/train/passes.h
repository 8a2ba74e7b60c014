/* The passes of a step: micro-batches go forward and backward through this rank's stages of the model, in the order of its pipeline
 * schedule (pipeline.h), with what the stages send one another. One rank that has the whole model does the same, without sends:
 * forward and backward in turn.
 *
 * Slots are made when they are first needed, as many as the schedule promises; what leaves a stage and what comes lie in places of
 * their own. A step allocates nothing once the largest has been seen. */
#ifndef TRAIN_PASSES_H
#define TRAIN_PASSES_H

#include "dist/comm.h"
#include "model/model.h"
#include "train/pipeline.h"
#include "train/trace.h"

/* What a tool does with its micro-batches. */
typedef struct PassWork {
    void *context;
    /* Loads micro-batch number `micro_batch` of this rank into the slot. Every rank of a pipeline is asked, once a stage. */
    int (*load)(void *context, int64_t micro_batch, Slot *s, Error *err);
    /* On the last stage: the slot's hidden states become a loss or scores and, where a backward pass follows, their gradient. */
    int (*head)(void *context, int64_t micro_batch, Slot *s, Error *err);
    /* These are the step's last passes that go backward: gradients may come together as soon as each is complete (optimizer.h). */
    bool last;
} PassWork;

typedef struct Passes {
    Model *model;
    Comm *line[2];       /* the stages: what goes forward, what goes backward */
    int stages, stage;   /* of the pipeline; the chunks of each are the model's ranges */
    int64_t rows;        /* room of a slot */
    Slot *slots;
    int slot_count;
    PipelineSchedule schedule;
    void *memory;        /* of the places */
    int places;          /* there are: receives, then sends */
    int64_t loaded[2];   /* rows that a device's kernels have been loaded for, to go forward alone and there and back */
    int64_t first, past; /* the schedule's micro-batches, of the step's */
    CommRequest *requests;
    Trace *trace;        /* NULL: nobody looks */
    double *left;        /* device, of each chunk: squares of what has gone forward to another stage; NULL: there is none */
} Passes;

/* rows: of the largest micro-batch. MODE_SCORE: nothing will go backward. */
int passes_open(Passes *p, Model *m, Grid *g, int64_t rows, Mode mode, Error *err);
void passes_close(Passes *p);
/* Passes micro_batches micro-batches of `rows` rows each; `backward`: there and back, else forward alone. Within a pipeline all ranks
 * say the same. */
int passes_run(Passes *p, int64_t micro_batches, int64_t rows, bool backward, const PassWork *w, Error *err);
/* The first of this rank's chunks that has passed on a number that is not finite since this was last asked, -1: none has. */
int passes_astray(Passes *p, int *chunk, Error *err);
/* Does the slot still hold what so many micro-batches that have just passed forward alone left in it? Of a model that is one stage the
 * last one's activations are there. Then they can go back: work's head is asked for their gradient. */
bool passes_kept(const Passes *p, int64_t micro_batches);
int passes_back(Passes *p, const PassWork *w, Error *err);

#endif
