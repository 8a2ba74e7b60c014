#include "model/rooms.h"

#include <string.h>

void rooms_open(Rooms *r, RoomsWork work)
{
    *r = (Rooms){.work = work};
    for (int i = 0; i < ROOMS_COUNT; i++)
        r->weights[i] = r->gradients[i] = (Room){.number = i, .unit = -1};
}

static int place_of(const Room *rooms, int unit)
{
    int i = ROOMS_COUNT - 1;
    while (i >= 0 && rooms[i].unit != unit)
        i--;
    return i;
}

/* Room i comes first, those before it move back. */
static void come_first(Room *rooms, int i)
{
    Room first = rooms[i];
    memmove(rooms + 1, rooms, (size_t)i * sizeof *rooms);
    rooms[0] = first;
}

static void arrive(Rooms *r, Room *to)
{
    if (to->moving)
        r->work.gathered(r->work.owner, to->number, to->unit);
    to->moving = false;
}

/* The last room, which nobody uses, is to have the unit's weights. */
static void gather(Rooms *r, int unit)
{
    Room *to = &r->weights[ROOMS_COUNT - 1];
    arrive(r, to); /* another's, which was not asked for after all */
    to->unit = unit;
    to->moving = r->work.gather(r->work.owner, to->number, unit);
}

/* The unit that the pass will ask for next comes while it uses this one. */
static void look_ahead(Rooms *r, int unit)
{
    if (r->expected_at == r->expected_count || r->expected[r->expected_at] != unit)
        return;
    r->expected_at++;
    if (r->expected_at < r->expected_count && place_of(r->weights, r->expected[r->expected_at]) < 0)
        gather(r, r->expected[r->expected_at]);
}

int rooms_weights(Rooms *r, int unit)
{
    enum { LAST = ROOMS_COUNT - 1 };
    int at = place_of(r->weights, unit);
    if (at != 0 || r->weights[0].moving) {
        if (at < 0) {
            gather(r, unit);
            at = LAST;
        }
        arrive(r, &r->weights[at]);
        come_first(r->weights, at);
        if (at == LAST)
            r->weights[LAST].unit = -1; /* it has made room */
    }
    look_ahead(r, unit);
    return r->weights[0].number;
}

void rooms_expect(Rooms *r, const int *units, int count)
{
    r->expected = units;
    r->expected_count = count;
    r->expected_at = 0;
}

int rooms_find_weights(const Rooms *r, int unit)
{
    int at = place_of(r->weights, unit);
    return at < 0 ? -1 : r->weights[at].number;
}

void rooms_forget_weights(Rooms *r)
{
    for (int i = 0; i < ROOMS_COUNT; i++) {
        arrive(r, &r->weights[i]);
        r->weights[i].unit = -1;
    }
}

static void leave(Rooms *r, Room *from)
{
    from->moving = r->work.reduce(r->work.owner, from->number, from->unit);
    from->left = from->unit;
    from->unit = -1;
}

/* What has left is where it belongs. */
static void settle(Rooms *r)
{
    bool moving = false;
    for (int i = 0; i < ROOMS_COUNT; i++) {
        moving |= r->gradients[i].moving;
        r->gradients[i].moving = false;
    }
    if (moving)
        r->work.reduced(r->work.owner);
}

/* There is one: of ROOMS_COUNT one leaves at most while fewer than ROOMS_HELD stand. */
static int last_free(const Room *rooms)
{
    int i = ROOMS_COUNT - 1;
    while (i > 0 && (rooms[i].unit >= 0 || rooms[i].moving))
        i--;
    return i;
}

/* Is the unit's own sum of before still on its way? */
static bool on_its_way(const Room *rooms, int unit)
{
    for (int i = 0; i < ROOMS_COUNT; i++)
        if (rooms[i].moving && rooms[i].left == unit)
            return true;
    return false;
}

/* The room of the unit asked for longest ago, where as many stand as may; NULL: there are fewer. */
static Room *to_leave(Room *rooms)
{
    int held = 0, last = 0;
    for (int i = 0; i < ROOMS_COUNT; i++)
        if (rooms[i].unit >= 0) {
            held++;
            last = i;
        }
    return held == ROOMS_HELD ? &rooms[last] : NULL;
}

int rooms_gradients(Rooms *r, int unit)
{
    int at = place_of(r->gradients, unit);
    if (at >= 0) {
        come_first(r->gradients, at);
        return r->gradients[0].number;
    }
    Room *from = to_leave(r->gradients);
    if (from || on_its_way(r->gradients, unit))
        settle(r); /* before another leaves, which then has the time until the next does */
    if (from)
        leave(r, from);
    come_first(r->gradients, last_free(r->gradients));
    r->gradients[0].unit = unit;
    r->work.begin(r->work.owner, r->gradients[0].number, unit);
    return r->gradients[0].number;
}

void rooms_leave(Rooms *r, int unit)
{
    int at = place_of(r->gradients, unit);
    if (at < 0)
        return;
    settle(r);
    leave(r, &r->gradients[at]);
}

void rooms_leave_all(Rooms *r)
{
    for (int i = ROOMS_COUNT - 1; i >= 0; i--)
        if (r->gradients[i].unit >= 0)
            leave(r, &r->gradients[i]);
    settle(r);
}
