/* What the back ends and grid.c share. */
#ifndef DIST_INTERNAL_H
#define DIST_INTERNAL_H

#include "dist/comm.h"

void comm_one(Comm *c);

/* Threads as ranks: what they share. team_open gives the world's; splitting adds more, all freed together. */
typedef struct Team Team;
Team *team_open(int size);
void team_close(Team *world);
void team_comm(Team *world, int rank, Comm *out);

/* What the shared objects export, under these names. */
typedef int (*MpiOpen)(Comm *world, int *local_rank, int *local_size, Error *err); /* mpi_open */
typedef int (*NcclWrap)(Comm *c, Device *d, Error *err); /* nccl_wrap: c's sums go over NCCL, the rest as before */

#endif
