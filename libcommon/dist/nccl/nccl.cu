/* Sums of a GPU's memory over NCCL: the shared object liblmpipe-nccl.so, whose one name is nccl_wrap. NCCL carries device memory
 * only; whatever lies on the host still goes the way it went before, over threads or MPI. Kernels of a collective run on the
 * caller's stream, so a rank waits for them where it waits for the stream. */
#include <nccl.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
extern "C" {
#include "dist/internal.h"
int nccl_wrap(Comm *c, Device *d, Error *err);
}

struct State {
    ncclComm_t nccl;
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

static int wrapped_gather(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    Comm *host = &state_of(c)->host;
    return host->ops->gather(host, mine, all, bytes, err);
}

static int wrapped_sum_f32(Comm *c, Stream *s, float *data, size_t n, Error *err)
{
    return check(ncclAllReduce(data, data, n, ncclFloat32, ncclSum, state_of(c)->nccl, cuda_stream(s)->stream), "sum", err);
}

/* Of the host's side alone: wrap the part before sums of device memory. */
static int wrapped_split(Comm *c, int colour, Comm *out, Error *err)
{
    Comm *host = &state_of(c)->host;
    return host->ops->split(host, colour, out, err);
}

static bool wrapped_failing(Comm *c)
{
    return state_of(c)->host.ops->failing(&state_of(c)->host);
}

static void wrapped_abandon(Comm *c)
{
    if (state_of(c)->nccl)
        ncclCommAbort(state_of(c)->nccl);
    state_of(c)->nccl = NULL;
    state_of(c)->host.ops->abandon(&state_of(c)->host);
}

static void wrapped_close(Comm *c)
{
    State *s = state_of(c);
    if (s->nccl)
        ncclCommDestroy(s->nccl);
    s->host.ops->close(&s->host);
    free(s);
}

int nccl_wrap(Comm *c, Device *d, Error *err)
{
    static const CommOps ops = {"NCCL", wrapped_gather, wrapped_sum_f32, wrapped_split, wrapped_failing, wrapped_abandon, wrapped_close};
    (void)d; /* opening it has chosen this thread's GPU */
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    if (c->rank == 0 && check(ncclGetUniqueId(&id), "unique id", err) < 0)
        return -1;
    if (comm_broadcast(c, &id, sizeof id, 0, err) < 0)
        return -1;
    ncclComm_t nccl;
    if (check(ncclCommInitRank(&nccl, c->size, id, c->rank), "start", err) < 0)
        return -1;
    State *s = (State *)memory_zalloc(1, sizeof *s);
    s->nccl = nccl;
    s->host = *c;
    c->ops = &ops;
    c->state = s;
    return 0;
}
