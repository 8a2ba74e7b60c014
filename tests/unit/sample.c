/* The sampler's filters against transformers' logits processors (tests/reference/sample_golden.py), and its draws. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/sample.h"
#include "tap.h"

enum { V = 40 };

static void fill(float *logits, int set)
{
    for (int i = 0; i < V; i++)
        logits[i] = (float)((37 * i + 11 * set) % 23) / 4 - 2;
}

static int descending(const void *a, const void *b)
{
    return *(const double *)a < *(const double *)b ? 1 : *(const double *)a > *(const double *)b ? -1 : 0;
}

static void filters(void)
{
    FILE *f = fopen("tests/data/sample.tsv", "r");
    ok(f != NULL, "golden values");
    char line[4096];
    Sampler s;
    sampler_open(&s, V);
    while (f && fgets(line, sizeof line, f)) {
        double field[6 + V];
        char *at = line;
        for (int i = 0; i < 6 + V; i++)
            field[i] = strtod(at, &at);
        SampleOptions o = {.temperature = field[0], .top_k = (int64_t)field[1], .top_p = field[2], .min_p = field[3], .repetition_penalty = field[4]};
        float logits[V];
        fill(logits, (int)field[5]);
        const int32_t seen[] = {3, 5, 5, 17};
        double sum, got[V] = {0}, worst = 0;
        int64_t n = sampler_filter(&s, &o, logits, seen, 4, &sum);
        for (int64_t i = 0; i < n; i++)
            got[s.order[i]] = (double)s.probability[i] / sum;
        /* Which of equals stays at the border of top-p is left open. */
        qsort(got, V, sizeof *got, descending);
        qsort(field + 6, V, sizeof *field, descending);
        for (int i = 0; i < V; i++)
            worst = fmax(worst, fabs(got[i] - field[6 + i]));
        ok(worst < 1e-6, "temperature %g top-k %g top-p %g min-p %g penalty %g: %lld tokens left, off by %g", field[0], field[1], field[2], field[3],
               field[4], (long long)n, worst);
    }
    if (f)
        fclose(f);
    sampler_close(&s);
}

static void draws(void)
{
    Sampler s;
    sampler_open(&s, V);
    SampleOptions o = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 4};
    float logits[V], given[V];
    fill(given, 2);
    double expected[V], sum = 0, chi = 0;
    int counts[V] = {0}, n = 20000;
    for (int i = 0; i < V; i++)
        sum += expected[i] = exp((double)given[i]);
    for (int k = 0; k < n; k++) {
        memcpy(logits, given, sizeof logits);
        counts[sampler_choose(&s, &o, logits, NULL, 0, 7, (uint64_t)k, 3)]++;
    }
    for (int i = 0; i < V; i++) {
        double e = n * expected[i] / sum;
        chi += (counts[i] - e) * (counts[i] - e) / e;
    }
    ok(chi < 80, "20000 draws follow the probabilities: chi² %.1f with 39 degrees of freedom", chi);
    o.temperature = 0;
    memcpy(logits, given, sizeof logits);
    int best = 0;
    for (int i = 1; i < V; i++)
        best = given[i] > given[best] ? i : best;
    ok(sampler_choose(&s, &o, logits, NULL, 0, 0, 0, 0) == best, "greedy takes the lowest id among equals");
    sampler_close(&s);
}

int main(void)
{
    filters();
    draws();
    return tap_end();
}
