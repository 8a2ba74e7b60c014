/* IsoFLOP (Hoffmann et al. 2022, approach 2): a parabola of the loss in log10 of the parameters for each budget, its minimum,
 * and power laws of the minima. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "io/json.h"
#include "plot/plot.h"
#include "scalefit.h"

typedef struct RunPoint {
    double flops, params, tokens, loss;
} RunPoint;

typedef struct Budget {
    double flops;
    RunPoint *points; /* by rising params */
    int count, used_first, used_count;
    double c[3], log_n, log_d, loss;
    const char *why;  /* not used: the reason; NULL: used */
} Budget;

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

static int read_points(const Table *t, RunPoint **out, int *count, Error *err)
{
    RunPoint *p = memory_alloc(t->row_count, sizeof *p);
    int n = 0;
    for (size_t i = 0; i < t->row_count; i++) {
        RunPoint r = {table_number(t, i, "flops"), table_number(t, i, "params"), table_number(t, i, "tokens"), table_number(t, i, "val_loss")};
        if (isnan(r.loss))
            r.loss = table_number(t, i, "loss");
        if (isnan(r.tokens))
            r.tokens = r.flops / (6 * r.params);
        if (!(r.flops > 0 && r.params > 0 && r.tokens > 0 && isfinite(r.flops) && isfinite(r.params) && isfinite(r.tokens))) {
            free(p);
            return error_set(err, "row %zu of those that are wanted has no positive flops, params and tokens", i + 1);
        }
        if (isfinite(r.loss))
            p[n++] = r;
    }
    *out = p;
    *count = n;
    return n ? 0 : error_set(err, "no row has a loss");
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
    double *x = memory_alloc((size_t)n, sizeof *x), *y = memory_alloc((size_t)n, sizeof *y), *d = memory_alloc((size_t)n, sizeof *d), cd[3];
    for (int i = 0; i < n; i++) {
        x[i] = log10(b->points[first + i].params);
        d[i] = log10(b->points[first + i].tokens);
        y[i] = b->points[first + i].loss;
    }
    parabola_fit(x, y, n, b->c);
    parabola_fit(d, y, n, cd);
    b->log_n = -b->c[1] / (2 * b->c[2]);
    b->log_d = -cd[1] / (2 * cd[2]);
    b->loss = b->c[0] - b->c[1] * b->c[1] / (4 * b->c[2]);
    if (!(b->c[2] > 0))
        b->why = "the parabola opens downwards";
    else if (b->log_n < x[0] || b->log_n > x[n - 1])
        b->why = "the minimum lies outside the sizes";
    free(x);
    free(y);
    free(d);
}

static int make_budgets(RunPoint *p, int count, double tolerance, const char *window, Budget **out)
{
    qsort(p, (size_t)count, sizeof *p, compare_flops);
    Budget *b = memory_zalloc((size_t)count, sizeof *b);
    int n = 0;
    for (int i = 0; i < count; n++) {
        int j = i;
        double sum = 0;
        while (j < count && p[j].flops <= p[i].flops * (1 + tolerance))
            j++;
        b[n] = (Budget){.points = p + i, .count = j - i};
        qsort(b[n].points, (size_t)b[n].count, sizeof *p, compare_points);
        b[n].count = drop_repeats(b[n].points, b[n].count);
        for (int k = 0; k < b[n].count; k++)
            sum += log(b[n].points[k].flops);
        b[n].flops = exp(sum / b[n].count);
        budget_fit(&b[n], window);
        i = j;
    }
    *out = b;
    return n;
}

typedef struct Laws {
    Line n, d, loss;
    int used;
} Laws;

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

static void put_line(Buffer *b, const char *name, const Line *l)
{
    double t = t_quantile95(l->points - 2);
    const struct {
        const char *key;
        double value;
    } items[] = {{"slope", l->slope}, {"intercept", l->intercept}, {"slope_se", l->slope_error}, {"intercept_se", l->intercept_error}, {"r2", l->r2}};
    buffer_format(b, "  \"%s\": {", name);
    for (int i = 0; i < 5; i++) {
        buffer_format(b, "\"%s\": ", items[i].key);
        json_write_number(b, items[i].value);
        buffer_string(b, ", ");
    }
    buffer_string(b, "\"slope_ci95\": [");
    json_write_number(b, l->slope - t * l->slope_error);
    buffer_string(b, ", ");
    json_write_number(b, l->slope + t * l->slope_error);
    buffer_format(b, "], \"points\": %d},\n", l->points);
}

static void put_number(Buffer *b, const char *key, double x)
{
    buffer_format(b, "\"%s\": ", key);
    json_write_number(b, x);
}

static void print_json(const Settings *s, const Budget *b, int count, const Laws *l)
{
    Buffer o = {0};
    bool fits = l->used >= 2;
    buffer_format(&o, "{\n  \"method\": \"isoflop\",\n  \"window\": \"%s\",\n  \"fits\": %s,\n", s->window, fits ? "true" : "false");
    if (fits) {
        put_line(&o, "log10_N_on_log10_C", &l->n);
        put_line(&o, "log10_D_on_log10_C", &l->d);
        put_line(&o, "log10_loss_on_log10_C", &l->loss);
    }
    buffer_string(&o, "  \"optima\": [");
    for (int i = 0; i < count; i++) {
        buffer_string(&o, i ? ",\n    {" : "\n    {");
        put_number(&o, "flops", b[i].flops);
        buffer_format(&o, ", \"points\": %d, ", b[i].used_count);
        if (b[i].why) {
            buffer_format(&o, "\"used\": false, \"reason\": \"%s\"}", b[i].why);
            continue;
        }
        put_number(&o, "log10_N", b[i].log_n);
        buffer_string(&o, ", ");
        put_number(&o, "log10_D", b[i].log_d);
        buffer_string(&o, ", ");
        put_number(&o, "loss", b[i].loss);
        buffer_string(&o, ", ");
        put_number(&o, "c2", b[i].c[2]);
        buffer_string(&o, ", \"used\": true}");
    }
    buffer_string(&o, "\n  ],\n  \"predictions\": [");
    for (size_t i = 0; i < s->budgets.count && fits; i++) {
        double c = log10(strtod(s->budgets.values[i], NULL));
        const struct {
            const char *key;
            const Line *l;
        } laws[] = {{"params", &l->n}, {"tokens", &l->d}, {"loss", &l->loss}};
        buffer_string(&o, i ? ",\n    {" : "\n    {");
        put_number(&o, "flops", pow(10, c));
        for (int k = 0; k < 3; k++) {
            double y = laws[k].l->intercept + laws[k].l->slope * c, h = line_interval(laws[k].l, c);
            buffer_string(&o, ", ");
            put_number(&o, laws[k].key, pow(10, y));
            buffer_format(&o, ", \"%s_ci95\": [", laws[k].key);
            json_write_number(&o, pow(10, y - h));
            buffer_string(&o, ", ");
            json_write_number(&o, pow(10, y + h));
            buffer_byte(&o, ']');
        }
        buffer_byte(&o, '}');
    }
    buffer_string(&o, "\n  ]\n}\n");
    fwrite(o.data, 1, o.length, stdout);
    buffer_free(&o);
}

static void print_text(const Settings *s, const Budget *b, int count, const Laws *l)
{
    printf("%12s %6s %12s %12s %9s\n", "budget FLOPs", "sizes", "parameters", "tokens", "loss");
    for (int i = 0; i < count; i++) {
        if (b[i].why)
            printf("%12.4g %6d not used: %s\n", b[i].flops, b[i].count, b[i].why);
        else
            printf("%12.4g %6d %12.4g %12.4g %9.4f\n", b[i].flops, b[i].count, pow(10, b[i].log_n), pow(10, b[i].log_d), b[i].loss);
    }
    if (l->used < 2)
        return;
    const struct {
        const char *name;
        const Line *l;
    } laws[] = {{"parameters", &l->n}, {"tokens", &l->d}, {"loss", &l->loss}};
    for (int i = 0; i < 3; i++) {
        double t = t_quantile95(laws[i].l->points - 2) * laws[i].l->slope_error;
        printf("%-10s = %.4g · C^%.4f", laws[i].name, pow(10, laws[i].l->intercept), laws[i].l->slope);
        if (isfinite(t))
            printf("   (95 %% of the exponent: %.4f … %.4f)", laws[i].l->slope - t, laws[i].l->slope + t);
        printf("\n");
    }
    for (size_t i = 0; i < s->budgets.count; i++) {
        double c = log10(strtod(s->budgets.values[i], NULL));
        printf("at %.4g FLOPs:", pow(10, c));
        for (int k = 0; k < 3; k++) {
            double y = laws[k].l->intercept + laws[k].l->slope * c, h = line_interval(laws[k].l, c);
            printf("  %s %.4g", laws[k].name, pow(10, y));
            if (isfinite(h))
                printf(" (%.4g … %.4g)", pow(10, y - h), pow(10, y + h));
        }
        printf("\n");
    }
}

static int draw(const Settings *s, const Budget *b, int count, const Laws *l, Error *err)
{
    enum { STEPS = 40 };
    PlotSeries *series = memory_zalloc((size_t)count * 2, sizeof *series);
    double *xs = memory_alloc((size_t)count * 2 * 128, sizeof *xs), *ys = memory_alloc((size_t)count * 2 * 128, sizeof *ys), *cs = memory_alloc((size_t)count + 1, sizeof *cs),
           *ns = memory_alloc((size_t)count + 1, sizeof *ns), lx[2], ly[2];
    char(*titles)[32] = memory_alloc((size_t)count, sizeof *titles);
    size_t n = 0, used = 0;
    for (int i = 0; i < count; i++) {
        double *x = xs + (size_t)i * 256, *y = ys + (size_t)i * 256;
        int points = b[i].count < 128 ? b[i].count : 128;
        for (int k = 0; k < points; k++) {
            x[k] = b[i].points[k].params;
            y[k] = b[i].points[k].loss;
        }
        snprintf(titles[i], sizeof titles[i], "%.2g FLOPs", b[i].flops);
        series[n++] = (PlotSeries){titles[i], x, y, (size_t)points, false, i + 1};
        if (b[i].why)
            continue;
        cs[used] = b[i].flops;
        ns[used++] = pow(10, b[i].log_n);
        double from = log10(b[i].points[b[i].used_first].params), to = log10(b[i].points[b[i].used_first + b[i].used_count - 1].params);
        for (int k = 0; k < STEPS; k++) {
            double z = from + (to - from) * k / (STEPS - 1);
            x[128 + k] = pow(10, z);
            y[128 + k] = b[i].c[0] + b[i].c[1] * z + b[i].c[2] * z * z;
        }
        series[n++] = (PlotSeries){NULL, x + 128, y + 128, STEPS, true, i + 1};
    }
    PlotSeries law[2] = {{"minima", cs, ns, used, false, 1}, {"power law", lx, ly, 2, true, 2}};
    PlotPanel panels[2] = {{"IsoFLOP", "parameters", "loss", true, false, series, n}, {"optimal size", "FLOPs", "parameters", true, true, law, 2}};
    if (l->used >= 2) {
        double last = s->budgets.count ? strtod(s->budgets.values[s->budgets.count - 1], NULL) : cs[used - 1];
        lx[0] = cs[0];
        lx[1] = last > cs[used - 1] ? last : cs[used - 1];
        for (int k = 0; k < 2; k++)
            ly[k] = pow(10, l->n.intercept + l->n.slope * log10(lx[k]));
    }
    int status = plot_write(s->plot, panels, l->used >= 2 ? 2 : 1, err);
    free(series);
    free(xs);
    free(ys);
    free(cs);
    free(ns);
    free(titles);
    return status;
}

int command_isoflop(const Settings *s, const char *const *files, Error *err)
{
    Table t;
    RunPoint *points = NULL;
    Budget *budgets = NULL;
    int count = 0, status = table_read(&t, files, &s->wheres, &s->renames, err);
    if (status == 0)
        status = read_points(&t, &points, &count, err);
    if (status == 0) {
        Laws laws = {0};
        int n = make_budgets(points, count, s->tolerance, s->window, &budgets);
        int fits = fit_laws(budgets, n, &laws);
        for (int i = 0; i < n; i++)
            if (budgets[i].why)
                message("budget %.4g FLOPs is not used: %s", budgets[i].flops, budgets[i].why);
        if (s->json)
            print_json(s, budgets, n, &laws);
        else
            print_text(s, budgets, n, &laws);
        if (s->plot)
            status = draw(s, budgets, n, &laws, err);
        if (status == 0 && fits < 0)
            status = error_set(err, "a power law needs two budgets with an inner minimum; %d of %d have one", laws.used, n);
    }
    free(points);
    free(budgets);
    table_free(&t);
    return status;
}

int command_power(const Settings *s, const char *const *files, Error *err)
{
    Table t;
    if (table_read(&t, files, &s->wheres, &s->renames, err) < 0) {
        table_free(&t);
        return -1;
    }
    double *x = memory_alloc(t.row_count, sizeof *x), *y = memory_alloc(t.row_count, sizeof *y);
    int n = 0, status = 0;
    for (size_t i = 0; i < t.row_count; i++) {
        double a = table_number(&t, i, s->x), b = table_number(&t, i, s->y);
        if (a > 0 && b > 0 && isfinite(a) && isfinite(b)) {
            x[n] = log10(a);
            y[n++] = log10(b);
        }
    }
    bool differ = false;
    for (int i = 1; i < n; i++)
        differ |= x[i] != x[0];
    if (n < 2 || !differ)
        status = error_set(err, "fewer than two rows have positive %s and %s at different %s", s->x, s->y, s->x);
    if (status == 0) {
        Line l;
        line_fit(&l, x, y, n);
        double half = t_quantile95(n - 2) * l.slope_error;
        Buffer b = {0};
        if (s->json) {
            buffer_format(&b, "{\n  \"method\": \"power\",\n  \"x\": \"%s\",\n  \"y\": \"%s\",\n", s->x, s->y);
            put_line(&b, "log10_y_on_log10_x", &l);
            buffer_string(&b, "  \"coefficient\": ");
            json_write_number(&b, pow(10, l.intercept));
            buffer_string(&b, ",\n  \"predictions\": [");
        } else {
            buffer_format(&b, "%s = %.6g · %s^%.6f   (95 %% of the exponent: %.4f … %.4f, r² %.4f, %d points)\n", s->y, pow(10, l.intercept), s->x,
                          l.slope, l.slope - half, l.slope + half, l.r2, n);
        }
        for (size_t i = 0; i < s->budgets.count; i++) {
            double c = log10(strtod(s->budgets.values[i], NULL)), v = l.intercept + l.slope * c, h = line_interval(&l, c);
            if (s->json) {
                buffer_string(&b, i ? ", {" : "{");
                put_number(&b, "x", pow(10, c));
                buffer_string(&b, ", ");
                put_number(&b, "y", pow(10, v));
                buffer_string(&b, ", \"y_ci95\": [");
                json_write_number(&b, pow(10, v - h));
                buffer_string(&b, ", ");
                json_write_number(&b, pow(10, v + h));
                buffer_string(&b, "]}");
            } else {
                buffer_format(&b, "at %s %.4g: %s %.4g (%.4g … %.4g)\n", s->x, pow(10, c), s->y, pow(10, v), pow(10, v - h), pow(10, v + h));
            }
        }
        buffer_string(&b, s->json ? "]\n}\n" : "");
        fwrite(b.data, 1, b.length, stdout);
        buffer_free(&b);
        if (s->plot) {
            double lx[2] = {INFINITY, 0}, ly[2];
            for (int i = 0; i < n; i++) {
                x[i] = pow(10, x[i]);
                y[i] = pow(10, y[i]);
                lx[0] = fmin(lx[0], x[i]);
                lx[1] = fmax(lx[1], x[i]);
            }
            for (int k = 0; k < 2; k++)
                ly[k] = pow(10, l.intercept + l.slope * log10(lx[k]));
            PlotSeries series[2] = {{"runs", x, y, (size_t)n, false, 1}, {"power law", lx, ly, 2, true, 2}};
            PlotPanel panel = {"power law", s->x, s->y, true, true, series, 2};
            status = plot_write(s->plot, &panel, 1, err);
        }
    }
    free(x);
    free(y);
    table_free(&t);
    return status;
}
