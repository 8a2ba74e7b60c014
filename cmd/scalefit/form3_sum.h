/* Included by form3.c, form3_avx2.c and form3_avx512.c with NAME and TARGET (attributes) defined: the sum of the Huber losses of
 * log(A/N^alpha + B/D^beta + E) − log L, and its gradient. Where a start is so far off that a term overflows, the value is infinite and
 * the line search steps back. The compiler makes vectors of it, whose order of adding is the same whatever the threads. */
#include <math.h>
#include "elementary.h"
#include "form3.h"

TARGET double NAME(const void *context, const double *x, double *g)
{
    const Form3Runs *r = context;
    const double *restrict n = r->n, *restrict d = r->d, *restrict loss = r->loss, *restrict weight = r->weight;
    double sum = 0, delta = r->delta, e = exp(x[2]), g0 = 0, g1 = 0, g2 = 0, g3 = 0, g4 = 0;
    double x0 = x[0], x1 = x[1], x3 = x[3], x4 = x[4];
#pragma omp simd reduction(+ : sum, g0, g1, g2, g3, g4)
    for (int i = 0; i < r->count; i++) {
        double a = plain_exp(x0 - x3 * n[i]), b = plain_exp(x1 - x4 * d[i]), all = a + b + e, off = plain_log(all) - loss[i];
        double slope = off > delta ? delta : off < -delta ? -delta : off, share = slope * weight[i] / all;
        sum += weight[i] * slope * (off - slope / 2);
        g0 += share * a;
        g1 += share * b;
        g2 += share;
        g3 -= share * a * n[i];
        g4 -= share * b * d[i];
    }
    g[0] = g0, g[1] = g1, g[2] = g2 * e, g[3] = g3, g[4] = g4;
    return sum;
}
