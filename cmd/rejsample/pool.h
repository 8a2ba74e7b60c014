/* The candidate answers of one prompt: different ones, with a score of each reward model. */
#ifndef REJSAMPLE_POOL_H
#define REJSAMPLE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/memory.h"

typedef struct Candidate {
    char *text;
    size_t length;
    double *scores; /* [models] */
    int64_t times;  /* drawn */
    bool reference; /* the record's own answer */
} Candidate;

typedef struct Pool {
    Candidate *items;
    size_t count;
    size_t models;
} Pool;

/* Why answers were left out. */
typedef struct Dropped {
    uint64_t empty, cut, twice;
} Dropped;

/* Adds a text that is not there yet; one that is there is counted in `twice` (NULL: not). scores may be NULL: 0 for now. */
void pool_add(Pool *p, Span text, const double *scores, bool reference, uint64_t *twice);
void pool_free(Pool *p);
double candidate_mean(const Pool *p, size_t i); /* of its scores */

/* The best (worst) candidate: each model votes for its own; most votes win, and among equals the mean of the scores, each model's
 * standardised within the pool, then the first. by_mean: that mean alone decides. *votes: how many it had. The pool is not empty. */
size_t pool_best(const Pool *p, bool worst, bool by_mean, int64_t *votes);

#endif
