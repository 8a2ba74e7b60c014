/* Sorting more records than memory holds: a full buffer is sorted and becomes a run in a temporary file, the runs are merged
 * while they are read back. */
#ifndef DEDUP_SORTER_H
#define DEDUP_SORTER_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct SortRecord {
    uint64_t key[3]; /* compared one after the other */
} SortRecord;

typedef struct Sorter Sorter;

Sorter *sorter_new(const char *tmp, size_t memory, int threads);
void sorter_free(Sorter *s); /* NULL is fine */
int sorter_add(Sorter *s, SortRecord record, Error *err);
/* After the last sorter_add: gets ready for sorter_next. */
int sorter_finish(Sorter *s, Error *err);
/* The next record in order: 1, 0 at the end, -1 on errors. */
int sorter_next(Sorter *s, SortRecord *out, Error *err);
uint64_t sorter_runs(const Sorter *s); /* buffers written out so far */

#endif
