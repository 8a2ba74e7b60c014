/* What cost_traffic.c and cost_units.c share: a rank's passes, and where what they send is added up. */
#ifndef TRAIN_COST_COUNTER_H
#define TRAIN_COST_COUNTER_H

#include "train/cost_shape.h"

typedef struct Counter {
    const CostRun *run;
    const int *place;
    CostShape shape;
    CostTraffic *to;
    CostPasses passes;
} Counter;

void counter_send(Counter *k, int group, CommKind kind, double bytes);
/* Ranks that have equal weights. */
int counter_data_size(const Counter *k);

/* Bytes of a rank's slice of a unit's gradient. */
double counter_gradient_bytes(const Counter *k, int unit);
/* What --shard 2 and 3 send in the passes, and in merging adapters; held: the units whose weights the rank holds, and then holds. */
void counter_unit_passes(Counter *k, int held[2]);
void counter_unit_merge(Counter *k, int held[2]);

#endif
