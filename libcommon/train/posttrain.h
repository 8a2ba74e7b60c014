/* What sft, dpo and rmtrain share: options, the model with its tokenizer and adapters, examples and their plan, the passes of a step, and
 * the way from the command line to the run's end, on one rank or many. A tool adds its loss: what becomes of the hidden states of
 * the rows that a rank has (PostTrainHead), and what of the sums over all of them. */
#ifndef TRAIN_POSTTRAIN_H
#define TRAIN_POSTTRAIN_H

#include "model/head.h"
#include "model/lora.h"
#include "train/examples.h"
#include "train/grid_options.h"
#include "train/loop.h"
#include "train/passes.h"
#include "train/plan.h"

typedef struct PostTrain PostTrain;

/* A tool: what its records are, and the functions of TrainTask (loop.h), whose context is the PostTrain. Of a grid each rank has a
 * PostTrain of its own and calls them: accumulate lays out the step, passes this rank's batches and says its share of the loss. */
typedef struct PostTrainTool {
    ExampleKind kind;
    int num_labels;                           /* as in folder.h */
    int (*prepare)(PostTrain *p, Error *err); /* after all but the passes is open; may be NULL */
    void (*finish)(PostTrain *p);             /* frees what prepare has made; may be NULL */
    int (*accumulate)(PostTrain *p, Model *m, int64_t step, TrainStep *out, Error *err);
    int (*evaluate)(void *context, Model *m, Metrics *log, double *loss, double *score, Error *err);
    const char *const *extra_names;
    bool ahead;                               /* a step's records are passed forward before they are passed there and back */
    /* The model (a folder or a run) that passes all records forward before the first step; NULL: none does. May be NULL. */
    const char *(*first)(const PostTrain *p);
} PostTrainTool;

/* --lora and what goes with it. */
typedef struct LoraOptions {
    int64_t rank; /* 0: no adapters, all weights are trained */
    double alpha, dropout;
    const char *targets;
    bool rslora;
} LoraOptions;

struct PostTrain {
    const PostTrainTool *tool;
    OptionSet *set;
    Grid *grid;
    void *own; /* the tool's, of this rank */
    Common common;
    TrainOptions train;
    GridOptions options_of_grid;
    const char *model_path, *adapter, *val;
    const char *packing; /* sft's: bfd or bfd-split */
    const char *layout;  /* rmtrain's: apart or row */
    LoraOptions lora;
    LoraPlan plan_of_adapters;
    double epochs, neftune;
    int64_t batch_size, max_length, rows;
    /* Of all ranks of this process: */
    int64_t length, row; /* of a sequence, before context-parallel ranks share it, and of a ranking's row at most (0: answers stand apart) */
    ChatCoder coder; /* tokenizer NULL: nothing has been read */
    Examples examples, held_out;
    /* Of this rank: */
    Model model;
    Device *device;
    Plan plan, held_out_plan;
    Passes passes;
    bool astray;  /* what this rank has given to a sum since the step began was not finite */
    int64_t step; /* of the passes that train, -1: of no other's dropout or noise is drawn */
};

#define POSTTRAIN_DEFAULT {.common = COMMON_DEFAULT, .train = TRAIN_DEFAULT, .epochs = 1, .batch_size = 32, .max_length = 1024, .rows = 2048, .options_of_grid = GRID_DEFAULT, \
                           .lora = {.alpha = 8, .dropout = -1, .targets = "q_proj,v_proj"}}

#define POSTTRAIN_OPTIONS(p)                                                                                                            \
    {"output", 'o', OPTION_STRING, &(p)->common.output, "DIR", "the run: checkpoints, log, final model", 0, 0, 0},                        \
    {"model", 0, OPTION_STRING, &(p)->model_path, "DIR", "model folder or run to start from", 0, 0, 0},                                   \
    {"adapter", 0, OPTION_STRING, &(p)->adapter, "DIR", "start from the model with this adapter", 0, 0, 0},                               \
    {"epochs", 0, OPTION_NUMBER, &(p)->epochs, "X", "times through the records (default 1)", 0, 1e-9, 1e6},                               \
    {"batch-size", 0, OPTION_INTEGER, &(p)->batch_size, "N", "records a step (default 32)", 0, 1, 1e7},                                   \
    {"max-length", 0, OPTION_INTEGER, &(p)->max_length, "N", "most tokens of an example (default 1024)", 0, 2, 1 << 24}, \
    {"rows", 0, OPTION_INTEGER, &(p)->rows, "N", "tokens a pass (default 2048)", 0, 2, 1 << 24}

/* Adapters, in every table behind the tool's own options. */
#define POSTTRAIN_LORA_OPTIONS(p)                                                                                                       \
    {"lora", 0, OPTION_INTEGER, &(p)->lora.rank, "R", "train adapters of rank R instead of the weights", 0, 1, 1 << 16},                 \
    OPTION_MORE_HEADING("adapters:"),                                                                                                     \
    {"lora-alpha", 0, OPTION_NUMBER, &(p)->lora.alpha, "A", "they are scaled by A/R (default 8)", 0, 0, 1e6},                            \
    {"merge", 0, OPTION_FLAG, &(p)->train.merge, 0, "add them to the final model's weights", 0, 0, 0},                                    \
    {"lora-targets", 0, OPTION_STRING, &(p)->lora.targets, "LIST", "layers that get one, or all-linear (default q_proj,v_proj)", 0, 0, 0}, \
    {"lora-dropout", 0, OPTION_NUMBER, &(p)->lora.dropout, "X", "share of an adapter's inputs that is dropped (default 0)", 0, 0, 0.99}, \
    {"rslora", 0, OPTION_FLAG, &(p)->lora.rslora, 0, "scale by A/sqrt(R)", 0, 0, 0}

/* Of the tools that have a score to watch. */
#define POSTTRAIN_VAL_OPTIONS(p)                                                                                                        \
    {"val", 0, OPTION_STRING, &(p)->val, "FILE", "held-out records, evaluated as --eval-every says", 0, 0, 0},                            \
    TRAIN_OPTION_EVAL(&(p)->train),                                                                                                       \
    {"patience", 0, OPTION_INTEGER, &(p)->train.patience, "N", "end after N evaluations without a gain (default: never)", 0, 0, 1e6}

/* In every table, last. */
#define POSTTRAIN_OPTIONS_END(p)              \
    OPTION_MORE_HEADING("grid:"), \
    GRID_OPTIONS_CHOICE(&(p)->options_of_grid), \
    GRID_OPTIONS(&(p)->options_of_grid, &(p)->train), \
    TRAIN_OPTION_TRACE(&(p)->train), \
    OPTION_MORE_HEADING("everywhere:"),       \
        OPTION_COMMON_THREADS(&(p)->common),  \
        OPTION_COMMON_SEED(&(p)->common),     \
        OPTION_COMMON_ON_ERROR(&(p)->common), \
        OPTION_COMMON_DEVICE(&(p)->common),   \
        OPTION_COMMON_LOG(&(p)->common),      \
        OPTION_COMMON_DRY_RUN(&(p)->common),  \
        OPTION_COMMON_CONFIG(&(p)->common),   \
        OPTION_COMMON_END(&(p)->common)

/* The tool's main() behind its option table: returns the exit status. */
int posttrain_main(PostTrain *p, OptionSet *set, int argc, char **argv, const PostTrainTool *tool);
/* From parsed options on. */
int posttrain_run(PostTrain *p, OptionSet *set, const PostTrainTool *tool);

/* Opens a plan of the process's records for a grid, which stays the caller's. */
void posttrain_plan(PostTrain *p, Plan *plan, const Examples *e, const Grid *g);
/* The base model's folder and what adapter it has, both the caller's to free; the adapters that are trained. */
int posttrain_base(PostTrain *p, char **base, char **adapter, Error *err);
/* Before any rank starts: tells what the run takes on its grid, where `tell`, else chooses the grid of so many ranks. */
int posttrain_look_ahead(PostTrain *p, const int extent[GRID_DIMENSIONS], bool tell, Error *err);

/* This rank's part of a model in `folder`; in *part, which folder_load takes. */
int posttrain_part(PostTrain *p, ModelPart *part, const char *folder, Error *err);
/* Has this model, which lies in `path`, the output layer that the tool trains? Errors where it is a reward model and the tool wants words. */
int posttrain_has_head(const PostTrain *p, const ModelConfig *c, const char *path, Error *err);
/* On the last stage of a pipeline: batch number `pass` of this rank has gone forward, `b` is what it has of it. Where it goes backward the
 * head leaves its gradient (head.h). */
typedef int (*PostTrainHead)(PostTrain *p, Model *m, Slot *s, const Batch *b, int64_t pass, void *context, Error *err);

/* Passes what is laid out of the plan: forward alone; there and back; or back, behind a forward that has asked another head for what all
 * gradients depend on, which goes forward once more but for a batch whose activations are still there. */
typedef enum PostTrainWay { POSTTRAIN_FORWARD, POSTTRAIN_BOTH, POSTTRAIN_BACK } PostTrainWay;
int posttrain_pass(PostTrain *p, Passes *through, Plan *plan, PostTrainWay way, PostTrainHead head, void *context, Error *err);

/* Adds up values of which each rank has made its rows' part; all get the sums. */
int posttrain_sum(PostTrain *p, double *values, size_t n, Error *err);
/* Loss and numbers that all ranks have computed alike are one rank's to say. */
void posttrain_once(PostTrain *p, TrainStep *out);

#endif
