/* What a run will take, told before anything is started, for any number of ranks: sizes, memory of a rank by part, bytes it sends by
 * kind, the bubble; what its --stats will say of steps, tokens, FLOPs and bytes; and the choice of a grid (--grid auto). */
#ifndef PRETRAIN_DRY_RUN_H
#define PRETRAIN_DRY_RUN_H

#include "sources.h"
#include "stages.h"
#include "train/cost.h"
#include "train/grid_options.h"

typedef struct DryRun {
    CostRun run;         /* extent, stages, shard, recompute, dtype, saves, engine; the rest is the stages' */
    const Stages *stages;
    int64_t micro_batch; /* --micro-batch, 0: not given */
    double peak_flops;   /* 0: not given */
    const char *stats;   /* FILE, NULL: none */
    const Sources *held_out;
    int64_t eval_every, eval_tokens;
} DryRun;

/* -1: there can be no such run. */
int dry_run(const DryRun *d, Error *err);
/* --grid auto. */
int dry_run_choose(const DryRun *d, GridOptions *g, const OptionSet *set, Error *err);

#endif
