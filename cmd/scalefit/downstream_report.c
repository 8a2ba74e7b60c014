/* What downstream found: as text, as JSON, and as the two panels of Llama 3's figure. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "downstream.h"
#include "io/json.h"
#include "plot/plot.h"

/* The rows that step 1 was not fitted to, then --budget and --at. */
static TaskPoint *points_of(const Settings *s, const TaskFit *f, const TaskRun ***runs, size_t *count)
{
    TaskPoint *p = memory_alloc((size_t)f->count + s->budgets.count + s->points.count + 1, sizeof *p);
    *runs = memory_zalloc((size_t)f->count + s->budgets.count + s->points.count + 1, sizeof **runs);
    size_t n = 0;
    for (int i = 0; i < f->count; i++) {
        const TaskRun *r = &f->runs[i];
        if (!r->first && (f->by_size ? r->params > 0 && r->tokens > 0 : r->flops > 0)) {
            (*runs)[n] = r;
            p[n++] = (TaskPoint){r->name, r->flops, r->params, r->tokens};
        }
    }
    for (size_t i = 0; i < s->budgets.count && !f->by_size; i++)
        p[n++] = (TaskPoint){NULL, strtod(s->budgets.values[i], NULL), NAN, NAN};
    for (size_t i = 0; i < s->points.count; i++) {
        double v[2];
        Error ignored;
        if (parse_numbers("at", s->points.values[i], v, 2, &ignored) == 0)
            p[n++] = (TaskPoint){NULL, 6 * v[0] * v[1], v[0], v[1]};
    }
    *count = n;
    return p;
}

typedef struct Predicted {
    double nll, accuracy;
    Spread nlls, accuracies;
} Predicted;

static Predicted predict(const TaskFit *f, const TaskPoint *p)
{
    Predicted out = {.nll = task_nll(f, SIZE_MAX, p)};
    out.accuracy = task_accuracy(f, SIZE_MAX, out.nll);
    double *x = memory_alloc(f->samples + 1, sizeof *x), *y = memory_alloc(f->samples + 1, sizeof *y);
    for (size_t i = 0; i < f->samples; i++) {
        x[i] = task_nll(f, i, p);
        y[i] = task_accuracy(f, i, x[i]);
    }
    out.nlls = spread(x, f->samples);
    out.accuracies = spread(y, f->samples);
    free(x);
    free(y);
    return out;
}

static void put(Buffer *b, const char *key, double x)
{
    buffer_string(b, ", ");
    report_number(b, key, x);
}

static void json_predictions(Buffer *b, const Settings *s, const TaskFit *f)
{
    size_t n;
    const TaskRun **runs;
    TaskPoint *p = points_of(s, f, &runs, &n);
    buffer_string(b, "  \"predictions\": [");
    for (size_t i = 0; i < n; i++) {
        Predicted q = predict(f, &p[i]);
        buffer_string(b, i ? ",\n    {" : "\n    {");
        if (p[i].name) {
            buffer_string(b, "\"run\": ");
            json_write_string(b, (Span){p[i].name, strlen(p[i].name)});
            buffer_string(b, ", ");
        }
        report_number(b, "flops", p[i].flops);
        if (f->by_size) {
            put(b, "params", p[i].params);
            put(b, "tokens", p[i].tokens);
        }
        put(b, "nll_predicted", q.nll);
        buffer_string(b, ", \"nll_ci95\": ");
        report_spread(b, q.nlls);
        put(b, "acc_predicted", q.accuracy);
        buffer_string(b, ", \"acc_ci95\": ");
        report_spread(b, q.accuracies);
        if (runs[i]) {
            put(b, "nll", runs[i]->nll);
            put(b, "acc", runs[i]->accuracy);
            put(b, "acc_from_true_nll", task_accuracy(f, SIZE_MAX, runs[i]->nll));
        }
        buffer_byte(b, '}');
    }
    buffer_string(b, "\n  ]");
    free(p);
    free(runs);
}

void downstream_json(const Settings *s, const TaskFit *fits, size_t count)
{
    Buffer b = {0};
    buffer_string(&b, "{\"method\": \"downstream\", \"tasks\": [");
    for (size_t i = 0; i < count; i++) {
        const TaskFit *f = &fits[i];
        const Sigmoid *g = &f->sigmoid;
        buffer_format(&b, "%s\n {\"task\": ", i ? "," : "");
        json_write_string(&b, (Span){f->task, strlen(f->task)});
        buffer_string(&b, ",\n");
        if (f->by_size) {
            buffer_format(&b, "  \"step1_size\": {\"points\": %d", f->law_points);
            put(&b, "objective", f->objective);
            for (int k = 0; k < FORM3_VALUES - 1; k++)
                put(&b, form3_names[k], f->law[k]);
            buffer_string(&b, "},\n");
        } else {
            report_line(&b, "step1", &f->line);
        }
        buffer_format(&b, "  \"step2\": {\"points\": %d", g->points);
        const struct {
            const char *key;
            double value;
        } values[] = {{"floor", g->floor}, {"height", g->height}, {"k", g->k}, {"x0", g->x0}, {"sse", g->sse}, {"rmse", sqrt(g->sse / g->points)}};
        for (size_t k = 0; k < sizeof values / sizeof *values; k++)
            put(&b, values[k].key, values[k].value);
        buffer_string(&b, ", \"se\": [");
        for (int k = 0; k < 3; k++) {
            buffer_string(&b, k ? ", " : "");
            json_write_number(&b, g->error[k]);
        }
        buffer_format(&b, "], \"height_at_bound\": %s},\n", g->at_bound ? "true" : "false");
        json_predictions(&b, s, f);
        buffer_byte(&b, '}');
    }
    buffer_string(&b, "\n]}\n");
    fwrite(b.data, 1, b.length, stdout);
    buffer_free(&b);
}

static void print_interval(Spread s)
{
    if (isfinite(s.low))
        printf(" (%.4f … %.4f)", s.low, s.high);
}

void downstream_text(const Settings *s, const TaskFit *fits, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const TaskFit *f = &fits[i];
        const Sigmoid *g = &f->sigmoid;
        printf("%s%s\n", i ? "\n" : "", f->task);
        if (f->by_size) {
            printf("  loss     = %.4f + %.4g / N^%.4f + %.4g / D^%.4f   (%d runs)\n", f->law[2], f->law[0], f->law[3], f->law[1], f->law[4], f->law_points);
        } else {
            double t = t_quantile95(f->line.points - 2) * f->line.slope_error;
            printf("  loss     = %.4g · C^%.4f   (95 %% of the exponent: %.4f … %.4f, %d runs)\n", pow(10, f->line.intercept), f->line.slope,
                   f->line.slope - t, f->line.slope + t, f->line.points);
        }
        printf("  accuracy = %.4f + %.4f / (1 + exp(%.4f · (loss − %.4f)))   (%d runs, residual %.4f%s)\n", g->floor, g->height, -g->k, g->x0, g->points,
               sqrt(g->sse / g->points), g->at_bound ? ", the top is 1" : "");
        size_t n;
        const TaskRun **runs;
        TaskPoint *p = points_of(s, f, &runs, &n);
        for (size_t k = 0; k < n; k++) {
            Predicted q = predict(f, &p[k]);
            printf("  %s %.4g FLOPs: loss %.4f", p[k].name ? p[k].name : "at", p[k].flops, q.nll);
            print_interval(q.nlls);
            if (runs[k])
                printf(" for %.4f", runs[k]->nll);
            printf(", accuracy %.4f", q.accuracy);
            print_interval(q.accuracies);
            if (runs[k])
                printf(" for %.4f; from its own loss %.4f", runs[k]->accuracy, task_accuracy(f, SIZE_MAX, runs[k]->nll));
            printf("\n");
        }
        free(p);
        free(runs);
    }
}

enum { STEPS = 60, BLUE = 0x3b528b, GREEN = 0x21918c, RED = 0xc0392b, INK = 0x222222 };

/* Rows of one kind as points. */
static size_t gather(const TaskFit *f, bool first, bool accuracy, double *x, double *y)
{
    size_t n = 0;
    for (int i = 0; i < f->count; i++) {
        const TaskRun *r = &f->runs[i];
        if (r->first != first || (accuracy && isnan(r->accuracy)))
            continue;
        x[n] = accuracy ? r->nll : r->flops;
        y[n++] = accuracy ? r->accuracy : r->nll;
    }
    return n;
}

/* One task: loss against compute, accuracy against loss. */
static int task_plot(const char *path, const Settings *s, const TaskFit *f, Error *err)
{
    size_t room = (size_t)f->count + 1, n, points;
    double *v[10], lc[STEPS], ll[STEPS], under[STEPS], over[STEPS], sx[STEPS], sy[STEPS], su[STEPS], so[STEPS];
    const TaskRun **runs;
    TaskPoint *p = points_of(s, f, &runs, &points);
    for (int i = 0; i < 10; i++)
        v[i] = memory_alloc(room + points, sizeof **v);
    double low = INFINITY, high = 0, least = INFINITY, most = 0;
    for (int i = 0; i < f->count; i++) {
        low = fmin(low, f->runs[i].flops);
        high = fmax(high, f->runs[i].flops);
        least = fmin(least, f->runs[i].nll);
        most = fmax(most, f->runs[i].nll);
    }
    size_t predicted = 0;
    for (size_t i = 0; i < points; i++) {
        v[8][predicted] = p[i].flops;
        v[9][predicted] = task_nll(f, SIZE_MAX, &p[i]);
        high = fmax(high, p[i].flops);
        least = fmin(least, v[9][predicted++]);
    }
    PlotSeries a[6], b[6];
    size_t na = 0, nb = 0;
    if (!f->by_size) {
        if (f->line.points > 2) {
            line_band(&f->line, low, high, STEPS, lc, ll, under, over);
            a[na++] = (PlotSeries){"95 % of a new point", lc, under, over, STEPS, PLOT_BAND, GREEN};
        }
        a[na++] = (PlotSeries){"least squares", lc, ll, NULL, STEPS, PLOT_LINE, GREEN};
    }
    n = gather(f, true, false, v[0], v[1]);
    a[na++] = (PlotSeries){"runs", v[0], v[1], NULL, n, PLOT_POINTS, BLUE};
    n = gather(f, false, false, v[2], v[3]);
    if (n)
        a[na++] = (PlotSeries){"runs not fitted", v[2], v[3], NULL, n, PLOT_RINGS, RED};
    if (predicted)
        a[na++] = (PlotSeries){"predicted", v[8], v[9], NULL, predicted, PLOT_MARKS, INK};
    double margin = 0.05 * (most - least), *drawn = memory_alloc(f->samples + 1, sizeof *drawn);
    for (int k = 0; k < STEPS; k++) {
        sx[k] = least - margin + (most - least + 2 * margin) * k / (STEPS - 1);
        sy[k] = sigmoid_value(&f->sigmoid, sx[k]);
        for (size_t i = 0; i < f->samples; i++)
            drawn[i] = task_accuracy(f, i, sx[k]);
        Spread q = spread(drawn, f->samples);
        su[k] = q.low;
        so[k] = q.high;
    }
    free(drawn);
    if (f->samples > 1)
        b[nb++] = (PlotSeries){"95 % of the curve", sx, su, so, STEPS, PLOT_BAND, GREEN};
    b[nb++] = (PlotSeries){"sigmoid", sx, sy, NULL, STEPS, PLOT_LINE, GREEN};
    n = gather(f, true, true, v[4], v[5]);
    b[nb++] = (PlotSeries){"runs", v[4], v[5], NULL, n, PLOT_POINTS, BLUE};
    n = gather(f, false, true, v[6], v[7]);
    if (n)
        b[nb++] = (PlotSeries){"larger runs", v[6], v[7], NULL, n, PLOT_RINGS, RED};
    double *pn = memory_alloc(points + 1, sizeof *pn), *pa = memory_alloc(points + 1, sizeof *pa);
    for (size_t i = 0; i < points; i++) {
        pn[i] = task_nll(f, SIZE_MAX, &p[i]);
        pa[i] = task_accuracy(f, SIZE_MAX, pn[i]);
    }
    if (points)
        b[nb++] = (PlotSeries){"predicted", pn, pa, NULL, points, PLOT_MARKS, INK};
    char *title = memory_format("%s: loss of the right answer", f->task);
    PlotPanel panels[2] = {{.title = title, .x_label = "training compute (FLOPs)", .y_label = f->nll_column, .log_x = true, .log_y = true, .series = a, .count = na},
                           {.title = "Accuracy at that loss", .x_label = f->nll_column, .y_label = "accuracy", .series = b, .count = nb}};
    int status = plot_write(path, panels, 2, err);
    free(title);
    free(pn);
    free(pa);
    for (int i = 0; i < 10; i++)
        free(v[i]);
    free(p);
    free(runs);
    return status;
}

/* Of several tasks each gets a picture of its own: NAME-TASK.svg. */
int downstream_plot(const Settings *s, const TaskFit *fits, size_t count, Error *err)
{
    int status = 0;
    for (size_t i = 0; i < count && status == 0; i++) {
        const char *end = strrchr(s->plot, '.');
        char *path = count == 1 || !end ? memory_string(s->plot) : memory_format("%.*s-%s%s", (int)(end - s->plot), s->plot, fits[i].task, end);
        status = task_plot(path, s, &fits[i], err);
        free(path);
    }
    return status;
}
