/* downstream: tasks of a table, both steps of each, and the rows drawn again. */
#include "downstream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/random.h"
#include "base/thread.h"

double task_nll(const TaskFit *f, size_t sample, const TaskPoint *p)
{
    if (f->by_size)
        return form3_loss(sample == SIZE_MAX ? f->law : f->laws + sample * FORM3_VALUES, p->params, p->tokens);
    const Line *l = sample == SIZE_MAX ? &f->line : &f->lines[sample];
    return pow(10, l->intercept + l->slope * log10(p->flops));
}

double task_accuracy(const TaskFit *f, size_t sample, double nll)
{
    return sigmoid_value(sample == SIZE_MAX ? &f->sigmoid : &f->sigmoids[sample], nll);
}

static const char *suffixed(const Table *t, const char *task, const char *const *suffixes, char **made)
{
    for (; *suffixes; suffixes++) {
        free(*made);
        *made = memory_format("%s%s", task, *suffixes);
        if (table_has(t, *made))
            return *made;
    }
    return NULL;
}
static const char *const nll_suffixes[] = {"_bpb", "_nll", "_loss", NULL}, *const accuracy_suffixes[] = {"_acc", "_accuracy", NULL};

static int chance_of(const Settings *s, const char *task, double *out, Error *err)
{
    *out = NAN;
    for (size_t i = 0; i < s->chances.count; i++) {
        const char *text = s->chances.values[i], *equals = strchr(text, '=');
        char *end;
        double x = strtod(equals ? equals + 1 : text, &end);
        if (*end || end == (equals ? equals + 1 : text) || !(x >= 0 && x < 1))
            return error_set(err, "--chance %s is neither a number below 1 nor TASK=NUMBER", text);
        if (!equals || (strlen(task) == (size_t)(equals - text) && memcmp(task, text, strlen(task)) == 0))
            *out = x;
    }
    return 0;
}

static int read_runs(TaskFit *f, const Table *t, const Settings *s, Error *err)
{
    f->runs = memory_alloc(t->row_count, sizeof *f->runs);
    if (table_require(t, f->nll_column, err) < 0 || table_require(t, f->accuracy_column, err) < 0 ||
        (!(table_has(t, "params") && table_has(t, "tokens")) && table_require(t, "flops", err) < 0))
        return -1;
    for (size_t i = 0; i < t->row_count; i++) {
        TaskRun r = {.name = table_text(t, i, "run")};
        if (table_number(t, i, "flops", &r.flops, err) < 0 || table_number(t, i, "params", &r.params, err) < 0 || table_number(t, i, "tokens", &r.tokens, err) < 0 ||
            table_number(t, i, f->nll_column, &r.nll, err) < 0 || table_number(t, i, f->accuracy_column, &r.accuracy, err) < 0)
            return -1;
        r.flops = isnan(r.flops) ? 6 * r.params * r.tokens : r.flops;
        if (isnan(r.nll))
            continue;
        if (table_positive(t, i, f->nll_column, r.nll, err) < 0)
            return -1;
        if (r.accuracy < 0 || r.accuracy > 1)
            return error_set(err, "%s: %s is %g, no share between 0 and 1", table_place(t, i), f->accuracy_column, r.accuracy);
        r.first = table_row_is(t, i, &s->firsts) && (f->by_size ? r.params > 0 && r.tokens > 0 : r.flops > 0);
        f->runs[f->count++] = r;
    }
    return f->count > 0 ? 0 : error_set(err, "%s: no row has a %s", table_place(t, 0), f->nll_column);
}

/* Step 1 of the rows as weighted (NULL: once each). */
static void first_step(const TaskFit *f, const double *weight, Line *l)
{
    double *x = memory_alloc((size_t)f->count, sizeof *x), *y = memory_alloc((size_t)f->count, sizeof *y); /* weights add up to the rows */
    int n = 0;
    for (int i = 0; i < f->count; i++)
        for (int k = 0; f->runs[i].first && k < (weight ? (int)weight[i] : 1); k++) {
            x[n] = log10(f->runs[i].flops);
            y[n++] = log10(f->runs[i].nll);
        }
    line_fit(l, x, y, n);
    free(x);
    free(y);
}

static void second_step(const TaskFit *f, const double *weight, const Sigmoid *near, Sigmoid *out)
{
    double *x = memory_alloc((size_t)f->count, sizeof *x), *y = memory_alloc((size_t)f->count, sizeof *y), *w = memory_alloc((size_t)f->count, sizeof *w);
    int n = 0;
    for (int i = 0; i < f->count; i++)
        if (!isnan(f->runs[i].accuracy)) {
            x[n] = f->runs[i].nll;
            y[n] = f->runs[i].accuracy;
            w[n++] = weight ? weight[i] : 1;
        }
    sigmoid_fit(out, x, y, w, n, f->chance, near);
    free(x);
    free(y);
    free(w);
}

typedef struct Draws {
    TaskFit *fit;
    const Form3Runs *runs;
    const Form3 *law;
    uint64_t seed;
} Draws;

/* A draw of rows; one that leaves a step nothing to be fitted to is drawn again. */
static int draw_rows(void *context, size_t sample, int thread, Error *err)
{
    (void)thread;
    (void)err;
    Draws *d = context;
    TaskFit *f = d->fit;
    size_t n = (size_t)f->count;
    double *weight = memory_alloc(n, sizeof *weight), *first = memory_alloc(n, sizeof *first);
    for (uint64_t attempt = 0, base = (uint64_t)sample * 1000; attempt < 1000; attempt++) {
        size_t computes = 0, losses = 0, firsts = 0;
        memset(weight, 0, n * sizeof *weight);
        for (size_t k = 0; k < n; k++)
            weight[random_below(d->seed, RANDOM_FIT, (base + attempt) * n + k, n)]++;
        for (size_t i = 0; i < n; i++)
            if (weight[i] > 0) {
                computes += f->runs[i].first;
                losses += !isnan(f->runs[i].accuracy);
            }
        for (size_t i = 0; i < n; i++)
            if (f->runs[i].first)
                first[firsts++] = weight[i];
        if (computes >= (f->by_size ? 6 : 3) && losses >= 4)
            break;
    }
    if (f->by_size) {
        Form3Runs r = *d->runs;
        Form3 drawn;
        r.weight = first;
        form3_refit(&r, FORM3_HUBER, d->law, &drawn);
        form3_constants(&r, &drawn, f->laws + sample * FORM3_VALUES);
    } else {
        first_step(f, weight, &f->lines[sample]);
    }
    second_step(f, weight, &f->sigmoid, &f->sigmoids[sample]);
    free(weight);
    free(first);
    return 0;
}

static int fit_task(TaskFit *f, const Settings *s, int threads, Error *err)
{
    int firsts = 0, answered = 0;
    RunPoint *p = memory_alloc((size_t)f->count, sizeof *p);
    for (int i = 0; i < f->count; i++) {
        const TaskRun *r = &f->runs[i];
        answered += !isnan(r->accuracy);
        if (r->first)
            p[firsts++] = (RunPoint){.params = r->params, .tokens = r->tokens, .flops = r->flops, .loss = r->nll};
    }
    Form3Runs runs = {0};
    Form3 law = {0};
    int status = answered >= 4 ? 0 : error_set(err, "%s: %d rows have an accuracy; a sigmoid needs four", f->task, answered);
    if (status == 0 && firsts < 3)
        status = error_set(err, "%s: %d rows are left for the first step; it needs three", f->task, firsts);
    f->law_points = firsts;
    if (status == 0 && f->by_size) {
        status = form3_runs(&runs, p, firsts, err);
        if (status == 0)
            status = form3_fit(&runs, FORM3_HUBER, threads, &law, err);
        form3_constants(&runs, &law, f->law);
        f->objective = law.objective;
    } else if (status == 0) {
        first_step(f, NULL, &f->line);
        if (!isfinite(f->line.slope))
            status = error_set(err, "%s: all rows of the first step have the same compute", f->task);
    }
    if (status == 0) {
        second_step(f, NULL, NULL, &f->sigmoid);
        f->samples = (size_t)s->bootstrap;
        f->lines = memory_alloc(f->samples + 1, sizeof *f->lines);
        f->laws = memory_alloc((f->samples + 1) * FORM3_VALUES, sizeof *f->laws);
        f->sigmoids = memory_alloc(f->samples + 1, sizeof *f->sigmoids);
        Draws d = {.fit = f, .runs = &runs, .law = &law, .seed = (uint64_t)s->common.seed};
        if (f->samples > 0)
            status = thread_parallel(threads, f->samples, draw_rows, &d, err);
    }
    form3_runs_free(&runs);
    free(p);
    return status;
}

/* The tasks that are asked for, else those of columns NAME_bpb and NAME_acc, else the columns nll and accuracy. */
static int find_tasks(const Table *t, const Settings *s, TaskFit **out, size_t *count, Error *err)
{
    TaskFit *f = memory_zalloc(t->column_count + s->tasks.count + 1, sizeof *f);
    size_t n = 0;
    *out = f;
    *count = 0;
    if (s->nll || s->accuracy) {
        f[n++] = (TaskFit){.task = memory_string(s->accuracy ? s->accuracy : "accuracy"), .nll_column = memory_string(s->nll ? s->nll : "nll"),
                           .accuracy_column = memory_string(s->accuracy ? s->accuracy : "accuracy")};
    } else {
        size_t names = s->tasks.count ? s->tasks.count : t->column_count;
        for (size_t i = 0; i < names; i++) {
            char *task = memory_string(s->tasks.count ? s->tasks.values[i] : t->columns[i]), *nll = NULL, *accuracy = NULL;
            for (size_t k = 0; !s->tasks.count && nll_suffixes[k]; k++) {
                size_t length = strlen(task), tail = strlen(nll_suffixes[k]);
                if (length > tail && strcmp(task + length - tail, nll_suffixes[k]) == 0) {
                    task[length - tail] = 0;
                    break;
                }
            }
            bool found = suffixed(t, task, nll_suffixes, &nll) && suffixed(t, task, accuracy_suffixes, &accuracy);
            if (!found && s->tasks.count) {
                error_set(err, "%s: the table has no columns %s_bpb and %s_acc", table_place(t, 0), task, task);
                free(task), free(nll), free(accuracy);
                return -1;
            }
            if (found)
                f[n++] = (TaskFit){.task = task, .nll_column = nll, .accuracy_column = accuracy};
            else
                free(task), free(nll), free(accuracy);
            *count = n;
        }
        if (n == 0)
            f[n++] = (TaskFit){.task = memory_string("accuracy"), .nll_column = memory_string("nll"), .accuracy_column = memory_string("accuracy")};
    }
    *count = n;
    return 0;
}

int command_downstream(const Settings *s, const char *const *files, Error *err)
{
    Table t;
    TaskFit *fits = NULL;
    size_t count = 0;
    int threads = s->common.threads > 0 ? (int)s->common.threads : thread_default_count();
    int status = table_read(&t, files, &s->wheres, &s->renames, err);
    if (status == 0)
        status = find_tasks(&t, s, &fits, &count, err);
    for (size_t i = 0; i < count && status == 0; i++) {
        fits[i].by_size = strcmp(s->first_law, "size") == 0;
        status = chance_of(s, fits[i].task, &fits[i].chance, err);
        if (status == 0)
            status = read_runs(&fits[i], &t, s, err);
        if (status == 0)
            status = fit_task(&fits[i], s, threads, err) < 0 ? error_prefix(err, "%s", table_place(&t, 0)) : 0;
    }
    if (status == 0) {
        if (s->json)
            downstream_json(s, fits, count);
        else
            downstream_text(s, fits, count);
        if (s->plot)
            status = downstream_plot(s, fits, count, err);
    }
    for (size_t i = 0; i < count; i++) {
        free((void *)(uintptr_t)fits[i].task);
        free((void *)(uintptr_t)fits[i].nll_column);
        free((void *)(uintptr_t)fits[i].accuracy_column);
        free(fits[i].runs);
        free(fits[i].lines);
        free(fits[i].laws);
        free(fits[i].sigmoids);
    }
    free(fits);
    table_free(&t);
    return status;
}
