/* Answers to prompts, many at a time: prompts are prefilled together, forked for their samples, and decoded as one batch. */
#ifndef MODEL_GENERATE_H
#define MODEL_GENERATE_H

#include "model/cache.h"
#include "model/sample.h"

enum { GENERATE_MAX_STOPS = 16 };

typedef struct GenerateOptions {
    SampleOptions sample;
    int64_t max_tokens, samples, batch; /* batch: sequences decoded at once */
    int32_t stops[GENERATE_MAX_STOPS];  /* ids that end an answer and are not part of it */
    int stop_count;
} GenerateOptions;

typedef struct Answer {
    int32_t *tokens;
    int64_t count;
    bool stopped;   /* by a stop id; otherwise cut off */
} Answer;

typedef struct Generator {
    Model *model;
    GenerateOptions options;
    KvCache cache;
    Slot slot;
    Sampler sampler;
    float *logits;
    int64_t max_length; /* of prompt and answer */
} Generator;

int generator_open(Generator *g, Model *m, const GenerateOptions *o, int64_t max_prompt, Error *err);
void generator_close(Generator *g);
/* answers[i·samples + k] is sample k of prompt i; first_index is prompt 0's number in the whole input, for the draws. Each
 * token of a single sequence can be watched through `watch` (NULL: not), which ends the answer by returning false. Answers'
 * tokens are the caller's to free. */
int generator_run(Generator *g, const int32_t *const *prompts, const int64_t *lengths, int64_t count, uint64_t first_index,
                  Answer *answers, bool (*watch)(void *context, int32_t token), void *context, Error *err);

#endif
