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

/* Best first; among equals the lower id, which greedy decoding takes too (transformers' sort leaves it open). */
static int compare_logits(const void *a, const void *b, void *logits)
{
    const float *z = logits;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (z[x] != z[y])
        return z[x] > z[y] ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int32_t best_token(const float *logits, int64_t n)
{
    int32_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = (int32_t)i;
    return best;
}

/* Puts into s->order, sorted, at least those tokens that top-k or top-p can leave: a histogram of the logits' distances from
 * the best says how far down they reach, so that a large vocabulary need not be sorted. Returns how many. */
static int64_t sort_candidates(Sampler *s, const SampleOptions *o, const float *logits, double most, double all)
{
    enum { BINS = 512 };
    int64_t n = s->vocabulary, counts[BINS] = {0}, count = 0, kept = 0;
    double mass[BINS] = {0}, sum = 0, scale = 8 / o->temperature;
    bool by_count = o->top_k > 0 && o->top_k < n;
    for (int64_t i = 0; i < n; i++) {
        double d = (most - (double)logits[i]) * scale;
        int bin = d < BINS - 1 ? (int)d : BINS - 1;
        counts[bin]++;
        mass[bin] += (double)s->probability[i];
    }
    int last = 0;
    for (; last < BINS - 1; last++) {
        count += counts[last];
        sum += mass[last];
        if (by_count ? count >= o->top_k : sum > o->top_p * all * (1 + 1e-6))
            break;
    }
    for (int64_t i = 0; i < n; i++) {
        double d = (most - (double)logits[i]) * scale;
        if ((d < BINS - 1 ? (int)d : BINS - 1) <= last)
            s->order[kept++] = (int32_t)i;
    }
    qsort_r(s->order, (size_t)kept, sizeof *s->order, compare_logits, (void *)(uintptr_t)logits);
    return kept;
}

static float weight_of(const SampleOptions *o, float logit, double most)
{
    return (float)exp(((double)logit - most) / o->temperature);
}

int64_t sampler_filter(Sampler *s, const SampleOptions *o, float *logits, const int32_t *seen, int64_t seen_count, double *sum)
{
    int64_t n = s->vocabulary, kept = n;
    if (o->repetition_penalty != 1 && o->repetition_penalty > 0)
        penalise(logits, n, seen, seen_count, o->repetition_penalty);
    double most = (double)logits[best_token(logits, n)];
    *sum = 0;
    for (int64_t i = 0; i < n; i++) {
        s->order[i] = (int32_t)i;
        *sum += (double)(s->probability[i] = weight_of(o, logits[i], most));
    }
    if ((o->top_k > 0 && o->top_k < n) || o->top_p < 1) {
        kept = sort_candidates(s, o, logits, most, *sum);
        if (o->top_k > 0 && o->top_k < n) {
            int64_t k = o->top_k;
            while (k < kept && logits[s->order[k]] == logits[s->order[o->top_k - 1]])
                k++;
            kept = k;
        }
        double total = 0;
        for (int64_t i = 0; i < kept; i++)
            total += (double)(s->probability[i] = weight_of(o, logits[s->order[i]], most));
        if (o->top_k > 0 && o->top_k < n)
            *sum = total;
        if (o->top_p < 1) {
            double before = 0;
            int64_t i = 0;
            while (i < kept && (i == 0 || before < o->top_p * *sum))
                before += (double)s->probability[i++];
            kept = i;
            total = before;
        }
        *sum = total;
    }
    if (o->min_p > 0) {
        int64_t left = 0;
        *sum = 0;
        for (int64_t i = 0; i < kept; i++)
            if ((double)s->probability[i] >= o->min_p) { /* the most probable has e^0 = 1 */
                s->order[left] = s->order[i];
                s->probability[left++] = s->probability[i];
                *sum += (double)s->probability[i];
            }
        kept = left;
    }
    return kept;
}

int32_t sampler_choose(Sampler *s, const SampleOptions *o, float *logits, const int32_t *seen, int64_t seen_count, uint64_t prompt,
                       uint64_t sample, uint64_t position)
{
    if (o->temperature <= 0) {
        if (o->repetition_penalty != 1 && o->repetition_penalty > 0)
            penalise(logits, s->vocabulary, seen, seen_count, o->repetition_penalty);
        return best_token(logits, s->vocabulary);
    }
    double sum, at = 0;
    int64_t kept = sampler_filter(s, o, logits, seen, seen_count, &sum);
    double u = random_uniform(o->seed, RANDOM_SAMPLE + (prompt << 8), sample << 32 | position) * sum;
    int64_t last = 0;
    for (int64_t i = 0; i < kept; i++) {
        if (s->probability[i] <= 0)
            continue;
        last = i;
        at += (double)s->probability[i];
        if (u < at)
            break;
    }
    return s->order[last];
}
