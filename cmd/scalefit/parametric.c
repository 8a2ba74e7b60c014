/* parametric: L = E + A/N^alpha + B/D^beta through all runs, with the best size, tokens and loss of a compute. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/thread.h"
#include "form3.h"
#include "io/json.h"
#include "scalefit.h"

typedef struct Report {
    const Settings *s;
    const Form3Runs *runs;
    const Form3 *best;
    double v[FORM3_VALUES], rms;
    size_t samples;
    double *drawn; /* [samples, FORM3_VALUES] */
} Report;

static Spread spread_of(const Report *r, int value, double flops)
{
    double *x = memory_alloc(r->samples + 1, sizeof *x), out[3];
    for (size_t i = 0; i < r->samples; i++) {
        const double *v = r->drawn + i * FORM3_VALUES;
        if (flops > 0)
            form3_predict(v, flops, out);
        x[i] = flops > 0 ? out[value] : v[value];
    }
    Spread s = spread(x, r->samples);
    free(x);
    return s;
}

static void print_json(const Report *r)
{
    Buffer b = {0};
    buffer_format(&b, "{\n  \"method\": \"parametric\",\n  \"points\": %d,\n  ", r->runs->count);
    report_number(&b, "objective", r->best->objective);
    buffer_format(&b, ",\n  \"starts\": %d,\n  ", FORM3_STARTS);
    report_number(&b, "share_of_starts_within_1e_4", r->best->share);
    buffer_string(&b, ",\n  ");
    report_number(&b, "rms_log_residual", r->rms);
    if (r->best->log_scale != 0) {
        buffer_string(&b, ",\n  ");
        report_number(&b, "log_scale", r->best->log_scale);
    }
    buffer_string(&b, ",\n  \"params\": {");
    for (int i = 0; i < FORM3_VALUES - 1; i++) {
        buffer_string(&b, i ? ", " : "");
        report_number(&b, form3_names[i], r->v[i]);
    }
    buffer_string(&b, "},\n  ");
    report_number(&b, "a", r->v[5]);
    buffer_format(&b, ",\n  \"bootstrap\": {\"samples\": %zu", r->samples);
    for (int i = 0; i < FORM3_VALUES && r->samples > 1; i++) {
        Spread s = spread_of(r, i, 0);
        buffer_format(&b, ",\n    \"%s\": {", form3_names[i]);
        report_number(&b, "sd", s.sd);
        buffer_string(&b, ", \"ci95\": ");
        report_spread(&b, s);
        buffer_byte(&b, '}');
    }
    buffer_string(&b, "},\n  \"predictions\": [");
    static const char *const keys[3] = {"params", "tokens", "loss"};
    for (size_t i = 0; i < r->s->budgets.count; i++) {
        double c = strtod(r->s->budgets.values[i], NULL), out[3];
        form3_predict(r->v, c, out);
        buffer_string(&b, i ? ",\n    {" : "\n    {");
        report_number(&b, "flops", c);
        for (int k = 0; k < 3; k++) {
            buffer_string(&b, ", ");
            report_number(&b, keys[k], out[k]);
            buffer_format(&b, ", \"%s_ci95\": ", keys[k]);
            report_spread(&b, spread_of(r, k, c));
        }
        buffer_string(&b, ", ");
        report_number(&b, "tokens_per_param", out[1] / out[0]);
        buffer_byte(&b, '}');
    }
    buffer_string(&b, "\n  ]\n}\n");
    fwrite(b.data, 1, b.length, stdout);
    buffer_free(&b);
}

static void print_text(const Report *r)
{
    printf("loss = %.4f + %.4g / N^%.4f + %.4g / D^%.4f   (%d runs, residual %.4f of the loss)\n", r->v[2], r->v[0], r->v[3], r->v[1], r->v[4],
           r->runs->count, r->rms);
    for (int i = 0; i < FORM3_VALUES && r->samples > 1; i++) {
        Spread s = spread_of(r, i, 0);
        printf("%-6s %10.4g  ± %-9.3g (95 %%: %.4g … %.4g)%s\n", form3_names[i], r->v[i], s.sd, s.low, s.high, i == 5 ? "   N = G · (C/6)^a" : "");
    }
    for (size_t i = 0; i < r->s->budgets.count; i++) {
        static const char *const what[3] = {"parameters", "tokens", "loss"};
        double c = strtod(r->s->budgets.values[i], NULL), out[3];
        form3_predict(r->v, c, out);
        printf("at %.4g FLOPs:", c);
        for (int k = 0; k < 3; k++) {
            Spread s = spread_of(r, k, c);
            printf("  %s %.4g", what[k], out[k]);
            if (isfinite(s.low))
                printf(" (%.4g … %.4g)", s.low, s.high);
        }
        printf("  %.3g tokens a parameter\n", out[1] / out[0]);
    }
}

/* Runs and the least loss of each compute; measured against fitted losses. */
static int draw(const Report *r, Error *err)
{
    enum { STEPS = 60 };
    const Form3Runs *x = r->runs;
    size_t n = (size_t)x->count;
    double *c = memory_alloc(n, sizeof *c), *loss = memory_alloc(n, sizeof *loss), *fitted = memory_alloc(n, sizeof *fitted), low = INFINITY, high = 0;
    double fc[STEPS], fl[STEPS], out[3], diagonal[2];
    for (size_t i = 0; i < n; i++) {
        double log_n = x->n[i] + x->mean_n, log_d = x->d[i] + x->mean_d;
        c[i] = 6 * exp(log_n + log_d);
        loss[i] = exp(x->loss[i]);
        fitted[i] = form3_loss(r->v, exp(log_n), exp(log_d));
        low = fmin(low, c[i]);
        high = fmax(high, c[i]);
    }
    for (size_t i = 0; i < r->s->budgets.count; i++)
        high = fmax(high, strtod(r->s->budgets.values[i], NULL));
    for (int k = 0; k < STEPS; k++) {
        fc[k] = low * pow(high / low, k / (STEPS - 1.0));
        form3_predict(r->v, fc[k], out);
        fl[k] = out[2];
    }
    PlotSeries runs[2] = {{"runs", c, loss, NULL, n, PLOT_POINTS, 0x3b528b}, {"best at this compute", fc, fl, NULL, STEPS, PLOT_LINE, 0x21918c}}, agree[2];
    PlotPanel panels[2] = {{.title = "Loss and compute", .x_label = "training compute, 6 N D (FLOPs)", .y_label = "loss (nats a token)", .log_x = true, .log_y = true,
                            .series = runs, .count = 2}};
    agreement_panel(&(Agreement){"Fitted and measured", fitted, loss, n}, &panels[1], agree, diagonal);
    int status = plot_write(r->s->plot, panels, 2, err);
    free(c);
    free(loss);
    free(fitted);
    return status;
}

static int read_runs(const Table *t, Form3Runs *r, Error *err)
{
    RunPoint *p;
    int count, status = points_read(t, &p, &count, err);
    if (status == 0 && (status = form3_runs(r, p, count, err)) < 0)
        error_prefix(err, "%s", table_place(t, 0));
    free(p);
    return status;
}

int command_parametric(const Settings *s, const char *const *files, Error *err)
{
    Table t;
    Form3Runs runs = {0};
    Form3 best;
    Report r = {.s = s, .runs = &runs, .samples = (size_t)s->bootstrap};
    Form3Objective objective = strcmp(s->objective, "huber") == 0 ? FORM3_HUBER : FORM3_LIKELIHOOD;
    int threads = s->common.threads > 0 ? (int)s->common.threads : thread_default_count();
    int status = table_read(&t, files, &s->wheres, &s->renames, err);
    if (status == 0)
        status = read_runs(&t, &runs, err);
    if (status == 0)
        status = form3_fit(&runs, objective, threads, &best, err);
    if (status == 0)
        status = form3_bootstrap(&runs, objective, &best, r.samples, (uint64_t)s->common.seed, threads, &r.drawn, err);
    if (status == 0) {
        form3_constants(&runs, &best, r.v);
        r.best = &best;
        for (int i = 0; i < runs.count; i++)
            r.rms += pow(log(form3_loss(r.v, exp(runs.n[i] + runs.mean_n), exp(runs.d[i] + runs.mean_d))) - runs.loss[i], 2) / runs.count;
        r.rms = sqrt(r.rms);
        if (!(r.v[3] > 0 && r.v[4] > 0))
            status = error_set(err, "%s: the loss does not fall with both parameters and tokens: exponents %.3g and %.3g", table_place(&t, 0), r.v[3], r.v[4]);
        else if (s->json)
            print_json(&r);
        else
            print_text(&r);
        if (status == 0 && s->plot)
            status = draw(&r, err);
    }
    free(r.drawn);
    form3_runs_free(&runs);
    table_free(&t);
    return status;
}
