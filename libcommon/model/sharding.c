#include "model/sharding.h"

#include <stdlib.h>
#include "base/memory.h"
#include "model/rooms.h"

struct Sharding {
    int level;
    Comm *data;
    Side *reduce, *gather;
    double *squares;
    Rooms rooms;
    float *weights[ROOMS_COUNT], *gradients[ROOMS_COUNT]; /* the memory of each room */
    uint16_t *working[ROOMS_COUNT];
    int *expected; /* units */
    bool failed;
    Error failure;
};

static size_t widest(const ParameterTable *t, bool trained)
{
    size_t most = 0;
    for (int u = 0; u < t->unit_count; u++) {
        size_t begin = 0, end = t->units[u].count;
        if (trained)
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

/* A unit is trained as a whole or not at all. */
void sharding_weight_slice(const ParameterTable *t, int unit, size_t *begin, size_t *end)
{
    const ParameterUnit *u = &t->units[unit];
    size_t count;
    comm_share(u->count, t->sharding->data->size, t->sharding->data->rank, begin, &count);
    *begin += u->offset;
    *end = *begin + count;
}

size_t sharding_share(const ParameterTable *t, size_t floats)
{
    return floats / (size_t)t->sharding->data->size;
}

/* The slices of the units before it are as long as the rank's share of them. */
size_t sharding_weight_place(const ParameterTable *t, int unit, size_t offset)
{
    size_t begin, end;
    sharding_weight_slice(t, unit, &begin, &end);
    return t->units[unit].offset / (size_t)t->sharding->data->size + (offset - begin);
}

/* The arena of weights becomes the slices. */
static void weights_shrink(ParameterTable *t, bool *failed)
{
    struct Sharding *s = t->sharding;
    float *slices = room(t, t->total / (size_t)s->data->size * sizeof *slices, failed);
    if (!slices)
        return;
    for (int u = 0; u < t->unit_count; u++) {
        size_t begin, end;
        sharding_weight_slice(t, u, &begin, &end);
        if (begin < end)
            t->device->copy(t->stream, slices + sharding_weight_place(t, u, begin), t->weights + begin, (end - begin) * sizeof *slices, COPY_ON_DEVICE);
    }
    t->device->stream_wait(t->stream, NULL);
    t->device->release(t->device, t->weights);
    t->weights = slices;
    if (!t->working)
        return;
    /* Each unit has its working copy where it stands whole. */
    t->device->release(t->device, t->working);
    t->working = room(t, sizeof *t->working, failed);
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

static bool gather_weights(void *table, int room, int unit)
{
    ParameterTable *t = table;
    struct Sharding *s = t->sharding;
    size_t begin, end;
    sharding_weight_slice(t, unit, &begin, &end);
    if (begin < end)
        remember(s, side_all_gather(s->gather, t->stream, t->weights + sharding_weight_place(t, unit, begin), s->weights[room], (end - begin) * sizeof(float), unit, &s->failure));
    return begin < end;
}

static void weights_gathered(void *table, int room, int unit)
{
    ParameterTable *t = table;
    struct Sharding *s = t->sharding;
    size_t n = t->units[unit].count;
    remember(s, side_wait(s->gather, t->stream, &s->failure));
    if (t->working)
        t->device->ops->copy(t->stream, tensor_make(t->device, DTYPE_BF16, s->working[room], 1, (int64_t)n), floats(t, s->weights[room], n));
}

/* Zeros, and the owner's own slice of earlier passes. */
static void begin_gradient(void *table, int room, int unit)
{
    ParameterTable *t = table;
    float *now = t->sharding->gradients[room];
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    sharding_slice(t, unit, &begin, &end);
    t->device->ops->fill(t->stream, floats(t, now, all_end - all_begin), 0);
    t->device->copy(t->stream, now + (begin - all_begin), t->gradients + sharding_place(t, unit, begin), (end - begin) * sizeof *now, COPY_ON_DEVICE);
}

static bool reduce_gradient(void *table, int room, int unit)
{
    ParameterTable *t = table;
    struct Sharding *s = t->sharding;
    float *from = s->gradients[room];
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    sharding_slice(t, unit, &begin, &end);
    if (begin == end)
        return false;
    if (s->squares)
        t->device->ops->sum_squares(t->stream, s->squares, floats(t, from, all_end - all_begin));
    /* What the owner's slice holds of earlier passes takes part in the sum once: the others' rooms have begun with zeros there. */
    remember(s, side_reduce_scatter(s->reduce, t->stream, DTYPE_F32, from, t->gradients + sharding_place(t, unit, begin), end - begin, unit, &s->failure));
    return true;
}

static void gradients_reduced(void *table)
{
    ParameterTable *t = table;
    struct Sharding *s = t->sharding;
    remember(s, side_wait(s->reduce, t->stream, &s->failure));
}

int sharding_open(ParameterTable *t, int level, Comm *data, Side *reduce, Side *gather, double *squares, Error *err)
{
    struct Sharding *s = memory_zalloc(1, sizeof *s);
    *s = (struct Sharding){.level = level, .data = data, .reduce = reduce, .gather = gather, .squares = squares};
    s->expected = memory_alloc((size_t)t->unit_count, sizeof *s->expected);
    t->sharding = s;
    size_t n = widest(t, true), whole = widest(t, false);
    bool failed = false;
    for (int u = 0; u < t->unit_count && level >= 3; u++)
        if (t->frozen > t->units[u].offset && t->frozen < t->units[u].offset + t->units[u].count)
            return error_set(err, "%s: a unit that is trained in part alone cannot be shared", t->items[t->units[u].first].name);
    rooms_open(&s->rooms, (RoomsWork){t, gather_weights, weights_gathered, begin_gradient, reduce_gradient, gradients_reduced});
    for (int i = 0; i < ROOMS_COUNT; i++) {
        s->gradients[i] = room(t, n * sizeof(float), &failed);
        if (level < 3)
            continue;
        s->weights[i] = room(t, whole * sizeof(float), &failed);
        s->working[i] = t->working ? room(t, whole * sizeof(uint16_t), &failed) : NULL;
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
    for (int i = 0; i < ROOMS_COUNT; i++) {
        t->device->release(t->device, s->gradients[i]);
        t->device->release(t->device, s->weights[i]);
        t->device->release(t->device, s->working[i]);
    }
    free(s->expected);
    free(s);
    t->sharding = NULL;
}

float *sharding_weights(ParameterTable *t, int unit)
{
    return t->sharding->weights[rooms_weights(&t->sharding->rooms, unit)];
}

uint16_t *sharding_working(ParameterTable *t, int unit)
{
    return t->sharding->working[rooms_weights(&t->sharding->rooms, unit)];
}

void sharding_expect(ParameterTable *t, const int *entries, int count)
{
    struct Sharding *s = t->sharding;
    int n = 0;
    while (n < count && n < t->unit_count && s->level >= 3) {
        s->expected[n] = t->items[entries[n]].unit;
        n++;
    }
    rooms_expect(&s->rooms, s->expected, n);
}

void sharding_keep(ParameterTable *t, int unit)
{
    const float *from = t->sharding->weights[rooms_find_weights(&t->sharding->rooms, unit)];
    size_t begin, end;
    sharding_weight_slice(t, unit, &begin, &end);
    t->device->copy(t->stream, t->weights + sharding_weight_place(t, unit, begin), from + (begin - t->units[unit].offset), (end - begin) * sizeof(float), COPY_ON_DEVICE);
}

float *sharding_gradients(ParameterTable *t, int unit)
{
    return t->sharding->gradients[rooms_gradients(&t->sharding->rooms, unit)];
}

void sharding_finished(ParameterTable *t, int unit)
{
    rooms_leave(&t->sharding->rooms, unit);
}

bool sharding_all(const ParameterTable *t)
{
    return t->sharding->level >= 3;
}

int sharding_finish(ParameterTable *t, Error *err)
{
    struct Sharding *s = t->sharding;
    rooms_leave_all(&s->rooms);
    if (s->failed)
        *err = s->failure;
    return s->failed ? -1 : 0;
}

void sharding_changed(ParameterTable *t)
{
    rooms_forget_weights(&t->sharding->rooms);
}
