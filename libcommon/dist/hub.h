/* The centre of a job without MPI: a thread of the first rank's process that every rank hands what it tells others, and that gives it on.
 * For what lies on hosts; between GPUs go NCCL's own ways. A rank's connection that ends without a farewell is the end of the job. */
#ifndef DIST_HUB_H
#define DIST_HUB_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

/* What travels both ways: a head, and `bytes` bytes behind it. */
typedef struct HubHead {
    enum {
        HUB_GATHER, /* rank `rank` of `size` of a group says its part; back come all parts in their order, together */
        HUB_LETTER, /* to rank `rank` of the job; comes out with the sender there, in the order of sending */
        HUB_LEAVE,  /* this rank ends as it should */
        HUB_FAIL,   /* and this one not; where it is the first that fails, it says why */
        HUB_LOST    /* to all that are left: rank `rank` is gone. tag 1: it says why */
    } what;
    int32_t rank, size, tag;
    uint64_t group, bytes;
} HubHead;

typedef struct Hub Hub;

/* Takes over the connections of `size` ranks, and closes them in the end. */
Hub *hub_open(int size, const int *connections, Error *err);
/* When all ranks have left, but not for more than `seconds`. NULL is fine. */
void hub_close(Hub *h, double seconds);

#endif
