/* AdamW over the parameter table, with the norm of the whole gradient and clipping. */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "model/param.h"

typedef struct Optimizer {
    ParameterTable *table;
    float *first, *second; /* device arenas of what is trained (param_trained): exp_avg, exp_avg_sq */
    double *sum;           /* device */
    double beta1, beta2, eps, decay, clip; /* clip 0: none */
    int64_t steps;         /* taken so far */
} Optimizer;

int optimizer_open(Optimizer *o, ParameterTable *t, double beta1, double beta2, double eps, double decay, double clip, Error *err);
void optimizer_close(Optimizer *o);
/* Zeroes the gradients. */
void optimizer_clear(Optimizer *o);
/* Adds up what the ranks have: each parameter's gradient over the groups that its entry names, neighbours together. */
int optimizer_reduce(Optimizer *o, Grid *g, Error *err);
/* Norm of the norms of the parameters' gradients, as torch.nn.utils.clip_grad_norm_. -1: the device has failed. */
int optimizer_norm(Optimizer *o, double *norm, Error *err);
/* One step at this learning rate; norm is optimizer_norm's: gradients are scaled by min(1, clip/(norm + 1e-6)). Matrices
 * and embeddings decay, vectors do not. */
void optimizer_step(Optimizer *o, double rate, double norm);

#endif
