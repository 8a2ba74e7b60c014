/* The loop that every training tool runs: steps, learning rates, clipping, skipped steps, metrics, evaluation, checkpoints,
 * signals, resuming. What a step computes is the task's: it fills the gradients of a whole optimiser step. */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H

#include "base/option.h"
#include "model/model.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/passes.h"
#include "train/ranks.h"
#include "train/same.h"
#include "train/state.h"

typedef struct TrainOptions {
    int64_t steps, warmup, save_every, keep, keep_every, average_every, eval_every, max_skips, patience, shard;
    double lr, min_lr, decay_share, weight_decay, beta1, beta2, eps, grad_clip, peak_flops;
    const char *schedule, *recompute, *save_dtype, *tensorboard, *trace;
    bool merge; /* the final model has its adapters added to the weights */
} TrainOptions;

#define TRAIN_DEFAULT {.save_every = 1000, .keep = 2, .max_skips = 10, .shard = 1, .lr = 3e-4, .min_lr = -1, .decay_share = 0.2, \
                       .weight_decay = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .grad_clip = 1, .schedule = "cosine", .recompute = "none", \
                       .save_dtype = "f32"}

/* Options of the optimiser and the loop, for a tool's table; RATE and DECAY are its defaults as text. */
#define TRAIN_OPTIONS(t, RATE, DECAY)                                                                                                          \
    OPTION_MORE_HEADING("learning:"),                                                                                              \
    {"lr", 0, OPTION_NUMBER, &(t)->lr, "X", "peak learning rate (default " RATE ")", 0, 0, 1e9},                                        \
    {"min-lr", 0, OPTION_NUMBER, &(t)->min_lr, "X", "learning rate at the last step (default: a tenth of the peak)", 0, 0, 1e9},          \
    {"schedule", 0, OPTION_CHOICE, &(t)->schedule, "KIND", "cosine, wsd, linear or constant (default cosine)", "cosine|wsd|linear|constant", 0, 0}, \
    {"warmup", 0, OPTION_INTEGER, &(t)->warmup, "STEPS", "steps of linear warm-up (default 0)", 0, 0, 1e12},                        \
    {"decay-share", 0, OPTION_NUMBER, &(t)->decay_share, "X", "share of the steps in which wsd decays (default 0.2)", 0, 0, 1},     \
    {"weight-decay", 0, OPTION_NUMBER, &(t)->weight_decay, "X", "decay of matrices, not of norms and biases (default " DECAY ")", 0, 0, 1e3},                            \
    {"beta1", 0, OPTION_NUMBER, &(t)->beta1, "X", "AdamW: decay of the first moment (default 0.9)", 0, 0, 0.999999},                                                  \
    {"beta2", 0, OPTION_NUMBER, &(t)->beta2, "X", "AdamW: decay of the second moment (default 0.95)", 0, 0, 0.999999},                                                 \
    {"eps", 0, OPTION_NUMBER, &(t)->eps, "X", "AdamW: added to the root (default 1e-8)", 0, 0, 1},                                                     \
    {"grad-clip", 0, OPTION_NUMBER, &(t)->grad_clip, "X", "largest norm of the gradient, 0: any (default 1)", 0, 0, 1e9},           \
    {"recompute", 0, OPTION_CHOICE, &(t)->recompute, "WHAT", "none, norms or layer: compute again instead of keeping (default none)", "none|norms|layer", 0, 0}, \
    OPTION_MORE_HEADING("output:"),                                                                                            \
    {"average-every", 0, OPTION_INTEGER, &(t)->average_every, "STEPS", "steps between the weights averaged in the last decay-share, 0: none (default 0)", 0, 0, 1e12}, \
    {"save-dtype", 0, OPTION_CHOICE, &(t)->save_dtype, "f32|bf16", "type of the final model's weights (default f32)", "f32|bf16", 0, 0}, \
    {"save-every", 0, OPTION_INTEGER, &(t)->save_every, "STEPS", "steps between checkpoints, 0: none (default 1000)", 0, 0, 1e12}, \
    {"keep", 0, OPTION_INTEGER, &(t)->keep, "N", "checkpoints that are kept, the newest, 0: all (default 2)", 0, 0, 1e6},                    \
    {"keep-every", 0, OPTION_INTEGER, &(t)->keep_every, "STEPS", "steps whose multiples are kept for good, 0: none (default 0)", 0, 0, 1e12}, \
    {"max-skips", 0, OPTION_INTEGER, &(t)->max_skips, "N", "steps that may be skipped because they are not finite (default 10)", 0, 0, 1e9}, \
    {"peak-flops", 0, OPTION_NUMBER, &(t)->peak_flops, "X", "FLOP/s of a rank, for mfu (default: measured)", 0, 0, 1e20}, \
    {"tensorboard", 0, OPTION_STRING, &(t)->tensorboard, "DIR", "write the log's numbers there too, for TensorBoard", 0, 0, 0}

/* Draws a step; beside GRID_OPTIONS. */
#define TRAIN_OPTION_TRACE(t) {"trace", 0, OPTION_STRING, &(t)->trace, "FILE", "draw what the ranks do in a step, as Chrome's trace events", 0, 0, 0}

/* Of the tools that evaluate. */
#define TRAIN_OPTION_EVAL(t) {"eval-every", 0, OPTION_INTEGER, &(t)->eval_every, "STEPS", "steps between evaluations; 0, the default: at the end", 0, 0, 1e12}

/* Do the options go together? Asked before anything begins: a run that was begun keeps to the options that it was begun with. */
int train_check(const TrainOptions *o, Error *err);
/* What --recompute says. */
Recompute train_recompute(const TrainOptions *o);
/* Lets the model compute as --dtype and --recompute say; slots are opened after it. */
int train_prepare(Model *m, const TrainOptions *o, const Common *common, Error *err);

/* What one optimiser step did: of several ranks each says its share, and the shares add up. Up to TRAIN_EXTRAS further numbers go
 * to the log under the task's names. */
typedef struct TrainStep {
    double loss;            /* what the gradient is of */
    int64_t tokens;         /* that went through the model */
    int64_t sequence_length; /* of this step, for FLOPs; 0: the task's */
    double extra[TRAIN_EXTRAS];
    bool shared;            /* loss and extras are made of all ranks' numbers */
    bool astray;            /* of which this rank's own were not finite */
} TrainStep;

typedef struct TrainTask {
    void *context;
    Grid *grid; /* the ranks that train together; NULL: one */
    /* Adds the gradients of this rank's samples of step `step` (0 …) to the model's, which are zero; the loop adds those of all
     * ranks. -1 ends the run. */
    int (*accumulate)(void *context, Model *m, int64_t step, TrainStep *out, Error *err);
    /* Writes its numbers into the open metrics line; *score is what patience watches (greater is better), *loss val_loss. All
     * ranks are asked and say the same. May be NULL. */
    int (*evaluate)(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err);
    const char *const *extra_names; /* NULL-terminated, may be NULL */
    const char *const *free_options; /* of the tool, besides the loop's own: a resumed run may change these */
    const DataNumber *data;          /* [data_count] what is trained on, which a resumed run may not change */
    size_t data_count;
    int64_t sequence_length;         /* for FLOPs */
    double passes;                   /* forward passes a token counts for, 3 = forward and backward (0: 3) */
    Passes *through;                 /* what a step's micro-batches pass through, for --trace to draw */
} TrainTask;

/* Runs or resumes the run in common->output. Returns the exit status: 0, 1, or 75 after a signal. Errors are printed. */
int train_run(OptionSet *set, const Common *common, TrainOptions *o, Model *m, const TrainTask *task);
/* Has the run in common->output finished? Then the exit status, after a word about it, before a model is loaded: 0, or 1 where it was
 * started with other options; else -1. free_options: the task's. */
int train_finished(const OptionSet *set, const Common *common, const char *const *free_options);

#endif
