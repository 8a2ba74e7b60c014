/* Ranks and what they say to one another. A job of many ranks lies on a grid [TP, CP, PP, DP], innermost first (Llama 3's
 * order). Code above asks the grid for its groups and calls the collectives at the right places; it knows no back end by name:
 *
 *   one rank            collectives are the identity
 *   threads (threads.c) ranks are threads of one process
 *   MPI (mpi/)          ranks are processes; a shared object that is loaded only in a process that mpirun started
 *   connections (link.c) ranks are processes of any launcher, without MPI: over the first rank, which is slower
 *   NCCL (nccl/)        collectives of device memory where a rank's device is a GPU; another shared object, over one of the above
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

/* What is counted, by kind. SUM is a reduce-scatter and an all-gather; START: a group's ranks meet on their devices. */
typedef enum CommKind { COMM_HOST, COMM_ALL_GATHER, COMM_REDUCE_SCATTER, COMM_SUM, COMM_SEND, COMM_RECV, COMM_START, COMM_KINDS } CommKind;
const char *comm_kind_name(CommKind k); /* "all-gather" */

typedef struct CommCount {
    int64_t calls, bytes; /* bytes: of data that this rank sent to others (COMM_RECV: got) */
} CommCount;

/* A group of ranks, this one's view. Made by the grid, used in place. */
typedef struct Comm {
    int rank, size;
    const char *name; /* "tp", "world" */
    CommCount count[COMM_KINDS]; /* since the start; whoever wants a step's takes differences */
    struct Comm *counted; /* the group of the grid that it is a part of, and in which its bytes are counted; NULL: in itself */
    struct Watch *watch; /* NULL: nobody watches */
    int gone;            /* the rank that has left the world without a word, where the back end has heard of one; -1 */
    struct Pace *pace;   /* a link that is made slower (pace.h), NULL: none */
    int lane;            /* whose thread calls: 0 the rank's own, else one beside it (side.h) */
    bool threads;        /* several threads of a rank may be in collectives, of a group each, at a time */
    Error *agreed;       /* the reason with which comm_agree failed last; NULL: it has not */
    const struct CommOps *ops;
    void *state;
} Comm;

/* Collectives of device memory run on the stream, in the order in which they are called, which is the same on all ranks of a
 * group. Host devices: they are done on return. */

/* all[size][bytes_each] becomes everybody's `mine` in the order of ranks. mine may be this rank's place in all. */
int comm_all_gather(Comm *c, Stream *s, const void *mine, void *all, size_t bytes_each, Error *err);
/* mine[n_each] becomes the sum over ranks of their all[size][n_each] at this rank's place. mine may be that place in all. F32, or
 * BF16 that is added up in f32 and rounded once. */
int comm_reduce_scatter(Comm *c, Stream *s, Dtype t, const void *all, void *mine, size_t n_each, Error *err);
/* data[i] becomes the sum over ranks (F32 or BF16, as above). */
int comm_sum(Comm *c, Stream *s, Dtype t, void *data, size_t n, Error *err);

/* Point to point: both post and return. The memory stays the caller's until comm_wait, which orders what follows on the stream behind
 * the arrival (or departure). A receive takes the oldest send of that rank with its tag and must have as many bytes. Sends to
 * oneself are the caller's not to make. Between two ranks, sends of one direction and their receives are posted in the same
 * order (NCCL knows no tags); hosts match tags in any order. */
typedef struct CommRequest {
    uintptr_t handle; /* 0: nothing is under way */
    CommKind kind;
    int peer, tag;
} CommRequest;
int comm_send(Comm *c, Stream *s, const void *data, size_t bytes, int to, int tag, CommRequest *r, Error *err);
int comm_recv(Comm *c, Stream *s, void *data, size_t bytes, int from, int tag, CommRequest *r, Error *err);
int comm_wait(Comm *c, Stream *s, CommRequest *r, Error *err);

/* The part of n that a rank of `size` adds up in a sum: shares are as even as possible in whole elements, the last ones shorter. */
void comm_share(size_t n, int size, int rank, size_t *begin, size_t *count);

/* Host memory. Everybody's `bytes` bytes in the order of ranks: all[size][bytes]; values added in the order of ranks, every rank
 * getting the same bits; what rank `root` holds. */
int comm_gather_host(Comm *c, const void *mine, void *all, size_t bytes, Error *err);
int comm_sum_host(Comm *c, double *values, size_t n, Error *err);
int comm_broadcast_host(Comm *c, void *data, size_t bytes, int root, Error *err);
/* Each says how something went on its rank: -1 on all where it failed on any, with the reason of the first that it did, which is named
 * where others have not failed. */
int comm_agree(Comm *c, int status, Error *err);

/* The ranks that name the same colour, in this group's order. A collective; close what comes out with comm_close. */
int comm_split(Comm *c, int colour, const char *name, Comm *out, Error *err);
void comm_close(Comm *c);

/* The dimensions, and the groups made of them: DATA is CP and DP together, over which weights are equal and gradients, token
 * counts and optimiser states are shared; EMBED is the first and the last stage of a pipeline, which hold copies of tied
 * embeddings (one rank elsewhere); PP_BACK is PP once more, for what goes back: so messages of both directions between two ranks
 * may be posted in any order. */
typedef enum GridDimension { GRID_TP, GRID_CP, GRID_PP, GRID_DP, GRID_DIMENSIONS, GRID_DATA = GRID_DIMENSIONS, GRID_EMBED, GRID_PP_BACK, GRID_GROUPS } GridDimension;

enum { GRID_SIDES = 2 };
typedef struct Grid {
    int rank, size;
    int place[GRID_DIMENSIONS], extent[GRID_DIMENSIONS];
    int local_rank, local_size;    /* among the ranks of this machine, which share its CPUs */
    int gpu;                       /* of those that this process sees: ranks that see the same take one each */
    bool threads;                  /* ranks are threads of this process */
    bool agreed;                   /* all ranks end with the same status: nobody need be told of a failure */
    struct Watch *watch;           /* grid_watch's, NULL: none */
    struct Pace *pace;             /* NULL: none */
    struct Side *sides[GRID_SIDES]; /* that are open (side.h) */
    struct Start *start;           /* until then; NULL: nobody looks */
    Comm world;
    Comm group[GRID_GROUPS];       /* the ranks that differ from this one in that dimension (those dimensions) alone */
} Grid;

/* Runs work(context, grid) once for each rank that lives in this process: in a process of a launcher's once, else for every rank
 * of the grid on a thread of its own. extent: wanted ranks along each dimension; 0 for GRID_DP takes what the others leave.
 * Returns work's exit status (of several ranks the first that is not 0, by rank), or -1 where the grid cannot be had. A rank
 * that returns a status other than 0 and 75 takes the whole job with it. */
int grid_run(const int extent[GRID_DIMENSIONS], int (*work)(void *context, Grid *grid), void *context, Error *err);
/* The same, and ranks that are processes end where they have not come together (grid_watch, which watches from then on) after so many
 * seconds, or a minute where that is more, or what LMPIPE_MEET_TIMEOUT says: one message names the rank that hangs or has not come. */
int grid_run_within(const int extent[GRID_DIMENSIONS], double seconds, int (*work)(void *context, Grid *grid), void *context, Error *err);
/* For work to return: a failure of this rank. Prints the reason, but not after another rank has failed, and ends the job, at
 * once where ranks are processes. Of a reason in which all ranks of the world agreed the first tells, and all return. The exit status. */
int grid_failed(Grid *g, const Error *err);

/* Bytes of this kind that this rank has sent to others in a group so far (COMM_RECV: got), or in the world (GRID_GROUPS). */
int64_t grid_sent(const Grid *g, int group, CommKind kind);
/* The group's name: "tp" … "world"; and the name of its bytes in --stats: "sent_tp_all_gather" (the caller frees it). */
const char *grid_group_name(int group);
char *grid_sent_key(int group, CommKind kind);

/* From now on a rank that dies, or keeps another waiting in one operation for more than `timeout` seconds, ends the job with one
 * message that names it, its host, the step and the operation; all ranks leave their last operations in folder/flight-RANK.jsonl
 * (NULL: nowhere). A collective, the first; grid_run ends it. */
int grid_watch(Grid *g, double timeout, const char *folder, Error *err);
/* The step that begins, as messages count it. */
void grid_step(Grid *g, int64_t step);
/* Seconds that this rank has spent in collectives since the last call, waiting for others for the most part; 0 where nobody watches. */
double grid_waited(Grid *g);
/* The machine of a rank, "" where nobody watches. */
const char *grid_host(const Grid *g, int rank);

/* Ranks in the job that a launcher started this process in (launch.h); 1: none did. */
int grid_launched(void);
/* Of them those on this machine, or all where nobody says. */
int grid_launched_here(void);

/* The grid of one rank, for those who run no job. */
void grid_one(Grid *g);

/* Opens the device of this rank: threads 0 is this rank's share of the CPUs (1 where ranks are threads). Collectives of a GPU's
 * memory go over NCCL from then on. All ranks must get the same kind of device. */
Device *grid_device(Grid *g, const char *name, int threads, Error *err);

#endif
