/* From items to a task's numbers and their standard errors (lm_eval/api/metrics.py). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "corpus.h"

const char *const metric_names[METRICS] = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1", "mcc", "brier_score", "perplexity",
                                           "word_perplexity", "byte_perplexity", "bits_per_byte", "bleu", "chrf", "chrf++", "ter", "bypass"};
const char *const metric_aggregations[METRICS] = {"mean", "mean", "mean", "mean", "mean", "f1", "matthews_corrcoef", "brier_score", "perplexity",
                                                  "weighted_perplexity", "weighted_perplexity", "bits_per_byte", "bleu", "chrf", "chrf++", "ter", "bypass"};

bool metric_allowed(TaskKind kind, MetricKind metric)
{
    switch (kind) {
    case TASK_GENERATE:
        return metric == METRIC_EXACT_MATCH || metric >= METRIC_BLEU;
    case TASK_CHOICE:
        return metric <= METRIC_BRIER;
    case TASK_LIKELIHOOD:
        return metric == METRIC_PERPLEXITY || metric == METRIC_ACC;
    default:
        return metric >= METRIC_WORD_PERPLEXITY && metric <= METRIC_BITS_PER_BYTE;
    }
}

bool metric_takes_several(MetricKind metric)
{
    return corpus_width(metric) == 0;
}

Metric metric_new(MetricKind kind)
{
    size_t width = corpus_width(kind);
    return (Metric){.kind = kind, .width = width ? width : 1};
}

/* Makes room for another document's. */
static void metric_reserve(Metric *m)
{
    m->items = memory_grow(m->items, &m->capacity, (m->count + 1) * m->width, sizeof *m->items);
    m->weights = memory_grow(m->weights, &m->weight_capacity, (m->count + 1) * m->width, sizeof *m->weights);
}

void metric_add(Metric *m, double item, double weight)
{
    metric_reserve(m);
    m->items[m->count] = item;
    m->weights[m->count++] = weight;
}

int metric_add_answer(Metric *m, Span answer, const Span *wanted, size_t count, Error *err)
{
    if (m->width == 1) {
        bool right = false, equal;
        for (size_t i = 0; i < count && m->kind == METRIC_EXACT_MATCH; i++) {
            if (metric_match(m, answer, wanted[i], &equal, err) < 0)
                return -1;
            right |= equal;
        }
        metric_add(m, right, 1);
        return 0;
    }
    metric_reserve(m);
    size_t at = m->count++ * m->width;
    memset(m->weights + at, 0, m->width * sizeof *m->weights);
    return corpus_numbers(m->kind, answer, *wanted, m->items + at, err);
}

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* F1 of class 1 (scikit-learn's f1_score, binary): weights are the right answers, items the predictions. */
static double f1(const double *predicted, const double *gold, size_t n)
{
    double hits = 0, ones = 0;
    for (size_t i = 0; i < n; i++) {
        hits += predicted[i] == 1 && gold[i] == 1;
        ones += (predicted[i] == 1) + (gold[i] == 1);
    }
    return ones > 0 ? 2 * hits / ones : 0;
}

enum { MAX_CLASSES = 64, MOST_CORPORA = 100 };

/* Gorodkin's correlation of several classes (scikit-learn's matthews_corrcoef). */
static double matthews(const double *predicted, const double *gold, size_t n)
{
    double p[MAX_CLASSES] = {0}, g[MAX_CLASSES] = {0}, right = 0, both = 0, pp = 0, gg = 0, total = (double)n;
    for (size_t i = 0; i < n; i++) {
        p[(int)predicted[i]]++;
        g[(int)gold[i]]++;
        right += predicted[i] == gold[i];
    }
    for (int k = 0; k < MAX_CLASSES; k++) {
        both += p[k] * g[k];
        pp += p[k] * p[k];
        gg += g[k] * g[k];
    }
    double below = (total * total - pp) * (total * total - gg);
    return below > 0 ? (right * total - both) / sqrt(below) : 0;
}

static double aggregate(const Metric *m, double *items, const double *weights, size_t n)
{
    double sum = 0, weight = 0;
    if (m->width > 1) {
        double sums[CORPUS_MOST] = {0};
        for (size_t i = 0; i < n * m->width; i++)
            sums[i % m->width] += items[i];
        return corpus_score(m->kind, sums);
    }
    if (m->kind == METRIC_BYPASS)
        return 999; /* the harness's */
    if (m->kind == METRIC_F1)
        return f1(items, weights, n);
    if (m->kind == METRIC_MCC)
        return matthews(items, weights, n);
    if (m->median) {
        qsort(items, n, sizeof *items, compare_numbers);
        return items[n / 2];
    }
    for (size_t i = 0; i < n; i++) {
        sum += items[i];
        weight += weights[i];
    }
    switch (m->kind) {
    case METRIC_PERPLEXITY:
        return exp(-sum / (double)n);
    case METRIC_WORD_PERPLEXITY:
    case METRIC_BYTE_PERPLEXITY:
        return exp(-sum / weight);
    case METRIC_BITS_PER_BYTE:
        return -sum / weight / M_LN2;
    default:
        return sum / (double)n;
    }
}

static double deviation(const double *x, size_t n)
{
    double mean = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i];
    mean /= (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return sqrt(squares / (double)(n - 1));
}

/* Chunks of 1,000 draws, chunk i with Python's random.Random(i).choices (bootstrap_stderr). */
static double bootstrap(const Metric *m, int64_t iterations)
{
    int64_t chunk = iterations < 1000 ? iterations : 1000, chunks = iterations / chunk;
    double *values = memory_alloc((size_t)(chunk * chunks), sizeof *values);
#pragma omp parallel for schedule(dynamic)
    for (int64_t c = 0; c < chunks; c++) {
        Mersenne random;
        mersenne_seed(&random, (uint64_t)c);
        double *items = memory_alloc(m->count * m->width, sizeof *items), *weights = memory_alloc(m->count * m->width, sizeof *weights);
        for (int64_t i = 0; i < chunk; i++) {
            for (size_t k = 0; k < m->count; k++) {
                size_t at = (size_t)floor(mersenne_uniform(&random) * (double)m->count);
                memcpy(items + k * m->width, m->items + at * m->width, m->width * sizeof *items);
                memcpy(weights + k * m->width, m->weights + at * m->width, m->width * sizeof *weights);
            }
            values[c * chunk + i] = aggregate(m, items, weights, m->count);
        }
        free(items);
        free(weights);
    }
    double error = deviation(values, (size_t)(chunk * chunks));
    free(values);
    return error;
}

int metric_value(const Metric *m, int64_t bootstraps, double *value, double *stderror, Error *err)
{
    bool classes = m->kind == METRIC_F1 || m->kind == METRIC_MCC, simple = m->kind <= METRIC_EXACT_MATCH;
    for (size_t i = 0; classes && i < m->count; i++)
        if (m->items[i] >= (m->kind == METRIC_F1 ? 2 : MAX_CLASSES) || m->weights[i] >= (m->kind == METRIC_F1 ? 2 : MAX_CLASSES))
            return error_set(err, "'%s' takes %s", metric_names[m->kind], m->kind == METRIC_F1 ? "two choices" : "at most 64 choices");
    double *items = memory_alloc(m->count * m->width, sizeof *items);
    memcpy(items, m->items, m->count * m->width * sizeof *items);
    *value = aggregate(m, items, m->weights, m->count);
    free(items);
    *stderror = NAN;
    if (m->count < 2 || bootstraps < 1)
        return 0;
    if (m->width > 1) /* no more than that: the harness would score all answers anew for each */
        *stderror = bootstrap(m, bootstraps < MOST_CORPORA ? bootstraps : MOST_CORPORA);
    else if (classes || m->median || m->kind == METRIC_PERPLEXITY)
        *stderror = bootstrap(m, bootstraps);
    else if (simple)
        *stderror = deviation(m->items, m->count) / sqrt((double)m->count);
    return 0;
}
