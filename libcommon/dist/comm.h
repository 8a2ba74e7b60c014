/* Ranks and what they say to one another. A job of many ranks lies on a grid [TP, CP, PP, DP], innermost first (Llama 3's
 * order). Code above asks the grid for its groups and calls the collectives at the right places; it knows no back end by name:
 *
 *   one rank            collectives are the identity
 *   threads (threads.c) ranks are threads of one process
 *   MPI (mpi/)          ranks are processes; a shared object that is loaded only in a process that mpirun started
 *   NCCL (nccl/)        sums of device memory where a rank's device is a GPU; another shared object, over one of the above
 *
 * Every sum is made in the order of ranks, so that the same grid gives the same bits and all ranks of a group the same. A
 * collective that fails has failed for good: the rank ends, and grid_run ends the others. */
#ifndef DIST_COMM_H
#define DIST_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "kernels/device.h"

typedef enum GridDimension { GRID_TP, GRID_CP, GRID_PP, GRID_DP, GRID_DIMENSIONS } GridDimension;

typedef struct Comm Comm;

typedef struct CommOps {
    const char *name;
    /* Everybody's `bytes` bytes in the order of ranks: all[size · bytes]. Host memory. */
    int (*gather)(Comm *c, const void *mine, void *all, size_t bytes, Error *err);
    /* data[i] becomes the sum over ranks. Device memory; runs on the stream. */
    int (*sum_f32)(Comm *c, Stream *s, float *data, size_t n, Error *err);
    /* The ranks that name the same colour, in this group's order. */
    int (*split)(Comm *c, int colour, Comm *out, Error *err);
    /* This rank has failed: the others' collectives fail, or their processes end. True: it's the first, as far as is known, and
     * should say why before it lets go with abandon. */
    bool (*failing)(Comm *c);
    void (*abandon)(Comm *c);
    void (*close)(Comm *c);
} CommOps;

struct Comm {
    int rank, size;
    const CommOps *ops;
    void *state;
};

/* Host values of all ranks, added in the order of ranks: every rank gets the same bits. A collective, as those below. */
int comm_sum(Comm *c, double *values, size_t n, Error *err);
/* What rank `root` holds. Small host values. */
int comm_broadcast(Comm *c, void *data, size_t bytes, int root, Error *err);

typedef struct Grid {
    int rank, size;
    int place[GRID_DIMENSIONS], extent[GRID_DIMENSIONS];
    int local_rank, local_size;    /* among the ranks of this machine, which share its CPUs and take a GPU each */
    bool threads;                  /* ranks are threads of this process */
    bool agreed;                   /* all ranks end with the same status: nobody need be told of a failure */
    Comm world;
    Comm group[GRID_DIMENSIONS];   /* the ranks that differ from this one in that dimension alone */
} Grid;

/* Runs work(context, grid) once for each rank that lives in this process: in a process of mpirun's once, else for every rank
 * of the grid on a thread of its own. extent: wanted ranks along each dimension; 0 for GRID_DP takes what the others leave.
 * Returns work's exit status (of several ranks the first that is not 0, by rank), or -1 where the grid cannot be had. A rank
 * that returns a status other than 0 and 75 takes the whole job with it. */
int grid_run(const int extent[GRID_DIMENSIONS], int (*work)(void *context, Grid *grid), void *context, Error *err);
/* For work to return: a failure of this rank. Prints the reason, but not after another rank has failed, and ends the job, at
 * once where ranks are processes. Returns the exit status. */
int grid_failed(Grid *g, const Error *err);

/* The grid of one rank, for those who run no job. */
void grid_one(Grid *g);

/* Opens the device of this rank: threads 0 is this rank's share of the CPUs (1 where ranks are threads). Sums of a GPU's memory
 * go over NCCL from then on. All ranks must get the same kind of device. */
Device *grid_device(Grid *g, const char *name, int threads, Error *err);

#endif
