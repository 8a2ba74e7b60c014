/* The few rooms in which units of shared weights and of their gradients stand whole (sharding.h): which unit has which room, who makes room for
 * another, and when one has to wait. The policy alone: memory and collectives are its owner's, who is told what to do. sharding.c moves floats
 * by it; a plan, that wants to know how far rooms are reached, counts. */
#ifndef MODEL_ROOMS_H
#define MODEL_ROOMS_H

#include <stdbool.h>

/* Units that stand whole at a time: the one asked for, the one before, and one whose weights are on their way in or whose gradients are on
 * their way out. */
enum { ROOMS_HELD = 2, ROOMS_COUNT = ROOMS_HELD + 1 };

/* What is to be done. room: 0 … ROOMS_COUNT - 1. */
typedef struct RoomsWork {
    void *owner;
    bool (*gather)(void *owner, int room, int unit);  /* the unit's weights set out for the room; false: there is none to wait for */
    void (*gathered)(void *owner, int room, int unit); /* waits until they are there; one unit's at a time are on their way */
    void (*begin)(void *owner, int room, int unit);    /* the unit's gradient begins there */
    bool (*reduce)(void *owner, int room, int unit);  /* its sums set out for where they belong; false: as gather's */
    void (*reduced)(void *owner);                       /* waits until all that have set out are there */
} RoomsWork;

typedef struct Room {
    int number;
    int unit;    /* that stands there; -1: none */
    bool moving; /* weights: its own are on their way; gradients: those of `left` are */
    int left;
} Room;

typedef struct Rooms {
    RoomsWork work;
    Room weights[ROOMS_COUNT], gradients[ROOMS_COUNT]; /* the last asked for first; behind those held what moves or is free */
    const int *expected; /* units, in the order in which a pass will ask for them */
    int expected_count, expected_at;
} Rooms;

void rooms_open(Rooms *r, RoomsWork work);
/* The room where the unit's weights stand from now on, until ROOMS_HELD others have been asked for. */
int rooms_weights(Rooms *r, int unit);
/* A pass is about to ask for the weights of these units, which the caller keeps: of each the next is gathered while it is in use. */
void rooms_expect(Rooms *r, const int *units, int count);
/* Where the unit's weights stand, -1: nowhere. */
int rooms_find_weights(const Rooms *r, int unit);
/* The weights have changed: none stand anywhere. */
void rooms_forget_weights(Rooms *r);
/* The same of gradients, whose sums leave when the unit makes room … */
int rooms_gradients(Rooms *r, int unit);
/* … or set out now … */
void rooms_leave(Rooms *r, int unit);
/* … or, all of them, now, and have arrived on return. */
void rooms_leave_all(Rooms *r);

#endif
