/* What sft, dpo and rmtrain share: options, the model with its tokenizer, examples and their plan, and the way from --model to
 * train_run. */
#ifndef TRAIN_POSTTRAIN_H
#define TRAIN_POSTTRAIN_H

#include "model/head.h"
#include "train/examples.h"
#include "train/loop.h"
#include "train/plan.h"

typedef struct PostTrain {
    Common common;
    TrainOptions train;
    const char *model_path, *val;
    double epochs;
    int64_t batch_size, max_length, rows;
    ChatCoder coder;
    Model model;
    Device *device;
    Examples examples, held_out;
    Plan plan, held_out_plan;
    Slot slot;
} PostTrain;

#define POSTTRAIN_DEFAULT {.common = COMMON_DEFAULT, .train = TRAIN_DEFAULT, .epochs = 1, .batch_size = 32, .max_length = 1024, .rows = 2048}

#define POSTTRAIN_OPTIONS(p)                                                                                                            \
    {"output", 'o', OPTION_STRING, &(p)->common.output, "DIR", "the run: checkpoints, log, final model", 0, 0, 0},                        \
    {"model", 0, OPTION_STRING, &(p)->model_path, "DIR", "model folder or run to start from", 0, 0, 0},                                   \
    {"epochs", 0, OPTION_NUMBER, &(p)->epochs, "X", "times through the records (default 1)", 0, 1e-9, 1e6},                               \
    {"batch-size", 0, OPTION_INTEGER, &(p)->batch_size, "N", "records a step (default 32)", 0, 1, 1e7},                                   \
    {"max-length", 0, OPTION_INTEGER, &(p)->max_length, "N", "tokens; longer examples are cut at the end (default 1024)", 0, 2, 1 << 24}, \
    {"rows", 0, OPTION_INTEGER, &(p)->rows, "N", "tokens a pass (default 2048)", 0, 2, 1 << 24}

/* Of the tools that have a score to watch. */
#define POSTTRAIN_VAL_OPTIONS(p)                                                                                                        \
    {"val", 0, OPTION_STRING, &(p)->val, "FILE", "held-out records, evaluated as --eval-every says", 0, 0, 0},                            \
    TRAIN_OPTION_EVAL(&(p)->train),                                                                                                       \
    {"patience", 0, OPTION_INTEGER, &(p)->train.patience, "N", "stop after N evaluations without a better score, keep the best (default 0: never)", 0, 0, 1e6}

/* In every table, last. */
#define POSTTRAIN_OPTIONS_END(p)              \
    OPTION_MORE_HEADING("everywhere:"),       \
        OPTION_COMMON_THREADS(&(p)->common),  \
        OPTION_COMMON_SEED(&(p)->common),     \
        OPTION_COMMON_ON_ERROR(&(p)->common), \
        OPTION_COMMON_DEVICE(&(p)->common),   \
        OPTION_COMMON_LOG(&(p)->common),      \
        OPTION_COMMON_CONFIG(&(p)->common),   \
        OPTION_COMMON_END(&(p)->common)

/* Opens everything that common and model_path name; kind says what the records are. num_labels as in folder_load. */
int posttrain_open(PostTrain *p, ExampleKind kind, int num_labels, const char *const *files, Error *err);
void posttrain_close(PostTrain *p);

/* The usual main(): checks the options that are always needed; -1 to go on, else the exit status. */
int posttrain_check(const PostTrain *p);

#endif
