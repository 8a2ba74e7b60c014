/* A rank's part of a model without memory, to ask for sizes: what cost_memory.c, cost_traffic.c and cost_units.c count by. */
#ifndef TRAIN_COST_SHAPE_H
#define TRAIN_COST_SHAPE_H

#include "train/cost.h"
#include "train/pipeline.h"

typedef struct CostShape {
    int place[GRID_DIMENSIONS];
    Device device;             /* of the kind that the run is on */
    Model model;               /* on it */
    PipelineSchedule schedule; /* its sizes alone */
    int64_t rows, sequence_rows; /* of a pass, on this rank, and of a sequence */
    size_t total, widest;      /* floats of all weights that are trained, and of the largest unit */
    size_t rooms, trained_rooms; /* of the rooms of weights (--shard 3) and of gradients (2 and 3) */
    size_t largest;            /* of the largest weight */
    size_t frozen;             /* of those that are not, beside adapters */
} CostShape;

/* What the rank at that place of the grid holds; -1 with the reason where there can be no such model. */
int cost_part(const CostRun *r, const int place[GRID_DIMENSIONS], ModelPart *p, Error *err);
int cost_shape_open(CostShape *s, const CostRun *r, const int place[GRID_DIMENSIONS], Error *err);
void cost_shape_close(CostShape *s);
/* Its widest and rooms, of a step of so many passes. */
void cost_rooms(CostShape *s, int64_t passes);

#endif
