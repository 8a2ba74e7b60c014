/* A training log read back: one row a line, NaN where a line lacks a number. */
#ifndef TRAIN_HISTORY_H
#define TRAIN_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

typedef enum HistoryColumn {
    HISTORY_STEP,
    HISTORY_TOKENS,
    HISTORY_LOSS,
    HISTORY_VAL_LOSS,
    HISTORY_LR,
    HISTORY_GRAD_NORM,
    HISTORY_SPEED, /* tokens a second */
    HISTORY_MFU,
    HISTORY_COLUMNS
} HistoryColumn;

typedef struct History {
    double *column[HISTORY_COLUMNS];
    size_t count;
    bool final;  /* the last line closes the run */
    bool absent; /* there is no such file; an error too */
} History;

/* log: a file, or a run whose log.jsonl is read. Lines that are no step, such as one being written, are passed over. */
int history_read(History *h, const char *log, Error *err);
void history_free(History *h);

#endif
