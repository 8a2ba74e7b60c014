#include "curve.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "io/stream.h"
#include "plot/plot.h"

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

void curve_add(Curve *c, double *rewards, size_t n)
{
    qsort(rewards, n, sizeof *rewards, ascending);
    if (n > c->capacity) {
        size_t old = c->capacity;
        c->capacity = n;
        c->sum = memory_realloc(c->sum, n, sizeof *c->sum);
        c->squares = memory_realloc(c->squares, n, sizeof *c->squares);
        c->prompts = memory_realloc(c->prompts, n, sizeof *c->prompts);
        for (size_t i = old; i < n; i++) {
            c->sum[i] = c->squares[i] = 0;
            c->prompts[i] = 0;
        }
    }
    c->count = n > c->count ? n : c->count;
    for (size_t k = 1; k <= n; k++) {
        double weight = (double)k / (double)n, best = 0; /* of the greatest: C(n−1,k−1)/C(n,k) */
        for (size_t i = n; i >= k; i--) {
            best += weight * rewards[i - 1];
            weight *= (double)(i - k) / (double)(i > 1 ? i - 1 : 1);
        }
        c->sum[k - 1] += best;
        c->squares[k - 1] += best * best;
        c->prompts[k - 1]++;
    }
}

static double mean_at(const Curve *c, size_t k)
{
    return c->sum[k - 1] / (double)c->prompts[k - 1];
}

static double error_at(const Curve *c, size_t k)
{
    double n = (double)c->prompts[k - 1], variance = (c->squares[k - 1] - c->sum[k - 1] * c->sum[k - 1] / n) / (n > 1 ? n - 1 : 1);
    return sqrt((variance > 0 ? variance : 0) / n);
}

static double bound_at(size_t k)
{
    return log((double)k) - (double)(k - 1) / (double)k;
}

void curve_report(const Curve *c)
{
    for (size_t k = 1; k <= c->count; k = k < c->count && 2 * k > c->count ? c->count : 2 * k)
        message("best of %zu: reward %.4f ± %.4f, KL at most %.3f (%" PRIu64 " prompts)", k, mean_at(c, k), error_at(c, k), bound_at(k), c->prompts[k - 1]);
}

static int curve_draw(const Curve *c, const char *path, Error *err)
{
    size_t n = c->count;
    double *x = memory_alloc(5 * n, sizeof *x), *kl = x + n, *y = kl + n, *low = y + n, *high = low + n;
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)(i + 1);
        kl[i] = bound_at(i + 1);
        y[i] = mean_at(c, i + 1);
        low[i] = y[i] - 2 * error_at(c, i + 1);
        high[i] = y[i] + 2 * error_at(c, i + 1);
    }
    const PlotSeries by_k[] = {{"two standard errors", x, low, high, n, PLOT_BAND, 0xcfe0f0}, {"best of k", x, y, NULL, n, PLOT_LINE, 0x1f4e8c}};
    const PlotSeries by_kl[] = {{NULL, kl, low, high, n, PLOT_BAND, 0xcfe0f0}, {NULL, kl, y, NULL, n, PLOT_LINE, 0x1f4e8c}};
    const PlotPanel panels[] = {{.title = "Reward of the best of k", .x_label = "k", .y_label = "reward", .log_x = true, .series = by_k, .count = 2},
                                {.title = "and what it costs", .x_label = "bound of KL, ln k - (k-1)/k", .y_label = "reward", .series = by_kl, .count = 2}};
    int status = plot_write(path, panels, 2, err);
    free(x);
    return status;
}

int curve_write(const Curve *c, const char *path, Error *err)
{
    const char *ending = strrchr(path, '.');
    if (c->count == 0)
        return error_set(err, "%s: no answers to draw a curve from", path);
    if (ending && (strcmp(ending, ".svg") == 0 || strcmp(ending, ".png") == 0))
        return curve_draw(c, path, err);
    Buffer b = {0};
    buffer_string(&b, "k\treward\tstderr\tkl_bound\tprompts\n");
    for (size_t k = 1; k <= c->count; k++)
        buffer_format(&b, "%zu\t%.6g\t%.6g\t%.6f\t%" PRIu64 "\n", k, mean_at(c, k), error_at(c, k), bound_at(k), c->prompts[k - 1]);
    int status = file_write(path, b.data, b.length, err);
    buffer_free(&b);
    return status;
}

void curve_free(Curve *c)
{
    free(c->sum);
    free(c->squares);
    free(c->prompts);
    *c = (Curve){0};
}
