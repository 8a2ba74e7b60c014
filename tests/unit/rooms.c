/* smoke: rooms of shared weights and gradients, asked for in random order: what stands where is what its owner was told, nothing is
 * overwritten that is on its way, and no unit comes back before its sums have arrived. */
#include "base/random.h"
#include "model/rooms.h"
#include "tests/unit/tap.h"

enum { UNITS = 7, ASKED = 20000 };

/* What a run would have: which unit each room's memory is of, and what is on its way to or from it. */
typedef struct World {
    int weights[ROOMS_COUNT], gradients[ROOMS_COUNT]; /* -1: nothing */
    int coming, leaving[ROOMS_COUNT];                 /* the room that is gathered, -1: none; the unit that leaves a room, -1: none */
    int begun, left, wrong;
} World;

static bool gather(void *world, int room, int unit)
{
    World *w = world;
    w->wrong += w->coming >= 0; /* one at a time */
    w->weights[room] = unit;
    w->coming = room;
    return true;
}

static void gathered(void *world, int room, int unit)
{
    World *w = world;
    w->wrong += w->coming != room || w->weights[room] != unit;
    w->coming = -1;
}

static void begin(void *world, int room, int unit)
{
    World *w = world;
    w->wrong += w->gradients[room] >= 0 || w->leaving[room] >= 0;
    for (int i = 0; i < ROOMS_COUNT; i++)
        w->wrong += w->leaving[i] == unit || w->gradients[i] == unit;
    w->gradients[room] = unit;
    w->begun++;
}

static bool reduce(void *world, int room, int unit)
{
    World *w = world;
    w->wrong += w->gradients[room] != unit || w->leaving[room] >= 0;
    w->gradients[room] = -1;
    w->leaving[room] = unit;
    w->left++;
    return true;
}

static void reduced(void *world)
{
    World *w = world;
    for (int i = 0; i < ROOMS_COUNT; i++)
        w->leaving[i] = -1;
}

static int stand(const int *rooms)
{
    int n = 0;
    for (int i = 0; i < ROOMS_COUNT; i++)
        n += rooms[i] >= 0;
    return n;
}

static int draw(int n)
{
    static uint64_t drawn;
    return (int)random_below(5, RANDOM_ORDER, drawn++, (uint64_t)n);
}

static World world_of(void)
{
    World w = {.coming = -1};
    for (int i = 0; i < ROOMS_COUNT; i++)
        w.weights[i] = w.gradients[i] = w.leaving[i] = -1;
    return w;
}

static void test_weights(void)
{
    World w = world_of();
    Rooms r;
    rooms_open(&r, (RoomsWork){&w, gather, gathered, begin, reduce, reduced});
    int expected[UNITS], before = -1, wrong = 0;
    for (int i = 0; i < ASKED; i++) {
        int unit = draw(UNITS);
        if (i % 11 == 0) {
            for (int u = 0; u < UNITS; u++)
                expected[u] = (unit + u) % UNITS;
            rooms_expect(&r, expected, UNITS);
        }
        int room = rooms_weights(&r, unit);
        wrong += w.weights[room] != unit || w.coming == room || rooms_find_weights(&r, unit) != room;
        if (before >= 0 && i % 97 != 0) /* the one before stands yet */
            wrong += rooms_find_weights(&r, before) < 0 || w.weights[rooms_find_weights(&r, before)] != before;
        int found = 0;
        for (int u = 0; u < UNITS; u++)
            found += rooms_find_weights(&r, u) >= 0;
        wrong += found > ROOMS_HELD + (w.coming >= 0);
        before = unit;
        if (i % 97 == 96) {
            rooms_forget_weights(&r);
            wrong += w.coming >= 0 || rooms_find_weights(&r, unit) >= 0;
        }
    }
    ok(wrong == 0 && w.wrong == 0, "weights: the unit asked for and the one before stand whole, one other is on its way");
}

static void test_gradients(void)
{
    World w = world_of();
    Rooms r;
    rooms_open(&r, (RoomsWork){&w, gather, gathered, begin, reduce, reduced});
    int wrong = 0;
    for (int i = 0; i < ASKED; i++) {
        int unit = draw(UNITS), room = rooms_gradients(&r, unit);
        wrong += w.gradients[room] != unit || stand(w.gradients) > ROOMS_HELD;
        if (draw(3) == 0)
            rooms_leave(&r, draw(UNITS));
        if (i % 97 == 96) {
            rooms_leave_all(&r);
            wrong += stand(w.gradients) != 0 || stand(w.leaving) != 0;
        }
    }
    rooms_leave_all(&r);
    ok(wrong == 0 && w.wrong == 0 && w.begun == w.left, "gradients: %d begin, in a room that is free, and each leaves once", w.begun);
}

int main(void)
{
    test_weights();
    test_gradients();
    return tap_end();
}
