/* What the back ends and grid.c share. */
#ifndef DIST_INTERNAL_H
#define DIST_INTERNAL_H

#include "dist/comm.h"
#include "dist/launch.h"

/* A back end. Sizes, ranks and groups of one are comm.c's: these are called for two ranks and more, and for something to do. */
typedef struct CommOps {
    const char *name;
    int (*gather_host)(Comm *c, const void *mine, void *all, size_t bytes, Error *err);
    int (*all_gather)(Comm *c, Stream *s, const void *mine, void *all, size_t bytes_each, Error *err);
    int (*reduce_scatter)(Comm *c, Stream *s, Dtype t, const void *all, void *mine, size_t n_each, Error *err);
    int (*sum)(Comm *c, Stream *s, Dtype t, void *data, size_t n, Error *err);
    int (*send)(Comm *c, Stream *s, const void *data, size_t bytes, int to, int tag, uintptr_t *handle, Error *err);
    int (*recv)(Comm *c, Stream *s, void *data, size_t bytes, int from, int tag, uintptr_t *handle, Error *err);
    int (*wait)(Comm *c, Stream *s, uintptr_t handle, Error *err);
    int (*split)(Comm *c, int colour, Comm *out, Error *err);
    /* This rank has failed: the others' collectives fail, or their processes end. True: it's the first, as far as is known, and
     * should say why before it lets go with abandon. */
    bool (*failing)(Comm *c);
    void (*abandon)(Comm *c);
    void (*close)(Comm *c);
    /* Has the device's library heard of a failure, and for how many seconds has it not finished what it was given last? Asked by
     * another thread; may be NULL. */
    int (*check)(Comm *c, double *pending, Error *err);
    /* Another thread's word before it ends this process, having said why: the others need not. NULL: a launcher ends them. */
    void (*tell)(Comm *c);
} CommOps;

void comm_one(Comm *c);

/* to[i] = from[0][i] + … + from[ranks-1][i] in this order, in f32; to may be one of the arrays. */
void reduce_ranks(Dtype t, void *to, const void *const *from, int ranks, size_t n);

/* Threads as ranks: what they share. team_open gives the world's; splitting adds more, all freed together. */
typedef struct Team Team;
Team *team_open(int size);
void team_close(Team *world);
void team_comm(Team *world, int rank, Comm *out);

/* Processes without MPI. */
int link_open(const Launch *launch, Comm *world, Error *err);

/* What the shared objects export, under these names. */
typedef int (*MpiOpen)(Comm *world, Error *err); /* mpi_open */
/* nccl_wrap: c's device memory goes over NCCL, the rest as before. way: sends, in a ring, go to the next rank (1) or the one before (-1), or
 * none do (0). */
typedef int (*NcclWrap)(Comm *c, Device *d, int way, Error *err);

#endif
