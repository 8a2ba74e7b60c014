#include "model/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"

void sampler_open(Sampler *s, int64_t vocabulary)
{
    s->vocabulary = vocabulary;
    s->probability = memory_alloc((size_t)vocabulary, sizeof *s->probability);
    s->order = memory_alloc((size_t)vocabulary, sizeof *s->order);
}

void sampler_close(Sampler *s)
{
    free(s->probability);
    free(s->order);
    *s = (Sampler){0};
}

static void penalise(float *logits, int64_t vocabulary, const int32_t *seen, int64_t count, double penalty)
{
    unsigned char *done = memory_zalloc((size_t)vocabulary, 1);
    for (int64_t i = 0; i < count; i++)
        if (seen[i] >= 0 && seen[i] < vocabulary && !done[seen[i]]) {
            done[seen[i]] = 1;
            logits[seen[i]] = (float)(logits[seen[i]] < 0 ? logits[seen[i]] * penalty : logits[seen[i]] / penalty);
        }
    free(done);
}

static int compare_logits(const void *a, const void *b, void *logits)
{
    const float *z = logits;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (z[x] != z[y])
        return z[x] > z[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

int32_t sampler_choose(Sampler *s, const SampleOptions *o, float *logits, const int32_t *seen, int64_t seen_count, uint64_t prompt,
                       uint64_t sample, uint64_t position)
{
    int64_t n = s->vocabulary;
    if (o->repetition_penalty != 1 && o->repetition_penalty > 0)
        penalise(logits, n, seen, seen_count, o->repetition_penalty);
    int32_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = (int32_t)i;
    if (o->temperature <= 0)
        return best;
    for (int64_t i = 0; i < n; i++) {
        s->order[i] = (int32_t)i;
        s->probability[i] = 0;
    }
    int64_t kept = n;
    bool filtered = (o->top_k > 0 && o->top_k < n) || o->top_p < 1;
    if (filtered)
        qsort_r(s->order, (size_t)n, sizeof *s->order, compare_logits, logits);
    if (o->top_k > 0 && o->top_k < n)
        for (kept = o->top_k; kept < n && logits[s->order[kept]] == logits[s->order[o->top_k - 1]]; kept++)
            ;
    double sum = 0, most = logits[best];
    for (int64_t i = 0; i < kept; i++)
        sum += s->probability[i] = (float)exp(((double)logits[s->order[i]] - most) / o->temperature);
    if (o->top_p < 1) {
        double before = 0;
        int64_t i = 0;
        while (i < kept && (i == 0 || before < o->top_p * sum))
            before += s->probability[i++];
        kept = i;
        sum = before;
    }
    if (o->min_p > 0) {
        double rest = 0;
        for (int64_t i = 0; i < kept; i++) {
            if (s->probability[i] < o->min_p) /* the most probable has e^0 = 1 */
                s->probability[i] = 0;
            rest += s->probability[i];
        }
        sum = rest;
    }
    double u = random_uniform(o->seed, RANDOM_SAMPLE + (prompt << 8), sample << 32 | position) * sum, at = 0;
    int32_t last = best;
    for (int64_t i = 0; i < kept; i++) {
        if (s->probability[i] <= 0)
            continue;
        last = s->order[i];
        at += s->probability[i];
        if (u < at)
            break;
    }
    return last;
}
