/* What lmeval's tasks share: the model under test and the table of results. */
#ifndef LMEVAL_LMEVAL_H
#define LMEVAL_LMEVAL_H

#include "base/option.h"
#include "io/stream.h"
#include "model/cache.h"
#include "model/head.h"
#include "text/tokenizer.h"
#include "train/examples.h"

/* A number that was printed. */
typedef struct Result {
    char *task, *metric, *filter;
    double value, stderror;
    int64_t n;
} Result;

typedef struct Eval {
    Common common;
    Device *device;
    Model model;
    Tokenizer *tokenizer;
    Encoder *encoder;
    ChatCoder *coder;      /* --chat, else NULL */
    bool one_turn;         /* with --chat few-shot examples stand in the user's turn */
    const char *system;    /* what comes before all, NULL: nothing */
    Slot slot;
    KvCache cache;         /* of what requests have in common; opened when it is needed */
    int64_t max_length;    /* tokens that the model sees at once */
    int64_t sample_length; /* of a shard's samples and the longest needle: max_length, where not asked for 2048 at most */
    int64_t max_tokens, needle_samples, needle_depths, limit;
    int64_t num_fewshot, fewshot_seed, bootstraps; /* num_fewshot -1: as the task says */
    bool json, check;      /* check: definitions are read and nothing else */
    bool processed;        /* documents are what the definitions' Python made */
    uint64_t refused;      /* definitions, with --check */
    Result *results;       /* of the definition that is being run, for groups */
    size_t result_count, result_capacity;
    int64_t tokens;        /* of all requests, for --stats */
    Writer *samples;       /* --log-samples, else NULL */
    OptionList data;
    const char *model_path, *adapter;
    const char *responses; /* --responses: answers of tasks, written elsewhere; NULL: the model's */
    const char *answers; /* --answers: where --match and --safety write what was answered */
    const char *needle_plot;
    OptionList needle_lengths, until, refusals;
} Eval;

/* One number of one task; stderr NaN where there is none. */
void result_print(Eval *e, const char *task, const char *metric, double value, double stderror, int64_t n);

/* The same with the name of a filter ("none": without one). */
void result_print_filtered(Eval *e, const char *task, const char *metric, const char *filter, double value, double stderror, int64_t n);

/* Forgets the results. */
void results_cut(Eval *e);

/* A text whose tokens from number `context` on are scored, given those before. */
typedef struct EvalRequest {
    size_t first;           /* of its ids */
    int64_t count, context;
    size_t group;           /* neighbours of one group are likely to begin alike */
    double logprob;         /* of the continuation */
    bool greedy;            /* each of its tokens was the arg max */
} Request;

/* Requests wait, so that one pass takes many. */
typedef struct Requests {
    Request *items;
    size_t count, capacity, group;
    Ids ids;
    int64_t rows;
} Requests;

/* What is added from now on is of another group. */
void requests_group(Requests *q);
/* Adds the windows of a text: each of its tokens once, as lm-evaluation-harness rolls them (utils.get_rolling_token_windows): the first
 * window begins behind the prefix token, later full ones see one token of context, the last is filled up from the left. ids is scratch
 * and has the text's tokens behind the prefix afterwards. */
int requests_add_rolling(Requests *q, Eval *e, Ids *ids, Span text, Error *err);
/* len(re.split(r"\s+", text)): one more than the runs of white space, as Python knows it. */
int64_t text_words(Span text);

/* Adds ids[0 … count-1] with count > context ≥ 1; what is longer than max_length loses its front. */
void requests_add(Requests *q, Eval *e, const int32_t *ids, int64_t count, int64_t context);
bool requests_full(const Requests *q, const Eval *e);
int requests_score(Requests *q, Eval *e, Error *err);
void requests_cut(Requests *q, size_t count); /* leaves the first `count` */
void requests_free(Requests *q);
/* Makes the slot large enough. */
int eval_slot(Eval *e, int64_t rows, Error *err);
int eval_prefix(const Eval *e, int32_t *id, Error *err);

int eval_perplexity(Eval *e, const char *path, Error *err);
int eval_task(Eval *e, const char *path, Error *err);
int eval_choices(Eval *e, const char *path, Error *err);
int eval_match(Eval *e, const char *path, Error *err);
int eval_safety(Eval *e, const char *path, Error *err);
int eval_needle(Eval *e, Error *err);

/* The task's name: the file's, without folder and endings. Caller frees. */
char *task_name(const char *path);

#endif
