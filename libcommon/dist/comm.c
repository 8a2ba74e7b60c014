#include "dist/comm.h"

#include <string.h>

static int one_f32(Comm *c, Stream *s, float *data, size_t n, Error *err)
{
    (void)c, (void)s, (void)data, (void)n, (void)err;
    return 0;
}

static int one_f64(Comm *c, Stream *s, double *data, size_t n, Error *err)
{
    (void)c, (void)s, (void)data, (void)n, (void)err;
    return 0;
}

static int one_broadcast(Comm *c, Stream *s, void *data, size_t bytes, int root, Error *err)
{
    (void)c, (void)s, (void)data, (void)bytes, (void)root, (void)err;
    return 0;
}

static int one_barrier(Comm *c, Error *err)
{
    (void)c, (void)err;
    return 0;
}

static const CommOps one_rank = {one_f32, one_f64, one_broadcast, one_barrier};

int grid_open(Grid *g, const int extent[GRID_DIMENSIONS], Error *err)
{
    static const char *const names[] = {"--tp", "--cp", "--pp", "--dp"};
    memset(g, 0, sizeof *g);
    g->size = 1;
    g->world = (Comm){.size = 1, .ops = &one_rank};
    for (int d = 0; d < GRID_DIMENSIONS; d++) {
        if (extent[d] != 1)
            return error_set(err, "%s %d needs a job of several ranks; this build runs one", names[d], extent[d]);
        g->extent[d] = 1;
        g->group[d] = g->world;
    }
    return 0;
}

void grid_close(Grid *g)
{
    memset(g, 0, sizeof *g);
}
