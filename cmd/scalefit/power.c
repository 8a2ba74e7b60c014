/* power: y = k·x^a through the columns of a table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "io/json.h"
#include "plot/plot.h"
#include "scalefit.h"

static void write_text(Buffer *b, const Settings *s, const Line *l)
{
    double half = t_quantile95(l->points - 2) * l->slope_error;
    buffer_format(b, "%s = %.6g · %s^%.6f   (", s->y, pow(10, l->intercept), s->x, l->slope);
    if (isfinite(half))
        buffer_format(b, "95 %% of the exponent: %.4f … %.4f, ", l->slope - half, l->slope + half);
    buffer_format(b, "r² %.4f, %d points)\n", l->r2, l->points);
    for (size_t i = 0; i < s->budgets.count; i++) {
        double c = log10(strtod(s->budgets.values[i], NULL)), v = l->intercept + l->slope * c, h = line_interval(l, c);
        buffer_format(b, "at %s %.4g: %s %.4g", s->x, pow(10, c), s->y, pow(10, v));
        if (isfinite(h))
            buffer_format(b, " (%.4g … %.4g)", pow(10, v - h), pow(10, v + h));
        buffer_byte(b, '\n');
    }
}

static void write_json(Buffer *b, const Settings *s, const Line *l)
{
    buffer_string(b, "{\n  \"method\": \"power\",\n  \"x\": ");
    json_write_string(b, (Span){s->x, strlen(s->x)});
    buffer_string(b, ",\n  \"y\": ");
    json_write_string(b, (Span){s->y, strlen(s->y)});
    buffer_string(b, ",\n");
    report_line(b, "log10_y_on_log10_x", l);
    buffer_string(b, "  ");
    report_number(b, "coefficient", pow(10, l->intercept));
    buffer_string(b, ",\n  \"predictions\": [");
    for (size_t i = 0; i < s->budgets.count; i++) {
        double c = log10(strtod(s->budgets.values[i], NULL)), v = l->intercept + l->slope * c, h = line_interval(l, c);
        buffer_string(b, i ? ", {" : "{");
        report_number(b, "x", pow(10, c));
        buffer_string(b, ", ");
        report_number(b, "y", pow(10, v));
        buffer_string(b, ", \"y_ci95\": [");
        json_write_number(b, pow(10, v - h));
        buffer_string(b, ", ");
        json_write_number(b, pow(10, v + h));
        buffer_string(b, "]}");
    }
    buffer_string(b, "]\n}\n");
}

/* x and y: log10 of the points; they become the points. */
static int draw(const Settings *s, const Line *l, double *x, double *y, Error *err)
{
    enum { STEPS = 60 };
    double low = INFINITY, high = 0, lx[STEPS], ly[STEPS], under[STEPS], over[STEPS];
    size_t n = 0, predictions = s->budgets.count;
    for (int i = 0; i < l->points; i++) {
        x[i] = pow(10, x[i]);
        y[i] = pow(10, y[i]);
        low = fmin(low, x[i]);
        high = fmax(high, x[i]);
    }
    double *px = memory_alloc(predictions + 1, sizeof *px), *py = memory_alloc(predictions + 1, sizeof *py);
    for (size_t i = 0; i < predictions; i++) {
        px[i] = strtod(s->budgets.values[i], NULL);
        py[i] = pow(10, l->intercept + l->slope * log10(px[i]));
        low = fmin(low, px[i]);
        high = fmax(high, px[i]);
    }
    line_band(l, low, high, STEPS, lx, ly, under, over);
    char *law = memory_format("%s = %.3g · %s^%.4f", s->y, pow(10, l->intercept), s->x, l->slope);
    PlotSeries series[4];
    if (l->points > 2)
        series[n++] = (PlotSeries){"95 % of a new point", lx, under, over, STEPS, PLOT_BAND, 0x21918c};
    series[n++] = (PlotSeries){"least squares", lx, ly, NULL, STEPS, PLOT_LINE, 0x21918c};
    series[n++] = (PlotSeries){"runs", x, y, NULL, (size_t)l->points, PLOT_POINTS, 0x3b528b};
    if (predictions)
        series[n++] = (PlotSeries){"predicted", px, py, NULL, predictions, PLOT_MARKS, 0x222222};
    PlotPanel panel = {.title = law, .x_label = s->x, .y_label = s->y, .log_x = true, .log_y = true, .series = series, .count = n};
    int status = plot_write(s->plot, &panel, 1, err);
    free(law);
    free(px);
    free(py);
    return status;
}

/* Rows that lack a positive x or y say nothing; their number is told. */
static int read_points(const Table *t, const Settings *s, double *x, double *y, int *count, Error *err)
{
    *count = 0;
    bool differ = false;
    if (table_require(t, s->x, err) < 0 || table_require(t, s->y, err) < 0)
        return -1;
    for (size_t i = 0; i < t->row_count; i++) {
        double a, b;
        if (table_number(t, i, s->x, &a, err) < 0 || table_number(t, i, s->y, &b, err) < 0)
            return -1;
        if (!(a > 0 && b > 0 && isfinite(a) && isfinite(b)))
            continue;
        x[*count] = log10(a);
        y[*count] = log10(b);
        differ |= x[*count] != x[0];
        ++*count;
    }
    if (!differ)
        return error_set(err, "%s: fewer than two rows have positive %s and %s at different %s", table_place(t, 0), s->x, s->y, s->x);
    if ((size_t)*count < t->row_count)
        message("%zu of %zu rows have no positive %s and %s and are left out", t->row_count - (size_t)*count, t->row_count, s->x, s->y);
    return 0;
}

int command_power(const Settings *s, const char *const *files, Error *err)
{
    Table t;
    if (table_read(&t, files, &s->wheres, &s->renames, err) < 0) {
        table_free(&t);
        return -1;
    }
    double *x = memory_alloc(t.row_count, sizeof *x), *y = memory_alloc(t.row_count, sizeof *y);
    int n, status = read_points(&t, s, x, y, &n, err);
    if (status == 0) {
        Line l;
        Buffer b = {0};
        line_fit(&l, x, y, n);
        if (s->json)
            write_json(&b, s, &l);
        else
            write_text(&b, s, &l);
        fwrite(b.data, 1, b.length, stdout);
        buffer_free(&b);
        if (s->plot)
            status = draw(s, &l, x, y, err);
    }
    free(x);
    free(y);
    table_free(&t);
    return status;
}
