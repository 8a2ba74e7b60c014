/* Minimum of a smooth function of a few variables: BFGS with the line search of Lewis and Overton (2013), which also gets along
 * with kinks in the gradient, as the Huber loss has them. */
#ifndef SCALEFIT_MINIMISE_H
#define SCALEFIT_MINIMISE_H

enum { MINIMISE_MAX = 8 };

/* Value at x; writes the gradient. */
typedef double (*MinimiseFunction)(const void *context, const double *x, double *gradient);

/* From x of n (at most MINIMISE_MAX) variables downhill; x becomes the best point found, whose value is returned. */
double minimise(MinimiseFunction f, const void *context, double *x, int n, int iterations);

#endif
