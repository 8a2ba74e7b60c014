/* What lmeval's tasks share: the model under test and the table of results. */
#ifndef LMEVAL_LMEVAL_H
#define LMEVAL_LMEVAL_H

#include "base/option.h"
#include "model/head.h"
#include "text/tokenizer.h"
#include "train/examples.h"

typedef struct Eval {
    Common common;
    Device *device;
    Model model;
    Tokenizer *tokenizer;
    Encoder *encoder;
    ChatCoder *coder;      /* --chat, else NULL */
    Slot slot;
    int64_t max_length, max_tokens, needle_samples, limit;
    bool json;
    const char *folder, *answers; /* --answers: where --match writes what was answered */
    OptionList needle_lengths;
} Eval;

/* One number of one task; stderr NaN where there is none. */
void result_print(const Eval *e, const char *task, const char *metric, double value, double stderror, int64_t n);

/* Log-probability of ids[context …] given what stands before, and whether each was the arg max. Longer than max_length: the
 * front is dropped. */
int eval_continuation(Eval *e, const int32_t *ids, int64_t count, int64_t context, double *logprob, bool *greedy, Error *err);

int eval_perplexity(Eval *e, const char *path, Error *err);
int eval_choices(Eval *e, const char *path, Error *err);
int eval_match(Eval *e, const char *path, Error *err);
int eval_needle(Eval *e, Error *err);

/* The task's name: the file's, without folder and endings. Caller frees. */
char *task_name(const char *path);

#endif
