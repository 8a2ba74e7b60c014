/* Prompts in, answers out: what generate, rejsample and lmeval share. */
#ifndef TRAIN_ANSWERS_H
#define TRAIN_ANSWERS_H

#include "io/stats.h"
#include "model/generate.h"
#include "train/examples.h"

typedef struct AnswerOptions {
    double temperature, top_p, min_p, repetition_penalty;
    int64_t top_k, max_tokens, samples, batch, max_prompt;
    int64_t memory;    /* bytes of keys and values at most; 0: enough for any batch */
    const char *order; /* of the filters: "transformers" (NULL too) or "llama.cpp" */
    OptionList stops;  /* texts that end an answer */
    const char *adapter;
    bool conversation; /* prompts that grow: GenerateOptions.keeps */
} AnswerOptions;

#define ANSWER_DEFAULT {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .max_tokens = 256, .samples = 1, .batch = 32, .max_prompt = 2048, \
                        .memory = (int64_t)4 << 30, .order = "transformers"}

#define ANSWER_OPTIONS(a, SAMPLES)                                                                                                            \
    {"samples", 0, OPTION_INTEGER, &(a)->samples, "K", "answers a prompt (default " SAMPLES ")", 0, 1, 100000},                                  \
    {"max-tokens", 0, OPTION_INTEGER, &(a)->max_tokens, "N", "longest answer (default 256)", 0, 1, 1 << 24},                           \
    {"temperature", 0, OPTION_NUMBER, &(a)->temperature, "X", "divides the logits; 0: greedy (default 1)", 0, 0, 1e6},                                     \
    {"top-k", 0, OPTION_INTEGER, &(a)->top_k, "N", "keep the N most probable tokens, 0: all (default 0)", 0, 0, 1e9},                  \
    {"top-p", 0, OPTION_NUMBER, &(a)->top_p, "X", "keep the fewest tokens that sum to X (default 1)", 0, 0, 1},                        \
    {"min-p", 0, OPTION_NUMBER, &(a)->min_p, "X", "drop tokens below X times the best (default 0)", 0, 0, 1},                          \
    {"repetition-penalty", 0, OPTION_NUMBER, &(a)->repetition_penalty, "X", "lowers tokens that were there before (default 1)", 0, 1e-6, 1e6}, \
    {"filter-order", 0, OPTION_CHOICE, &(a)->order, "NAME", "of the filters: transformers or llama.cpp (default transformers)", "transformers|llama.cpp", 0, 0}, \
    {"stop", 0, OPTION_LIST, &(a)->stops, "TEXT", "end an answer before this text (again for several)", 0, 0, 0},                       \
    {"memory", 0, OPTION_SIZE, &(a)->memory, "SIZE", "of keys and values at most (default 4G)", 0, 0, 0},                               \
    {"batch", 0, OPTION_INTEGER, &(a)->batch, "N", "answers written at once (default 32)", 0, 1, 1e6},                                 \
    {"max-prompt", 0, OPTION_INTEGER, &(a)->max_prompt, "N", "longest prompt in tokens (default 2048)", 0, 1, 1 << 24},                       \
    {"adapter", 0, OPTION_STRING, &(a)->adapter, "DIR", "add this adapter to the model", 0, 0, 0}

/* A model that answers. raw: prompts stand as they are, without a chat template. */
typedef struct Answerer {
    Model *model, own; /* own: where it was loaded here */
    Tokenizer *tokenizer;
    ChatCoder coder; /* not raw */
    Encoder *encoder;
    Generator generator;
    bool raw;
    OptionList stops;
    size_t longest_stop;
    Ids ids;
    Buffer flags, tail;
} Answerer;

int answerer_open(Answerer *a, const char *path, const AnswerOptions *o, bool raw, uint64_t seed, Dtype dtype, Device *d,
                  Error *err);
/* The same with a model that is loaded already, for language, and stays the caller's; path is its folder. */
int answerer_open_on(Answerer *a, Model *model, const char *path, const AnswerOptions *o, bool raw, uint64_t seed, Error *err);
void answerer_close(Answerer *a);
/* Ids of a prompt (a string or messages) with descriptions of tools (may be NULL); they stay until the next call. */
int answerer_prompt(Answerer *a, const JsonValue *prompt, const JsonValue *tools, Error *err);
/* An answer's bytes appended to out, specials left out. A model may have more ids than the tokenizer has tokens, to round its vocabulary
 * up; one of those that is drawn all the same has no text. */
int answer_decode(const Tokenizer *t, const Answer *answer, Buffer *out, Error *err);
/* Text of an answer appended to out, up to a stop text, specials left out, bytes that are no UTF-8 replaced by U+FFFD. */
int answerer_text(Answerer *a, const Answer *answer, Buffer *out, Error *err);
/* How many bytes of an unfinished answer's text will stay: what can still become a stop text does not count, nor what follows one. */
size_t answerer_settled(const Answerer *a, Span text);
bool answerer_ended(void *answerer, const Answer *answer); /* for GenerateOptions.ends: does a stop text end in the newest token? */
size_t answerer_end(const Answerer *a, Span text); /* where the first stop text begins, else the text's length */
/* What was written, as items of --stats. */
enum { ANSWER_STATS = 10 };
void answerer_stats(const Answerer *a, StatsItem items[ANSWER_STATS]);

#endif
