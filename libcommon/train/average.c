#include "train/average.h"

#include <string.h>

int average_need(Average *a, ParameterTable *t, Error *err)
{
    size_t bytes = param_kept_total(t) * sizeof(float);
    if (!a->weights)
        a->weights = t->device->alloc(t->device, bytes);
    return a->weights ? 0 : error_set(err, "no memory for %zu bytes of averaged weights", bytes);
}

int average_add(Average *a, ParameterTable *t, Error *err)
{
    if (average_need(a, t, err) < 0)
        return -1;
    a->count++;
    int64_t n = (int64_t)param_kept_total(t);
    Tensor mean = tensor_make(t->device, DTYPE_F32, a->weights, 1, n), now = tensor_make(t->device, DTYPE_F32, param_kept_trained(t), 1, n);
    t->device->ops->scale(t->stream, mean, (float)(a->count - 1) / (float)a->count);
    t->device->ops->add(t->stream, mean, now, 1.0f / (float)a->count);
    return 0;
}

void average_close(Average *a, Device *d)
{
    if (a->weights)
        d->release(d, a->weights);
    memset(a, 0, sizeof *a);
}
