/* What isoflop found, as JSON and as a table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "io/json.h"
#include "scalefit.h"

void report_line(Buffer *b, const char *name, const Line *l)
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

void report_number(Buffer *b, const char *key, double x)
{
    buffer_format(b, "\"%s\": ", key);
    json_write_number(b, x);
}

void report_spread(Buffer *b, Spread s)
{
    buffer_byte(b, '[');
    json_write_number(b, s.low);
    buffer_string(b, ", ");
    json_write_number(b, s.high);
    buffer_byte(b, ']');
}

void isoflop_json(const Settings *s, const Budget *b, int count, const Laws *l)
{
    Buffer o = {0};
    bool fits = l->used >= 2;
    buffer_format(&o, "{\n  \"method\": \"isoflop\",\n  \"window\": \"%s\",\n  \"fits\": %s,\n", s->window, fits ? "true" : "false");
    if (fits) {
        report_line(&o, "log10_N_on_log10_C", &l->n);
        report_line(&o, "log10_D_on_log10_C", &l->d);
        report_line(&o, "log10_loss_on_log10_C", &l->loss);
    }
    buffer_string(&o, "  \"optima\": [");
    for (int i = 0; i < count; i++) {
        buffer_string(&o, i ? ",\n    {" : "\n    {");
        report_number(&o, "flops", b[i].flops);
        buffer_format(&o, ", \"points\": %d, ", b[i].used_count);
        if (b[i].why) {
            buffer_format(&o, "\"used\": false, \"reason\": \"%s\"}", b[i].why);
            continue;
        }
        report_number(&o, "log10_N", b[i].log_n);
        buffer_string(&o, ", ");
        report_number(&o, "log10_D", b[i].log_d);
        buffer_string(&o, ", ");
        report_number(&o, "loss", b[i].loss);
        buffer_string(&o, ", ");
        report_number(&o, "c2", b[i].c[2]);
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
        report_number(&o, "flops", pow(10, c));
        for (int k = 0; k < 3; k++) {
            double y = laws[k].l->intercept + laws[k].l->slope * c, h = line_interval(laws[k].l, c);
            buffer_string(&o, ", ");
            report_number(&o, laws[k].key, pow(10, y));
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

void isoflop_text(const Settings *s, const Budget *b, int count, const Laws *l)
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
