/* Training metrics as JSON Lines: `step tokens loss val_loss lr grad_norm params flops tokens_per_second mfu` and what a
 * task adds. A resumed run drops the lines after the step that it resumes from, so that a log reads as one unbroken run. */
#ifndef TRAIN_METRICS_H
#define TRAIN_METRICS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/memory.h"

typedef struct Metrics Metrics;

/* path NULL: nothing is written; "-": standard output, which stays as it is. resume_step: lines with a greater `step` are removed; -1 starts an empty file. */
Metrics *metrics_open(const char *path, int64_t resume_step, Error *err);
/* From now on the lines go to TensorBoard's event file in that folder too, which begins with those that are there already:
 * right behind metrics_open. */
int metrics_board(Metrics *m, const char *folder, Error *err);
/* One line: metrics_begin, any number of values, metrics_end. A NaN or infinity is written as null. */
void metrics_begin(Metrics *m, int64_t step);
void metrics_number(Metrics *m, const char *key, double value);
void metrics_integer(Metrics *m, const char *key, int64_t value);
void metrics_numbers(Metrics *m, const char *key, const double *values, size_t n); /* an array; not for TensorBoard */
void metrics_flag(Metrics *m, const char *key, bool value);
/* A disk that takes no more does not end a run: the lines are kept and tried again with the next. -1 with the reason when that
 * begins. */
int metrics_end(Metrics *m, Error *err);
/* Has everything been written? */
bool metrics_whole(const Metrics *m);
/* What has been written reaches the disk; another thread may ask for it. */
int metrics_sync(Metrics *m, Error *err);
/* -1: lines are lost. */
int metrics_close(Metrics *m, Error *err);

#endif
