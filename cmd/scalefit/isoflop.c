/* IsoFLOP (Hoffmann et al. 2022, approach 2): a parabola of the loss in log10 of the parameters for each budget, its minimum,
 * and power laws of the minima. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "scalefit.h"

static int compare_points(const void *a, const void *b)
{
    const RunPoint *x = a, *y = b;
    return x->params != y->params ? (x->params > y->params) - (x->params < y->params) : (x->loss > y->loss) - (x->loss < y->loss);
}

/* Of several runs of one size in a budget the lowest loss counts. */
static int drop_repeats(RunPoint *p, int count)
{
    int n = 0;
    for (int i = 0; i < count; i++)
        if (n == 0 || p[i].params != p[n - 1].params)
            p[n++] = p[i];
    return n;
}

static int compare_flops(const void *a, const void *b)
{
    const RunPoint *x = a, *y = b;
    return x->flops < y->flops ? -1 : x->flops > y->flops;
}

/* Absent FLOPs are 6 N D and absent tokens C / 6N. Rows without a loss are runs that have none yet. */
int points_read(const Table *t, RunPoint **out, int *count, Error *err)
{
    RunPoint *p = memory_alloc(t->row_count, sizeof *p);
    int n = 0, status = 0;
    *out = p;
    if (table_require(t, "params", err) < 0 || (!table_has(t, "val_loss") && table_require(t, "loss", err) < 0) ||
        (!table_has(t, "tokens") && table_require(t, "flops", err) < 0))
        return -1;
    for (size_t i = 0; i < t->row_count && status == 0; i++) {
        RunPoint r;
        double value;
        if (table_number(t, i, "flops", &r.flops, err) < 0 || table_number(t, i, "params", &r.params, err) < 0 ||
            table_number(t, i, "tokens", &r.tokens, err) < 0 || table_number(t, i, "val_loss", &value, err) < 0 ||
            table_number(t, i, "loss", &r.loss, err) < 0)
            return -1;
        r.loss = isnan(value) ? r.loss : value;
        if (isnan(r.loss))
            continue;
        if (isnan(r.tokens))
            r.tokens = r.flops / (6 * r.params);
        if (isnan(r.flops))
            r.flops = 6 * r.params * r.tokens;
        const struct {
            const char *name;
            double value;
        } needs[] = {{"params", r.params}, {"flops", r.flops}, {"tokens", r.tokens}, {"loss", r.loss}};
        for (int k = 0; k < 4 && status == 0; k++)
            status = table_positive(t, i, needs[k].name, needs[k].value, err);
        p[n++] = r;
    }
    if (status == 0 && (size_t)n < t->row_count && n > 0)
        message("%zu of %zu rows have no loss and are left out", t->row_count - (size_t)n, t->row_count);
    *count = n;
    return status < 0 ? -1 : n ? 0 : error_set(err, "%s: no row has a loss", table_place(t, 0));
}

static bool lies_within(double x, const double *points, int n)
{
    double low = points[0], high = points[0];
    for (int i = 1; i < n; i++) {
        low = fmin(low, points[i]);
        high = fmax(high, points[i]);
    }
    return x >= low && x <= high;
}

static void budget_fit(Budget *b, const char *window)
{
    int best = 0;
    for (int i = 1; i < b->count; i++)
        best = b->points[i].loss < b->points[best].loss ? i : best;
    int reach = strcmp(window, "all") == 0 ? b->count : atoi(window);
    int first = best - reach > 0 ? best - reach : 0, last = best + reach < b->count - 1 ? best + reach : b->count - 1;
    int n = last - first + 1;
    b->used_first = first;
    b->used_count = n;
    if (b->count < 3) {
        b->why = "fewer than three sizes";
        return;
    }
    if (best == 0 || best == b->count - 1) {
        b->why = best == 0 ? "the smallest size is the best: no inner minimum" : "the largest size is the best: no inner minimum";
        return;
    }
    double *x = memory_alloc((size_t)n, sizeof *x), *y = memory_alloc((size_t)n, sizeof *y), *d = memory_alloc((size_t)n, sizeof *d);
    for (int i = 0; i < n; i++) {
        x[i] = log10(b->points[first + i].params);
        d[i] = log10(b->points[first + i].tokens);
        y[i] = b->points[first + i].loss;
    }
    parabola_fit(x, y, n, b->c);
    parabola_fit(d, y, n, b->d);
    b->log_n = -b->c[1] / (2 * b->c[2]);
    b->log_d = -b->d[1] / (2 * b->d[2]);
    b->loss = b->c[0] - b->c[1] * b->c[1] / (4 * b->c[2]);
    if (!(b->c[2] > 0))
        b->why = "the parabola opens downwards";
    else if (b->log_n < x[0] || b->log_n > x[n - 1])
        b->why = "the minimum lies outside the sizes";
    else if (!lies_within(b->log_d, d, n))
        b->why = "the minimum in tokens lies outside the runs";
    free(x);
    free(y);
    free(d);
}

int budgets_make(RunPoint *p, int count, double tolerance, const char *window, Budget **out)
{
    qsort(p, (size_t)count, sizeof *p, compare_flops);
    Budget *b = memory_zalloc((size_t)count, sizeof *b);
    int n = 0;
    for (int i = 0; i < count; n++) {
        int j = i;
        double sum = 0;
        while (j < count && p[j].flops <= p[i].flops * (1 + tolerance))
            j++;
        bool equal = p[i].flops == p[j - 1].flops;
        b[n] = (Budget){.points = p + i, .count = j - i};
        qsort(b[n].points, (size_t)b[n].count, sizeof *p, compare_points);
        b[n].count = drop_repeats(b[n].points, b[n].count);
        for (int k = 0; k < b[n].count; k++)
            sum += log(b[n].points[k].flops);
        b[n].flops = equal ? p[i].flops : exp(sum / b[n].count);
        budget_fit(&b[n], window);
        i = j;
    }
    *out = b;
    return n;
}

static int fit_laws(const Budget *b, int count, Laws *l)
{
    double *c = memory_alloc((size_t)count, sizeof *c), *n = memory_alloc((size_t)count, sizeof *n), *d = memory_alloc((size_t)count, sizeof *d),
           *e = memory_alloc((size_t)count, sizeof *e);
    l->used = 0;
    for (int i = 0; i < count; i++)
        if (!b[i].why) {
            c[l->used] = log10(b[i].flops);
            n[l->used] = b[i].log_n;
            d[l->used] = b[i].log_d;
            e[l->used++] = log10(b[i].loss);
        }
    if (l->used >= 2) {
        line_fit(&l->n, c, n, l->used);
        line_fit(&l->d, c, d, l->used);
        line_fit(&l->loss, c, e, l->used);
    }
    free(c);
    free(n);
    free(d);
    free(e);
    return l->used >= 2 ? 0 : -1;
}

int command_isoflop(const Settings *s, const char *const *files, Error *err)
{
    Table t;
    RunPoint *points = NULL;
    Budget *budgets = NULL;
    int count = 0, status = table_read(&t, files, &s->wheres, &s->renames, err);
    if (status == 0)
        status = points_read(&t, &points, &count, err);
    if (status == 0) {
        Laws laws = {0};
        int n = budgets_make(points, count, s->tolerance, s->window, &budgets);
        int fits = fit_laws(budgets, n, &laws);
        for (int i = 0; i < n; i++)
            if (budgets[i].why)
                message("budget %.4g FLOPs is not used: %s", budgets[i].flops, budgets[i].why);
        if (s->json)
            isoflop_json(s, budgets, n, &laws);
        else
            isoflop_text(s, budgets, n, &laws);
        if (s->plot)
            status = isoflop_plot(s, budgets, n, &laws, err);
        if (status == 0 && fits < 0)
            status = error_set(err, "%s: a power law needs two budgets with an inner minimum; %d of %d have one", table_place(&t, 0), laws.used, n);
    }
    free(points);
    free(budgets);
    table_free(&t);
    return status;
}
