/* Percentiles of bootstrapped numbers, and rank correlation. */
#include <math.h>
#include <stdlib.h>
#include "scalefit.h"

static int compare_numbers(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

Spread spread(double *x, size_t n)
{
    double mean = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    qsort(x, n, sizeof *x, compare_numbers);
    Spread s = {.sd = n > 1 ? sqrt(sum / (double)(n - 1)) : NAN, .low = NAN, .high = NAN};
    for (int side = 0; side < 2 && n > 1; side++) {
        double place = (side ? 0.975 : 0.025) * (double)(n - 1);
        size_t k = (size_t)place < n - 1 ? (size_t)place : n - 2;
        double at = x[k] + (place - (double)k) * (x[k + 1] - x[k]);
        *(side ? &s.high : &s.low) = at;
    }
    return s;
}

typedef struct Ranked {
    double value;
    size_t index;
} Ranked;

static int compare_ranked(const void *a, const void *b)
{
    const Ranked *x = a, *y = b;
    return (x->value > y->value) - (x->value < y->value);
}

/* Ranks from 1; equal values share the mean of theirs. */
static double *ranks(const double *x, size_t n)
{
    Ranked *r = memory_alloc(n, sizeof *r);
    double *rank = memory_alloc(n, sizeof *rank);
    for (size_t i = 0; i < n; i++)
        r[i] = (Ranked){x[i], i};
    qsort(r, n, sizeof *r, compare_ranked);
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && r[j].value == r[i].value; j++)
            ;
        for (size_t k = i; k < j; k++)
            rank[r[k].index] = (double)(i + j + 1) / 2;
    }
    free(r);
    return rank;
}

double spearman(const double *x, const double *y, size_t n)
{
    double *rx = ranks(x, n), *ry = ranks(y, n), mean = (double)(n + 1) / 2, xx = 0, yy = 0, xy = 0;
    for (size_t i = 0; i < n; i++) {
        xx += (rx[i] - mean) * (rx[i] - mean);
        yy += (ry[i] - mean) * (ry[i] - mean);
        xy += (rx[i] - mean) * (ry[i] - mean);
    }
    free(rx);
    free(ry);
    return xy / sqrt(xx * yy);
}
