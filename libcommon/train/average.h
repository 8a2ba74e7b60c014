/* The mean of the weights over several steps, as Llama 3 averages checkpoints while it anneals (Polyak 1991). */
#ifndef TRAIN_AVERAGE_H
#define TRAIN_AVERAGE_H

#include "model/param.h"

typedef struct Average {
    float *weights; /* device arena of what is trained (param_trained); NULL until the first step is added */
    int64_t count;  /* steps in it */
} Average;

/* Room for the mean, zeros. */
int average_need(Average *a, ParameterTable *t, Error *err);
/* mean += (weights - mean) / count, in f32 on the device. */
int average_add(Average *a, ParameterTable *t, Error *err);
void average_close(Average *a, Device *d);

#endif
