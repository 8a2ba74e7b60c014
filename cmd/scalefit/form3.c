#include "form3.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/cpu.h"
#include "base/random.h"
#include "base/thread.h"

enum { ITERATIONS = 2000, MANY_RUNS = 8192 };
static const double huber_delta = 1e-3;
/* The relative gain below which a descent stands still. Draws are compared with their own spread, for which 1e-10 is plenty: a
 * value 1e-4 above the minimum moves A by 3 %. A draw's second descent is finished only where it has come lower than the first. */
#define FINE 1e-14
#define COARSE 1e-10
#define ROUGH 1e-4

const char *const form3_names[FORM3_VALUES] = {"A", "B", "E", "alpha", "beta", "a"};

#define NAME form3_sum_plain
#define TARGET
#include "form3_sum.h"

static MinimiseFunction objective_choose(void)
{
#if defined(__x86_64__)
    if (cpu_level() >= CPU_AVX512)
        return form3_sum_avx512;
    if (cpu_level() >= CPU_AVX2)
        return form3_sum_avx2;
#endif
    return form3_sum_plain;
}

static void start_at(const Form3Runs *r, Form3 *f, double a, double b, double e, double alpha, double beta)
{
    *f = (Form3){.x = {a - alpha * r->mean_n, b - beta * r->mean_d, e, alpha, beta}};
}

/* a, b in 0, 5 … 25; e in −1, −0.5 … 1; alpha, beta in 0, 0.5 … 2. */
static void start_grid(const Form3Runs *r, Form3 *f, int i)
{
    start_at(r, f, 5 * (i % 6), 5 * (i / 6 % 6), -1 + 0.5 * (i / 36 % 5), 0.5 * (i / 180 % 5), 0.5 * (i / 900));
}

static void descend(const Form3Runs *r, Form3 *f, const Metric *from, double still)
{
    f->objective = minimise(r->sum, r, f->x, FORM3_PARAMETERS, ITERATIONS, still, from, &f->metric);
}

static double runs_total(const Form3Runs *r)
{
    double n = 0;
    for (int i = 0; i < r->count; i++)
        n += r->weight[i];
    return n;
}

static double absolute_sum(const Form3Runs *r, const double *x)
{
    double sum = 0;
    for (int i = 0; i < r->count; i++)
        sum += r->weight[i] * fabs(log(exp(x[0] - x[3] * r->n[i]) + exp(x[1] - x[4] * r->d[i]) + exp(x[2])) - r->loss[i]);
    return sum;
}

/* From the minimum of the Huber loss to the likelihood's. For a given scale s that is Huber's loss again, with delta·s and divided
 * by s²; and while delta·s is far below the differences, the best s is delta·Σ|difference|/n. So delta shrinks by steps towards
 * that, and each minimum begins the next descent: the kinks come into view one by one. */
static void sharpen(const Form3Runs *runs, Form3 *f)
{
    Form3Runs r = *runs;
    double n = runs_total(&r), delta = huber_delta, z = sqrt(2 * M_PI) * erf(delta / M_SQRT2) + 2 * exp(-delta * delta / 2) / delta;
    double scale = 1;
    for (r.delta = huber_delta / 4;; r.delta = fmax(r.delta / 4, delta * scale)) {
        double before = f->objective;
        f->objective = minimise(r.sum, &r, f->x, FORM3_PARAMETERS, ITERATIONS, FINE, NULL, &f->metric) / r.delta;
        scale = delta * absolute_sum(&r, f->x) / n;
        if (r.delta <= delta * scale * (1 + 1e-9) || (r.delta < 1e-7 && fabs(before - f->objective) < 1e-12 * before))
            break;
    }
    r.delta = delta * scale;
    double g[FORM3_PARAMETERS], sum = r.sum(&r, f->x, g);
    f->log_scale = log(scale);
    f->objective = n * log(scale) + n * log(z) + sum / (scale * scale);
}

void form3_refit(const Form3Runs *r, Form3Objective kind, const Form3 *full, Form3 *out)
{
    Form3 other;
    *out = *full;
    start_at(r, &other, log(406.4), log(410.7), log(1.69), 0.34, 0.28);
    descend(r, out, &full->metric, COARSE);
    descend(r, &other, &full->metric, ROUGH);
    if (other.objective < out->objective) {
        *out = other;
        descend(r, out, &other.metric, COARSE);
    }
    if (kind == FORM3_LIKELIHOOD)
        sharpen(r, out);
}

typedef struct Search {
    const Form3Runs *runs;
    Form3 *fits;
    const Form3 *full;
    Form3Objective kind;
    double *constants;
    uint64_t seed;
} Search;

static int search_start(void *context, size_t i, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Search *s = context;
    start_grid(s->runs, &s->fits[i], (int)i);
    descend(s->runs, &s->fits[i], NULL, FINE);
    return 0;
}

static int search_bootstrap(void *context, size_t i, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Search *s = context;
    const Form3Runs *all = s->runs;
    size_t n = (size_t)all->count;
    Form3Runs r = *all;
    Form3 f;
    double *times = memory_zalloc(n, sizeof *times), *room = memory_alloc(4 * n, sizeof *room);
    for (size_t k = 0; k < n; k++)
        times[random_below(s->seed, RANDOM_FIT, i * n + k, n)]++;
    r.n = room, r.d = room + n, r.loss = room + 2 * n, r.weight = room + 3 * n, r.count = 0;
    for (size_t k = 0; k < n; k++)
        if (times[k] > 0) {
            r.n[r.count] = all->n[k];
            r.d[r.count] = all->d[k];
            r.loss[r.count] = all->loss[k];
            r.weight[r.count++] = times[k];
        }
    form3_refit(&r, s->kind, s->full, &f);
    form3_constants(&r, &f, s->constants + i * FORM3_VALUES);
    free(times);
    free(room);
    return 0;
}

int form3_runs(Form3Runs *r, const RunPoint *p, int count, Error *err)
{
    size_t n = (size_t)count;
    *r = (Form3Runs){.count = count, .delta = huber_delta, .sum = objective_choose(), .n = memory_alloc(n + 1, sizeof *r->n), .d = memory_alloc(n + 1, sizeof *r->d),
                     .loss = memory_alloc(n + 1, sizeof *r->loss), .weight = memory_alloc(n + 1, sizeof *r->weight)};
    for (size_t i = 0; i < n; i++) {
        r->n[i] = log(p[i].params);
        r->d[i] = log(p[i].tokens);
        r->loss[i] = log(p[i].loss);
        r->weight[i] = 1;
        r->mean_n += r->n[i] / (double)n;
        r->mean_d += r->d[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        r->n[i] -= r->mean_n;
        r->d[i] -= r->mean_d;
    }
    return count > FORM3_PARAMETERS ? 0 : error_set(err, "%d runs are too few for a law of five constants", count);
}

void form3_runs_free(Form3Runs *r)
{
    free(r->n);
    free(r->d);
    free(r->loss);
    free(r->weight);
}

/* Every so manieth run, at random: enough of them to tell the valleys apart. */
static void thin(const Form3Runs *r, Form3Runs *few)
{
    size_t n = (size_t)r->count, kept = n < MANY_RUNS ? n : MANY_RUNS;
    double *room = memory_alloc(4 * kept, sizeof *room);
    *few = *r;
    few->n = room, few->d = room + kept, few->loss = room + 2 * kept, few->weight = room + 3 * kept, few->count = (int)kept;
    for (size_t i = 0; i < kept; i++) {
        size_t from = kept == n ? i : (size_t)random_permute(0, RANDOM_FIT, i, n);
        few->n[i] = r->n[from];
        few->d[i] = r->d[from];
        few->loss[i] = r->loss[from];
        few->weight[i] = r->weight[from];
    }
}

int form3_fit(const Form3Runs *r, Form3Objective kind, int threads, Form3 *best, Error *err)
{
    Form3Runs few;
    thin(r, &few);
    Search s = {.runs = &few, .fits = memory_alloc(FORM3_STARTS, sizeof *s.fits)};
    int status = thread_parallel(threads, FORM3_STARTS, search_start, &s, err), near = 0;
    *best = s.fits[0];
    for (int i = 1; i < FORM3_STARTS; i++)
        if (s.fits[i].objective < best->objective)
            *best = s.fits[i];
    for (int i = 0; i < FORM3_STARTS; i++)
        near += s.fits[i].objective <= best->objective * (1 + 1e-4);
    best->share = (double)near / FORM3_STARTS;
    free(s.fits);
    free(few.n);
    if (few.count < r->count)
        descend(r, best, &best->metric, FINE);
    if (status == 0 && kind == FORM3_LIKELIHOOD)
        sharpen(r, best);
    return status;
}

int form3_bootstrap(const Form3Runs *r, Form3Objective kind, const Form3 *full, size_t samples, uint64_t seed, int threads, double **constants,
                    Error *err)
{
    *constants = memory_alloc((samples + 1) * FORM3_VALUES, sizeof **constants);
    Search s = {.runs = r, .full = full, .kind = kind, .constants = *constants, .seed = seed};
    return samples > 0 ? thread_parallel(threads, samples, search_bootstrap, &s, err) : 0;
}

void form3_constants(const Form3Runs *r, const Form3 *f, double v[FORM3_VALUES])
{
    v[0] = exp(f->x[0] + f->x[3] * r->mean_n);
    v[1] = exp(f->x[1] + f->x[4] * r->mean_d);
    v[2] = exp(f->x[2]);
    v[3] = f->x[3];
    v[4] = f->x[4];
    v[5] = f->x[4] / (f->x[3] + f->x[4]);
}

double form3_loss(const double v[FORM3_VALUES], double params, double tokens)
{
    return v[2] + v[0] / pow(params, v[3]) + v[1] / pow(tokens, v[4]);
}

void form3_predict(const double v[FORM3_VALUES], double flops, double out[3])
{
    double sum = v[3] + v[4], g = pow(v[3] * v[0] / (v[4] * v[1]), 1 / sum);
    out[0] = g * pow(flops / 6, v[4] / sum);
    out[1] = pow(flops / 6, v[3] / sum) / g;
    out[2] = form3_loss(v, out[0], out[1]);
}
