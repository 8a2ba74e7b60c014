#include "dist/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "dist/pace.h"
#include "dist/watch.h"

const char *comm_kind_name(CommKind k)
{
    static const char *const names[COMM_KINDS] = {"host gather", "all-gather", "reduce-scatter", "sum", "send", "receive", "start"};
    return names[k];
}

static bool one_failing(Comm *c)
{
    (void)c;
    return true;
}

static void one_nothing(Comm *c)
{
    (void)c;
}

void comm_one(Comm *c)
{
    static const CommOps ops = {.name = "one rank", .failing = one_failing, .abandon = one_nothing, .close = one_nothing};
    *c = (Comm){.size = 1, .name = "alone", .gone = -1, .ops = &ops};
}

void comm_share(size_t n, int size, int rank, size_t *begin, size_t *count)
{
    size_t each = (n + (size_t)size - 1) / (size_t)size, at = each * (size_t)rank;
    *begin = at < n ? at : n;
    *count = n - *begin < each ? n - *begin : each;
}

/* An operation begins; peer -1: with the whole group. */
static void count(Comm *c, CommKind kind, size_t bytes, int peer)
{
    CommCount *n = (c->counted ? c->counted : c)->count;
    watch_begin(c->watch, c->lane, c->name, kind, bytes, peer);
    n[kind].calls++;
    n[kind].bytes += (int64_t)bytes;
}

/* It has ended. */
static int counted(Comm *c, int status)
{
    watch_end(c->watch, c->lane);
    return status;
}

/* A collective that moved so many bytes has. A device's runs on. */
static int moved(Comm *c, size_t bytes, int status)
{
    if (status == 0 && !c->ops->check)
        pace_take(c->pace, bytes);
    return counted(c, status);
}

/* What a rank sends of a sum: the others' shares of its elements, and its share's sums to each of them. */
static size_t sum_bytes(const Comm *c, size_t n, size_t size)
{
    size_t begin, mine;
    comm_share(n, c->size, c->rank, &begin, &mine);
    return (n - mine + (size_t)(c->size - 1) * mine) * size;
}

int comm_all_gather(Comm *c, Stream *s, const void *mine, void *all, size_t bytes_each, Error *err)
{
    if (c->size == 1 && bytes_each > 0 && mine != all && s)
        s->device->copy(s, all, mine, bytes_each, COPY_ON_DEVICE);
    else if (c->size == 1 && mine != all)
        memcpy(all, mine, bytes_each);
    if (c->size == 1 || bytes_each == 0)
        return 0;
    size_t bytes = (size_t)(c->size - 1) * bytes_each;
    count(c, COMM_ALL_GATHER, bytes, -1);
    return moved(c, bytes, c->ops->all_gather(c, s, mine, all, bytes_each, err));
}

int comm_reduce_scatter(Comm *c, Stream *s, Dtype t, const void *all, void *mine, size_t n_each, Error *err)
{
    if (c->size == 1)
        return comm_all_gather(c, s, all, mine, n_each * dtype_size(t), err);
    if (n_each == 0)
        return 0;
    size_t bytes = (size_t)(c->size - 1) * n_each * dtype_size(t);
    count(c, COMM_REDUCE_SCATTER, bytes, -1);
    return moved(c, bytes, c->ops->reduce_scatter(c, s, t, all, mine, n_each, err));
}

int comm_sum(Comm *c, Stream *s, Dtype t, void *data, size_t n, Error *err)
{
    if (c->size == 1 || n == 0)
        return 0;
    size_t bytes = sum_bytes(c, n, dtype_size(t));
    count(c, COMM_SUM, bytes, -1);
    return moved(c, bytes, c->ops->sum(c, s, t, data, n, err));
}

static int check_peer(const Comm *c, int peer, const char *what, Error *err)
{
    if (peer >= 0 && peer < c->size && peer != c->rank)
        return 0;
    return error_set(err, "%s: rank %d of %d cannot %s rank %d", c->name, c->rank, c->size, what, peer);
}

int comm_send(Comm *c, Stream *s, const void *data, size_t bytes, int to, int tag, CommRequest *r, Error *err)
{
    *r = (CommRequest){.kind = COMM_SEND, .peer = to, .tag = tag};
    if (check_peer(c, to, "send to", err) < 0)
        return -1;
    count(c, COMM_SEND, bytes, to);
    return counted(c, c->ops->send(c, s, data, bytes, to, tag, &r->handle, err));
}

int comm_recv(Comm *c, Stream *s, void *data, size_t bytes, int from, int tag, CommRequest *r, Error *err)
{
    *r = (CommRequest){.kind = COMM_RECV, .peer = from, .tag = tag};
    if (check_peer(c, from, "receive from", err) < 0)
        return -1;
    count(c, COMM_RECV, bytes, from);
    return counted(c, c->ops->recv(c, s, data, bytes, from, tag, &r->handle, err));
}

int comm_wait(Comm *c, Stream *s, CommRequest *r, Error *err)
{
    if (!r->handle)
        return 0;
    uintptr_t handle = r->handle;
    r->handle = 0;
    watch_begin(c->watch, c->lane, c->name, r->kind, 0, r->peer);
    return counted(c, c->ops->wait(c, s, handle, err));
}

int comm_gather_host(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    if (c->size == 1) {
        memcpy(all, mine, bytes);
        return 0;
    }
    count(c, COMM_HOST, (size_t)(c->size - 1) * bytes, -1);
    return counted(c, c->ops->gather_host(c, mine, all, bytes, err));
}

int comm_sum_host(Comm *c, double *values, size_t n, Error *err)
{
    if (c->size == 1)
        return 0;
    enum { FEW = 256 }; /* numbers, as most sums are of: each step makes some */
    double few[FEW], *all = (size_t)c->size * n <= FEW ? few : memory_alloc((size_t)c->size * n, sizeof *all);
    int status = comm_gather_host(c, values, all, n * sizeof *all, err);
    for (size_t i = 0; i < n && status == 0; i++) {
        values[i] = all[i];
        for (int r = 1; r < c->size; r++)
            values[i] += all[(size_t)r * n + i];
    }
    if (all != few)
        free(all);
    return status;
}

int comm_broadcast_host(Comm *c, void *data, size_t bytes, int root, Error *err)
{
    if (c->size == 1)
        return 0;
    char *all = memory_alloc((size_t)c->size * bytes, 1);
    int status = comm_gather_host(c, data, all, bytes, err);
    if (status == 0)
        memcpy(data, all + (size_t)root * bytes, bytes);
    free(all);
    return status;
}

int comm_split(Comm *c, int colour, const char *name, Comm *out, Error *err)
{
    comm_one(out);
    int status = c->size > 1 ? c->ops->split(c, colour, out, err) : 0;
    out->name = name;
    out->watch = c->watch;
    out->threads = c->threads;
    out->pace = c->pace;
    return status;
}

void comm_close(Comm *c)
{
    free(c->agreed);
    c->ops->close(c);
    comm_one(c);
}

int comm_agree(Comm *c, int status, Error *err)
{
    struct Said {
        int status;
        Error error;
    } mine = {.status = status}, *all;
    if (c->size == 1)
        return status;
    if (status < 0)
        mine.error = *err;
    all = memory_zalloc((size_t)c->size, sizeof *all);
    status = comm_gather_host(c, &mine, all, sizeof mine, err);
    int failed = 0, first = -1;
    for (int r = 0; r < c->size && status == 0; r++) {
        failed += all[r].status < 0;
        first = first < 0 && all[r].status < 0 ? r : first;
    }
    if (first >= 0) {
        *err = all[first].error;
        if (failed < c->size)
            error_prefix(err, "rank %d", first);
        c->agreed = c->agreed ? c->agreed : memory_alloc(1, sizeof *c->agreed);
        *c->agreed = *err;
        status = -1;
    }
    free(all);
    return status;
}
