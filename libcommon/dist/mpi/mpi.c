/* Ranks that are processes, over MPI: the shared object liblmpipe-mpi.so, whose one name is mpi_open. Sums are not MPI_Allreduce,
 * whose order of adding changes with sizes and ranks: each rank gets its share of everybody's elements (all-to-all), adds
 * them in the order of ranks, and all gather the shares; as many bytes travel as in a ring. Errors of MPI itself end the job. */
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "dist/internal.h"
#include "interface.h"

enum { PIECE = 16 << 20 }; /* bytes of scratch, and about as many of each rank's at a time: MPI counts in int */

typedef struct State {
    MPI_Comm comm;
    bool world;
    char *scratch; /* [PIECE] everybody's elements of this rank's share; NULL: not yet, as the next */
    char *packed; /* [PIECE] of this rank's elements those that go at a time */
    const void **from; /* [size] where they begin there */
    int *count, *offset, *share, *place; /* [size], of MPI_Alltoallv */
} State;

static MPI_Datatype type_of(Dtype t)
{
    return t == DTYPE_F32 ? MPI_FLOAT : MPI_UINT16_T;
}

/* Waits for a collective. MPI's own waiting keeps a CPU busy, which of a thread beside the computation the computation has a use for. */
static void settle(const Comm *c, MPI_Request *r)
{
    int done = 0;
    if (c->lane == 0)
        MPI_Wait(r, MPI_STATUS_IGNORE);
    else
        for (unsigned pause = 20; MPI_Test(r, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done; pause = pause < 400 ? pause + pause / 2 : pause)
            usleep(pause);
}

/* Every rank's part of `bytes` bytes at a stride of bytes_each in all; MPI_IN_PLACE: it lies there already. */
static void gather_piece(Comm *c, const void *mine, char *all, size_t bytes, size_t bytes_each)
{
    State *s = c->state;
    MPI_Datatype part, spaced;
    MPI_Request r;
    int own = mine == MPI_IN_PLACE ? 0 : (int)bytes;
    MPI_Type_contiguous((int)bytes, MPI_BYTE, &part);
    MPI_Type_create_resized(part, 0, (MPI_Aint)bytes_each, &spaced);
    MPI_Type_commit(&spaced);
    MPI_Iallgather(mine, own, MPI_BYTE, all, 1, spaced, s->comm, &r);
    settle(c, &r);
    MPI_Type_free(&spaced);
    MPI_Type_free(&part);
}

static int mpi_all_gather(Comm *c, Stream *stream, const void *mine, void *all, size_t bytes_each, Error *err)
{
    (void)stream, (void)err;
    bool placed = mine == (char *)all + (size_t)c->rank * bytes_each;
    for (size_t at = 0; at < bytes_each; at += PIECE) {
        size_t bytes = bytes_each - at < PIECE ? bytes_each - at : PIECE;
        gather_piece(c, placed ? MPI_IN_PLACE : (const char *)mine + at, (char *)all + at, bytes, bytes_each);
    }
    return 0;
}

static int mpi_gather_host(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    return mpi_all_gather(c, NULL, mine, all, bytes, err);
}

/* Elements each rank adds up at a time, so that everybody's fit in scratch. */
static size_t piece_elements(const Comm *c, Dtype t)
{
    size_t n = PIECE / dtype_size(t) / (size_t)c->size;
    return n > 0 ? n : 1;
}

/* For so many elements of every rank, of either type. */
static char *piece_alloc(const Comm *c)
{
    return memory_alloc(PIECE + (size_t)c->size * sizeof(float), 1);
}

/* Rank r's m_r = count[r] elements at offset[r] of every rank's data are reduced to `to` there. */
static void exchange(Comm *c, Dtype t, const void *data, void *to)
{
    State *s = c->state;
    size_t size = dtype_size(t);
    int mine = s->count[c->rank];
    if (!s->scratch)
        s->scratch = piece_alloc(c);
    for (int r = 0; r < c->size; r++) {
        s->share[r] = mine;
        s->place[r] = r * mine;
        s->from[r] = s->scratch + (size_t)s->place[r] * size;
    }
    MPI_Request r;
    MPI_Ialltoallv(data, s->count, s->offset, type_of(t), s->scratch, s->share, s->place, type_of(t), s->comm, &r);
    settle(c, &r);
    reduce_ranks(t, to, s->from, c->size, (size_t)mine);
}

static int mpi_reduce_scatter(Comm *c, Stream *stream, Dtype t, const void *all, void *mine, size_t n_each, Error *err)
{
    (void)stream, (void)err;
    State *s = c->state;
    size_t size = dtype_size(t), piece = piece_elements(c, t);
    /* Parts that lie far apart go by their addresses' differences in elements, which int must hold. */
    bool pieces = n_each > piece;
    if (pieces && !s->packed)
        s->packed = piece_alloc(c);
    for (size_t at = 0; at < n_each; at += piece) {
        size_t m = n_each - at < piece ? n_each - at : piece;
        for (int r = 0; r < c->size; r++) {
            s->count[r] = (int)m;
            s->offset[r] = r * (int)m;
            if (pieces)
                memcpy(s->packed + (size_t)r * m * size, (const char *)all + ((size_t)r * n_each + at) * size, m * size);
        }
        exchange(c, t, pieces ? s->packed : all, (char *)mine + at * size);
    }
    return 0;
}

/* Shares of at most `piece` elements; a longer vector is summed in stretches of `piece` a rank. */
static int mpi_sum(Comm *c, Stream *stream, Dtype t, void *data, size_t n, Error *err)
{
    (void)stream, (void)err;
    State *s = c->state;
    size_t size = dtype_size(t), piece = piece_elements(c, t), step = piece * (size_t)c->size;
    for (size_t at = 0; at < n; at += step) {
        size_t m = n - at < step ? n - at : step;
        for (int r = 0; r < c->size; r++) {
            size_t begin, count;
            comm_share(m, c->size, r, &begin, &count);
            s->offset[r] = (int)begin;
            s->count[r] = (int)count;
        }
        char *here = (char *)data + at * size;
        exchange(c, t, here, here + (size_t)s->offset[c->rank] * size);
        MPI_Request r;
        MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, here, s->count, s->offset, type_of(t), s->comm, &r);
        settle(c, &r);
    }
    return 0;
}

static int post_check(size_t bytes, int tag, Error *err)
{
    if (bytes > INT_MAX)
        return error_set(err, "MPI: %zu bytes are too many for one message", bytes);
    return tag >= 0 && tag <= 32767 ? 0 : error_set(err, "MPI: no tag %d", tag);
}

/* A request is a pointer or an int, and what is under way never 0. */
static uintptr_t handle_of(MPI_Request r)
{
    _Static_assert(sizeof r <= sizeof(uintptr_t), "a request fits its handle");
    uintptr_t handle = 0;
    memcpy(&handle, &r, sizeof r);
    return handle;
}

static int mpi_send(Comm *c, Stream *stream, const void *data, size_t bytes, int to, int tag, uintptr_t *handle, Error *err)
{
    (void)stream;
    MPI_Request r;
    if (post_check(bytes, tag, err) < 0)
        return -1;
    MPI_Isend(data, (int)bytes, MPI_BYTE, to, tag, ((State *)c->state)->comm, &r);
    *handle = handle_of(r);
    return 0;
}

static int mpi_recv(Comm *c, Stream *stream, void *data, size_t bytes, int from, int tag, uintptr_t *handle, Error *err)
{
    (void)stream;
    MPI_Request r;
    if (post_check(bytes, tag, err) < 0)
        return -1;
    MPI_Irecv(data, (int)bytes, MPI_BYTE, from, tag, ((State *)c->state)->comm, &r);
    *handle = handle_of(r);
    return 0;
}

static int mpi_wait(Comm *c, Stream *stream, uintptr_t handle, Error *err)
{
    (void)c, (void)stream, (void)err;
    MPI_Request r;
    memcpy(&r, &handle, sizeof r);
    MPI_Wait(&r, MPI_STATUS_IGNORE);
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
    free(s->packed);
    free(s->from);
    free(s->count);
    free(s);
}

static int mpi_split(Comm *c, int colour, Comm *out, Error *err);

static void comm_make(Comm *c, MPI_Comm comm, bool world)
{
    static const CommOps ops = {"MPI", mpi_gather_host, mpi_all_gather, mpi_reduce_scatter, mpi_sum, mpi_send, mpi_recv, mpi_wait, mpi_split,
                                mpi_failing, mpi_abandon, mpi_close, NULL, NULL};
    State *s = memory_zalloc(1, sizeof *s);
    *c = (Comm){.name = "world", .gone = -1, .ops = &ops, .state = s};
    MPI_Comm_rank(comm, &c->rank);
    MPI_Comm_size(comm, &c->size);
    s->comm = comm;
    s->world = world;
    s->count = memory_zalloc(4 * (size_t)c->size, sizeof *s->count);
    s->offset = s->count + c->size;
    s->share = s->offset + c->size;
    s->place = s->share + c->size;
    s->from = memory_alloc((size_t)c->size, sizeof *s->from);
}

static int mpi_split(Comm *c, int colour, Comm *out, Error *err)
{
    (void)err;
    MPI_Comm comm;
    MPI_Comm_split(((State *)c->state)->comm, colour, c->rank, &comm);
    comm_make(out, comm, false);
    return 0;
}

const char lmpipe_interface[] = LMPIPE_INTERFACE;
int mpi_open(Comm *world, Error *err);

int mpi_open(Comm *world, Error *err)
{
    /* The thread that writes checkpoints never calls MPI, those beside the computation do. */
    int provided;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED)
        return error_set(err, "MPI does not start in a process with threads");
    comm_make(world, MPI_COMM_WORLD, true);
    world->threads = provided == MPI_THREAD_MULTIPLE;
    return 0;
}
