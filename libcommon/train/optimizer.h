/* AdamW over the parameter table, with the norm of the whole gradient and clipping, on one rank or many. What is trained is cut into
 * units (param.h), each unit into slices, one a rank of the grid's data group, on which weights are equal (ZeRO, Rajbhandari
 * et al. 2020). `shard` says what a rank keeps of the others' slices:
 *
 *   0  everything; every rank takes every step of the optimiser
 *   1  weights and gradients; states are the slice's alone. The gradients are scattered and the new weights gathered, which
 *      moves as many bytes as the sum that 0 takes. Both give the same bits.
 *   2  weights; gradients come together in the slices during every pass (model/sharding.h)
 *   3  none; weights are gathered for every pass, there and back. The same bits as 2, and as 1 where a step has one pass. */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "dist/side.h"
#include "model/model.h"

typedef struct Optimizer {
    Model *model;
    ParameterTable *table;
    Grid *grid;
    int shard;
    Side *reduce, *gather; /* beside the passes: gradients come together, weights are gathered (shard 3); NULL: one rank has all */
    bool *ready;           /* of each unit: its gradient is complete */
    int next;              /* units behind it have begun to come together, all ranks' in the same order */
    bool failed;           /* that has, and why */
    Error failure;
    float *first, *second; /* device: exp_avg, exp_avg_sq. Arenas of what is trained (param_trained), or one slice behind the other */
    double *sum;           /* device [2]: of the norm, of this rank's own gradient */
    double squares;        /* of this rank's gradient before any sum over the data group; not finite where a number of it is not */
    double beta1, beta2, eps, decay, clip; /* clip 0: none */
    int64_t steps;         /* taken so far */
} Optimizer;

typedef struct AdamW {
    double beta1, beta2, eps, decay, clip; /* clip 0: none */
} AdamW;

/* The grid stays the caller's, and the model, whose last passes of a step (ParameterTable.last) tell which gradients are complete. shard > 0 wants units that can be cut evenly (ModelPart.shards). */
int optimizer_open(Optimizer *o, Model *m, Grid *g, int shard, const AdamW *how, Error *err);
void optimizer_close(Optimizer *o);
/* Zeroes the gradients. */
void optimizer_clear(Optimizer *o);
/* Brings a step's gradients together over the grid, unit by unit: tensor-parallel ranks add up their shares of what they all hold, those of
 * the data group what they have, and the two ends of a pipeline their copies of tied embeddings. What the last passes have completed has
 * begun to before. A rank's slices are right afterwards, what else it has of gradients where shard is 0. */
int optimizer_reduce(Optimizer *o, Error *err);
/* Norm of all parameters' gradients, each element of the whole grid's counted once, the same bits on every rank; as
 * torch.nn.utils.clip_grad_norm_. -1: the device or a rank has failed. */
int optimizer_norm(Optimizer *o, double *norm, Error *err);
/* One step at this learning rate; norm is optimizer_norm's: gradients are scaled by min(1, clip/(norm + 1e-6)). Matrices
 * and embeddings decay, vectors do not. */
int optimizer_step(Optimizer *o, double rate, double norm, Error *err);

/* This rank's slice of a unit: floats begin … end of the arena of weights. Empty where nothing of the unit is trained. */
void optimizer_slice(const Optimizer *o, int unit, size_t *begin, size_t *end);
/* Where the slice's states begin in an arena of them. */
size_t optimizer_place(const Optimizer *o, int unit);
size_t optimizer_states(const Optimizer *o); /* floats of one arena of states */

#endif
