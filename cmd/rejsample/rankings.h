/* Ranking documents that people wrote, and how far they agree. */
#ifndef REJSAMPLE_RANKINGS_H
#define REJSAMPLE_RANKINGS_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "io/json.h"

/* One person's ranking of one item. An item is a prompt with a set of answers, in whatever order they stand. */
typedef struct Ranking {
    uint64_t item;
    char *annotator;
    size_t count;
    uint64_t *answers; /* [count] ascending hashes of the answers' texts */
    double *ranks;     /* [count] of those, 1 the best; equals have the mean of their places */
} Ranking;

typedef struct Rankings {
    Ranking *items;
    size_t count, capacity;
} Rankings;

/* The number of an item. */
uint64_t ranking_item(const JsonValue *prompt, const Span *answers, size_t count);
/* Adds the rankings of a file. `ranks` gives ties; without it the answers stand best first. A later ranking of an item by the same
 * annotator takes the place of the earlier. */
int rankings_read(Rankings *r, const char *path, Error *err);
const Ranking *rankings_find(const Rankings *r, uint64_t item, const char *annotator);
void rankings_free(Rankings *r);

/* Kendall's W and Cohen's kappa for everybody, on standard output. */
void rankings_report(const Rankings *r);

#endif
