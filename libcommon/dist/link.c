/* Ranks that are processes and have no MPI: each has a connection to the first rank's hub, over which go what is on hosts and, where
 * there are no GPUs, everything. Groups share the connection. Sums are made as MPI's are (mpi/mpi.c): each rank gets its share of
 * everybody's elements, adds them in the order of ranks, and all gather the shares. */
#include "dist/internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/memory.h"
#include "base/stop.h"
#include "dist/hub.h"
#include "dist/meet.h"
#include "dist/socket.h"

enum { PIECE = 4 << 20, LAST_SECONDS = 60, WATCH_SECONDS = 20, LONG = 1 << 30 /* seconds: for good, unless the watch ends it */ };
enum { TAG_SHARE = -1, TAG_ALL = -2 }; /* of collectives' letters */

/* A letter that came while another was waited for. */
typedef struct Letter {
    HubHead head;
    char *data;
    struct Letter *next;
} Letter;

/* This process's connection, of all its groups. */
typedef struct Link {
    int socket;
    pthread_mutex_t writing; /* of what goes out: link_tell is another thread's */
    bool lost, told; /* told: somebody has said why */
    int gone;        /* which rank, -1: the first, with the hub */
    Letter *letters; /* oldest first */
    Hub *hub;        /* the first rank's */
} Link;

typedef struct State {
    Link *link;
    bool world;
    uint64_t key, splits;
    int *ranks; /* [size] in the job */
} State;

typedef struct Receive {
    int from, tag;
    void *data;
    size_t bytes;
} Receive;

static State *state_of(const Comm *c)
{
    return c->state;
}

static int lost(Link *l, int rank, bool told, Error *err)
{
    l->lost = true;
    l->told |= told;
    l->gone = rank;
    return rank < 0 ? error_set(err, "the first rank is gone") : error_set(err, "rank %d is gone", rank);
}

static int put(Link *l, HubHead head, const void *data, Error *err)
{
    if (l->lost)
        return lost(l, l->gone, false, err);
    pthread_mutex_lock(&l->writing);
    int status = socket_send(l->socket, &head, sizeof head, err);
    if (status == 0)
        status = socket_send(l->socket, data, (size_t)head.bytes, err);
    pthread_mutex_unlock(&l->writing);
    return status < 0 ? lost(l, -1, false, err) : 0;
}

/* The next that comes; the caller frees *data. */
static int get(Link *l, HubHead *head, char **data, Error *err)
{
    *data = NULL;
    if (l->lost)
        return lost(l, l->gone, false, err);
    if (socket_receive(l->socket, head, sizeof *head, LONG, err) < 0)
        return lost(l, -1, false, err);
    if (head->what == HUB_LOST)
        return lost(l, head->rank, head->tag == 1, err);
    *data = memory_alloc((size_t)head->bytes + 1, 1);
    if (socket_receive(l->socket, *data, (size_t)head->bytes, LONG, err) == 0)
        return 0;
    free(*data);
    *data = NULL;
    return lost(l, -1, false, err);
}

static void keep(Link *l, HubHead head, char *data)
{
    Letter **end = &l->letters, *one = memory_alloc(1, sizeof *one);
    while (*end)
        end = &(*end)->next;
    *one = (Letter){head, data, NULL};
    *end = one;
}

static int letter_send(Comm *c, int to, int tag, const void *data, size_t bytes, Error *err)
{
    State *s = state_of(c);
    return put(s->link, (HubHead){.what = HUB_LETTER, .rank = s->ranks[to], .size = c->size, .tag = tag, .group = s->key, .bytes = bytes}, data, err);
}

/* The oldest letter of that rank and tag. */
static int letter_take(Comm *c, int from, int tag, void *data, size_t bytes, Error *err)
{
    State *s = state_of(c);
    for (Letter **at = &s->link->letters;; at = &(*at)->next) {
        if (!*at) {
            HubHead head;
            char *come;
            if (get(s->link, &head, &come, err) < 0)
                return -1;
            keep(s->link, head, come);
        }
        Letter *l = *at;
        if (l->head.group != s->key || l->head.rank != s->ranks[from] || l->head.tag != tag)
            continue;
        *at = l->next;
        size_t sent = (size_t)l->head.bytes;
        if (sent == bytes)
            memcpy(data, l->data, bytes);
        free(l->data);
        free(l);
        return sent == bytes ? 0 : error_set(err, "%s: rank %d sends other than the %zu bytes that rank %d receives", c->name, from, sent, c->rank);
    }
}

static int link_gather_host(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    State *s = state_of(c);
    HubHead head = {.what = HUB_GATHER, .rank = c->rank, .size = c->size, .group = s->key, .bytes = bytes};
    char *come;
    if (put(s->link, head, mine, err) < 0)
        return -1;
    for (;;) {
        if (get(s->link, &head, &come, err) < 0)
            return -1;
        if (head.what == HUB_GATHER)
            break;
        keep(s->link, head, come);
    }
    if (head.bytes == bytes * (size_t)c->size)
        memcpy(all, come, (size_t)head.bytes);
    free(come);
    return head.bytes == bytes * (size_t)c->size ? 0 : error_set(err, "%s: an answer of another size", c->name);
}

static int link_all_gather(Comm *c, Stream *stream, const void *mine, void *all, size_t bytes_each, Error *err)
{
    (void)stream;
    char *own = (char *)all + (size_t)c->rank * bytes_each;
    if (mine != own)
        memmove(own, mine, bytes_each);
    for (size_t at = 0; at < bytes_each; at += PIECE) {
        size_t bytes = bytes_each - at < PIECE ? bytes_each - at : PIECE;
        for (int by = 1; by < c->size; by++)
            if (letter_send(c, (c->rank + by) % c->size, TAG_ALL, own + at, bytes, err) < 0)
                return -1;
        for (int r = 0; r < c->size; r++)
            if (r != c->rank && letter_take(c, r, TAG_ALL, (char *)all + (size_t)r * bytes_each + at, bytes, err) < 0)
                return -1;
    }
    return 0;
}

/* `to` becomes what all ranks have of n elements for this one; data[r]: this rank's for rank r, `counts` of them. */
static int exchange(Comm *c, Dtype t, const char *const *data, const size_t *counts, void *to, Error *err)
{
    size_t size = dtype_size(t), n = counts[c->rank];
    char *come = memory_alloc((size_t)c->size * n + 1, size);
    const void **from = memory_alloc((size_t)c->size, sizeof *from);
    int status = 0;
    for (int by = 1; by < c->size && status == 0; by++) {
        int r = (c->rank + by) % c->size;
        status = letter_send(c, r, TAG_SHARE, data[r], counts[r] * size, err);
    }
    for (int r = 0; r < c->size && status == 0; r++) {
        from[r] = r == c->rank ? data[r] : come + (size_t)r * n * size;
        status = r == c->rank ? 0 : letter_take(c, r, TAG_SHARE, come + (size_t)r * n * size, n * size, err);
    }
    if (status == 0)
        reduce_ranks(t, to, from, c->size, n);
    free(from);
    free(come);
    return status;
}

static int link_reduce_scatter(Comm *c, Stream *stream, Dtype t, const void *all, void *mine, size_t n_each, Error *err)
{
    (void)stream;
    size_t size = dtype_size(t), *counts = memory_alloc((size_t)c->size, sizeof *counts);
    const char **data = memory_alloc((size_t)c->size, sizeof *data);
    int status = 0;
    for (size_t at = 0; at < n_each && status == 0; at += PIECE) {
        for (int r = 0; r < c->size; r++) {
            counts[r] = n_each - at < PIECE ? n_each - at : PIECE;
            data[r] = (const char *)all + ((size_t)r * n_each + at) * size;
        }
        status = exchange(c, t, data, counts, (char *)mine + at * size, err);
    }
    free(counts);
    free(data);
    return status;
}

/* Stretches of PIECE elements a rank: each share is reduced by its rank, which sends it to all. */
static int link_sum(Comm *c, Stream *stream, Dtype t, void *all, size_t n, Error *err)
{
    (void)stream;
    char *values = all;
    size_t size = dtype_size(t), step = (size_t)PIECE * (size_t)c->size, *counts = memory_alloc((size_t)c->size, sizeof *counts);
    const char **data = memory_alloc((size_t)c->size, sizeof *data);
    int status = 0;
    for (size_t at = 0; at < n && status == 0; at += step) {
        size_t m = n - at < step ? n - at : step, begin;
        for (int r = 0; r < c->size; r++) {
            comm_share(m, c->size, r, &begin, &counts[r]);
            data[r] = values + (at + begin) * size;
        }
        char *own = values + (size_t)(data[c->rank] - values);
        status = exchange(c, t, data, counts, own, err);
        for (int by = 1; by < c->size && status == 0; by++)
            status = letter_send(c, (c->rank + by) % c->size, TAG_ALL, own, counts[c->rank] * size, err);
        for (int r = 0; r < c->size && status == 0; r++)
            if (r != c->rank)
                status = letter_take(c, r, TAG_ALL, values + (data[r] - values), counts[r] * size, err);
    }
    free(counts);
    free(data);
    return status;
}

/* The hub has it at once: nothing is under way. */
static int link_send(Comm *c, Stream *stream, const void *data, size_t bytes, int to, int tag, uintptr_t *handle, Error *err)
{
    (void)stream;
    *handle = 0;
    return letter_send(c, to, tag, data, bytes, err);
}

static int link_recv(Comm *c, Stream *stream, void *data, size_t bytes, int from, int tag, uintptr_t *handle, Error *err)
{
    (void)c, (void)stream, (void)err;
    Receive *r = memory_alloc(1, sizeof *r);
    *r = (Receive){from, tag, data, bytes};
    *handle = (uintptr_t)r;
    return 0;
}

static int link_wait(Comm *c, Stream *stream, uintptr_t handle, Error *err)
{
    (void)stream;
    Receive *r = (Receive *)handle;
    int status = letter_take(c, r->from, r->tag, r->data, r->bytes, err);
    free(r);
    return status;
}

/* The ranks' numbers in the job come along with their colours. */
static int link_split(Comm *c, int colour, Comm *out, Error *err)
{
    State *s = state_of(c), *made;
    int mine[2] = {colour, s->ranks[c->rank]}, (*all)[2] = memory_alloc((size_t)c->size, sizeof *all), size = 0, rank = 0;
    if (link_gather_host(c, mine, all, sizeof mine, err) < 0) {
        free(all);
        return -1;
    }
    uint64_t key[3] = {s->key, ++s->splits, (uint64_t)(int64_t)colour};
    made = memory_zalloc(1, sizeof *made);
    *made = (State){.link = s->link, .key = XXH3_64bits(key, sizeof key), .ranks = memory_alloc((size_t)c->size, sizeof(int))};
    for (int r = 0; r < c->size; r++)
        if (all[r][0] == colour) {
            rank += r < c->rank;
            made->ranks[size++] = all[r][1];
        }
    free(all);
    *out = (Comm){.rank = rank, .size = size, .ops = c->ops, .state = made};
    return 0;
}

/* The hub says which rank has failed first. Of one that is gone without a word the watch tells, and ends this process; where nobody
 * watches yet, the first rank that is left. */
static bool link_failing(Comm *c)
{
    State *s = state_of(c);
    Link *l = s->link;
    Error unused;
    HubHead head;
    char *data;
    if (!l->lost) {
        int status = put(l, (HubHead){.what = HUB_FAIL}, NULL, &unused);
        while (status == 0 && (status = get(l, &head, &data, &unused)) == 0)
            free(data);
        return l->gone < 0 || (l->told && l->gone == s->ranks[c->rank]);
    }
    if (l->told)
        return false;
    if (c->watch)
        sleep(WATCH_SECONDS);
    c->gone = l->gone < 0 ? 0 : l->gone;
    return s->ranks[c->rank] == (l->gone < 0 ? 1 : 0);
}

/* The hub, perhaps in this process, has a moment to say it to the others. */
static void link_tell(Comm *c)
{
    Link *l = state_of(c)->link;
    Error unused;
    const HubHead head = {.what = HUB_FAIL};
    pthread_mutex_lock(&l->writing);
    (void)!socket_send(l->socket, &head, sizeof head, &unused);
    usleep(300000);
}

static void link_abandon(Comm *c)
{
    (void)c; /* the hub has told the others */
}

static void link_close(Comm *c)
{
    State *s = state_of(c);
    Link *l = s->link;
    Error unused;
    if (s->world) {
        bool failed = l->lost;
        if (!failed)
            put(l, (HubHead){.what = HUB_LEAVE}, NULL, &unused);
        hub_close(l->hub, failed ? 2 : LAST_SECONDS);
        close(l->socket);
        for (Letter *one = l->letters, *next; one; one = next) {
            next = one->next;
            free(one->data);
            free(one);
        }
        pthread_mutex_destroy(&l->writing);
        free(l);
    }
    free(s->ranks);
    free(s);
}

/* The first rank gives up: those that have come hear that it says why. */
static void tell_come(const int *connections, int size)
{
    Error unused;
    const HubHead head = {.what = HUB_LOST, .tag = 1};
    for (int r = 0; r < size; r++)
        if (connections[r] >= 0) {
            (void)!socket_send(connections[r], &head, sizeof head, &unused);
            close(connections[r]);
        }
}

int link_open(const Launch *launch, Comm *world, Error *err)
{
    static const CommOps ops = {"connections", link_gather_host, link_all_gather, link_reduce_scatter, link_sum, link_send, link_recv,
                                link_wait, link_split, link_failing, link_abandon, link_close, NULL, link_tell};
    int *connections = memory_alloc((size_t)launch->size, sizeof *connections), own[2];
    if (meet(launch, connections, err) < 0) {
        tell_come(connections, launch->size);
        free(connections);
        return -1;
    }
    Link *l = memory_zalloc(1, sizeof *l);
    l->socket = connections[0];
    pthread_mutex_init(&l->writing, NULL);
    int status = 0;
    if (launch->rank == 0) { /* its own way to the hub */
        status = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, own) == 0 ? 0 : error_set(err, "a pair of sockets:");
        l->socket = status == 0 ? own[0] : -1;
        connections[0] = status == 0 ? own[1] : -1;
        l->hub = status == 0 ? hub_open(launch->size, connections, err) : NULL;
        status = l->hub ? 0 : -1;
    }
    free(connections);
    if (status < 0) {
        free(l);
        return -1;
    }
    State *s = memory_zalloc(1, sizeof *s);
    *s = (State){.link = l, .world = true, .ranks = memory_alloc((size_t)launch->size, sizeof(int))};
    for (int r = 0; r < launch->size; r++)
        s->ranks[r] = r;
    *world = (Comm){.rank = launch->rank, .size = launch->size, .name = "world", .gone = -1, .ops = &ops, .state = s};
    return 0;
}
