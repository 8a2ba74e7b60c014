/* Accuracy as a sigmoid of the loss of the right answer: floor + height/(1 + exp(−k (x − x0))), 0 <= height <= 1 − floor (Llama 3,
 * section 3.2.1; OLMo's ladder). The floor is that of guessing, or fitted too where chance is NAN. */
#ifndef SCALEFIT_SIGMOID_H
#define SCALEFIT_SIGMOID_H

#include <stdbool.h>

typedef struct Sigmoid {
    double floor, height, k, x0, sse;
    double error[3];  /* standard errors of height, k, x0 */
    bool at_bound;    /* the height is as large as it may be */
    int points;
} Sigmoid;

/* Least squares over n points, weights how often each counts (NULL: once). `near`: begin there alone, NULL: from a grid. */
void sigmoid_fit(Sigmoid *s, const double *x, const double *y, const double *weight, int n, double chance, const Sigmoid *near);
double sigmoid_value(const Sigmoid *s, double x);

#endif
