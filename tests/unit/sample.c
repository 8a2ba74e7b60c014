/* The sampler's filters against those of transformers and llama.cpp (tests/reference/sample_golden.py; a file of other cases as the
 * argument), and its draws. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
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

/* One case: how far the probabilities are off. Which of equal logits stays at a border is left open: there they are compared in order. */
static double off(const char *line, SampleOptions *o, int64_t *left)
{
    char *at;
    double head[8];
    head[0] = strtod(line, &at);
    for (int i = 1; i < 8; i++)
        head[i] = strtod(at, &at);
    size_t v = (size_t)head[6], seen_count = (size_t)head[7];
    *o = (SampleOptions){.order = head[0] == 1 ? SAMPLE_LLAMA_CPP : SAMPLE_TRANSFORMERS, .temperature = head[1], .top_k = (int64_t)head[2],
                         .top_p = head[3], .min_p = head[4], .repetition_penalty = head[5]};
    int32_t *seen = memory_alloc(seen_count + 1, sizeof *seen);
    float *logits = memory_alloc(v, sizeof *logits);
    double *want = memory_alloc(v, sizeof *want), *got = memory_zalloc(v, sizeof *got), sum, worst = 0;
    for (size_t i = 0; i < seen_count; i++)
        seen[i] = (int32_t)strtol(at, &at, 10);
    for (size_t i = 0; i < v; i++)
        logits[i] = strtof(at, &at);
    for (size_t i = 0; i < v; i++)
        want[i] = strtod(at, &at);
    Sampler s;
    sampler_open(&s, (int64_t)v);
    *left = sampler_filter(&s, o, logits, seen, (int64_t)seen_count, &sum);
    for (int64_t i = 0; i < *left; i++)
        got[s.order[i]] = (double)s.probability[i] / sum;
    if (v == V) {
        qsort(got, v, sizeof *got, descending);
        qsort(want, v, sizeof *want, descending);
    }
    for (size_t i = 0; i < v; i++)
        worst = fmax(worst, fabs(got[i] - want[i]));
    sampler_close(&s);
    free(seen);
    free(logits);
    free(want);
    free(got);
    return worst;
}

static void filters(const char *path)
{
    FILE *f = fopen(path, "r");
    ok(f != NULL, "golden values");
    char *line = NULL;
    size_t capacity = 0;
    while (f && getline(&line, &capacity, f) > 0) {
        SampleOptions o;
        int64_t left;
        double worst = off(line, &o, &left);
        ok(worst < 1e-6, "%s: temperature %g top-k %lld top-p %g min-p %g penalty %g: %lld tokens left, off by %.2g",
           o.order == SAMPLE_LLAMA_CPP ? "llama.cpp" : "transformers", o.temperature, (long long)o.top_k, o.top_p, o.min_p, o.repetition_penalty,
           (long long)left, worst);
    }
    free(line);
    if (f)
        fclose(f);
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

int main(int argc, char **argv)
{
    filters(argc > 1 ? argv[1] : "tests/data/sample.tsv");
    draws();
    return tap_end();
}
