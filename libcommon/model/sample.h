/* Choosing the next token. Filters in transformers' order: repetition penalty on raw logits, temperature, top-k (ties with the
 * k-th stay), top-p (among equals the lower id stays), min-p. Or in llama.cpp's: penalty (of the last 64 tokens), top-k (exactly k),
 * top-p and min-p of untempered probabilities, temperature last. A draw is a function of (seed, prompt, sample, position), so
 * batches change nothing. */
#ifndef MODEL_SAMPLE_H
#define MODEL_SAMPLE_H

#include <stdint.h>
#include <stdbool.h>
#include "base/memory.h"

typedef enum SampleOrder { SAMPLE_TRANSFORMERS, SAMPLE_LLAMA_CPP } SampleOrder;

typedef struct SampleOptions {
    double temperature; /* 0: greedy, the lowest id among equals */
    int64_t top_k;      /* 0: all */
    double top_p, min_p, repetition_penalty; /* 1, 0, 1: off */
    SampleOrder order;
    uint64_t seed;
} SampleOptions;

typedef struct Sampler {
    int64_t vocabulary;
    float *probability; /* of order[i] */
    int32_t *order;
} Sampler;

void sampler_open(Sampler *s, int64_t vocabulary);
void sampler_close(Sampler *s);
/* The filters: changes the logits by the penalty, then fills s->order with the tokens that are left and s->probability with
 * their weights (relative to the best, which has 1; their sum in *sum); returns how many. temperature > 0. seen: tokens of
 * prompt and answer so far. */
int64_t sampler_filter(Sampler *s, const SampleOptions *o, float *logits, const int32_t *seen, int64_t seen_count, double *sum);
/* One token. logits are changed. */
int32_t sampler_choose(Sampler *s, const SampleOptions *o, float *logits, const int32_t *seen, int64_t seen_count, uint64_t prompt,
                       uint64_t sample, uint64_t position);

#endif
