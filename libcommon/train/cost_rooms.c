/* How far the rooms of --shard 2 and 3 are reached: on a CPU what no unit has reached of a room is not there. Which unit takes which room follows
 * from the order in which passes ask (../model/sharding.c): here some steps ask, with nothing in the rooms. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/sharding.h"
#include "train/cost_shape.h"

enum { STEPS = 12, PASSES = 4 }; /* until nothing changes any more */

typedef struct Room {
    int unit, left; /* -1: none */
    bool moving;
    size_t reached;
} Room;

typedef struct Rooms {
    Room room[SHARDING_ROOMS]; /* the last asked for first */
    const size_t *counts;      /* of each unit */
} Rooms;

static int room_of(const Rooms *r, int unit)
{
    int i = 0;
    while (i < SHARDING_ROOMS && r->room[i].unit != unit)
        i++;
    return i;
}

static void room_first(Rooms *r, int i, int unit)
{
    Room first = r->room[i];
    memmove(r->room + 1, r->room, (size_t)i * sizeof first);
    first.unit = unit;
    first.reached = r->counts[unit] > first.reached ? r->counts[unit] : first.reached;
    r->room[0] = first;
}

/* Two units stand, the third room is for the next. */
static void ask_weights(Rooms *r, int unit)
{
    int at = room_of(r, unit);
    room_first(r, at < SHARDING_ROOMS ? at : SHARDING_ROOMS - 1, unit);
    if (at >= SHARDING_ROOMS - 1)
        r->room[SHARDING_ROOMS - 1].unit = -1;
}

static void arrive(Rooms *r)
{
    for (int i = 0; i < SHARDING_ROOMS; i++)
        r->room[i].moving = false;
}

static void leave(Rooms *r, int i)
{
    Room *from = &r->room[i];
    from->moving = true;
    from->left = from->unit;
    from->unit = -1;
}

static int last_free(const Rooms *r)
{
    int i = SHARDING_ROOMS - 1;
    while (i >= 0 && (r->room[i].unit >= 0 || r->room[i].moving))
        i--;
    return i;
}

static void ask_gradient(Rooms *r, int unit)
{
    int at = room_of(r, unit), held = 0;
    bool back = false;
    if (at < SHARDING_ROOMS) {
        room_first(r, at, unit);
        return;
    }
    for (int i = 0; i < SHARDING_ROOMS; i++) {
        held += r->room[i].unit >= 0;
        back |= r->room[i].moving && r->room[i].left == unit;
    }
    if (held == SHARDING_HELD || back)
        arrive(r);
    if (held == SHARDING_HELD) {
        for (at = SHARDING_ROOMS - 1; r->room[at].unit < 0;)
            at--;
        leave(r, at);
    }
    if (last_free(r) < 0)
        arrive(r);
    room_first(r, last_free(r), unit);
}

static void finish(Rooms *r, int unit)
{
    int at = room_of(r, unit);
    if (at == SHARDING_ROOMS)
        return;
    arrive(r);
    leave(r, at);
}

static void empty(Rooms *r)
{
    arrive(r);
    for (int i = 0; i < SHARDING_ROOMS; i++)
        r->room[i].unit = -1;
}

static size_t reached(const Rooms *r)
{
    size_t all = 0;
    for (int i = 0; i < SHARDING_ROOMS; i++)
        all += r->room[i].reached;
    return all;
}

/* Units forward and back, of which the embedding does not want its weights; but once more where it is the output layer too. */
static size_t weights_reach(const size_t *counts, int units, bool embedding, bool again)
{
    Rooms r = {.counts = counts};
    empty(&r);
    for (int step = 0; step < STEPS; step++, empty(&r)) {
        for (int u = 0; u < units; u++)
            ask_weights(&r, u);
        if (again)
            ask_weights(&r, 0);
        for (int u = units - 1; u >= embedding; u--)
            ask_weights(&r, u);
    }
    return reached(&r);
}

static size_t gradients_reach(const size_t *counts, int units, bool again, int64_t passes)
{
    Rooms r = {.counts = counts};
    empty(&r);
    for (int step = 0; step < STEPS; step++, empty(&r))
        for (int64_t left = passes < PASSES ? passes : PASSES; left > 0; left--) {
            if (again)
                ask_gradient(&r, 0);
            for (int u = units - 1; u >= 0; u--) {
                ask_gradient(&r, u);
                if (left == 1)
                    finish(&r, u);
            }
        }
    return reached(&r);
}

void cost_rooms(CostShape *s, int64_t passes)
{
    const ModelParameters *p = &s->model.params;
    const ParameterTable *t = &p->table;
    size_t *all = memory_alloc((size_t)t->unit_count, sizeof *all), *trained = memory_alloc((size_t)t->unit_count, sizeof *trained), most = 0;
    int units = 0; /* that are trained */
    for (int i = 0; i < t->unit_count; i++) {
        size_t begin, end;
        param_unit_trained(t, i, &begin, &end);
        all[i] = t->units[i].count;
        most = all[i] > most ? all[i] : most;
        if (begin < end)
            trained[units++] = end - begin;
    }
    bool again = p->embedding >= 0 && p->output == p->embedding;
    s->widest = 0;
    for (int i = 0; i < units; i++)
        s->widest = trained[i] > s->widest ? trained[i] : s->widest;
    /* A GPU has the whole of every room. */
    bool host = s->device.is_host;
    s->trained_rooms = host ? gradients_reach(trained, units, again && t->frozen == 0, passes) : SHARDING_ROOMS * s->widest;
    s->rooms = host ? weights_reach(all, t->unit_count, p->embedding >= 0, again) : SHARDING_ROOMS * most;
    free(all);
    free(trained);
}
