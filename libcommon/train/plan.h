/* Which records go into which step, and how a step's records are packed into batches. A step holds whole records, each once;
 * epochs are permuted by the seed, and the last step of an epoch holds what is left of it (as transformers' trainer does). */
#ifndef TRAIN_PLAN_H
#define TRAIN_PLAN_H

#include "data/batch.h"
#include "train/examples.h"

typedef struct Plan {
    const Examples *examples;
    int64_t records_per_step, steps_per_epoch, steps;
    int64_t sequence_length, rows; /* of a batch: whole sequences */
    uint64_t seed;
    int64_t rank, ranks; /* that share the batches */
    int64_t most;        /* sequences that a batch has room for */
    Batch batch;
    /* The current step: its examples, and where each goes. */
    size_t *step_examples, step_count, step_capacity;
    size_t *bin;
    int64_t *offset;
    size_t bins;
} Plan;

/* epochs times the steps of one, rounded up. rows_per_batch tokens a batch. */
void plan_open(Plan *p, const Examples *e, double epochs, int64_t records_per_step, int64_t sequence_length, int64_t rows_per_batch, uint64_t seed);
void plan_close(Plan *p);
/* From now on the batches of a layout go round these ranks, and are so small that all get some where there is enough. */
void plan_share(Plan *p, int64_t rank, int64_t ranks);
bool plan_mine(const Plan *p, int64_t index);
/* Lays out step `step` (best-fit decreasing, a group in one bin where `grouped`); returns how many batches it has. */
int64_t plan_step(Plan *p, int64_t step, bool grouped);
/* Lays out all examples in their order instead: for evaluation. */
int64_t plan_all(Plan *p, bool grouped);
/* Fills p->batch with batch `index`: documents carry source = index of the example, labels are the next tokens, and weights 1
 * where the label is a trained token (without endings where not `endings`). */
void plan_batch(Plan *p, int64_t index, bool endings);

#endif
