#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mixture.h"

static double weight_of(const MixtureRuns *r, int i)
{
    return r->weight ? r->weight[i] : 1;
}

double mixture_loss(const MixtureLaw *l, const double *shares)
{
    double sum = 0;
    const double *t = l->v + !l->linear;
    for (int j = 0; j < l->domains; j++)
        sum += t[j] * shares[j];
    return l->linear ? sum : l->v[0] + exp(sum);
}

static void residuals(const void *context, const double *x, double *residual, double *jacobian)
{
    const MixtureRuns *r = context;
    for (int i = 0; i < r->count; i++) {
        const double *share = r->shares + i * r->domains;
        double sum = 0, w = sqrt(weight_of(r, i));
        for (int j = 0; j < r->domains; j++)
            sum += x[1 + j] * share[j];
        double e = exp(sum);
        residual[i] = w * (x[0] + e - r->losses[i]);
        if (!jacobian)
            continue;
        double *row = jacobian + i * (r->domains + 1);
        row[0] = w;
        for (int j = 0; j < r->domains; j++)
            row[1 + j] = w * e * share[j];
    }
}

/* Σ v_j r_j nearest to y: the normal equations, with a trace of ridge lest a domain that no run has makes them singular. */
static void regress(const MixtureRuns *r, const double *y, double *v)
{
    int n = r->domains;
    double *a = memory_zalloc((size_t)(n * n), sizeof *a);
    memset(v, 0, (size_t)n * sizeof *v);
    for (int i = 0; i < r->count; i++) {
        const double *share = r->shares + i * n;
        for (int j = 0; j < n; j++) {
            v[j] += weight_of(r, i) * share[j] * y[i];
            for (int k = 0; k < n; k++)
                a[j * n + k] += weight_of(r, i) * share[j] * share[k];
        }
    }
    for (int j = 0; j < n; j++)
        a[j * n + j] += 1e-14 * r->count;
    matrix_solve(a, v, n, 1);
    free(a);
}

static double sse_of(const MixtureLaw *l, const MixtureRuns *r)
{
    double sum = 0;
    for (int i = 0; i < r->count; i++)
        sum += weight_of(r, i) * pow(mixture_loss(l, r->shares + i * r->domains) - r->losses[i], 2);
    return sum;
}

void mixture_fit(MixtureLaw *l, const MixtureRuns *r, bool linear, const MixtureLaw *near)
{
    *l = (MixtureLaw){.domains = r->domains, .linear = linear, .sse = INFINITY};
    if (linear) {
        regress(r, r->losses, l->v);
        l->sse = sse_of(l, r);
        return;
    }
    if (near) {
        memcpy(l->v, near->v, sizeof l->v);
        l->sse = least_squares(residuals, r, l->v, r->domains + 1, r->count, 200);
        return;
    }
    /* The constant lies below the losses, how far is what the starts try; for a constant, t is a regression of log(L − c). */
    static const double below[] = {0.003, 0.02, 0.1, 0.3, 1, 3, 10};
    double low = INFINITY, high = -INFINITY, *y = memory_alloc((size_t)r->count, sizeof *y);
    for (int i = 0; i < r->count; i++) {
        low = fmin(low, r->losses[i]);
        high = fmax(high, r->losses[i]);
    }
    for (size_t s = 0; s < sizeof below / sizeof *below; s++) {
        double x[MIXTURE_MOST + 1] = {low - below[s] * (high - low) - 1e-6 * fabs(high)};
        for (int i = 0; i < r->count; i++)
            y[i] = log(r->losses[i] - x[0]);
        regress(r, y, x + 1);
        double sse = least_squares(residuals, r, x, r->domains + 1, r->count, 500);
        if (sse < l->sse) {
            l->sse = sse;
            memcpy(l->v, x, sizeof x);
        }
    }
    free(y);
}

/* The nearest point with shares of 0 … limit and sum 1: all are moved by the same amount, found by bisection. */
static void project(double *x, const double *limits, int n)
{
    double low = -10, high = 10;
    for (int i = 0; i < 60; i++) {
        double shift = (low + high) / 2, sum = 0;
        for (int j = 0; j < n; j++)
            sum += fmin(fmax(x[j] + shift, 0), limits[j]);
        *(sum < 1 ? &low : &high) = shift;
    }
    for (int j = 0; j < n; j++)
        x[j] = fmin(fmax(x[j] + high, 0), limits[j]);
}

static double aim_value(const MixtureLaw *laws, const double *aims, size_t count, const double *x, double *g)
{
    double sum = 0;
    int n = laws[0].domains;
    if (g)
        memset(g, 0, (size_t)n * sizeof *g);
    for (size_t i = 0; i < count; i++) {
        double v = mixture_loss(&laws[i], x), by = laws[i].linear ? 1 : v - laws[i].v[0];
        sum += aims[i] * v;
        for (int j = 0; j < n && g; j++)
            g[j] += aims[i] * by * laws[i].v[j + !laws[i].linear];
    }
    return sum;
}

void mixture_best(const MixtureLaw *laws, const double *aims, size_t count, const double *limits, double *x)
{
    int n = laws[0].domains;
    double g[MIXTURE_MOST], next[MIXTURE_MOST], step = 0.1, value;
    project(x, limits, n);
    value = aim_value(laws, aims, count, x, g);
    for (int i = 0; i < 5000 && step > 1e-14; i++) {
        double descent = 0, moved = 0;
        for (int j = 0; j < n; j++)
            next[j] = x[j] - step * g[j];
        project(next, limits, n);
        for (int j = 0; j < n; j++) {
            descent += g[j] * (x[j] - next[j]);
            moved = fmax(moved, fabs(next[j] - x[j]));
        }
        double v = aim_value(laws, aims, count, next, NULL);
        if (!(v <= value - 1e-4 * descent)) {
            step /= 2;
            continue;
        }
        memcpy(x, next, (size_t)n * sizeof *x);
        value = aim_value(laws, aims, count, x, g);
        step *= 1.5;
        if (moved < 1e-8)
            break;
    }
}
