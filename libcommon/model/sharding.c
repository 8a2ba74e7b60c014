#include "model/sharding.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

enum { HELD = 2, ROOMS = HELD + 1 }; /* units at a time: the one in use and the one before; a gradient may be on its way out besides */

struct Sharding {
    int level;
    Comm *data;
    double *squares;
    Stream *side;   /* gradients come together there, while the backward pass goes on to the next units */
    int weights[HELD], gradients[HELD];           /* units, the last asked for first; -1: none */
    float *weight_rooms[HELD], *gradient_rooms[ROOMS]; /* [HELD] belong to the units held, in their order */
    uint16_t *working_rooms[HELD];
    bool failed;
    Error failure;
};

static size_t widest(const ParameterTable *t)
{
    size_t most = 0;
    for (int u = 0; u < t->unit_count; u++) {
        size_t begin, end;
        param_unit_trained(t, u, &begin, &end);
        most = end - begin > most ? end - begin : most;
    }
    return most;
}

static void *room(ParameterTable *t, size_t bytes, bool *failed)
{
    void *p = t->device->alloc(t->device, bytes);
    *failed |= !p;
    return p;
}

/* The arena of weights becomes what is not trained, whole, and the slices of what is. */
static void weights_shrink(ParameterTable *t, bool *failed)
{
    struct Sharding *s = t->sharding;
    size_t kept = t->frozen + param_trained_total(t) / (size_t)s->data->size;
    float *slices = room(t, kept * sizeof *slices, failed);
    if (!slices)
        return;
    t->device->copy(t->stream, slices, t->weights, t->frozen * sizeof *slices, COPY_ON_DEVICE);
    for (int u = 0; u < t->unit_count; u++) {
        size_t begin, end;
        sharding_slice(t, u, &begin, &end);
        if (begin < end)
            t->device->copy(t->stream, slices + t->frozen + sharding_place(t, u, begin), t->weights + begin, (end - begin) * sizeof *slices, COPY_ON_DEVICE);
    }
    t->device->stream_wait(t->stream, NULL);
    t->device->release(t->device, t->weights);
    t->weights = slices;
    if (!t->working)
        return;
    uint16_t *working = room(t, (t->frozen + 1) * sizeof *working, failed);
    if (!working)
        return;
    t->device->release(t->device, t->working);
    t->working = working;
    if (t->frozen > 0)
        t->device->ops->copy(t->stream, tensor_make(t->device, DTYPE_BF16, working, 1, (int64_t)t->frozen),
                             tensor_make(t->device, DTYPE_F32, t->weights, 1, (int64_t)t->frozen));
}

int sharding_open(ParameterTable *t, int level, Comm *data, double *squares, Error *err)
{
    struct Sharding *s = memory_zalloc(1, sizeof *s);
    *s = (struct Sharding){.level = level, .data = data, .squares = squares, .side = t->device->stream_new(t->device), .weights = {-1, -1}, .gradients = {-1, -1}};
    t->sharding = s;
    size_t n = widest(t);
    bool failed = !s->side;
    for (int i = 0; i < ROOMS; i++)
        s->gradient_rooms[i] = room(t, n * sizeof(float), &failed);
    for (int i = 0; i < HELD && level >= 3; i++) {
        s->weight_rooms[i] = room(t, n * sizeof(float), &failed);
        s->working_rooms[i] = t->working ? room(t, n * sizeof(uint16_t), &failed) : NULL;
    }
    if (!t->gradients)
        t->gradients = room(t, param_trained_total(t) / (size_t)data->size * sizeof(float), &failed);
    if (level >= 3 && !failed)
        weights_shrink(t, &failed);
    return failed ? error_set(err, "no memory for slices and rooms of %zu floats", n) : 0;
}

void sharding_close(ParameterTable *t)
{
    struct Sharding *s = t->sharding;
    if (!s)
        return;
    if (s->side) {
        t->device->stream_wait(s->side, NULL);
        t->device->stream_free(s->side);
    }
    for (int i = 0; i < ROOMS; i++)
        t->device->release(t->device, s->gradient_rooms[i]);
    for (int i = 0; i < HELD; i++) {
        t->device->release(t->device, s->weight_rooms[i]);
        t->device->release(t->device, s->working_rooms[i]);
    }
    free(s);
    t->sharding = NULL;
}

void sharding_slice(const ParameterTable *t, int unit, size_t *begin, size_t *end)
{
    param_unit_slice(t, unit, t->sharding->data, begin, end);
}

size_t sharding_place(const ParameterTable *t, int unit, size_t offset)
{
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    sharding_slice(t, unit, &begin, &end);
    return (all_begin - t->frozen) / (size_t)t->sharding->data->size + (offset - begin);
}

static void remember(struct Sharding *s, int status)
{
    s->failed |= status < 0;
}

static Tensor floats(const ParameterTable *t, float *p, size_t n)
{
    return tensor_make(t->device, DTYPE_F32, p, 1, (int64_t)n);
}

/* The first of the units held and its room change places with the second. */
static void turn_weights(struct Sharding *s)
{
    float *first = s->weight_rooms[0];
    uint16_t *working = s->working_rooms[0];
    int unit = s->weights[0];
    s->weight_rooms[0] = s->weight_rooms[1];
    s->working_rooms[0] = s->working_rooms[1];
    s->weights[0] = s->weights[1];
    s->weight_rooms[1] = first;
    s->working_rooms[1] = working;
    s->weights[1] = unit;
}

static void weights_need(ParameterTable *t, int unit)
{
    struct Sharding *s = t->sharding;
    if (s->weights[0] == unit)
        return;
    turn_weights(s);
    if (s->weights[0] == unit)
        return;
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    sharding_slice(t, unit, &begin, &end);
    s->weights[0] = unit;
    if (all_begin == all_end)
        return;
    remember(s, comm_all_gather(s->data, t->stream, t->weights + t->frozen + sharding_place(t, unit, begin), s->weight_rooms[0], (end - begin) * sizeof(float), &s->failure));
    if (t->working)
        t->device->ops->copy(t->stream, tensor_make(t->device, DTYPE_BF16, s->working_rooms[0], 1, (int64_t)(all_end - all_begin)),
                             floats(t, s->weight_rooms[0], all_end - all_begin));
}

float *sharding_weights(ParameterTable *t, int unit)
{
    weights_need(t, unit);
    return t->sharding->weight_rooms[0];
}

uint16_t *sharding_working(ParameterTable *t, int unit)
{
    weights_need(t, unit);
    return t->sharding->working_rooms[0];
}

static void gradients_leave(ParameterTable *t, int unit, float *from)
{
    struct Sharding *s = t->sharding;
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    sharding_slice(t, unit, &begin, &end);
    if (all_begin == all_end)
        return;
    if (s->squares)
        t->device->ops->sum_squares(t->stream, s->squares, floats(t, from, all_end - all_begin));
    /* What the owner's slice holds of earlier passes takes part in the sum once: the others' rooms have begun with zeros there. */
    t->device->stream_order(t->stream, s->side);
    remember(s, comm_reduce_scatter(s->data, s->side, DTYPE_F32, from, t->gradients + sharding_place(t, unit, begin), end - begin, &s->failure));
}

float *sharding_gradients(ParameterTable *t, int unit)
{
    struct Sharding *s = t->sharding;
    if (s->gradients[0] == unit)
        return s->gradient_rooms[0];
    float *first = s->gradient_rooms[0], *second = s->gradient_rooms[1];
    if (s->gradients[1] == unit) {
        s->gradients[1] = s->gradients[0];
        s->gradients[0] = unit;
        s->gradient_rooms[0] = second;
        s->gradient_rooms[1] = first;
        return second;
    }
    /* The stream goes on in the last room once what has left it before, and this slice's earlier sums, are where they belong. */
    t->device->stream_order(s->side, t->stream);
    if (s->gradients[1] >= 0)
        gradients_leave(t, s->gradients[1], second);
    float *now = s->gradient_rooms[2];
    s->gradient_rooms[2] = second;
    s->gradient_rooms[1] = first;
    s->gradient_rooms[0] = now;
    s->gradients[1] = s->gradients[0];
    s->gradients[0] = unit;
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    sharding_slice(t, unit, &begin, &end);
    t->device->ops->fill(t->stream, floats(t, now, all_end - all_begin), 0);
    t->device->copy(t->stream, now + (begin - all_begin), t->gradients + sharding_place(t, unit, begin), (end - begin) * sizeof *now, COPY_ON_DEVICE);
    return now;
}

bool sharding_all(const ParameterTable *t)
{
    return t->sharding->level >= 3;
}

int sharding_finish(ParameterTable *t, Error *err)
{
    struct Sharding *s = t->sharding;
    for (int i = HELD - 1; i >= 0; i--) {
        if (s->gradients[i] >= 0)
            gradients_leave(t, s->gradients[i], s->gradient_rooms[i]);
        s->gradients[i] = -1;
    }
    t->device->stream_order(s->side, t->stream);
    if (s->failed)
        *err = s->failure;
    return s->failed ? -1 : 0;
}

void sharding_changed(ParameterTable *t)
{
    t->sharding->weights[0] = t->sharding->weights[1] = -1;
}
