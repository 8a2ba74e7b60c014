/* repeated: tokens seen again are worth less (Muennighoff et al. 2023):
 *
 *   L = E + A/N'^alpha + B/D'^beta,  D' = U + U R_D (1 − exp(−(D/U − 1)/R_D)),  U unique tokens,
 *   N' likewise with U_N = min(N, N_opt(U)) in U's place: the size for which U tokens are the best number under A, B, alpha, beta.
 *
 * Fitted by the sum of Huber losses, delta 1e-3, of the difference in log L: R_D and R_N alone to a law that is given, or all of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/random.h"
#include "base/thread.h"
#include "io/json.h"
#include "minimise.h"
#include "scalefit.h"

/* Variables in the order of the fit; A, B, E, R_D and R_N as logarithms. */
enum { A, B, E, ALPHA, BETA, RD, RN, VARIABLES };
static const char *const names[VARIABLES] = {"A", "B", "E", "alpha", "beta", "R_D", "R_N"};
static const double delta = 1e-3;

typedef struct Repeats {
    double *n, *d, *u, *loss; /* log N, log D, log U, log L */
    const double *weight;
    int count;
    double mean_n, mean_d;
    bool fixed, tied;         /* A … beta are given; alpha = beta */
    double law[VARIABLES];    /* what is not fitted */
} Repeats;

/* log of U (1 + R (1 − exp(−(X/U − 1)/R))) from log U, log X, log R; its derivatives by log U and log R. */
static double effective(double log_u, double log_x, double log_r, double *by_u, double *by_r)
{
    double r = exp(log_r), ratio = exp(log_x - log_u), more = fmax(ratio - 1, 0), e = exp(-more / r), gained = -r * expm1(-more / r), all = 1 + gained;
    *by_u = 1 - (more > 0 ? e * ratio / all : 0);
    *by_r = (gained - more * e) / all;
    return log_u + log(all);
}

double repeated_worth(double unique, double all, double lifetime)
{
    double by_u, by_r;
    return exp(effective(log(unique), log(all), log(lifetime), &by_u, &by_r));
}

/* log L of a run, and its derivatives by the variables. */
static double model(const double v[VARIABLES], double log_n, double log_d, double log_u, double g[VARIABLES])
{
    double best = (log(v[ALPHA] / v[BETA]) + v[A] - v[B] + v[BETA] * log_u) / v[ALPHA], un, ur, dn, dr;
    bool free_size = best < log_n;
    double n = effective(free_size ? best : log_n, log_n, v[RN], &un, &ur), d = effective(log_u, log_d, v[RD], &dn, &dr);
    double a = exp(v[A] - v[ALPHA] * n), b = exp(v[B] - v[BETA] * d), e = exp(v[E]), all = a + b + e;
    memset(g, 0, VARIABLES * sizeof *g);
    g[A] = a;
    g[B] = b;
    g[E] = e;
    g[ALPHA] = -a * n;
    g[BETA] = -b * d;
    g[RN] = -a * v[ALPHA] * ur;
    g[RD] = -b * v[BETA] * dr;
    if (free_size) {
        double by = -a * v[ALPHA] * un;
        g[A] += by / v[ALPHA];
        g[B] -= by / v[ALPHA];
        g[ALPHA] += by * (1 / v[ALPHA] - best) / v[ALPHA];
        g[BETA] += by * (log_u - 1 / v[BETA]) / v[ALPHA];
    }
    for (int k = 0; k < VARIABLES; k++)
        g[k] /= all;
    return log(all);
}

/* The variables of a descent: those of the law with A and B counted at the runs' mean, or R_D and R_N alone. */
static void unpack(const Repeats *r, const double *x, double v[VARIABLES])
{
    memcpy(v, r->law, sizeof r->law);
    if (!r->fixed) {
        v[ALPHA] = x[2];
        v[BETA] = r->tied ? x[2] : x[3];
        v[E] = x[r->tied ? 3 : 4];
        v[A] = x[0] + v[ALPHA] * r->mean_n;
        v[B] = x[1] + v[BETA] * r->mean_d;
        x += r->tied ? 4 : 5;
    }
    v[RD] = x[0];
    v[RN] = x[1];
}

static double objective(const void *context, const double *x, double *gradient)
{
    const Repeats *r = context;
    double v[VARIABLES], g[VARIABLES], all[VARIABLES] = {0}, sum = 0;
    unpack(r, x, v);
    if (!r->fixed && !(v[ALPHA] > 1e-3 && v[BETA] > 1e-3)) /* the descent steps back */
        return INFINITY;
    for (int i = 0; i < r->count; i++) {
        double times = r->weight ? r->weight[i] : 1;
        if (times == 0)
            continue;
        double off = model(v, r->n[i], r->d[i], r->u[i], g) - r->loss[i], slope = fmin(fmax(off, -delta), delta);
        sum += times * slope * (off - slope / 2);
        for (int k = 0; k < VARIABLES; k++)
            all[k] += times * slope * g[k];
    }
    int n = 0;
    if (!r->fixed) {
        double alpha = all[ALPHA] + all[A] * r->mean_n, beta = all[BETA] + all[B] * r->mean_d;
        gradient[n++] = all[A];
        gradient[n++] = all[B];
        gradient[n++] = r->tied ? alpha + beta : alpha;
        if (!r->tied)
            gradient[n++] = beta;
        gradient[n++] = all[E];
    }
    gradient[n++] = all[RD];
    gradient[n] = all[RN];
    return sum;
}

typedef struct RepeatFit {
    double x[MINIMISE_MAX], objective;
    Metric metric;
} RepeatFit;

static int variables(const Repeats *r)
{
    return r->fixed ? 2 : r->tied ? 6 : 7;
}

enum { LIFETIMES = 16, EXPONENTS = 5, LAWS = 9 };

/* R_D, R_N in 1 … 1000 by factors of ten; exponents 0.2 … 0.6; terms of 0.5, 1 or 2 nats at the mean size and number of tokens. */
static void start(const Repeats *r, int i, RepeatFit *f)
{
    double *x = f->x;
    int at = i / LIFETIMES;
    if (!r->fixed) {
        double alpha = 0.2 + 0.1 * (at % EXPONENTS), low = INFINITY;
        for (int k = 0; k < r->count; k++)
            low = fmin(low, r->loss[k]);
        *x++ = log(0.5 * (1 << at / EXPONENTS % 3));
        *x++ = log(0.5 * (1 << at / EXPONENTS / 3));
        *x++ = alpha;
        if (!r->tied)
            *x++ = alpha;
        *x++ = low - 0.3;
    }
    x[0] = log(10) * (i % 4);
    x[1] = log(10) * (i / 4 % 4);
}

typedef struct Search {
    const Repeats *r;
    RepeatFit *fits;
    const RepeatFit *full;
    uint64_t seed;
} Search;

static int search_start(void *context, size_t i, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Search *s = context;
    start(s->r, (int)i, &s->fits[i]);
    s->fits[i].objective = minimise(objective, s->r, s->fits[i].x, variables(s->r), 2000, 1e-14, NULL, &s->fits[i].metric);
    return 0;
}

static int search_draw(void *context, size_t i, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Search *s = context;
    Repeats r = *s->r;
    size_t n = (size_t)r.count;
    double *weight = memory_zalloc(n, sizeof *weight);
    for (size_t k = 0; k < n; k++)
        weight[random_below(s->seed, RANDOM_FIT, i * n + k, n)]++;
    r.weight = weight;
    s->fits[i] = *s->full;
    s->fits[i].objective = minimise(objective, &r, s->fits[i].x, variables(&r), 2000, 1e-11, &s->full->metric, NULL);
    free(weight);
    return 0;
}

static int read_runs(Repeats *r, const Table *t, Error *err)
{
    static const char *const columns[4] = {"params", "tokens", "unique_tokens", "loss"};
    double **to[4] = {&r->n, &r->d, &r->u, &r->loss};
    for (int k = 0; k < 4; k++) {
        if (table_require(t, columns[k], err) < 0)
            return -1;
        *to[k] = memory_alloc(t->row_count, sizeof **to[k]);
    }
    for (size_t i = 0; i < t->row_count; i++) {
        double v[4];
        for (int k = 0; k < 4; k++)
            if (table_number(t, i, columns[k], &v[k], err) < 0)
                return -1;
        if (isnan(v[3]))
            continue;
        for (int k = 0; k < 4; k++) {
            if (table_positive(t, i, columns[k], v[k], err) < 0)
                return -1;
            (*to[k])[r->count] = log(v[k]);
        }
        if (v[2] > v[1] * (1 + 1e-6))
            return error_set(err, "%s: %g unique tokens of %g", table_place(t, i), v[2], v[1]);
        r->u[r->count] = fmin(r->u[r->count], r->d[r->count]);
        r->count++;
    }
    for (int i = 0; i < r->count; i++) {
        r->mean_n += r->n[i] / r->count;
        r->mean_d += r->d[i] / r->count;
    }
    if ((size_t)r->count < t->row_count)
        message("%zu of %zu rows have no loss and are left out", t->row_count - (size_t)r->count, t->row_count);
    return r->count > variables(r) ? 0 : error_set(err, "%s: %d runs are too few for %d constants", table_place(t, 0), r->count, variables(r));
}

/* As it is printed: no logarithms. */
static double shown(const double v[VARIABLES], int k)
{
    return k == ALPHA || k == BETA ? v[k] : exp(v[k]);
}

static double predict(const double v[VARIABLES], const double at[3])
{
    double g[VARIABLES];
    return exp(model(v, log(at[0]), log(at[1]), log(fmin(at[2], at[1])), g));
}

enum { MINIMA = 8 };
typedef struct Report {
    const Settings *s;
    const Repeats *r;
    double v[VARIABLES], objective;
    double minima[MINIMA][3]; /* other ends of descents, within 1 % of the best: objective, R_D, R_N */
    int minimum_count;
    size_t samples;
    double *drawn; /* [samples, VARIABLES] */
} Report;

static Spread spread_of(const Report *p, int k, const double *at)
{
    double *x = memory_alloc(p->samples + 1, sizeof *x);
    for (size_t i = 0; i < p->samples; i++)
        x[i] = at ? predict(p->drawn + i * VARIABLES, at) : shown(p->drawn + i * VARIABLES, k);
    Spread s = spread(x, p->samples);
    free(x);
    return s;
}

static void print(const Report *p)
{
    const Repeats *r = p->r;
    Buffer b = {0};
    bool json = p->s->json;
    if (json)
        buffer_format(&b, "{\n  \"method\": \"repeated\",\n  \"points\": %d,\n  ", r->count);
    else
        buffer_format(&b, "loss = %.4f + %.4g / N'^%.4f + %.4g / D'^%.4f", shown(p->v, E), shown(p->v, A), p->v[ALPHA], shown(p->v, B), p->v[BETA]);
    if (json && r->count) {
        report_number(&b, "objective", p->objective);
        buffer_string(&b, ",\n  ");
    }
    if (!json)
        buffer_format(&b, r->count ? "   (%d runs, Huber losses %.6g)\n" : "\n", r->count, p->objective);
    buffer_string(&b, json ? "\"params\": {" : "");
    for (int k = 0; k < VARIABLES; k++) {
        Spread s = spread_of(p, k, NULL);
        if (json) {
            buffer_string(&b, k ? ", " : "");
            report_number(&b, names[k], shown(p->v, k));
            if (p->samples > 1 && (!r->fixed || k >= RD)) {
                buffer_format(&b, ", \"%s_ci95\": ", names[k]);
                report_spread(&b, s);
            }
        } else if (k >= RD) {
            buffer_format(&b, "%s* = %.4g", names[k], shown(p->v, k));
            if (isfinite(s.low))
                buffer_format(&b, "   (95 %%: %.4g … %.4g)", s.low, s.high);
            buffer_byte(&b, '\n');
        }
    }
    buffer_string(&b, json ? "},\n  \"other_minima\": [" : "");
    for (int i = 0; i < p->minimum_count; i++)
        buffer_format(&b, json ? "%s{\"objective\": %.17g, \"R_D\": %.17g, \"R_N\": %.17g}" : "%sas good within 1 %%: Huber losses %.6g at R_D* = %.4g, R_N* = %.4g\n",
                      json && i ? ", " : "", p->minima[i][0], p->minima[i][1], p->minima[i][2]);
    buffer_string(&b, json ? "],\n  \"predictions\": [" : "");
    for (size_t i = 0; i < p->s->points.count; i++) {
        double at[3];
        Error ignored;
        parse_numbers("at", p->s->points.values[i], at, 3, &ignored);
        Spread s = spread_of(p, 0, at);
        if (json) {
            static const char *const keys[3] = {"params", "tokens", "unique_tokens"};
            buffer_string(&b, i ? ",\n    {" : "\n    {");
            for (int k = 0; k < 3; k++) {
                report_number(&b, keys[k], at[k]);
                buffer_string(&b, ", ");
            }
            report_number(&b, "loss", predict(p->v, at));
            buffer_string(&b, ", \"loss_ci95\": ");
            report_spread(&b, s);
            buffer_byte(&b, '}');
        } else {
            buffer_format(&b, "at %.4g parameters, %.4g tokens, %.4g of them unique: loss %.4f", at[0], at[1], at[2], predict(p->v, at));
            if (isfinite(s.low))
                buffer_format(&b, " (%.4f … %.4f)", s.low, s.high);
            buffer_byte(&b, '\n');
        }
    }
    buffer_string(&b, json ? "]\n}\n" : "");
    fwrite(b.data, 1, b.length, stdout);
    buffer_free(&b);
}

/* R_D and R_N lie in a flat valley with several hollows: those that the data hardly tell from the best. */
static void note_minima(Report *p, const RepeatFit *fits, size_t count)
{
    for (size_t i = 0; i < count && p->minimum_count < MINIMA; i++) {
        double v[VARIABLES];
        unpack(p->r, fits[i].x, v);
        bool known = !(fits[i].objective <= p->objective * 1.01) || fabs(v[RD] - p->v[RD]) + fabs(v[RN] - p->v[RN]) < 0.02;
        for (int k = 0; k < p->minimum_count && !known; k++)
            known = fabs(v[RD] - log(p->minima[k][1])) + fabs(v[RN] - log(p->minima[k][2])) < 0.02;
        if (!known) {
            p->minima[p->minimum_count][0] = fits[i].objective;
            p->minima[p->minimum_count][1] = exp(v[RD]);
            p->minima[p->minimum_count++][2] = exp(v[RN]);
        }
    }
}

static int fit(Repeats *r, Report *p, int threads, Error *err)
{
    size_t starts = (size_t)(LIFETIMES * (r->fixed ? 1 : EXPONENTS * LAWS));
    RepeatFit *fits = memory_zalloc(starts > p->samples ? starts : p->samples, sizeof *fits), best;
    Search s = {.r = r, .fits = fits, .full = &best, .seed = (uint64_t)p->s->common.seed};
    int status = thread_parallel(threads, starts, search_start, &s, err);
    best = fits[0];
    for (size_t i = 1; i < starts; i++)
        if (fits[i].objective < best.objective)
            best = fits[i];
    unpack(r, best.x, p->v);
    p->objective = best.objective;
    note_minima(p, fits, starts);
    if (status == 0 && p->samples > 0)
        status = thread_parallel(threads, p->samples, search_draw, &s, err);
    for (size_t i = 0; i < p->samples; i++)
        unpack(r, fits[i].x, p->drawn + i * VARIABLES);
    free(fits);
    return status;
}

static int draw(const Report *p, Error *err)
{
    const Repeats *r = p->r;
    size_t n = (size_t)r->count;
    double *fitted = memory_alloc(n, sizeof *fitted), *loss = memory_alloc(n, sizeof *loss), g[VARIABLES];
    for (size_t i = 0; i < n; i++) {
        fitted[i] = exp(model(p->v, r->n[i], r->d[i], r->u[i], g));
        loss[i] = exp(r->loss[i]);
    }
    int status = agreement_plot(p->s->plot, &(Agreement){"Fitted and measured", fitted, loss, n}, 1, err);
    free(fitted);
    free(loss);
    return status;
}

int command_repeated(const Settings *s, const char *const *files, Error *err)
{
    Table t = {0};
    Repeats r = {.fixed = s->law != NULL, .tied = !s->untied};
    Report p = {.s = s, .r = &r, .samples = s->lifetimes ? 0 : (size_t)s->bootstrap};
    double ignored[3];
    int status = 0;
    for (size_t i = 0; i < s->points.count && status == 0; i++)
        status = parse_numbers("at", s->points.values[i], ignored, 3, err);
    if (status == 0 && s->law) {
        status = parse_numbers("law", s->law, r.law, 5, err);
        for (int k = 0; k < 3; k++)
            r.law[k] = log(r.law[k]);
    }
    if (status == 0 && s->lifetimes) {
        double v[2];
        status = s->law ? parse_numbers("lifetimes", s->lifetimes, v, 2, err) : error_set(err, "--lifetimes goes with --law");
        memcpy(p.v, r.law, sizeof r.law);
        p.v[RD] = log(v[0]);
        p.v[RN] = log(v[1]);
    } else if (status == 0) {
        p.drawn = memory_alloc((p.samples + 1) * VARIABLES, sizeof *p.drawn);
        status = table_read(&t, files, &s->wheres, &s->renames, err);
        if (status == 0)
            status = read_runs(&r, &t, err);
        if (status == 0)
            status = fit(&r, &p, s->common.threads > 0 ? (int)s->common.threads : thread_default_count(), err);
    }
    if (status == 0)
        print(&p);
    if (status == 0 && s->plot)
        status = r.count ? draw(&p, err) : error_set(err, "--plot draws runs, and --lifetimes reads none");
    free(p.drawn);
    free(r.n);
    free(r.d);
    free(r.u);
    free(r.loss);
    table_free(&t);
    return status;
}
