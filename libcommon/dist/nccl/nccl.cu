/* A GPU's memory over NCCL: the shared object liblmpipe-nccl.so, whose one name is nccl_wrap (and lmpipe_interface). NCCL carries device memory only;
 * whatever lies on the host still goes the way it went before, over threads or MPI. Kernels of a collective run on the
 * caller's stream, so a rank waits for them where it waits for the stream.
 *
 * Sends and receives run beside the caller's stream. Each neighbour of a ring has a communicator and a stream of its
 * own: what one of them waits for never stands before another, and so no order of posting among several of them can lock. */
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <atomic>

#include "interface.h"
#include "kernels/cuda/cuda.h"
extern "C" {
#include "base/progress.h"
#include "dist/internal.h"
int nccl_wrap(Comm *c, Device *d, int way, Error *err);
extern const char lmpipe_interface[];
}

const char lmpipe_interface[] = LMPIPE_INTERFACE;

enum { EDGES = 2 }; /* to the neighbour on the way and from the one on the other side */

struct Edge {
    int from, to;
    ncclComm_t nccl;
    cudaStream_t stream;
};

struct State {
    ncclComm_t nccl;
    Edge edges[EDGES];
    int edge_count;
    cudaEvent_t last; /* behind what was queued last, and when that was */
    std::atomic<double> queued;
    Comm host;
};

static State *state_of(Comm *c)
{
    return (State *)c->state;
}

static int check(ncclResult_t result, const char *what, Error *err)
{
    return result == ncclSuccess ? 0 : error_set(err, "NCCL: %s: %s", what, ncclGetErrorString(result));
}

static int check_cuda(cudaError_t status, const char *what, Error *err)
{
    return status == cudaSuccess ? 0 : error_set(err, "NCCL: %s: %s", what, cudaGetErrorString(status));
}

/* A collective has been given to the stream. */
static int queued(State *s, Stream *stream, ncclResult_t result, const char *what, Error *err)
{
    s->queued = clock_seconds();
    cudaEventRecord(s->last, cuda_stream(stream)->stream);
    return check(result, what, err);
}

static ncclDataType_t type_of(Dtype t)
{
    return t == DTYPE_BF16 ? ncclBfloat16 : ncclFloat32;
}

static int wrapped_gather_host(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    Comm *host = &state_of(c)->host;
    return host->ops->gather_host(host, mine, all, bytes, err);
}

static int wrapped_all_gather(Comm *c, Stream *s, const void *mine, void *all, size_t bytes_each, Error *err)
{
    return queued(state_of(c), s, ncclAllGather(mine, all, bytes_each, ncclInt8, state_of(c)->nccl, cuda_stream(s)->stream), "all-gather", err);
}

static int wrapped_reduce_scatter(Comm *c, Stream *s, Dtype t, const void *all, void *mine, size_t n_each, Error *err)
{
    return queued(state_of(c), s, ncclReduceScatter(all, mine, n_each, type_of(t), ncclSum, state_of(c)->nccl, cuda_stream(s)->stream), "reduce-scatter", err);
}

static int wrapped_sum(Comm *c, Stream *s, Dtype t, void *data, size_t n, Error *err)
{
    return queued(state_of(c), s, ncclAllReduce(data, data, n, type_of(t), ncclSum, state_of(c)->nccl, cuda_stream(s)->stream), "sum", err);
}

static Edge *edge_of(Comm *c, int from, int to, Error *err)
{
    State *s = state_of(c);
    for (int i = 0; i < s->edge_count; i++)
        if (s->edges[i].from == from && s->edges[i].to == to)
            return &s->edges[i];
    error_set(err, "NCCL: %s: ranks %d and %d are no neighbours", c->name, from, to);
    return NULL;
}

/* A point of `from` that `to` waits for; the event that marks it, NULL where that fails. */
static cudaEvent_t mark(cudaStream_t s)
{
    cudaEvent_t event;
    if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess)
        return NULL;
    if (cudaEventRecord(event, s) == cudaSuccess)
        return event;
    cudaEventDestroy(event);
    return NULL;
}

static int order(cudaStream_t from, cudaStream_t to, Error *err)
{
    cudaEvent_t event = mark(from);
    cudaError_t status = event ? cudaStreamWaitEvent(to, event, 0) : cudaGetLastError();
    if (event)
        cudaEventDestroy(event);
    return event ? check_cuda(status, "event", err) : error_set(err, "NCCL: no event");
}

/* The request is an event behind the transfer. */
static int post(Comm *c, Stream *s, bool send, void *data, size_t bytes, int peer, uintptr_t *handle, Error *err)
{
    Edge *e = send ? edge_of(c, c->rank, peer, err) : edge_of(c, peer, c->rank, err);
    if (!e || order(cuda_stream(s)->stream, e->stream, err) < 0)
        return -1;
    int other = send ? 1 : 0; /* the sender is an edge's first rank */
    ncclResult_t result = send ? ncclSend(data, bytes, ncclInt8, other, e->nccl, e->stream) : ncclRecv(data, bytes, ncclInt8, other, e->nccl, e->stream);
    if (check(result, send ? "send" : "receive", err) < 0)
        return -1;
    cudaEvent_t event = mark(e->stream);
    *handle = (uintptr_t)event;
    return event ? 0 : error_set(err, "NCCL: no event");
}

static int wrapped_send(Comm *c, Stream *s, const void *data, size_t bytes, int to, int, uintptr_t *handle, Error *err)
{
    return post(c, s, true, (void *)(uintptr_t)data, bytes, to, handle, err);
}

static int wrapped_recv(Comm *c, Stream *s, void *data, size_t bytes, int from, int, uintptr_t *handle, Error *err)
{
    return post(c, s, false, data, bytes, from, handle, err);
}

static int wrapped_wait(Comm *, Stream *s, uintptr_t handle, Error *err)
{
    cudaError_t status = cudaStreamWaitEvent(cuda_stream(s)->stream, (cudaEvent_t)handle, 0);
    cudaEventDestroy((cudaEvent_t)handle);
    return check_cuda(status, "wait", err);
}

/* Of the host's side alone: wrap the part before it moves device memory. */
static int wrapped_split(Comm *c, int colour, Comm *out, Error *err)
{
    Comm *host = &state_of(c)->host;
    return host->ops->split(host, colour, out, err);
}

static bool wrapped_failing(Comm *c)
{
    return state_of(c)->host.ops->failing(&state_of(c)->host);
}

/* All communicators of c end by one of NCCL's two ways. */
static void end(State *s, ncclResult_t (*way)(ncclComm_t))
{
    for (int i = 0; i < s->edge_count; i++) {
        if (s->edges[i].nccl)
            way(s->edges[i].nccl);
        s->edges[i].nccl = NULL;
    }
    if (s->nccl)
        way(s->nccl);
    s->nccl = NULL;
}

static void wrapped_abandon(Comm *c)
{
    end(state_of(c), ncclCommAbort);
    state_of(c)->host.ops->abandon(&state_of(c)->host);
}

static void wrapped_close(Comm *c)
{
    State *s = state_of(c);
    for (int i = 0; i < s->edge_count; i++)
        if (s->edges[i].stream) {
            if (s->edges[i].nccl)
                cudaStreamSynchronize(s->edges[i].stream);
            cudaStreamDestroy(s->edges[i].stream);
        }
    end(s, ncclCommDestroy);
    s->host.ops->close(&s->host);
    if (s->last)
        cudaEventDestroy(s->last);
    delete s;
}

static int wrapped_check(Comm *c, double *pending, Error *err)
{
    State *s = state_of(c);
    ncclResult_t result = ncclSuccess;
    *pending = s->queued > 0 && cudaEventQuery(s->last) == cudaErrorNotReady ? clock_seconds() - s->queued : 0;
    for (int i = -1; i < s->edge_count && result == ncclSuccess; i++) {
        ncclComm_t nccl = i < 0 ? s->nccl : s->edges[i].nccl;
        if (nccl && ncclCommGetAsyncError(nccl, &result) != ncclSuccess)
            break;
    }
    return result == ncclSuccess || result == ncclInProgress ? 0 : check(result, "asynchronous error", err);
}

/* NCCL connects two ranks at their first send and receive, and holds each until the other comes: here, where both do, not in the middle of
 * a step, where each may wait for something else first. */
static int edge_connect(const Edge *e, bool sends, Error *err)
{
    char *byte = NULL;
    int status = check_cuda(cudaMalloc((void **)&byte, 1), "memory", err);
    if (status == 0)
        status = sends ? check(ncclSend(byte, 1, ncclInt8, 1, e->nccl, e->stream), "first send", err)
                       : check(ncclRecv(byte, 1, ncclInt8, 0, e->nccl, e->stream), "first receive", err);
    if (status == 0)
        status = check_cuda(cudaStreamSynchronize(e->stream), "first transfer", err);
    cudaFree(byte);
    return status;
}

static int edge_open(State *s, const Comm *c, int from, int to, const ncclUniqueId *id, Error *err)
{
    Edge *e = &s->edges[s->edge_count++];
    *e = Edge{};
    e->from = from;
    e->to = to;
    if (check_cuda(cudaStreamCreateWithFlags(&e->stream, cudaStreamNonBlocking), "stream", err) < 0)
        return -1;
    if (check(ncclCommInitRank(&e->nccl, 2, *id, c->rank == from ? 0 : 1), "start of a neighbour", err) < 0)
        return -1;
    return edge_connect(e, c->rank == from, err);
}

/* The ring's edges in one order on all ranks, so that none waits for another in a circle. */
static int edges_open(State *s, Comm *c, int way, Error *err)
{
    ncclUniqueId mine;
    memset(&mine, 0, sizeof mine);
    if (check(ncclGetUniqueId(&mine), "unique id", err) < 0)
        return -1;
    ncclUniqueId *ids = (ncclUniqueId *)memory_alloc((size_t)c->size, sizeof *ids);
    int status = c->ops->gather_host(c, &mine, ids, sizeof mine, err);
    for (int from = 0; from < c->size && status == 0; from++) {
        int to = (from + way + c->size) % c->size;
        if (from == c->rank || to == c->rank)
            status = edge_open(s, c, from, to, &ids[from], err);
    }
    free(ids);
    return status;
}

int nccl_wrap(Comm *c, Device *d, int way, Error *err)
{
    static const CommOps ops = {"NCCL", wrapped_gather_host, wrapped_all_gather, wrapped_reduce_scatter, wrapped_sum, wrapped_send, wrapped_recv,
                                wrapped_wait, wrapped_split, wrapped_failing, wrapped_abandon, wrapped_close, wrapped_check, NULL};
    (void)d; /* opening it has chosen this thread's GPU */
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    if (c->rank == 0 && check(ncclGetUniqueId(&id), "unique id", err) < 0)
        return -1;
    if (comm_broadcast_host(c, &id, sizeof id, 0, err) < 0)
        return -1;
    State *s = new State();
    int status = check_cuda(cudaEventCreateWithFlags(&s->last, cudaEventDisableTiming), "event", err);
    if (status == 0)
        status = check(ncclCommInitRank(&s->nccl, c->size, id, c->rank), "start", err);
    if (status == 0 && way)
        status = edges_open(s, c, way, err);
    s->host = *c;
    c->ops = &ops;
    c->state = s;
    return status;
}
