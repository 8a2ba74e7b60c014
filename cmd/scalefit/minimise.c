#include "minimise.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

static double dot(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Weak Wolfe conditions by bisection. Writes the new point and its gradient, returns its value; NAN: no descent. */
static double search(MinimiseFunction f, const void *context, const double *x, double value, const double *direction, double slope, double step, int n,
                     double *to, double *gradient)
{
    double low = 0, high = INFINITY;
    for (int i = 0; i < 50; i++) {
        for (int k = 0; k < n; k++)
            to[k] = x[k] + step * direction[k];
        double v = f(context, to, gradient);
        if (!(v <= value + 1e-4 * step * slope))
            high = step;
        else if (dot(gradient, direction, n) < 0.9 * slope)
            low = step;
        else
            return v;
        step = isfinite(high) ? (low + high) / 2 : 2 * low;
    }
    return NAN;
}

/* H becomes (I − s yᵀ/sᵀy) H (I − y sᵀ/sᵀy) + s sᵀ/sᵀy (Nocedal and Wright, 6.17). */
static void update(double h[MINIMISE_MAX][MINIMISE_MAX], const double *s, const double *y, int n)
{
    double sy = dot(s, y, n), hy[MINIMISE_MAX];
    if (!(sy > 0))
        return;
    for (int i = 0; i < n; i++)
        hy[i] = dot(h[i], y, n);
    double yhy = dot(y, hy, n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            h[i][j] += (1 + yhy / sy) * s[i] * s[j] / sy - (hy[i] * s[j] + s[i] * hy[j]) / sy;
}

double minimise(MinimiseFunction f, const void *context, double *x, int n, int iterations, double still, const Metric *from, Metric *last)
{
    Metric m = {0};
    double g[MINIMISE_MAX], d[MINIMISE_MAX], to[MINIMISE_MAX], next[MINIMISE_MAX], s[MINIMISE_MAX], y[MINIMISE_MAX];
    double value = f(context, x, g);
    bool fresh = true;
    for (int i = 0; i < iterations; i++) {
        if (fresh && from)
            m = *from;
        for (int j = 0; j < n && fresh && !from; j++)
            for (int k = 0; k < n; k++)
                m.h[j][k] = j == k;
        for (int k = 0; k < n; k++)
            d[k] = -dot(m.h[k], g, n);
        double slope = dot(d, g, n), length = sqrt(dot(g, g, n));
        double found = slope < 0 ? search(f, context, x, value, d, slope, fresh && !from ? fmin(1, 1 / length) : 1, n, to, next) : NAN;
        if (isnan(found)) { /* once more as at the start, then along the gradient, or at the end */
            if (fresh && !from)
                break;
            from = fresh ? NULL : from;
            fresh = true;
            continue;
        }
        for (int k = 0; k < n; k++) {
            s[k] = to[k] - x[k];
            y[k] = next[k] - g[k];
            x[k] = to[k];
            g[k] = next[k];
        }
        bool stands = value - found <= still * fabs(value);
        value = found;
        if (stands && fresh)
            break;
        fresh = stands;
        update(m.h, s, y, n);
    }
    if (last)
        *last = m;
    return value;
}
