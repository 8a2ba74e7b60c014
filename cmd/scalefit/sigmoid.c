#include "sigmoid.h"

#include <math.h>
#include <stdlib.h>
#include "minimise.h"
#include "scalefit.h"

typedef struct Points {
    const double *x, *y, *weight;
    int n;
    double middle, width, chance;
} Points;

static double weight_of(const Points *p, int i)
{
    return p->weight ? p->weight[i] : 1;
}

static double squares(const Points *p, const double *s, double floor, double height)
{
    double sum = 0;
    for (int i = 0; i < p->n; i++)
        sum += weight_of(p, i) * pow(floor + height * s[i] - p->y[i], 2);
    return sum;
}

/* For given k and x0 the best height and floor are a line's. Where that breaks a bound the best lies on one of them: height 0 (the
 * floor alone), floor 0, or a top of 1. */
static void best_line(const Points *p, const double *s, double *floor, double *height)
{
    double w = 0, ws = 0, wss = 0, wy = 0, wsy = 0;
    for (int i = 0; i < p->n; i++) {
        double q = weight_of(p, i);
        w += q, ws += q * s[i], wss += q * s[i] * s[i], wy += q * p->y[i], wsy += q * s[i] * p->y[i];
    }
    if (isfinite(p->chance)) {
        *floor = p->chance;
        *height = fmin(fmax(wss > 0 ? (wsy - *floor * ws) / wss : 0, 0), 1 - *floor);
        return;
    }
    double determinant = w * wss - ws * ws;
    double h = determinant > 0 ? (w * wsy - ws * wy) / determinant : 0, f = (wy - h * ws) / w;
    if (f >= 0 && h >= 0 && f + h <= 1) {
        *floor = f;
        *height = h;
        return;
    }
    const double zero = fmin(fmax(wss > 0 ? wsy / wss : 0, 0), 1);
    /* height = 1 − floor: y − s = floor (1 − s) */
    double rest = w - 2 * ws + wss, top = fmin(fmax(rest > 0 ? (wy - ws - wsy + wss) / rest : 0, 0), 1);
    const double candidates[3][2] = {{fmin(fmax(wy / w, 0), 1), 0}, {0, zero}, {top, 1 - top}};
    double least = INFINITY;
    for (int i = 0; i < 3; i++) {
        double sum = squares(p, s, candidates[i][0], candidates[i][1]);
        if (sum < least) {
            least = sum;
            *floor = candidates[i][0];
            *height = candidates[i][1];
        }
    }
}

/* Of v = (k, x0) in units of the points' width; the gradient is that at the best line, by the envelope theorem. */
static double misfit(const void *context, const double *v, double *g)
{
    const Points *p = context;
    double *s = memory_alloc((size_t)p->n, sizeof *s), floor, height, sum = 0;
    for (int i = 0; i < p->n; i++)
        s[i] = 1 / (1 + exp(-v[0] * ((p->x[i] - p->middle) / p->width - v[1])));
    best_line(p, s, &floor, &height);
    g[0] = g[1] = 0;
    for (int i = 0; i < p->n; i++) {
        double off = floor + height * s[i] - p->y[i], slope = 2 * weight_of(p, i) * off * height * s[i] * (1 - s[i]);
        sum += weight_of(p, i) * off * off;
        g[0] += slope * ((p->x[i] - p->middle) / p->width - v[1]);
        g[1] -= slope * v[0];
    }
    free(s);
    return sum;
}

double sigmoid_value(const Sigmoid *s, double x)
{
    return s->floor + s->height / (1 + exp(-s->k * (x - s->x0)));
}

/* From the Jacobian of height, k, x0 (and the floor). */
static void standard_errors(const Points *p, Sigmoid *s, double total)
{
    int n = isfinite(p->chance) ? 3 : 4;
    double a[16] = {0}, unit[16] = {0};
    for (int i = 0; i < p->n; i++) {
        double v = 1 / (1 + exp(-s->k * (p->x[i] - s->x0))), slope = s->height * v * (1 - v);
        double d[4] = {v, slope * (p->x[i] - s->x0), -slope * s->k, 1};
        for (int j = 0; j < n; j++)
            for (int k = 0; k < n; k++)
                a[j * n + k] += weight_of(p, i) * d[j] * d[k];
    }
    for (int j = 0; j < n; j++)
        unit[j * n + j] = 1;
    bool solved = total > n && matrix_solve(a, unit, n, n);
    for (int j = 0; j < 3; j++)
        s->error[j] = solved ? sqrt(unit[j * n + j] * s->sse / (total - n)) : NAN;
}

void sigmoid_fit(Sigmoid *s, const double *x, const double *y, const double *weight, int n, double chance, const Sigmoid *near)
{
    Points p = {.x = x, .y = y, .weight = weight, .n = n, .chance = chance};
    double low = INFINITY, high = -INFINITY, best[2] = {0, 0}, least = INFINITY, total = 0;
    for (int i = 0; i < n; i++) {
        low = fmin(low, x[i]);
        high = fmax(high, x[i]);
        total += weight_of(&p, i);
    }
    p.middle = (low + high) / 2;
    p.width = fmax((high - low) / 2, 1e-12);
    for (int i = 0; i < (near ? 1 : 70); i++) {
        double v[2] = {near ? near->k * p.width : (i % 2 ? 1 : -1) * pow(2, i / 2 % 5 - 1), near ? (near->x0 - p.middle) / p.width : i / 10 - 3};
        double sum = minimise(misfit, &p, v, 2, 2000, 1e-14, NULL, NULL);
        if (sum < least) {
            least = sum;
            best[0] = v[0];
            best[1] = v[1];
        }
    }
    double *share = memory_alloc((size_t)n, sizeof *share);
    for (int i = 0; i < n; i++)
        share[i] = 1 / (1 + exp(-best[0] * ((x[i] - p.middle) / p.width - best[1])));
    *s = (Sigmoid){.k = best[0] / p.width, .x0 = p.middle + best[1] * p.width, .sse = least, .points = (int)total};
    best_line(&p, share, &s->floor, &s->height);
    s->at_bound = s->height >= 1 - s->floor;
    standard_errors(&p, s, total);
    free(share);
}
