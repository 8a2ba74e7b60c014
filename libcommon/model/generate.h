/* Answers to prompts, many at a time. A prompt is prefilled once and its pages are shared by its samples; a place whose answer
 * has ended goes at once to the next sample or prompt in line (continuous batching; Orca, Yu et al. 2022). What else is being
 * written changes no bit of an answer. */
#ifndef MODEL_GENERATE_H
#define MODEL_GENERATE_H

#include "model/cache.h"
#include "model/sample.h"

enum { GENERATE_MAX_STOPS = 16 };

typedef struct Answer {
    int32_t *tokens;
    int64_t count;
    bool stopped;   /* by a stop id or `ends`; otherwise cut off */
} Answer;

typedef struct GenerateOptions {
    SampleOptions sample;
    int64_t max_tokens, samples, batch; /* batch: answers written at once */
    int64_t cache_bytes;                /* at most for keys and values (0: enough for any batch); one answer always has room */
    int32_t stops[GENERATE_MAX_STOPS];  /* ids that end an answer and are not part of it */
    int stop_count;
    bool (*ends)(void *context, const Answer *a); /* asked after each token: is the answer over? NULL: stop ids alone */
    void *ends_context;
    bool keeps; /* a conversation: one prompt after the other, one sample each; what a prompt has in common with the last one and its answer stays in
                   the cache and is not run again */
} GenerateOptions;

typedef struct GenerateCounts {
    int64_t prompts, prompt_tokens, answers, answer_tokens;
    int64_t kept_tokens; /* of the prompts, that were in the cache already */
    int64_t passes; /* decoding passes over the model; answer_tokens / passes is how many answers were written at once */
} GenerateCounts;

/* The answers to a prompt, g->options.samples of them, whose tokens are the callee's now. answers NULL: the generator closes before
 * they are written. -1 ends the run. */
typedef int (*GenerateEmit)(void *context, void *tag, Answer *answers, Error *err);

typedef struct Generator {
    Model *model;
    GenerateOptions options;
    KvCache cache;
    Slot slot;
    Sampler *samplers; /* one a thread */
    int threads;
    float *logits;
    int64_t max_length; /* of prompt and answer */
    GenerateEmit emit;  /* set before generator_add */
    void *context;
    bool (*watch)(void *context, int32_t token); /* sees each token and ends the answer by returning false; NULL: nobody */
    void *watch_context;
    GenerateCounts counts;
    /* Prompts in the order given, until their answers are handed out; how many are not begun. */
    struct Request *first, *last;
    int64_t waiting;
    struct Line *lines; /* [batch] answers being written */
    int64_t active;
    int64_t reserved;   /* pages that those can come to hold */
    Sequence kept;      /* of a conversation: its keys and values, and their tokens */
    int32_t *kept_tokens;
} Generator;

int generator_open(Generator *g, Model *m, const GenerateOptions *o, int64_t max_prompt, Error *err);
void generator_close(Generator *g);
/* Puts a prompt (copied) in line and writes until the line is short. `index` is its number in the whole input, for the draws; `tag`
 * comes back with its answers, which are handed out in the order of the prompts. */
int generator_add(Generator *g, const int32_t *prompt, int64_t length, uint64_t index, void *tag, Error *err);
/* Writes until nobody waits. */
int generator_finish(Generator *g, Error *err);
/* Both, for prompts that are all there: answers[i·samples + k] is sample k of prompt i, whose index is first_index + i. Each token
 * of a single answer can be watched. Answers' tokens are the caller's to free. */
int generator_run(Generator *g, const int32_t *const *prompts, const int64_t *lengths, int64_t count, uint64_t first_index,
                  Answer *answers, bool (*watch)(void *context, int32_t token), void *context, Error *err);

#endif
