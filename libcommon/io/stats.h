/* --stats FILE: what a program has done, one JSON object. */
#ifndef IO_STATS_H
#define IO_STATS_H

#include <stddef.h>
#include "base/error.h"

typedef struct StatsItem {
    const char *key;
    double value;
} StatsItem;

/* The items, then the seconds since `begin` (clock_seconds) and the peak of memory; NAN: these two are left out. path NULL: nothing to do. */
int stats_write(const char *path, const StatsItem *items, size_t count, double begin, Error *err);

#endif
