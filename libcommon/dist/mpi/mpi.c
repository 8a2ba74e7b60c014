/* Ranks that are processes, over MPI: the shared object liblmpipe-mpi.so, whose one name is mpi_open. Sums are not MPI_Allreduce,
 * whose order of adding changes with sizes and ranks: each rank gets its share of everybody's elements (all-to-all), adds
 * them in the order of ranks, and all gather the shares; as many bytes travel as in a ring. Errors of MPI itself end the job. */
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "dist/internal.h"

enum { PIECE = 1 << 22 }; /* floats at a time: 16 MB of scratch */

typedef struct State {
    MPI_Comm comm;
    bool world;
    float *scratch; /* [PIECE + size] everybody's elements of this rank's share */
    int *count, *offset, *share, *from; /* [size] */
} State;

static int mpi_gather(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    State *s = c->state;
    if (bytes > INT_MAX)
        return error_set(err, "MPI: %zu bytes are too many for one message", bytes);
    MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, s->comm);
    return 0;
}

static void piece_sum(Comm *c, float *data, int n)
{
    State *s = c->state;
    int each = (n + c->size - 1) / c->size;
    for (int r = 0; r < c->size; r++) {
        s->offset[r] = r * each < n ? r * each : n;
        s->count[r] = s->offset[r] + each < n ? each : n - s->offset[r];
    }
    int mine = s->count[c->rank];
    for (int r = 0; r < c->size; r++) {
        s->share[r] = mine;
        s->from[r] = r * mine;
    }
    MPI_Alltoallv(data, s->count, s->offset, MPI_FLOAT, s->scratch, s->share, s->from, MPI_FLOAT, s->comm);
    float *sum = data + s->offset[c->rank];
    for (int r = 0; r < c->size; r++)
        for (int i = 0; i < mine; i++)
            sum[i] = r ? sum[i] + s->scratch[r * mine + i] : s->scratch[i];
    MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, s->count, s->offset, MPI_FLOAT, s->comm);
}

static int mpi_sum_f32(Comm *c, Stream *stream, float *data, size_t n, Error *err)
{
    (void)stream, (void)err;
    State *s = c->state;
    if (!s->scratch)
        s->scratch = memory_alloc((size_t)PIECE + (size_t)c->size, sizeof *s->scratch);
    for (size_t at = 0; at < n; at += PIECE)
        piece_sum(c, data + at, n - at < PIECE ? (int)(n - at) : PIECE);
    return 0;
}

static bool mpi_failing(Comm *c)
{
    (void)c;
    return true;
}

static void mpi_abandon(Comm *c)
{
    MPI_Abort(((State *)c->state)->comm, 1);
}

static void mpi_close(Comm *c)
{
    State *s = c->state;
    if (s->world)
        MPI_Finalize();
    else
        MPI_Comm_free(&s->comm);
    free(s->scratch);
    free(s->count);
    free(s);
}

static int mpi_split(Comm *c, int colour, Comm *out, Error *err);

static void comm_make(Comm *c, MPI_Comm comm, bool world)
{
    static const CommOps ops = {"MPI", mpi_gather, mpi_sum_f32, mpi_split, mpi_failing, mpi_abandon, mpi_close};
    State *s = memory_zalloc(1, sizeof *s);
    *c = (Comm){.ops = &ops, .state = s};
    MPI_Comm_rank(comm, &c->rank);
    MPI_Comm_size(comm, &c->size);
    s->comm = comm;
    s->world = world;
    s->count = memory_zalloc(4 * (size_t)c->size, sizeof *s->count);
    s->offset = s->count + c->size;
    s->share = s->offset + c->size;
    s->from = s->share + c->size;
}

static int mpi_split(Comm *c, int colour, Comm *out, Error *err)
{
    (void)err;
    MPI_Comm comm;
    MPI_Comm_split(((State *)c->state)->comm, colour, c->rank, &comm);
    comm_make(out, comm, false);
    return 0;
}

int mpi_open(Comm *world, int *local_rank, int *local_size, Error *err);

int mpi_open(Comm *world, int *local_rank, int *local_size, Error *err)
{
    /* The thread that writes checkpoints never calls MPI. */
    int provided;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED)
        return error_set(err, "MPI does not start in a process with threads");
    comm_make(world, MPI_COMM_WORLD, true);
    MPI_Comm machine;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL, &machine);
    MPI_Comm_rank(machine, local_rank);
    MPI_Comm_size(machine, local_size);
    MPI_Comm_free(&machine);
    return 0;
}
