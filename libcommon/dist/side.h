/* Collectives beside the computation: what a rank has begun here goes on while it computes, in the order of its beginning. A device has a
 * stream of its own for it, a host a thread, whose collectives are of a group of its own, so that no two threads are in one. Where a
 * back end bears no second thread (connections, and an MPI without MPI_THREAD_MULTIPLE), or LMPIPE_BESIDE=0 stands in the environment, what is
 * begun is done on return.
 *
 * Sums keep their order and bytes are counted in the group that was asked for: the results are those of comm.h's collectives. */
#ifndef DIST_SIDE_H
#define DIST_SIDE_H

#include "dist/comm.h"

typedef struct Side Side;

/* Beside whoever computes on d's streams; at most GRID_SIDES. A collective of the group. NULL: it cannot be had. */
Side *side_open(Grid *g, int group, Device *d, Error *err);
/* What has been begun is over, or the job has failed. NULL is nothing to close. */
void side_close(Side *s);
/* The thread comes to its end: no collective of it waits for others any more. Of grid.c's. */
void side_end(Side *s);

/* Begins when `after` has done what it was given so far; the memory is lent until side_wait. label: for SideEvent. -1: it has failed
 * already. All ranks of the group begin the same in the same order. */
int side_all_gather(Side *s, Stream *after, const void *mine, void *all, size_t bytes_each, int label, Error *err);
int side_reduce_scatter(Side *s, Stream *after, Dtype t, const void *all, void *mine, size_t n_each, int label, Error *err);
int side_sum(Side *s, Stream *after, Dtype t, void *data, size_t n, int label, Error *err);
/* The stream goes on behind all that has been begun; on a host it is done on return. -1: one of them has failed, whose reason is told. */
int side_wait(Side *s, Stream *stream, Error *err);

/* When each was under way, by clock_seconds. */
typedef struct SideEvent {
    double given, begin, end; /* given: when it was begun here */
    CommKind kind;
    int label;
    size_t bytes; /* of the memory that came together or was gathered */
} SideEvent;
/* From now on that is written down, or no more. s may be NULL. */
void side_record(Side *s, bool on);
/* Number i of what has been since, NULL behind the last. To be read when the stream that waited for it has been waited for. */
const SideEvent *side_event(const Side *s, size_t i);

#endif
