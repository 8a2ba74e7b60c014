#include "model/sharding.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

enum { HELD = 2 }; /* units at a time: the one in use and the one before */

struct Sharding {
    int level;
    Comm *data;
    double *squares;
    Stream *side;   /* gradients come together there, while the backward pass goes on to the next units */
    bool *leaving;  /* [unit_count] its gradient may still be on its way there */
    int weights[HELD], gradients[HELD]; /* units, the last asked for first; -1: none */
    bool failed;
    Error failure;
};

int sharding_open(ParameterTable *t, int level, Comm *data, double *squares, Error *err)
{
    struct Sharding *s = memory_zalloc(1, sizeof *s);
    *s = (struct Sharding){.level = level, .data = data, .squares = squares, .side = t->device->stream_new(t->device),
                           .leaving = memory_zalloc((size_t)t->unit_count, sizeof(bool)), .weights = {-1, -1}, .gradients = {-1, -1}};
    t->sharding = s;
    if (!s->side)
        return error_set(err, "no memory for a stream");
    sharding_changed(t);
    return 0;
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
    free(s->leaving);
    free(s);
    t->sharding = NULL;
}

/* The bytes become zero, and their memory goes back where the device can. */
static void discard(ParameterTable *t, Stream *stream, void *p, size_t bytes)
{
    if (bytes == 0)
        return;
    if (t->device->discard)
        t->device->discard(stream, p, bytes);
    else
        t->device->ops->fill(stream, tensor_make(t->device, DTYPE_BF16, p, 1, (int64_t)(bytes / sizeof(uint16_t))), 0);
}

/* All of a unit in an arena of f32 but this rank's slice. base: the arena's place of the weights' first float. */
static void discard_others(ParameterTable *t, Stream *stream, float *base, int unit)
{
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    param_unit_slice(t, unit, t->sharding->data, &begin, &end);
    discard(t, stream, base + all_begin, (begin - all_begin) * sizeof(float));
    discard(t, stream, base + end, (all_end - end) * sizeof(float));
}

static void remember(struct Sharding *s, int status)
{
    s->failed |= status < 0;
}

static void weights_leave(ParameterTable *t, int unit)
{
    discard_others(t, t->stream, t->weights, unit);
    size_t begin, end;
    param_unit_trained(t, unit, &begin, &end);
    if (t->working)
        discard(t, t->stream, t->working + begin, (end - begin) * sizeof *t->working);
}

static void weights_come(ParameterTable *t, int unit)
{
    struct Sharding *s = t->sharding;
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    param_unit_slice(t, unit, s->data, &begin, &end);
    if (all_begin < all_end)
        remember(s, comm_all_gather(s->data, t->stream, t->weights + begin, t->weights + all_begin, (end - begin) * sizeof(float), &s->failure));
    if (t->working)
        t->device->ops->copy(t->stream, tensor_make(t->device, DTYPE_BF16, t->working + all_begin, 1, (int64_t)(all_end - all_begin)),
                             tensor_make(t->device, DTYPE_F32, t->weights + all_begin, 1, (int64_t)(all_end - all_begin)));
}

static void gradients_leave(ParameterTable *t, int unit)
{
    struct Sharding *s = t->sharding;
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    param_unit_slice(t, unit, s->data, &begin, &end);
    float *base = t->gradients - t->frozen;
    if (all_begin == all_end)
        return;
    if (s->squares)
        t->device->ops->sum_squares(t->stream, s->squares, tensor_make(t->device, DTYPE_F32, base + all_begin, 1, (int64_t)(all_end - all_begin)));
    /* What the owner's slice holds of earlier passes takes part in the sum once: the others' places of it have been zeros since. */
    t->device->stream_order(t->stream, s->side);
    remember(s, comm_reduce_scatter(s->data, s->side, DTYPE_F32, base + all_begin, base + begin, end - begin, &s->failure));
    discard_others(t, s->side, base, unit);
    s->leaving[unit] = true;
}

/* The stream goes on when everything that leaves has left. */
static void gradients_left(ParameterTable *t)
{
    t->device->stream_order(t->sharding->side, t->stream);
    memset(t->sharding->leaving, 0, (size_t)t->unit_count * sizeof *t->sharding->leaving);
}

/* Makes the unit the first of those held; true: it was not among them. */
static bool hold(ParameterTable *t, int held[HELD], int unit, void (*leave)(ParameterTable *, int))
{
    if (held[0] == unit)
        return false;
    bool new = held[1] != unit;
    if (new && held[1] >= 0)
        leave(t, held[1]);
    held[1] = held[0];
    held[0] = unit;
    return new;
}

void sharding_weights(ParameterTable *t, int unit)
{
    if (t->sharding->level >= 3 && hold(t, t->sharding->weights, unit, weights_leave))
        weights_come(t, unit);
}

void sharding_gradients(ParameterTable *t, int unit)
{
    if (hold(t, t->sharding->gradients, unit, gradients_leave) && t->sharding->leaving[unit])
        gradients_left(t);
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
            gradients_leave(t, s->gradients[i]);
        s->gradients[i] = -1;
    }
    gradients_left(t);
    if (s->failed)
        *err = s->failure;
    return s->failed ? -1 : 0;
}

void sharding_changed(ParameterTable *t)
{
    struct Sharding *s = t->sharding;
    if (s->level < 3)
        return;
    for (int u = 0; u < t->unit_count; u++)
        weights_leave(t, u);
    s->weights[0] = s->weights[1] = -1;
}
