/* Minimum of a smooth function of a few variables: BFGS with the line search of Lewis and Overton (2013), which also gets along
 * with kinks in the gradient, as the Huber loss has them. */
#ifndef SCALEFIT_MINIMISE_H
#define SCALEFIT_MINIMISE_H

enum { MINIMISE_MAX = 8 };

/* The inverse Hessian at a minimum, as far as the descent has seen it: a fit to nearly the same data goes faster from there. */
typedef struct Metric {
    double h[MINIMISE_MAX][MINIMISE_MAX];
} Metric;

/* Value at x; writes the gradient. */
typedef double (*MinimiseFunction)(const void *context, const double *x, double *gradient);

/* From x of n (at most MINIMISE_MAX) variables downhill; x becomes the best point found, whose value is returned. still: the relative
 * gain below which a step stands still; after two of them, the second along a fresh direction, the descent ends. from: the metric
 * to begin with, NULL: the identity. to: where the last one goes, may be NULL. */
double minimise(MinimiseFunction f, const void *context, double *x, int n, int iterations, double still, const Metric *from, Metric *to);

#endif
