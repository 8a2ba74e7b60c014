/* Which records go into which step, and how a step's records are packed into batches. A step holds whole records, each once;
 * epochs are permuted by the seed, and the last step of an epoch holds what is left of it (as transformers' trainer does). */
#ifndef TRAIN_PLAN_H
#define TRAIN_PLAN_H

#include "data/batch.h"
#include "dist/comm.h"
#include "train/examples.h"

typedef struct Plan {
    const Examples *examples;
    int64_t records_per_step, steps_per_epoch, steps;
    int64_t sequence_length, most; /* tokens a sequence; sequences that a batch has room for */
    uint64_t seed;
    const Grid *grid;
    bool even;                     /* all ranks make as many passes, some an empty one */
    bool grouped;                  /* a record's examples go into one bin */
    int64_t row;                   /* the answers of a group stand in one row behind their prompt, where that is no longer (Llama 3's reward model); 0: apart */
    /* The current step: its examples, and where each goes. */
    size_t *step_examples, step_count, step_capacity;
    size_t *bin;
    int64_t *offset;
    uint64_t epoch;
    int64_t *behind;               /* of an answer in a row: tokens of the row before it; 0: it stands alone */
    size_t bins;
    int64_t batches;
    Batch whole, part;             /* a batch, and what this rank has of it */
    int64_t placed;                /* the pass that they hold, -1: none */
} Plan;

/* epochs times the steps of one, rounded up. At most `rows` tokens of a batch on each rank, but a whole sequence, which context-parallel
 * ranks must be able to share. Batches go round the data-parallel ranks and are so small that all get some, and a pipeline
 * four for each of its stages, where there is enough. `even`: all make as many passes. */
void plan_open(Plan *p, const Examples *e, double epochs, int64_t records_per_step, int64_t sequence_length, int64_t rows, uint64_t seed, const Grid *g, bool even);
void plan_close(Plan *p);
/* Lays out step `step` (best-fit decreasing). Answers in a row are shuffled; each sees those before it,
 * and has a document that begins with the row and ends with the answer. */
void plan_step(Plan *p, int64_t step);
/* Lays out all examples in their order instead: for evaluation. */
void plan_all(Plan *p);
/* Of what is laid out: all ranks' tokens, and of them those that are learned, the weights of all batches. */
int64_t plan_tokens(const Plan *p);
double plan_weight(const Plan *p);
/* Passes that this rank makes, and the rows of each. */
int64_t plan_passes(const Plan *p);
int64_t plan_rows(const Plan *p);
/* What no step of the run exceeds: the rows of a pass, and whether it is one pass on every rank. Lays out steps until one is as large as any. */
typedef struct PlanMost {
    int64_t rows;
    bool one_pass;
} PlanMost;
PlanMost plan_most(Plan *p);
/* What this rank has of its pass number `pass`, until the next is asked for: documents carry source = index of the example, labels
 * are the next tokens where those are learned, and have the weight 1. */
const Batch *plan_batch(Plan *p, int64_t pass);

#endif
