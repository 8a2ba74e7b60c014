/* How the processes of a job without MPI find one another: the first rank listens and writes where into a file on a file system that
 * all see; the others read it and come. The file appears whole or not at all, names the job and a number drawn for this start, which
 * whoever comes must say: what an earlier job has left leads nowhere and is read again until the first rank has replaced it. The file
 * is removed once all have come, and when a signal ends the first rank before. */
#ifndef DIST_MEET_H
#define DIST_MEET_H

#include "dist/launch.h"

/* connections[l->size], of the first rank: a connection to every other rank at its place, -1 at its own; of another: that to the
 * first rank at 0. Fails after l->seconds with who is missing. The caller closes them. */
int meet(const Launch *l, int *connections, Error *err);

#endif
