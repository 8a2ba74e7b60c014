/* mixture: laws of each domain's loss in the shares of a mix, their test on other runs, predictions, and the best mix. */
#include "mixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/random.h"
#include "base/thread.h"
#include "io/json.h"

typedef struct Target {
    char *name;
    double aim; /* its weight in the best mix */
    MixtureRuns runs;
    MixtureLaw exponential, linear;
    MixtureLaw *drawn; /* [samples] of the law that predicts */
} Target;

typedef struct Mixture {
    const Settings *s;
    char **domains;
    int domain_count;
    Target *targets;
    size_t target_count;
    double limits[MIXTURE_MOST]; /* the largest share that a run had */
    bool linear;                 /* what predicts */
} Mixture;

static int find_columns(Mixture *m, const Table *t, Error *err)
{
    const Settings *s = m->s;
    size_t prefix = strlen(s->weights);
    m->domains = memory_alloc(t->column_count + 1, sizeof *m->domains);
    m->targets = memory_zalloc(t->column_count + s->targets.count + 1, sizeof *m->targets);
    for (size_t i = 0; i < t->column_count; i++) {
        if (strncmp(t->columns[i], s->weights, prefix) == 0 && t->columns[i][prefix]) {
            if (m->domain_count == MIXTURE_MOST)
                return error_set(err, "%s: more than %d columns begin with %s", table_place(t, 0), MIXTURE_MOST, s->weights);
            m->domains[m->domain_count++] = memory_string(t->columns[i]);
        } else if (s->targets.count == 0 && strncmp(t->columns[i], "loss_", 5) == 0) {
            m->targets[m->target_count++].name = memory_string(t->columns[i]);
        }
    }
    for (size_t i = 0; i < s->targets.count; i++) {
        if (table_require(t, s->targets.values[i], err) < 0)
            return -1;
        m->targets[m->target_count++].name = memory_string(s->targets.values[i]);
    }
    if (m->domain_count < 2)
        return error_set(err, "%s: %d columns begin with %s; a mix has two", table_place(t, 0), m->domain_count, s->weights);
    if (m->target_count == 0)
        return error_set(err, "%s: no column begins with loss_; --target names one", table_place(t, 0));
    return 0;
}

/* The shares of a row, which need not add up to 1 exactly; all of them must be there. */
static int read_shares(const Mixture *m, const Table *t, size_t row, double *shares, Error *err)
{
    double sum = 0;
    for (int j = 0; j < m->domain_count; j++) {
        if (table_number(t, row, m->domains[j], &shares[j], err) < 0)
            return -1;
        if (!(shares[j] >= 0 && isfinite(shares[j])))
            return error_set(err, "%s: %s is no share of a mix", table_place(t, row), m->domains[j]);
        sum += shares[j];
    }
    if (!(sum > 0))
        return error_set(err, "%s: the shares add up to 0", table_place(t, row));
    for (int j = 0; j < m->domain_count; j++)
        shares[j] /= sum;
    return 0;
}

/* Rows without the target's loss are left out. */
static int read_target(const Mixture *m, const Table *t, const char *name, MixtureRuns *r, Error *err)
{
    *r = (MixtureRuns){.domains = m->domain_count, .shares = memory_alloc(t->row_count * (size_t)m->domain_count, sizeof *r->shares),
                       .losses = memory_alloc(t->row_count, sizeof *r->losses)};
    for (size_t i = 0; i < t->row_count; i++) {
        double loss;
        if (table_number(t, i, name, &loss, err) < 0)
            return -1;
        if (isnan(loss))
            continue;
        if (table_positive(t, i, name, loss, err) < 0 || read_shares(m, t, i, r->shares + r->count * r->domains, err) < 0)
            return -1;
        r->losses[r->count++] = loss;
    }
    return 0;
}

static const MixtureLaw *law_of(const Mixture *m, const Target *t)
{
    return m->linear ? &t->linear : &t->exponential;
}

typedef struct Job {
    Mixture *m;
    size_t samples;
} Job;

static int fit_target(void *context, size_t i, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Job *j = context;
    Target *t = &j->m->targets[i];
    mixture_fit(&t->exponential, &t->runs, false, NULL);
    mixture_fit(&t->linear, &t->runs, true, NULL);
    return 0;
}

/* Runs drawn with replacement, the same draw for every target that has the same runs. */
static int draw_target(void *context, size_t i, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Job *j = context;
    Target *t = &j->m->targets[i / j->samples];
    size_t sample = i % j->samples, n = (size_t)t->runs.count;
    double *weight = memory_zalloc(n, sizeof *weight);
    MixtureRuns r = t->runs;
    r.weight = weight;
    for (size_t k = 0; k < n; k++)
        weight[random_below((uint64_t)j->m->s->common.seed, RANDOM_FIT, sample * n + k, n)]++;
    mixture_fit(&t->drawn[sample], &r, j->m->linear, law_of(j->m, t));
    free(weight);
    return 0;
}

/* "NAME=X,NAME=X": names as columns, or without their prefix. */
static int parse_shares(const char *option, const char *text, char *const *names, size_t count, const char *prefix, double *out, Error *err)
{
    memset(out, 0, count * sizeof *out);
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, "="), i = 0;
        char *end;
        double x = at[length] ? strtod(at + length + 1, &end) : NAN;
        if (!at[length] || !(x >= 0) || end == at + length + 1 || (*end && *end != ','))
            return error_set(err, "--%s %s is not NAME=NUMBER,…", option, text);
        for (; i < count; i++) {
            const char *name = names[i], *tail = strncmp(name, prefix, strlen(prefix)) == 0 ? name + strlen(prefix) : name;
            if ((strlen(name) == length && memcmp(name, at, length) == 0) || (strlen(tail) == length && memcmp(tail, at, length) == 0))
                break;
        }
        if (i == count)
            return error_set(err, "--%s %s: the table has no '%.*s'", option, text, (int)length, at);
        out[i] = x;
        at = *end ? end + 1 : end;
    }
    return 0;
}

typedef struct Mix {
    const char *title; /* "best" or the option's text */
    double shares[MIXTURE_MOST];
    Spread *ranges;    /* of the best mix's shares, else NULL */
} Mix;

static void put_mix(Buffer *b, const Mixture *m, const Mix *x)
{
    buffer_format(b, "{\"best\": %s, \"shares\": {", x->ranges ? "true" : "false");
    for (int j = 0; j < m->domain_count; j++) {
        buffer_string(b, j ? ", " : "");
        json_write_string(b, (Span){m->domains[j], strlen(m->domains[j])});
        buffer_string(b, ": ");
        json_write_number(b, x->shares[j]);
    }
    if (x->ranges) {
        buffer_string(b, "}, \"shares_ci95\": {");
        for (int j = 0; j < m->domain_count; j++) {
            buffer_string(b, j ? ", " : "");
            json_write_string(b, (Span){m->domains[j], strlen(m->domains[j])});
            buffer_string(b, ": ");
            report_spread(b, x->ranges[j]);
        }
    }
    buffer_string(b, "}, \"losses\": {");
}

static Spread drawn_losses(const Target *t, const double *shares, size_t samples)
{
    double *x = memory_alloc(samples + 1, sizeof *x);
    for (size_t i = 0; i < samples; i++)
        x[i] = mixture_loss(&t->drawn[i], shares);
    Spread s = spread(x, samples);
    free(x);
    return s;
}

static void print_mix(const Mixture *m, const Mix *x, size_t samples)
{
    printf("%s:", x->title);
    for (int j = 0; j < m->domain_count; j++)
        if (x->shares[j] >= 5e-4 || m->domain_count <= 8) {
            printf(" %s %.3f", m->domains[j], x->shares[j]);
            if (x->ranges && isfinite(x->ranges[j].low))
                printf(" (%.3f … %.3f)", x->ranges[j].low, x->ranges[j].high);
        }
    printf("\n");
    double sum = 0, aims = 0;
    for (size_t i = 0; i < m->target_count; i++) {
        const Target *t = &m->targets[i];
        double loss = mixture_loss(law_of(m, t), x->shares);
        Spread s = drawn_losses(t, x->shares, samples);
        printf("  %s %.4f", t->name, loss);
        if (isfinite(s.low))
            printf(" (%.4f … %.4f)", s.low, s.high);
        printf("\n");
        sum += t->aim * loss;
        aims += t->aim;
    }
    printf("  weighted mean %.4f\n", sum / aims);
}

static void json_mix(Buffer *b, const Mixture *m, const Mix *x, size_t samples)
{
    put_mix(b, m, x);
    double sum = 0, aims = 0;
    for (size_t i = 0; i < m->target_count; i++) {
        const Target *t = &m->targets[i];
        double loss = mixture_loss(law_of(m, t), x->shares);
        buffer_string(b, i ? ", " : "");
        json_write_string(b, (Span){t->name, strlen(t->name)});
        buffer_string(b, ": ");
        json_write_number(b, loss);
        buffer_string(b, ", ");
        char *key = memory_format("%s_ci95", t->name);
        json_write_string(b, (Span){key, strlen(key)});
        free(key);
        buffer_string(b, ": ");
        report_spread(b, drawn_losses(t, x->shares, samples));
        sum += t->aim * loss;
        aims += t->aim;
    }
    buffer_string(b, "}, ");
    report_number(b, "weighted_mean", sum / aims);
    buffer_byte(b, '}');
}

/* How the laws do on a table of other runs: rank correlation and root mean square error. */
static int test_laws(const Mixture *m, const char *path, Buffer *json, Error *err)
{
    Table t;
    const char *const files[2] = {path, NULL};
    int status = table_read(&t, files, &m->s->wheres, &m->s->renames, err);
    for (size_t i = 0; i < m->target_count && status == 0; i++) {
        const Target *g = &m->targets[i];
        MixtureRuns r;
        if (table_require(&t, g->name, err) < 0) {
            status = -1;
            break;
        }
        status = read_target(m, &t, g->name, &r, err);
        if (status == 0 && r.count < 2)
            status = error_set(err, "%s: fewer than two rows have a %s", path, g->name);
        if (status == 0) {
            size_t n = (size_t)r.count;
            double *x = memory_alloc(n, sizeof *x), rank[2], rmse[2];
            for (int k = 0; k < 2; k++) {
                double sum = 0;
                for (size_t row = 0; row < n; row++) {
                    x[row] = mixture_loss(k ? &g->linear : &g->exponential, r.shares + row * (size_t)r.domains);
                    sum += pow(x[row] - r.losses[row], 2) / (double)n;
                }
                rank[k] = spearman(x, r.losses, n);
                rmse[k] = sqrt(sum);
            }
            free(x);
            if (json) {
                buffer_format(json, "%s\n    {\"table\": ", i ? "," : "");
                json_write_string(json, (Span){path, strlen(path)});
                buffer_string(json, ", \"target\": ");
                json_write_string(json, (Span){g->name, strlen(g->name)});
                buffer_format(json, ", \"points\": %d", r.count);
                const struct {
                    const char *key;
                    double value;
                } values[] = {{"spearman_exponential", rank[0]}, {"spearman_linear", rank[1]}, {"rmse_exponential", rmse[0]}, {"rmse_linear", rmse[1]}};
                for (int k = 0; k < 4; k++) {
                    buffer_string(json, ", ");
                    report_number(json, values[k].key, values[k].value);
                }
                buffer_byte(json, '}');
            } else {
                printf("%s, %s (%d runs): rank correlation %.4f, linear %.4f; error %.4f, linear %.4f\n", path, g->name, r.count, rank[0], rank[1], rmse[0], rmse[1]);
            }
        }
        free(r.shares);
        free(r.losses);
    }
    table_free(&t);
    return status;
}

static void print_laws(const Mixture *m)
{
    for (size_t i = 0; i < m->target_count; i++) {
        const Target *t = &m->targets[i];
        printf("%s = %.4f + exp(", t->name, t->exponential.v[0]);
        for (int j = 0; j < m->domain_count; j++)
            printf("%s%.4g %s", j == 0 ? "" : t->exponential.v[1 + j] < 0 ? " − " : " + ", j ? fabs(t->exponential.v[1 + j]) : t->exponential.v[1], m->domains[j]);
        printf(")   (%d runs, residual %.4f; linear %.4f)\n", t->runs.count, sqrt(t->exponential.sse / t->runs.count), sqrt(t->linear.sse / t->runs.count));
    }
}

static void json_laws(Buffer *b, const Mixture *m)
{
    buffer_string(b, "{\n  \"method\": \"mixture\",\n  \"domains\": [");
    for (int j = 0; j < m->domain_count; j++) {
        buffer_string(b, j ? ", " : "");
        json_write_string(b, (Span){m->domains[j], strlen(m->domains[j])});
    }
    buffer_string(b, "],\n  \"targets\": {");
    for (size_t i = 0; i < m->target_count; i++) {
        const Target *t = &m->targets[i];
        buffer_string(b, i ? ",\n    " : "\n    ");
        json_write_string(b, (Span){t->name, strlen(t->name)});
        buffer_format(b, ": {\"points\": %d,\n      \"exponential\": {", t->runs.count);
        report_number(b, "c", t->exponential.v[0]);
        buffer_string(b, ", \"t\": [");
        for (int j = 0; j < m->domain_count; j++) {
            buffer_string(b, j ? ", " : "");
            json_write_number(b, t->exponential.v[1 + j]);
        }
        buffer_string(b, "], ");
        report_number(b, "sse", t->exponential.sse);
        buffer_string(b, ", ");
        report_number(b, "rmse", sqrt(t->exponential.sse / t->runs.count));
        buffer_string(b, "},\n      \"linear\": {\"beta\": [");
        for (int j = 0; j < m->domain_count; j++) {
            buffer_string(b, j ? ", " : "");
            json_write_number(b, t->linear.v[j]);
        }
        buffer_string(b, "], ");
        report_number(b, "sse", t->linear.sse);
        buffer_string(b, ", ");
        report_number(b, "rmse", sqrt(t->linear.sse / t->runs.count));
        buffer_string(b, "}}");
    }
    buffer_string(b, "\n  },\n  \"tests\": [");
}

typedef struct Bests {
    const Mixture *m;
    const double *aims;
    const Mix *best;
    double *all; /* [domains, samples] */
    size_t samples;
} Bests;

static int best_of_draw(void *context, size_t k, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Bests *b = context;
    size_t n = b->m->target_count;
    MixtureLaw *laws = memory_alloc(n, sizeof *laws);
    double shares[MIXTURE_MOST];
    for (size_t i = 0; i < n; i++)
        laws[i] = b->m->targets[i].drawn[k];
    memcpy(shares, b->best->shares, sizeof shares);
    mixture_best(laws, b->aims, n, b->m->limits, shares);
    for (int j = 0; j < b->m->domain_count; j++)
        b->all[(size_t)j * b->samples + k] = shares[j];
    free(laws);
    return 0;
}

/* The best mix, and that of each draw, whose spread is its interval. */
static int find_best(const Mixture *m, Mix *best, size_t samples, int threads, Error *err)
{
    size_t n = m->target_count, d = (size_t)m->domain_count;
    MixtureLaw *laws = memory_alloc(n, sizeof *laws);
    double *aims = memory_alloc(n, sizeof *aims), *all = memory_alloc((samples + 1) * d, sizeof *all);
    for (size_t i = 0; i < n; i++) {
        laws[i] = *law_of(m, &m->targets[i]);
        aims[i] = m->targets[i].aim;
    }
    best->title = "best mix";
    for (size_t j = 0; j < d; j++)
        best->shares[j] = 1.0 / (double)d;
    mixture_best(laws, aims, n, m->limits, best->shares);
    Bests b = {.m = m, .aims = aims, .best = best, .all = all, .samples = samples};
    int status = samples > 0 ? thread_parallel(threads, samples, best_of_draw, &b, err) : 0;
    best->ranges = memory_alloc(d, sizeof *best->ranges);
    for (size_t j = 0; j < d; j++)
        best->ranges[j] = spread(all + j * samples, samples);
    free(all);
    free(aims);
    free(laws);
    return status;
}

static int report(Mixture *m, size_t samples, int threads, Error *err)
{
    const Settings *s = m->s;
    size_t count = 0;
    Mix *mixes = memory_zalloc(s->mixtures.count + 1, sizeof *mixes);
    int status = 0;
    for (size_t i = 0; i < s->mixtures.count && status == 0; i++) {
        Mix *x = &mixes[count++];
        x->title = s->mixtures.values[i];
        status = parse_shares("mixture", x->title, m->domains, (size_t)m->domain_count, s->weights, x->shares, err);
        double sum = 0;
        for (int j = 0; j < m->domain_count; j++)
            sum += x->shares[j];
        if (status == 0 && !(sum > 0))
            status = error_set(err, "--mixture %s: the shares add up to 0", x->title);
        for (int j = 0; j < m->domain_count; j++)
            x->shares[j] /= sum;
    }
    if (status == 0)
        status = find_best(m, &mixes[count++], samples, threads, err);
    Buffer b = {0};
    if (status == 0 && s->json)
        json_laws(&b, m);
    else if (status == 0)
        print_laws(m);
    for (size_t i = 0; i < s->tests.count && status == 0; i++) {
        if (s->json && i)
            buffer_byte(&b, ',');
        status = test_laws(m, s->tests.values[i], s->json ? &b : NULL, err);
    }
    if (status == 0 && s->json)
        buffer_string(&b, "],\n  \"predictions\": [");
    for (size_t i = 0; i < count && status == 0; i++) {
        if (s->json) {
            buffer_string(&b, i ? ",\n    " : "\n    ");
            json_mix(&b, m, &mixes[i], samples);
        } else {
            print_mix(m, &mixes[i], samples);
        }
    }
    if (status == 0 && s->json) {
        buffer_string(&b, "\n  ]\n}\n");
        fwrite(b.data, 1, b.length, stdout);
    }
    buffer_free(&b);
    for (size_t i = 0; i < count; i++)
        free(mixes[i].ranges);
    free(mixes);
    return status;
}

static int draw(const Mixture *m, Error *err)
{
    Agreement *a = memory_zalloc(m->target_count, sizeof *a);
    for (size_t i = 0; i < m->target_count; i++) {
        const Target *t = &m->targets[i];
        a[i] = (Agreement){t->name, memory_alloc((size_t)t->runs.count, sizeof *a[i].fitted), t->runs.losses, (size_t)t->runs.count};
        for (int k = 0; k < t->runs.count; k++)
            a[i].fitted[k] = mixture_loss(law_of(m, t), t->runs.shares + k * m->domain_count);
    }
    int status = agreement_plot(m->s->plot, a, m->target_count, err);
    for (size_t i = 0; i < m->target_count; i++)
        free(a[i].fitted);
    free(a);
    return status;
}

static int fit(Mixture *m, int threads, size_t samples, Error *err)
{
    const Settings *s = m->s;
    char **names = memory_alloc(m->target_count, sizeof *names);
    double *aims = memory_alloc(m->target_count, sizeof *aims);
    for (size_t i = 0; i < m->target_count; i++) {
        names[i] = m->targets[i].name;
        aims[i] = s->aims.count == 0;
    }
    int status = 0;
    double total = 0;
    for (size_t i = 0; i < s->aims.count && status == 0; i++)
        status = parse_shares("aim", s->aims.values[i], names, m->target_count, "loss_", aims, err);
    for (size_t i = 0; i < m->target_count; i++) {
        m->targets[i].aim = aims[i];
        total += aims[i];
        m->targets[i].drawn = memory_alloc(samples + 1, sizeof(MixtureLaw));
    }
    if (status == 0 && !(total > 0))
        status = error_set(err, "--aim gives every loss the weight 0");
    free(names);
    free(aims);
    Job j = {.m = m, .samples = samples};
    if (status == 0)
        status = thread_parallel(threads, m->target_count, fit_target, &j, err);
    if (status == 0 && samples > 0)
        status = thread_parallel(threads, m->target_count * samples, draw_target, &j, err);
    return status;
}

int command_mixture(const Settings *s, const char *const *files, Error *err)
{
    Table t;
    Mixture m = {.s = s, .linear = s->law && strcmp(s->law, "linear") == 0};
    int threads = s->common.threads > 0 ? (int)s->common.threads : thread_default_count();
    size_t samples = (size_t)s->bootstrap;
    if (s->law && !m.linear && strcmp(s->law, "exponential") != 0)
        return error_set(err, "--law %s is neither exponential nor linear", s->law);
    int status = table_read(&t, files, &s->wheres, &s->renames, err);
    if (status == 0)
        status = find_columns(&m, &t, err);
    for (size_t i = 0; i < m.target_count && status == 0; i++) {
        Target *g = &m.targets[i];
        status = read_target(&m, &t, g->name, &g->runs, err);
        if (status == 0 && g->runs.count < m.domain_count + 1)
            status = error_set(err, "%s: %d runs have a %s, too few for a law of %d constants", table_place(&t, 0), g->runs.count, g->name, m.domain_count + 1);
        for (int k = 0; k < g->runs.count && status == 0; k++)
            for (int j = 0; j < m.domain_count; j++)
                m.limits[j] = fmax(m.limits[j], g->runs.shares[k * m.domain_count + j]);
    }
    if (status == 0)
        status = fit(&m, threads, samples, err);
    if (status == 0)
        status = report(&m, samples, threads, err);
    if (status == 0 && s->plot)
        status = draw(&m, err);
    for (int j = 0; j < m.domain_count; j++)
        free(m.domains[j]);
    free(m.domains);
    for (size_t i = 0; i < m.target_count; i++) {
        free(m.targets[i].name);
        free(m.targets[i].runs.shares);
        free(m.targets[i].runs.losses);
        free(m.targets[i].drawn);
    }
    free(m.targets);
    table_free(&t);
    return status;
}
