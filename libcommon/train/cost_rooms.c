/* How far the rooms of --shard 2 and 3 are reached: on a CPU what no unit has reached of a room is not there. Which unit takes which room follows
 * from the order in which passes ask: here some steps ask, with nothing in the rooms. */
#include <stdlib.h>
#include "base/memory.h"
#include "model/rooms.h"
#include "train/cost_shape.h"

enum { STEPS = 12, PASSES = 4 }; /* until nothing changes any more */

/* Rooms of floats that are counted alone. */
typedef struct Reach {
    const size_t *counts; /* of each unit */
    size_t reached[ROOMS_COUNT];
} Reach;

static void reach(void *counted, int room, int unit)
{
    Reach *r = counted;
    if (r->counts[unit] > r->reached[room])
        r->reached[room] = r->counts[unit];
}

static bool gather(void *counted, int room, int unit)
{
    reach(counted, room, unit);
    return false;
}

/* A collective takes its time: what leaves keeps its room until it is waited for. */
static bool reduce_sums(void *counted, int room, int unit)
{
    (void)counted, (void)room, (void)unit;
    return true;
}

static void reduced(void *counted)
{
    (void)counted;
}

static Rooms rooms_of(Reach *r)
{
    Rooms rooms;
    rooms_open(&rooms, (RoomsWork){r, gather, NULL, reach, reduce_sums, reduced});
    return rooms;
}

static size_t reached(const Reach *r)
{
    size_t all = 0;
    for (int i = 0; i < ROOMS_COUNT; i++)
        all += r->reached[i];
    return all;
}

/* Units forward and back, of which the embedding does not want its weights; but once more where it is the output layer too. */
static size_t weights_reach(const size_t *counts, int units, bool embedding, bool again)
{
    Reach r = {.counts = counts};
    Rooms rooms = rooms_of(&r);
    for (int step = 0; step < STEPS; step++, rooms_forget_weights(&rooms)) {
        for (int u = 0; u < units; u++)
            rooms_weights(&rooms, u);
        if (again)
            rooms_weights(&rooms, 0);
        for (int u = units - 1; u >= embedding; u--)
            rooms_weights(&rooms, u);
    }
    return reached(&r);
}

static size_t gradients_reach(const size_t *counts, int units, bool again, int64_t passes)
{
    Reach r = {.counts = counts};
    Rooms rooms = rooms_of(&r);
    for (int step = 0; step < STEPS; step++, rooms_leave_all(&rooms))
        for (int64_t left = passes < PASSES ? passes : PASSES; left > 0; left--) {
            if (again)
                rooms_gradients(&rooms, 0);
            for (int u = units - 1; u >= 0; u--) {
                rooms_gradients(&rooms, u);
                if (left == 1)
                    rooms_leave(&rooms, u);
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
    s->trained_rooms = host ? gradients_reach(trained, units, again && t->frozen == 0, passes) : ROOMS_COUNT * s->widest;
    s->rooms = host ? weights_reach(all, t->unit_count, p->embedding >= 0, again) : ROOMS_COUNT * most;
    free(all);
    free(trained);
}
