#include "model/sharding.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

/* The whole of one unit. */
typedef struct Room {
    int unit;     /* -1: none */
    bool moving;  /* weights: they are being gathered; gradients: those of `left` are on their way */
    int left;
    float *floats;
    uint16_t *working;
} Room;

struct Sharding {
    int level;
    Comm *data;
    Side *reduce, *gather;
    double *squares;
    Room weights[SHARDING_ROOMS], gradients[SHARDING_ROOMS]; /* the last asked for first; behind those held what moves or is free */
    int *expected, expected_count, expected_at; /* units, in the order in which a pass will ask for them */
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
    for (int i = 0; i < SHARDING_ROOMS; i++) {
        s->gradients[i] = (Room){.unit = -1, .floats = room(t, n * sizeof(float), &failed)};
        s->weights[i] = (Room){.unit = -1};
        if (level < 3)
            continue;
        s->weights[i].floats = room(t, whole * sizeof(float), &failed);
        s->weights[i].working = t->working ? room(t, whole * sizeof(uint16_t), &failed) : NULL;
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
    for (int i = 0; i < SHARDING_ROOMS; i++) {
        t->device->release(t->device, s->gradients[i].floats);
        t->device->release(t->device, s->weights[i].floats);
        t->device->release(t->device, s->weights[i].working);
    }
    free(s->expected);
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

static int room_of(const Room *rooms, int unit)
{
    for (int i = 0; i < SHARDING_ROOMS; i++)
        if (rooms[i].unit == unit)
            return i;
    return -1;
}

/* Room i comes first, those before it move back. */
static void room_first(Room *rooms, int i)
{
    Room first = rooms[i];
    memmove(rooms + 1, rooms, (size_t)i * sizeof *rooms);
    rooms[0] = first;
}

/* The last room, which nobody uses, is to have the unit's weights. */
static void weights_begin(ParameterTable *t, int unit)
{
    struct Sharding *s = t->sharding;
    Room *to = &s->weights[SHARDING_ROOMS - 1];
    size_t begin, end;
    sharding_weight_slice(t, unit, &begin, &end);
    to->unit = unit;
    to->moving = begin < end;
    if (to->moving)
        remember(s, side_all_gather(s->gather, t->stream, t->weights + sharding_weight_place(t, unit, begin), to->floats, (end - begin) * sizeof(float), unit, &s->failure));
}

/* One gather at a time is under way, which this waits for: the next begins when its unit has come into use. */
static void weights_arrive(ParameterTable *t, Room *to)
{
    struct Sharding *s = t->sharding;
    if (!to->moving)
        return;
    size_t n = t->units[to->unit].count;
    remember(s, side_wait(s->gather, t->stream, &s->failure));
    to->moving = false;
    if (t->working)
        t->device->ops->copy(t->stream, tensor_make(t->device, DTYPE_BF16, to->working, 1, (int64_t)n), floats(t, to->floats, n));
}

/* The unit that the pass will ask for next comes while it uses this one. */
static void weights_ahead(ParameterTable *t, int unit)
{
    struct Sharding *s = t->sharding;
    if (s->expected_at == s->expected_count || s->expected[s->expected_at] != unit)
        return;
    s->expected_at++;
    if (s->expected_at < s->expected_count && room_of(s->weights, s->expected[s->expected_at]) < 0)
        weights_begin(t, s->expected[s->expected_at]);
}

static void weights_need(ParameterTable *t, int unit)
{
    struct Sharding *s = t->sharding;
    int at = room_of(s->weights, unit);
    if (at != 0 || s->weights[0].moving) {
        if (at < 0) {
            weights_arrive(t, &s->weights[SHARDING_ROOMS - 1]); /* another's, which was not asked for after all */
            weights_begin(t, unit);
            at = SHARDING_ROOMS - 1;
        }
        weights_arrive(t, &s->weights[at]);
        room_first(s->weights, at);
        if (at == SHARDING_ROOMS - 1)
            s->weights[SHARDING_ROOMS - 1].unit = -1; /* it has made room */
    }
    weights_ahead(t, unit);
}

float *sharding_weights(ParameterTable *t, int unit)
{
    weights_need(t, unit);
    return t->sharding->weights[0].floats;
}

uint16_t *sharding_working(ParameterTable *t, int unit)
{
    weights_need(t, unit);
    return t->sharding->weights[0].working;
}

void sharding_expect(ParameterTable *t, const int *entries, int count)
{
    struct Sharding *s = t->sharding;
    s->expected_count = s->expected_at = 0;
    for (int i = 0; i < count && i < t->unit_count && s->level >= 3; i++)
        s->expected[s->expected_count++] = t->items[entries[i]].unit;
}

void sharding_keep(ParameterTable *t, int unit)
{
    const Room *from = &t->sharding->weights[room_of(t->sharding->weights, unit)];
    size_t begin, end;
    sharding_weight_slice(t, unit, &begin, &end);
    t->device->copy(t->stream, t->weights + sharding_weight_place(t, unit, begin), from->floats + (begin - t->units[unit].offset), (end - begin) * sizeof(float), COPY_ON_DEVICE);
}

/* Room i's sums go to the owners. */
static void gradients_leave(ParameterTable *t, int i)
{
    struct Sharding *s = t->sharding;
    Room *from = &s->gradients[i];
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, from->unit, &all_begin, &all_end);
    sharding_slice(t, from->unit, &begin, &end);
    if (begin < end) {
        if (s->squares)
            t->device->ops->sum_squares(t->stream, s->squares, floats(t, from->floats, all_end - all_begin));
        /* What the owner's slice holds of earlier passes takes part in the sum once: the others' rooms have begun with zeros there. */
        remember(s, side_reduce_scatter(s->reduce, t->stream, DTYPE_F32, from->floats, t->gradients + sharding_place(t, from->unit, begin), end - begin, from->unit, &s->failure));
        from->moving = true;
        from->left = from->unit;
    }
    from->unit = -1;
}

/* What has left is where it belongs. */
static void gradients_wait(ParameterTable *t)
{
    struct Sharding *s = t->sharding;
    bool moving = false;
    for (int i = 0; i < SHARDING_ROOMS; i++) {
        moving |= s->gradients[i].moving;
        s->gradients[i].moving = false;
    }
    if (moving)
        remember(s, side_wait(s->reduce, t->stream, &s->failure));
}

float *sharding_gradients(ParameterTable *t, int unit)
{
    struct Sharding *s = t->sharding;
    int at = room_of(s->gradients, unit), held = 0;
    if (at >= 0) {
        room_first(s->gradients, at);
        return s->gradients[0].floats;
    }
    bool back = false;
    for (int i = 0; i < SHARDING_ROOMS; i++) {
        held += s->gradients[i].unit >= 0;
        back |= s->gradients[i].moving && s->gradients[i].left == unit;
    }
    if (held == SHARDING_HELD || back)
        gradients_wait(t); /* before another leaves, which then has the time until the next does */
    if (held == SHARDING_HELD) {
        for (at = SHARDING_ROOMS - 1; s->gradients[at].unit < 0;)
            at--;
        gradients_leave(t, at);
    }
    for (at = SHARDING_ROOMS - 1; at >= 0 && (s->gradients[at].unit >= 0 || s->gradients[at].moving);)
        at--;
    if (at < 0) {
        gradients_wait(t);
        for (at = SHARDING_ROOMS - 1; s->gradients[at].unit >= 0;)
            at--;
    }
    room_first(s->gradients, at);
    float *now = s->gradients[0].floats;
    s->gradients[0].unit = unit;
    size_t all_begin, all_end, begin, end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    sharding_slice(t, unit, &begin, &end);
    t->device->ops->fill(t->stream, floats(t, now, all_end - all_begin), 0);
    t->device->copy(t->stream, now + (begin - all_begin), t->gradients + sharding_place(t, unit, begin), (end - begin) * sizeof *now, COPY_ON_DEVICE);
    return now;
}

void sharding_finished(ParameterTable *t, int unit)
{
    int at = room_of(t->sharding->gradients, unit);
    if (at < 0)
        return;
    gradients_wait(t);
    gradients_leave(t, at);
}

bool sharding_all(const ParameterTable *t)
{
    return t->sharding->level >= 3;
}

int sharding_finish(ParameterTable *t, Error *err)
{
    struct Sharding *s = t->sharding;
    for (int i = SHARDING_ROOMS - 1; i >= 0; i--)
        if (s->gradients[i].unit >= 0)
            gradients_leave(t, i);
    gradients_wait(t);
    if (s->failed)
        *err = s->failure;
    return s->failed ? -1 : 0;
}

void sharding_changed(ParameterTable *t)
{
    struct Sharding *s = t->sharding;
    for (int i = 0; i < SHARDING_ROOMS; i++) {
        weights_arrive(t, &s->weights[i]);
        s->weights[i].unit = -1;
    }
}
