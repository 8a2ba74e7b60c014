/* The picture of an IsoFLOP fit: losses and parabolas by budget over parameters and over tokens (as Llama 3 draws them, figures 2 and
 * 3), beside each the law of its minima with the 95 % interval; and fitted beside measured losses of other laws. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "scalefit.h"

enum { STEPS = 60, INK = 0x222222, RED = 0xc0392b };

/* Curves live in one arena until they are drawn. */
typedef struct Ink {
    double **arrays;
    size_t count;
} Ink;

static double *ink_array(Ink *k, int n)
{
    k->arrays = memory_realloc(k->arrays, k->count + 1, sizeof *k->arrays);
    return k->arrays[k->count++] = memory_alloc((size_t)n, sizeof **k->arrays);
}

static double parabola(const double c[3], double z)
{
    return c[0] + c[1] * z + c[2] * z * z;
}

/* The highest loss that a parabola was fitted to, and a little more: runs far from every minimum would flatten the picture. */
static double loss_top(const Budget *b, int count)
{
    double top = 0, low = INFINITY;
    for (int i = 0; i < count; i++)
        for (int k = 0; k < b[i].used_count; k++) {
            double y = b[i].points[b[i].used_first + k].loss;
            top = fmax(top, y);
            low = fmin(low, y);
        }
    return top + 0.05 * (top - low);
}

static size_t curves(const Budget *b, int count, bool tokens, Ink *ink, PlotSeries *series, char (*titles)[48])
{
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        uint32_t color = plot_color((size_t)i, (size_t)count);
        /* Points that the parabola is fitted to are full, the others hollow. */
        double *x = ink_array(ink, b[i].count), *y = ink_array(ink, b[i].count), *ox = ink_array(ink, b[i].count), *oy = ink_array(ink, b[i].count);
        size_t used = 0, others = 0;
        for (int k = 0; k < b[i].count; k++) {
            bool in = !b[i].why && k >= b[i].used_first && k < b[i].used_first + b[i].used_count;
            *(in ? &x[used] : &ox[others]) = tokens ? b[i].points[k].tokens : b[i].points[k].params;
            *(in ? &y[used++] : &oy[others++]) = b[i].points[k].loss;
        }
        plot_number(titles[i], sizeof titles[i], b[i].flops);
        series[n++] = (PlotSeries){b[i].why ? titles[i] : NULL, ox, oy, NULL, others, PLOT_RINGS, color};
        if (!b[i].why)
            series[n++] = (PlotSeries){titles[i], x, y, NULL, used, PLOT_POINTS, color};
        if (b[i].why)
            continue;
        x = ink_array(ink, STEPS), y = ink_array(ink, STEPS);
        const RunPoint *first = &b[i].points[b[i].used_first], *last = first + b[i].used_count - 1;
        double from = log10(tokens ? first->tokens : first->params), to = log10(tokens ? last->tokens : last->params);
        for (int k = 0; k < STEPS; k++) {
            double z = from + (to - from) * k / (STEPS - 1);
            x[k] = pow(10, z);
            y[k] = parabola(tokens ? b[i].d : b[i].c, z);
        }
        series[n++] = (PlotSeries){NULL, x, y, NULL, STEPS, PLOT_LINE, color};
    }
    double *x = ink_array(ink, count), *y = ink_array(ink, count);
    size_t used = 0;
    for (int i = 0; i < count; i++)
        if (!b[i].why) {
            x[used] = pow(10, tokens ? b[i].log_d : b[i].log_n);
            y[used++] = tokens ? parabola(b[i].d, b[i].log_d) : b[i].loss;
        }
    if (used > 0)
        series[n++] = (PlotSeries){"minimum", x, y, NULL, used, PLOT_MARKS, RED};
    return n;
}

/* Minima, the line through them as far as the last --budget, the interval of a new point, and the predictions. */
static size_t law(const Settings *s, const Budget *b, int count, const Line *l, bool tokens, Ink *ink, PlotSeries *series, char *title, size_t size)
{
    size_t n = 0, used = 0, predictions = s->budgets.count;
    double *c = ink_array(ink, count), *v = ink_array(ink, count), low = INFINITY, high = 0;
    for (int i = 0; i < count; i++)
        if (!b[i].why) {
            c[used] = b[i].flops;
            v[used++] = pow(10, tokens ? b[i].log_d : b[i].log_n);
            low = fmin(low, b[i].flops);
            high = fmax(high, b[i].flops);
        }
    double *pc = ink_array(ink, (int)predictions + 1), *pv = ink_array(ink, (int)predictions + 1);
    for (size_t i = 0; i < predictions; i++) {
        pc[i] = strtod(s->budgets.values[i], NULL);
        pv[i] = pow(10, l->intercept + l->slope * log10(pc[i]));
        low = fmin(low, pc[i]);
        high = fmax(high, pc[i]);
    }
    double *x = ink_array(ink, STEPS), *y = ink_array(ink, STEPS), *under = ink_array(ink, STEPS), *over = ink_array(ink, STEPS);
    line_band(l, low, high, STEPS, x, y, under, over);
    if (l->points > 2)
        series[n++] = (PlotSeries){"95 % of a new point", x, under, over, STEPS, PLOT_BAND, 0x21918c};
    snprintf(title, size, "%s ∝ FLOPs^%.3f", tokens ? "tokens" : "parameters", l->slope);
    series[n++] = (PlotSeries){title, x, y, NULL, STEPS, PLOT_LINE, 0x21918c};
    series[n++] = (PlotSeries){"minima", c, v, NULL, used, PLOT_MARKS, RED};
    if (predictions)
        series[n++] = (PlotSeries){"predicted", pc, pv, NULL, predictions, PLOT_MARKS, INK};
    return n;
}

int isoflop_plot(const Settings *s, const Budget *b, int count, const Laws *l, Error *err)
{
    Ink ink = {0};
    size_t each = (size_t)count * 3 + 1, n = 0;
    PlotSeries *series = memory_zalloc(2 * each, sizeof *series), laws[2][4];
    char(*titles)[48] = memory_alloc((size_t)count, sizeof *titles), law_titles[2][64];
    PlotPanel panels[4];
    for (int k = 0; k < 2; k++) {
        panels[n++] = (PlotPanel){.title = k ? "Runs of equal compute, over tokens" : "Runs of equal compute", .x_label = k ? "training tokens" : "parameters",
                                  .y_label = "loss (nats a token)", .key_title = "FLOPs", .log_x = true, .top = loss_top(b, count), .series = series + (size_t)k * each,
                                  .count = curves(b, count, k, &ink, series + (size_t)k * each, titles)};
        if (l->used >= 2)
            panels[n++] = (PlotPanel){.title = k ? "Best number of tokens" : "Best size", .x_label = "training compute (FLOPs)", .y_label = k ? "training tokens" : "parameters",
                                      .log_x = true, .log_y = true, .series = laws[k],
                                      .count = law(s, b, count, k ? &l->d : &l->n, k, &ink, laws[k], law_titles[k], sizeof law_titles[k])};
    }
    int status = plot_write_rows(s->plot, panels, n, 2, err);
    for (size_t i = 0; i < ink.count; i++)
        free(ink.arrays[i]);
    free(ink.arrays);
    free(series);
    free(titles);
    return status;
}

void agreement_panel(const Agreement *a, PlotPanel *panel, PlotSeries series[2], double diagonal[2])
{
    diagonal[0] = INFINITY, diagonal[1] = 0;
    for (size_t i = 0; i < a->count; i++) {
        diagonal[0] = fmin(diagonal[0], fmin(a->fitted[i], a->measured[i]));
        diagonal[1] = fmax(diagonal[1], fmax(a->fitted[i], a->measured[i]));
    }
    series[0] = (PlotSeries){"equal", diagonal, diagonal, NULL, 2, PLOT_LINE, 0x999999};
    series[1] = (PlotSeries){"runs", a->fitted, a->measured, NULL, a->count, PLOT_POINTS, 0x3b528b};
    *panel = (PlotPanel){.title = a->title, .x_label = "fitted loss (nats a token)", .y_label = "measured loss (nats a token)", .log_x = true, .log_y = true, .series = series, .count = 2};
}

int agreement_plot(const char *path, const Agreement *a, size_t count, Error *err)
{
    PlotPanel *panels = memory_alloc(count, sizeof *panels);
    PlotSeries *series = memory_alloc(2 * count, sizeof *series);
    double *diagonals = memory_alloc(2 * count, sizeof *diagonals);
    for (size_t i = 0; i < count; i++)
        agreement_panel(&a[i], &panels[i], series + 2 * i, diagonals + 2 * i);
    int status = plot_write_rows(path, panels, count, count < 4 ? count : 4, err);
    free(panels);
    free(series);
    free(diagonals);
    return status;
}
