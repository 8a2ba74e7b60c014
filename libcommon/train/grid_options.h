/* The options of a grid of ranks, which all training programs have, and the choice of a grid. */
#ifndef TRAIN_GRID_OPTIONS_H
#define TRAIN_GRID_OPTIONS_H

#include "base/option.h"
#include "dist/comm.h"
#include "model/part.h"
#include "train/cost.h"

typedef struct GridOptions {
    int64_t extent[GRID_DIMENSIONS]; /* 0 for GRID_DP: what the others leave of the job's ranks */
    int64_t virtual_stages, ends_fewer, ranks;
    double comm_timeout;
    const char *choice; /* "auto", or NULL */
} GridOptions;

#define GRID_DEFAULT {.extent = {1, 1, 1, 0}, .virtual_stages = 1, .comm_timeout = 600}

/* Of the tools that can choose. */
#define GRID_OPTIONS_CHOICE(g)                                                                                                                   \
    {"grid", 0, OPTION_CHOICE, &(g)->choice, "auto", "choose the grid of mpirun's ranks, or of --ranks", "auto", 0, 0},                          \
    {"ranks", 0, OPTION_INTEGER, &(g)->ranks, "N", "with --grid auto, without a launcher: so many (default 1)", 0, 1, 1 << 24}

/* For a tool's table, under its heading; t: its TrainOptions. */
#define GRID_OPTIONS(g, t)                                                                                                                       \
    {"tp", 0, OPTION_INTEGER, &(g)->extent[GRID_TP], "N", "tensor-parallel ranks (default 1)", 0, 1, 65536},                                     \
    {"cp", 0, OPTION_INTEGER, &(g)->extent[GRID_CP], "N", "context-parallel ranks (default 1)", 0, 1, 65536},                                    \
    {"pp", 0, OPTION_INTEGER, &(g)->extent[GRID_PP], "N", "pipeline stages (default 1)", 0, 1, 65536},                                           \
    {"virtual-stages", 0, OPTION_INTEGER, &(g)->virtual_stages, "N", "stages that each rank of a pipeline takes (default 1)", 0, 1, PART_MAX_RANGES}, \
    {"ends-fewer", 0, OPTION_INTEGER, &(g)->ends_fewer, "N", "layers that the first and the last stage have fewer (default 0)", 0, 0, 1e6},      \
    {"dp", 0, OPTION_INTEGER, &(g)->extent[GRID_DP], "N", "data-parallel ranks (default: all of mpirun's; without it threads)", 0, 1, 65536},    \
    {"shard", 0, OPTION_INTEGER, &(t)->shard, "N", "what ranks share: 1 optimiser states, 2 gradients too, 3 weights too, 0 nothing (default 1)", 0, 0, 3}, \
    {"comm-timeout", 0, OPTION_NUMBER, &(g)->comm_timeout, "S", "seconds that a rank may keep another waiting before the job ends (default 600)", 0, 0.1, 1e9}


/* Ranks that a launcher has started, else --ranks. */
int grid_options_ranks(const GridOptions *g);
/* Steps of a run that are alike: tokens a sequence, sequences a step. */
typedef struct CostStretch {
    double steps;
    int64_t sequence_length, samples;
} CostStretch;

/* --grid auto: sets the grid that should be fastest for a run of such stretches that is otherwise as `like` says, which is that of the largest
 * passes, for memory (micro_batch: the option's, 0 where it was not given). What was given of the grid stays. Says which, but for processes of
 * a launcher, of which all choose and one should tell. */
int grid_options_choose(GridOptions *g, const OptionSet *set, const CostRun *like, const CostStretch *run, size_t count, Error *err);
void grid_options_tell(const GridOptions *g);

#endif
