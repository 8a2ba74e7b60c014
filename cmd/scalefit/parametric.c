/* parametric: L = E + A/N^alpha + B/D^beta through all runs (Hoffmann et al. 2022, approach 3), fitted as there: the sum of
 * Huber losses, delta 1e-3, of the difference in log L, from a grid of 4,500 starts. Intervals: runs drawn with replacement,
 * fitted again (Besiroglu et al. 2024). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/random.h"
#include "base/thread.h"
#include "io/json.h"
#include "minimise.h"
#include "plot/plot.h"
#include "scalefit.h"

enum { PARAMETERS = 5, STARTS = 4500, ITERATIONS = 2000, VALUES = 6 };
static const double huber_delta = 1e-3;

/* Logarithms of the runs. Sizes are counted from their mean, so that the height and the slope of a term do not pull together. */
typedef struct Runs {
    double *n, *d, *loss;
    int *weight; /* how often a run counts; NULL: once */
    int count;
    double mean_n, mean_d;
} Runs;

/* x: log A − alpha·mean log N, log B − beta·mean log D, log E, alpha, beta. */
typedef struct Fit {
    double x[PARAMETERS], objective;
} Fit;

/* Sum of the Huber losses of log-sum-exp(log A − alpha log N, log B − beta log D, log E) − log L, with its gradient. */
static double objective(const void *context, const double *x, double *g)
{
    const Runs *r = context;
    double sum = 0;
    memset(g, 0, PARAMETERS * sizeof *g);
    for (int i = 0; i < r->count; i++) {
        int times = r->weight ? r->weight[i] : 1;
        if (times == 0)
            continue;
        double t[3] = {x[0] - x[3] * r->n[i], x[1] - x[4] * r->d[i], x[2]}, most = fmax(t[0], fmax(t[1], t[2]));
        double e[3] = {exp(t[0] - most), exp(t[1] - most), exp(t[2] - most)}, all = e[0] + e[1] + e[2];
        double off = most + log(all) - r->loss[i], slope = fmin(fmax(off, -huber_delta), huber_delta);
        sum += times * (fabs(off) <= huber_delta ? off * off / 2 : huber_delta * (fabs(off) - huber_delta / 2));
        slope *= times / all;
        g[0] += slope * e[0];
        g[1] += slope * e[1];
        g[2] += slope * e[2];
        g[3] -= slope * e[0] * r->n[i];
        g[4] -= slope * e[1] * r->d[i];
    }
    return sum;
}

static void start_at(const Runs *r, Fit *f, double a, double b, double e, double alpha, double beta)
{
    *f = (Fit){.x = {a - alpha * r->mean_n, b - beta * r->mean_d, e, alpha, beta}};
}

/* a, b in 0, 5 … 25; e in −1, −0.5 … 1; alpha, beta in 0, 0.5 … 2. */
static void start_grid(const Runs *r, Fit *f, int i)
{
    start_at(r, f, 5 * (i % 6), 5 * (i / 6 % 6), -1 + 0.5 * (i / 36 % 5), 0.5 * (i / 180 % 5), 0.5 * (i / 900));
}

typedef struct Search {
    const Runs *runs;
    Fit *fits;
    const Fit *full;
    uint64_t seed;
} Search;

static int search_start(void *context, size_t i, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Search *s = context;
    start_grid(s->runs, &s->fits[i], (int)i);
    s->fits[i].objective = minimise(objective, s->runs, s->fits[i].x, PARAMETERS, ITERATIONS);
    return 0;
}

static int search_bootstrap(void *context, size_t i, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Search *s = context;
    Runs r = *s->runs;
    r.weight = memory_zalloc((size_t)r.count, sizeof *r.weight);
    for (int k = 0; k < r.count; k++)
        r.weight[random_below(s->seed, RANDOM_FIT, i * (uint64_t)r.count + (uint64_t)k, (uint64_t)r.count)]++;
    /* From the full fit, and from Hoffmann's constants lest the former binds it. */
    Fit other;
    start_at(&r, &other, log(406.4), log(410.7), log(1.69), 0.34, 0.28);
    other.objective = minimise(objective, &r, other.x, PARAMETERS, ITERATIONS);
    s->fits[i] = *s->full;
    s->fits[i].objective = minimise(objective, &r, s->fits[i].x, PARAMETERS, ITERATIONS);
    if (other.objective < s->fits[i].objective)
        s->fits[i] = other;
    free(r.weight);
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The constants of the law as they are printed: A, B, E, alpha, beta, and a of N = G·(C/6)^a. */
static void constants(const Runs *r, const Fit *f, double v[VALUES])
{
    v[0] = exp(f->x[0] + f->x[3] * r->mean_n);
    v[1] = exp(f->x[1] + f->x[4] * r->mean_d);
    v[2] = exp(f->x[2]);
    v[3] = f->x[3];
    v[4] = f->x[4];
    v[5] = f->x[4] / (f->x[3] + f->x[4]);
}
static const char *const names[VALUES] = {"A", "B", "E", "alpha", "beta", "a"};

/* Best parameters, tokens and loss of a compute C = 6 N D: G = (alpha A / beta B)^(1/(alpha+beta)). */
static void predict(const double v[VALUES], double flops, double out[3])
{
    double sum = v[3] + v[4], g = pow(v[3] * v[0] / (v[4] * v[1]), 1 / sum);
    out[0] = g * pow(flops / 6, v[4] / sum);
    out[1] = pow(flops / 6, v[3] / sum) / g;
    out[2] = v[2] + v[0] / pow(out[0], v[3]) + v[1] / pow(out[1], v[4]);
}

typedef struct Spread {
    double sd, low, high;
} Spread;

/* Standard deviation and the middle 95 % (linear between order statistics). */
static Spread spread(double *x, size_t n)
{
    double mean = 0, sum = 0, at;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    qsort(x, n, sizeof *x, compare_numbers);
    Spread s = {.sd = n > 1 ? sqrt(sum / (double)(n - 1)) : NAN, .low = NAN, .high = NAN};
    for (int side = 0; side < 2 && n > 1; side++) {
        double place = (side ? 0.975 : 0.025) * (double)(n - 1);
        size_t k = (size_t)place < n - 1 ? (size_t)place : n - 2;
        at = x[k] + (place - (double)k) * (x[k + 1] - x[k]);
        *(side ? &s.high : &s.low) = at;
    }
    return s;
}

typedef struct Report {
    const Settings *s;
    const Runs *runs;
    double v[VALUES], share, rms, objective;
    size_t samples;
    double *drawn; /* [samples, VALUES] */
} Report;

static Spread spread_of(const Report *r, int value, double flops)
{
    double *x = memory_alloc(r->samples + 1, sizeof *x), out[3];
    for (size_t i = 0; i < r->samples; i++) {
        const double *v = r->drawn + i * VALUES;
        if (flops > 0)
            predict(v, flops, out);
        x[i] = flops > 0 ? out[value] : v[value];
    }
    Spread s = spread(x, r->samples);
    free(x);
    return s;
}

static void put_spread(Buffer *b, Spread s)
{
    buffer_byte(b, '[');
    json_write_number(b, s.low);
    buffer_string(b, ", ");
    json_write_number(b, s.high);
    buffer_byte(b, ']');
}

static void print_json(const Report *r)
{
    Buffer b = {0};
    buffer_format(&b, "{\n  \"method\": \"parametric\",\n  \"points\": %d,\n  ", r->runs->count);
    report_number(&b, "objective", r->objective);
    buffer_format(&b, ",\n  \"starts\": %d,\n  ", STARTS);
    report_number(&b, "share_of_starts_within_1e_4", r->share);
    buffer_string(&b, ",\n  ");
    report_number(&b, "rms_log_residual", r->rms);
    buffer_string(&b, ",\n  \"params\": {");
    for (int i = 0; i < VALUES - 1; i++) {
        buffer_string(&b, i ? ", " : "");
        report_number(&b, names[i], r->v[i]);
    }
    buffer_string(&b, "},\n  ");
    report_number(&b, "a", r->v[5]);
    buffer_format(&b, ",\n  \"bootstrap\": {\"samples\": %zu", r->samples);
    for (int i = 0; i < VALUES && r->samples > 1; i++) {
        Spread s = spread_of(r, i, 0);
        buffer_format(&b, ",\n    \"%s\": {", names[i]);
        report_number(&b, "sd", s.sd);
        buffer_string(&b, ", \"ci95\": ");
        put_spread(&b, s);
        buffer_byte(&b, '}');
    }
    buffer_string(&b, "},\n  \"predictions\": [");
    static const char *const keys[3] = {"params", "tokens", "loss"};
    for (size_t i = 0; i < r->s->budgets.count; i++) {
        double c = strtod(r->s->budgets.values[i], NULL), out[3];
        predict(r->v, c, out);
        buffer_string(&b, i ? ",\n    {" : "\n    {");
        report_number(&b, "flops", c);
        for (int k = 0; k < 3; k++) {
            buffer_string(&b, ", ");
            report_number(&b, keys[k], out[k]);
            buffer_format(&b, ", \"%s_ci95\": ", keys[k]);
            put_spread(&b, spread_of(r, k, c));
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
    for (int i = 0; i < VALUES && r->samples > 1; i++) {
        Spread s = spread_of(r, i, 0);
        printf("%-6s %10.4g  ± %-9.3g (95 %%: %.4g … %.4g)%s\n", names[i], r->v[i], s.sd, s.low, s.high, i == 5 ? "   N = G · (C/6)^a" : "");
    }
    for (size_t i = 0; i < r->s->budgets.count; i++) {
        static const char *const what[3] = {"parameters", "tokens", "loss"};
        double c = strtod(r->s->budgets.values[i], NULL), out[3];
        predict(r->v, c, out);
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
    const Runs *x = r->runs;
    size_t n = (size_t)x->count;
    double *c = memory_alloc(n, sizeof *c), *loss = memory_alloc(n, sizeof *loss), *fitted = memory_alloc(n, sizeof *fitted), low = INFINITY, high = 0;
    double least = INFINITY, most = 0, fc[STEPS], fl[STEPS], out[3];
    for (size_t i = 0; i < n; i++) {
        double log_n = x->n[i] + x->mean_n, log_d = x->d[i] + x->mean_d;
        c[i] = 6 * exp(log_n + log_d);
        loss[i] = exp(x->loss[i]);
        fitted[i] = r->v[2] + r->v[0] * exp(-r->v[3] * log_n) + r->v[1] * exp(-r->v[4] * log_d);
        low = fmin(low, c[i]);
        high = fmax(high, c[i]);
        least = fmin(least, fmin(loss[i], fitted[i]));
        most = fmax(most, fmax(loss[i], fitted[i]));
    }
    for (size_t i = 0; i < r->s->budgets.count; i++)
        high = fmax(high, strtod(r->s->budgets.values[i], NULL));
    for (int k = 0; k < STEPS; k++) {
        fc[k] = low * pow(high / low, k / (STEPS - 1.0));
        predict(r->v, fc[k], out);
        fl[k] = out[2];
    }
    const double diagonal[2] = {least, most};
    PlotSeries runs[2] = {{"runs", c, loss, NULL, n, PLOT_POINTS, 0x3b528b}, {"best at this compute", fc, fl, NULL, STEPS, PLOT_LINE, 0x21918c}};
    PlotSeries agree[2] = {{"equal", diagonal, diagonal, NULL, 2, PLOT_LINE, 0x999999}, {"runs", fitted, loss, NULL, n, PLOT_POINTS, 0x3b528b}};
    PlotPanel panels[2] = {{.title = "Loss and compute", .x_label = "training compute, 6 N D (FLOPs)", .y_label = "loss (nats a token)", .log_x = true, .log_y = true,
                            .series = runs, .count = 2},
                           {.title = "Fitted and measured", .x_label = "fitted loss (nats a token)", .y_label = "measured loss (nats a token)", .log_x = true,
                            .log_y = true, .series = agree, .count = 2}};
    int status = plot_write(r->s->plot, panels, 2, err);
    free(c);
    free(loss);
    free(fitted);
    return status;
}

static int read_runs(const Table *t, Runs *r, Error *err)
{
    RunPoint *p;
    if (points_read(t, &p, &r->count, err) < 0) {
        free(p);
        return -1;
    }
    size_t n = (size_t)r->count;
    r->n = memory_alloc(n, sizeof *r->n);
    r->d = memory_alloc(n, sizeof *r->d);
    r->loss = memory_alloc(n, sizeof *r->loss);
    for (size_t i = 0; i < n; i++) {
        r->n[i] = log(p[i].params);
        r->d[i] = log(p[i].tokens);
        r->loss[i] = log(p[i].loss);
        r->mean_n += r->n[i] / (double)n;
        r->mean_d += r->d[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        r->n[i] -= r->mean_n;
        r->d[i] -= r->mean_d;
    }
    free(p);
    return r->count > PARAMETERS ? 0 : error_set(err, "%d runs are too few for a law of five constants", r->count);
}

/* Descents from the whole grid to their end: the valley is flat, and many stop elsewhere. */
static int fit_runs(const Runs *runs, int threads, Report *r, Fit *best, Error *err)
{
    Search s = {.runs = runs, .fits = memory_alloc(STARTS, sizeof *s.fits)};
    int status = thread_parallel(threads, STARTS, search_start, &s, err), near = 0;
    *best = s.fits[0];
    for (int i = 1; i < STARTS; i++)
        if (s.fits[i].objective < best->objective)
            *best = s.fits[i];
    for (int i = 0; i < STARTS; i++)
        near += s.fits[i].objective <= best->objective * (1 + 1e-4);
    r->share = (double)near / STARTS;
    free(s.fits);
    return status;
}

int command_parametric(const Settings *s, const char *const *files, Error *err)
{
    Table t;
    Runs runs = {0};
    Fit best;
    Report r = {.s = s, .runs = &runs, .samples = (size_t)s->bootstrap};
    int threads = s->common.threads > 0 ? (int)s->common.threads : thread_default_count();
    int status = table_read(&t, files, &s->wheres, &s->renames, err);
    if (status == 0)
        status = read_runs(&t, &runs, err);
    if (status == 0)
        status = fit_runs(&runs, threads, &r, &best, err);
    if (status == 0) {
        Search draws = {.runs = &runs, .fits = memory_alloc(r.samples + 1, sizeof *draws.fits), .full = &best, .seed = (uint64_t)s->common.seed};
        if (r.samples > 0)
            status = thread_parallel(threads, r.samples, search_bootstrap, &draws, err);
        r.drawn = memory_alloc((r.samples + 1) * VALUES, sizeof *r.drawn);
        for (size_t i = 0; i < r.samples; i++)
            constants(&runs, &draws.fits[i], r.drawn + i * VALUES);
        free(draws.fits);
        constants(&runs, &best, r.v);
        r.objective = best.objective;
        for (int i = 0; i < runs.count; i++) {
            double fitted = r.v[2] + r.v[0] * exp(-r.v[3] * (runs.n[i] + runs.mean_n)) + r.v[1] * exp(-r.v[4] * (runs.d[i] + runs.mean_d));
            r.rms += pow(log(fitted) - runs.loss[i], 2) / runs.count;
        }
        r.rms = sqrt(r.rms);
        if (!(r.v[3] > 0 && r.v[4] > 0))
            status = error_set(err, "the loss does not fall with both parameters and tokens: exponents %.3g and %.3g", r.v[3], r.v[4]);
        else if (s->json)
            print_json(&r);
        else
            print_text(&r);
        if (status == 0 && s->plot)
            status = draw(&r, err);
        free(r.drawn);
    }
    free(runs.n);
    free(runs.d);
    free(runs.loss);
    table_free(&t);
    return status;
}
