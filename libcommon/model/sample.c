#include "model/sample.h"

#include <stdlib.h>
#include <string.h>
#include "base/exp.h"
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

enum { LLAMA_CPP_LAST = 64 }; /* tokens that llama.cpp's penalty looks back at */

/* Keskar et al. 2019: once for each distinct token. */
static void penalise(const SampleOptions *o, float *logits, int64_t vocabulary, const int32_t *seen, int64_t count)
{
    double penalty = o->repetition_penalty;
    if (penalty == 1 || penalty <= 0)
        return;
    if (o->order == SAMPLE_LLAMA_CPP && count > LLAMA_CPP_LAST) {
        seen += count - LLAMA_CPP_LAST;
        count = LLAMA_CPP_LAST;
    }
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
static int64_t sort_candidates(Sampler *s, const SampleOptions *o, const float *logits, double most, double temperature, double all)
{
    enum { BINS = 512 };
    int64_t n = s->vocabulary, counts[BINS] = {0}, count = 0, kept = 0;
    double mass[BINS] = {0}, sum = 0, scale = 8 / temperature;
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

/* Weights of the first `count` tokens of the order; their sum. */
static double weigh(Sampler *s, const float *logits, int64_t count, float most, double temperature)
{
    float *w = s->probability, by = (float)(1 / temperature);
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        w[i] = logits[s->order[i]];
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        w[i] = exp_single((w[i] - most) * by);
        sum += (double)w[i];
    }
    return sum;
}

/* Both orders filter alike but for ties with the k-th and for the temperature, which llama.cpp leaves to the end. */
int64_t sampler_filter(Sampler *s, const SampleOptions *o, float *logits, const int32_t *seen, int64_t seen_count, double *sum)
{
    int64_t n = s->vocabulary, kept = n;
    bool llama = o->order == SAMPLE_LLAMA_CPP, by_count = o->top_k > 0 && o->top_k < n;
    double temperature = llama ? 1 : o->temperature;
    penalise(o, logits, n, seen, seen_count);
    float most = logits[best_token(logits, n)];
    for (int64_t i = 0; i < n; i++)
        s->order[i] = (int32_t)i;
    *sum = weigh(s, logits, n, most, temperature);
    if (by_count || o->top_p < 1) {
        kept = sort_candidates(s, o, logits, (double)most, temperature, *sum);
        if (by_count) {
            int64_t k = o->top_k;
            while (!llama && k < kept && logits[s->order[k]] == logits[s->order[o->top_k - 1]])
                k++;
            kept = k;
        }
        double total = weigh(s, logits, kept, most, temperature);
        if (by_count)
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
    if (llama)
        *sum = weigh(s, logits, kept, most, o->temperature);
    return kept;
}

int32_t sampler_choose(Sampler *s, const SampleOptions *o, float *logits, const int32_t *seen, int64_t seen_count, uint64_t prompt,
                       uint64_t sample, uint64_t position)
{
    if (o->temperature <= 0) {
        penalise(o, logits, s->vocabulary, seen, seen_count);
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
