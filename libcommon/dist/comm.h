/* Ranks and what they say to one another. A job of many ranks lies on a grid [TP, CP, PP, DP], innermost first (Llama 3's
 * order); this build has the grid of one rank, whose collectives are the identity. Code above asks the grid for its groups
 * and calls the collectives at the right places, so that more ranks need another table here and nothing else. */
#ifndef DIST_COMM_H
#define DIST_COMM_H

#include <stdint.h>
#include "base/error.h"
#include "kernels/device.h"

typedef enum GridDimension { GRID_TP, GRID_CP, GRID_PP, GRID_DP, GRID_DIMENSIONS } GridDimension;

typedef struct Comm Comm;

/* Collectives over one group. Buffers are device memory; they run on a stream. */
typedef struct CommOps {
    int (*all_reduce_f32)(Comm *c, Stream *s, float *data, size_t n, Error *err);
    int (*all_reduce_f64)(Comm *c, Stream *s, double *data, size_t n, Error *err);
    int (*broadcast)(Comm *c, Stream *s, void *data, size_t bytes, int root, Error *err);
    int (*barrier)(Comm *c, Error *err);
} CommOps;

struct Comm {
    int rank, size;
    const CommOps *ops;
    void *state;
};

typedef struct Grid {
    int rank, size;
    int place[GRID_DIMENSIONS], extent[GRID_DIMENSIONS];
    Comm group[GRID_DIMENSIONS]; /* the ranks that differ from this one in that dimension alone */
    Comm world;
} Grid;

/* extent: wanted ranks along each dimension. Their product must be the job's size, which is 1 here; the error says so. */
int grid_open(Grid *g, const int extent[GRID_DIMENSIONS], Error *err);
void grid_close(Grid *g);

#endif
