/* The reward of the best of k answers, estimated without bias from the n that were drawn: Σ_{i=k..n} C(i−1,k−1)/C(n,k)·r_i over the
 * ascending rewards r_i (the mean over all subsets of k; Chen et al. 2021's pass@k, for rewards), and the bound of its divergence
 * from the model that drew: KL <= ln k − (k−1)/k (Beirami et al. 2024). */
#ifndef REJSAMPLE_CURVE_H
#define REJSAMPLE_CURVE_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct Curve {
    double *sum, *squares; /* over prompts, of the best of k+1 */
    uint64_t *prompts;
    size_t count, capacity;
} Curve;

/* A prompt's rewards, which are sorted in place. */
void curve_add(Curve *c, double *rewards, size_t n);
void curve_report(const Curve *c); /* messages: k = 1, 2, 4, … and the last */
/* Every k as a table, or a picture where the path ends in svg or png. */
int curve_write(const Curve *c, const char *path, Error *err);
void curve_free(Curve *c);

#endif
