#include "train/optimizer.h"

#include <math.h>
#include <string.h>

int optimizer_open(Optimizer *o, ParameterTable *t, double beta1, double beta2, double eps, double decay, double clip, Error *err)
{
    *o = (Optimizer){.table = t, .beta1 = beta1, .beta2 = beta2, .eps = eps, .decay = decay, .clip = clip};
    if (param_need_gradients(t, err) < 0)
        return -1;
    size_t bytes = param_trained_total(t) * sizeof(float);
    o->first = t->device->alloc(t->device, bytes);
    o->second = t->device->alloc(t->device, bytes);
    o->sum = t->device->alloc(t->device, sizeof(double));
    if (!o->first || !o->second || !o->sum) {
        optimizer_close(o);
        return error_set(err, "no memory for %zu bytes of optimiser states", 2 * bytes);
    }
    return 0;
}

void optimizer_close(Optimizer *o)
{
    if (!o->table)
        return;
    Device *d = o->table->device;
    d->release(d, o->first);
    d->release(d, o->second);
    d->release(d, o->sum);
    memset(o, 0, sizeof *o);
}

void optimizer_clear(Optimizer *o)
{
    ParameterTable *t = o->table;
    t->device->ops->fill(t->stream, tensor_make(t->device, DTYPE_F32, t->gradients, 1, (int64_t)param_trained_total(t)), 0);
}

int optimizer_reduce(Optimizer *o, Grid *g, Error *err)
{
    ParameterTable *t = o->table;
    for (size_t first = 0, next; first < t->count; first = next) {
        const Parameter *p = &t->items[first];
        for (next = first + 1; next < t->count && t->items[next].groups == p->groups && t->items[next].trainable == p->trainable;)
            next++;
        const Parameter *last = &t->items[next - 1];
        size_t n = last->offset + last->count - p->offset;
        for (int i = 0; i < GRID_GROUPS && p->trainable; i++)
            if (p->groups & 1u << i && comm_sum(&g->group[i], t->stream, DTYPE_F32, param_trained(t, t->gradients, p), n, err) < 0)
                return -1;
    }
    return 0;
}

int optimizer_norm(Optimizer *o, double *norm, Error *err)
{
    ParameterTable *t = o->table;
    double total = 0;
    t->device->copy(t->stream, o->sum, &total, sizeof total, COPY_TO_DEVICE);
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i];
        if (p->trainable && p->owner)
            t->device->ops->sum_squares(t->stream, o->sum, tensor_make(t->device, DTYPE_F32, param_trained(t, t->gradients, p), 1, (int64_t)p->count));
    }
    t->device->copy(t->stream, &total, o->sum, sizeof total, COPY_TO_HOST);
    if (t->device->stream_wait(t->stream, err) < 0)
        return -1;
    *norm = sqrt(total);
    return 0;
}

void optimizer_step(Optimizer *o, double rate, double norm)
{
    ParameterTable *t = o->table;
    double scale = o->clip > 0 && norm > 0 ? o->clip / (norm + 1e-6) : 1;
    if (scale > 1)
        scale = 1;
    o->steps++;
    param_changed(t);
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i];
        if (p->trainable)
            t->device->ops->adamw(t->stream, t->weights + p->offset, param_trained(t, t->gradients, p), param_trained(t, o->first, p),
                                  param_trained(t, o->second, p), (int64_t)p->count, (float)rate, (float)o->beta1, (float)o->beta2, (float)o->eps,
                                  p->decayed ? (float)o->decay : 0, (float)scale, o->steps);
    }
}
