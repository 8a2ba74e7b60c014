#include "dist/watch.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/stop.h"
#include "dist/internal.h"
#include "dist/socket.h"

enum { RECORDS = 64, NAME = 16, START_SECONDS = 60 };

typedef struct Record {
    char group[NAME];
    CommKind kind;
    int peer;
    size_t bytes;
    int64_t sequence, step;
    double begin, end; /* end 0: still in it */
} Record;

/* What a rank says of itself. The first rank says GONE and FAILED, without the rest. */
typedef struct Status {
    enum { HERE, GONE, FAILED } what;
    int32_t kind, peer;
    char group[NAME];
    int64_t step, sequence;
    double waiting, since; /* seconds in the operation, 0: it computes; seconds since the last change of the two */
} Status;

typedef struct Identity {
    char host[64];
    int64_t process;
    SocketAddress where; /* the first rank's */
    Watch *self;         /* where ranks are threads */
    struct Shared *shared;
} Identity;

/* Watches of threads live until the last of them closes: the first reads them all. */
typedef struct Shared {
    pthread_mutex_t lock;
    int left;
    Watch **watches;
} Shared;

struct Watch {
    Grid *grid;
    int rank, size;
    double timeout, period;
    char *flight;
    Identity *ranks;  /* [size] */
    Shared *shared;   /* NULL where ranks are processes */
    pthread_mutex_t lock;
    Record ring[RECORDS];
    int64_t sequence, step;
    bool inside, gone;
    double changed, waited;
    double queued;    /* seconds for which a device has not finished an operation that the host is past; the thread's */
    pthread_t thread;
    bool running;
    int wake[2];      /* a pipe: something to read ends the thread */
    int *connection;  /* [size] of the first rank; others have theirs to it at 0; -1: none */
    Status *known;    /* [size] of the first rank: the last that was heard, and when */
    double *heard;
};

void watch_begin(Watch *w, const char *group, CommKind kind, size_t bytes, int peer)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    Record *r = &w->ring[++w->sequence % RECORDS];
    *r = (Record){.kind = kind, .peer = peer, .bytes = bytes, .sequence = w->sequence, .step = w->step, .begin = clock_seconds()};
    snprintf(r->group, sizeof r->group, "%s", group);
    w->inside = true;
    w->changed = r->begin;
    pthread_mutex_unlock(&w->lock);
}

void watch_end(Watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    Record *r = &w->ring[w->sequence % RECORDS];
    w->changed = r->end = clock_seconds();
    w->waited += r->end - r->begin;
    w->inside = false;
    pthread_mutex_unlock(&w->lock);
}

void watch_step(Watch *w, int64_t step)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->step = step;
    pthread_mutex_unlock(&w->lock);
}

double watch_waited(Watch *w)
{
    if (!w)
        return 0;
    pthread_mutex_lock(&w->lock);
    double waited = w->waited;
    w->waited = 0;
    pthread_mutex_unlock(&w->lock);
    return waited;
}

const char *watch_host(const Watch *w, int rank)
{
    return w ? w->ranks[rank].host : "";
}

static Status status_of(Watch *w)
{
    Status s = {.what = HERE};
    pthread_mutex_lock(&w->lock);
    s.what = w->gone ? GONE : HERE;
    const Record *r = &w->ring[w->sequence % RECORDS];
    s.kind = r->kind;
    s.peer = r->peer;
    memcpy(s.group, r->group, sizeof s.group);
    s.step = w->step;
    s.sequence = w->sequence;
    s.since = clock_seconds() - w->changed;
    s.waiting = w->inside ? s.since : w->queued;
    pthread_mutex_unlock(&w->lock);
    return s;
}

/* The last operations, one a line, for whoever looks into why a job ended. */
static void flight_write(Watch *w)
{
    FILE *f = w->flight ? fopen(w->flight, "w") : NULL;
    if (!f)
        return;
    pthread_mutex_lock(&w->lock);
    double now = clock_seconds();
    for (int64_t i = w->sequence > RECORDS ? w->sequence - RECORDS + 1 : 1; i <= w->sequence; i++) {
        const Record *r = &w->ring[i % RECORDS];
        fprintf(f, "{\"rank\":%d,\"host\":\"%s\",\"sequence\":%" PRId64 ",\"step\":%" PRId64 ",\"operation\":\"%s\",\"group\":\"%s\",\"peer\":%d,\"bytes\":%zu,"
                   "\"seconds_ago\":%.6f,\"seconds\":%.6f,\"done\":%s}\n",
                w->rank, w->ranks[w->rank].host, r->sequence, r->step, comm_kind_name(r->kind), r->group, r->peer, r->bytes, now - r->begin,
                (r->end > 0 ? r->end : now) - r->begin, r->end > 0 ? "true" : "false");
    }
    pthread_mutex_unlock(&w->lock);
    fclose(f);
}

static void tell_all(Watch *w, int what)
{
    Status s = {.what = what};
    for (int r = 1; r < w->size && w->rank == 0 && w->connection; r++)
        if (w->connection[r] >= 0)
            (void)!send(w->connection[r], &s, sizeof s, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Processes that end so take the job with them: the launcher and the other ranks' watches see to that. */
static void end_quietly(Watch *w)
{
    flight_write(w);
    _exit(STATUS_FAILED);
}

static void operation_text(char *to, size_t size, const Status *s)
{
    if (s->sequence == 0)
        snprintf(to, size, "the start");
    else if (s->peer >= 0)
        snprintf(to, size, "the %s of %s with its rank %d", comm_kind_name((CommKind)s->kind), s->group, s->peer);
    else
        snprintf(to, size, "the %s of %s", comm_kind_name((CommKind)s->kind), s->group);
}

/* Says the one message, and ends the job. seen: what shows in which operation it is. */
static void end_job(Watch *w, int culprit, const char *does, const Status *seen, bool in, const char *more)
{
    Error err;
    char operation[96];
    const Identity *who = &w->ranks[culprit];
    operation_text(operation, sizeof operation, seen);
    error_set(&err, "rank %d (host %s, process %" PRId64 ") %s: step %" PRId64 ", %s %s%s", culprit, who->host, who->process, does, seen->step,
              in ? "in" : "after", operation, more);
    message_failed(&err);
    tell_all(w, FAILED);
    end_quietly(w);
}

/* In which operation a rank is that has died: the one that this rank waits in, else the last that the other was heard to begin. */
static void end_dead(Watch *w, int culprit, const Status *last)
{
    Status own = status_of(w);
    bool waits = own.waiting > 0;
    Status seen = waits || own.sequence >= last->sequence ? own : *last;
    seen.step = own.step > last->step ? own.step : last->step;
    end_job(w, culprit, "has died", &seen, waits || (&seen == last && last->waiting > 0), "");
}

static double later(double a, double b)
{
    return a > b ? a : b;
}

/* The rank whose operation the fewest others are in, of several the one that has done the least. */
static int alone(const Watch *w)
{
    int found = 0, fewest = w->size + 1;
    for (int r = 0; r < w->size; r++) {
        int with = 0;
        const Status *a = &w->known[r];
        for (int i = 0; i < w->size; i++)
            with += w->known[i].kind == a->kind && strcmp(w->known[i].group, a->group) == 0;
        if (with < fewest || (with == fewest && a->sequence < w->known[found].sequence)) {
            found = r;
            fewest = with;
        }
    }
    return found;
}

/* Is somebody kept waiting for too long, and by whom? A rank that is not heard, else one that computes, else the odd one out. */
static void judge(Watch *w)
{
    double now = clock_seconds(), silence = later(w->period * 4, w->timeout / 2 < 2 ? w->timeout / 2 : 2), longest = 0;
    int waiter = -1, culprit = -1;
    for (int r = 0; r < w->size; r++)
        if (w->known[r].what == HERE && w->known[r].waiting > w->timeout && (waiter < 0 || w->known[r].waiting > w->known[waiter].waiting))
            waiter = r;
    if (waiter < 0)
        return;
    const char *does = "does not answer";
    for (int r = 0; r < w->size; r++)
        if (w->known[r].what == HERE && now - w->heard[r] > silence && now - w->heard[r] > longest) {
            culprit = r;
            longest = now - w->heard[r];
        }
    for (int r = 0; r < w->size && longest == 0; r++)
        if (w->known[r].what == HERE && w->known[r].waiting == 0 && (culprit < 0 || w->known[r].since > w->known[culprit].since)) {
            culprit = r;
            does = "hangs";
        }
    if (culprit < 0) {
        culprit = alone(w);
        does = "waits for what nobody else does";
    }
    char more[256], operation[96];
    const Status *k = &w->known[waiter];
    operation_text(operation, sizeof operation, k);
    snprintf(more, sizeof more, "; rank %d has waited %.1f s in %s (--comm-timeout %g)", waiter, k->waiting, operation, w->timeout);
    Status seen = w->known[culprit];
    seen.step = seen.step > k->step ? seen.step : k->step;
    end_job(w, culprit, does, &seen, seen.waiting > 0, more);
}

/* A device's queue may stand while the host goes on, and its library know of a failure. */
static void check_devices(Watch *w)
{
    Error err;
    double queued = 0, pending;
    for (int i = 0; i < GRID_GROUPS; i++) {
        Comm *c = &w->grid->group[i];
        pending = 0;
        int status = c->size > 1 && c->ops->check ? c->ops->check(c, &pending, &err) : 0;
        queued = later(queued, pending);
        if (status < 0) {
            Status own = status_of(w);
            error_prefix(&err, "rank %d (host %s, process %" PRId64 "): step %" PRId64 ", %s", w->rank, w->ranks[w->rank].host, w->ranks[w->rank].process, own.step, c->name);
            message_failed(&err);
            tell_all(w, FAILED);
            end_quietly(w);
        }
    }
    pthread_mutex_lock(&w->lock);
    w->queued = queued;
    pthread_mutex_unlock(&w->lock);
}

/* -1: the connection has ended. */
static int hear(int connection, Status *s)
{
    ssize_t n;
    while ((n = recv(connection, s, sizeof *s, MSG_DONTWAIT | MSG_PEEK)) >= (ssize_t)sizeof *s)
        (void)!recv(connection, s, sizeof *s, 0);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) ? -1 : 0;
}

/* One round of the first rank's. slept: it was stopped itself, and has no say in who was late. */
static void listen_to_all(Watch *w, bool slept)
{
    for (int r = 0; r < w->size; r++) {
        if (r == w->rank || w->shared) {
            w->known[r] = status_of(w->ranks[r].self ? w->ranks[r].self : w);
            w->heard[r] = clock_seconds();
        } else if (w->connection[r] >= 0) {
            Status s = w->known[r];
            double before = w->heard[r];
            int status = hear(w->connection[r], &s);
            if (slept || memcmp(&s, &w->known[r], sizeof s) != 0)
                before = clock_seconds();
            w->known[r] = s;
            w->heard[r] = before;
            if (status < 0 && s.what == HERE && slept)
                end_quietly(w);
            if (status < 0 && s.what == HERE)
                end_dead(w, r, &s);
            if (status < 0) {
                close(w->connection[r]);
                w->connection[r] = -1;
            }
        }
    }
    if (!slept)
        judge(w);
}

/* One round of another's. gone: when the first rank's connection ended, 0: it has not. */
static void tell_first(Watch *w, bool slept, double *gone)
{
    Status own = status_of(w), first = {.what = HERE};
    if (w->connection[0] < 0)
        return;
    if (*gone == 0) {
        (void)!send(w->connection[0], &own, sizeof own, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (hear(w->connection[0], &first) < 0)
            *gone = clock_seconds();
        if (first.what == FAILED || (*gone > 0 && first.what == HERE && slept))
            end_quietly(w);
        if (first.what == GONE) {
            close(w->connection[0]);
            w->connection[0] = -1;
            return;
        }
    }
    /* The second rank speaks for the first; another where the second is gone too. */
    if (*gone > 0 && (w->rank == 1 || clock_seconds() - *gone > 15))
        end_dead(w, 0, &own);
    /* The first rank has had the time to say more; a launcher's, to end the others once one has spoken. */
    if (!slept && own.waiting > w->timeout + w->period * 3 + 0.2 + 15 * (w->rank - 1)) {
        char more[64];
        snprintf(more, sizeof more, "; rank %d has waited %.1f s (--comm-timeout %g)", w->rank, own.waiting, w->timeout);
        end_job(w, 0, "does not answer", &own, true, more);
    }
}

static void *watch_thread(void *argument)
{
    Watch *w = argument;
    double last = clock_seconds(), gone = 0;
    for (;;) {
        struct pollfd p = {.fd = w->wake[0], .events = POLLIN};
        struct pollfd both[2] = {p, {.fd = w->rank > 0 && gone == 0 ? w->connection[0] : -1, .events = POLLIN}};
        if (poll(both, 2, (int)(w->period * 1000)) > 0 && both[0].revents)
            return NULL;
        double now = clock_seconds();
        bool slept = now - last > w->period + 2;
        last = now;
        check_devices(w);
        if (w->rank == 0)
            listen_to_all(w, slept);
        else
            tell_first(w, slept, &gone);
    }
}

/* The first rank takes in the others. */
static int connect_all(Watch *w, int listener, Error *err)
{
    int rank = w->rank, status = 0;
    if (rank > 0) {
        w->connection[0] = socket_connect(&w->ranks[0].where, START_SECONDS, err);
        return w->connection[0] < 0 ? -1 : socket_send(w->connection[0], &rank, sizeof rank, err);
    }
    for (int i = 1; i < w->size && status == 0; i++) {
        int s = socket_accept(listener, START_SECONDS, err);
        status = s < 0 ? -1 : socket_receive(s, &rank, sizeof rank, START_SECONDS, err);
        if (status == 0 && (rank < 1 || rank >= w->size || w->connection[rank] >= 0))
            status = error_set(err, "a stranger has come as rank %d", rank);
        if (status == 0)
            w->connection[rank] = s;
        else if (s >= 0)
            close(s);
    }
    close(listener);
    return status;
}

static void free_watch(Watch *w)
{
    for (int r = 0; r < w->size && w->connection; r++)
        if (w->connection[r] >= 0)
            close(w->connection[r]);
    close(w->wake[0]);
    close(w->wake[1]);
    pthread_mutex_destroy(&w->lock);
    free(w->flight);
    free(w->ranks);
    free(w->connection);
    free(w->known);
    free(w->heard);
    free(w);
}

static int meet(Watch *w, Error *err)
{
    Identity mine = {.process = getpid(), .self = w->grid->threads ? w : NULL};
    gethostname(mine.host, sizeof mine.host - 1);
    int listener = -1;
    if (w->rank == 0 && w->grid->threads) {
        mine.shared = memory_zalloc(1, sizeof *mine.shared);
        pthread_mutex_init(&mine.shared->lock, NULL);
        mine.shared->left = w->size;
        mine.shared->watches = memory_zalloc((size_t)w->size, sizeof(Watch *));
    } else if (w->rank == 0 && (listener = socket_listen(&mine.where, err)) < 0) {
        return -1;
    }
    if (comm_gather_host(&w->grid->world, &mine, w->ranks, sizeof mine, err) < 0)
        return -1;
    w->shared = w->ranks[0].shared;
    if (!w->shared)
        return connect_all(w, listener, err);
    w->shared->watches[w->rank] = w;
    return 0;
}

int watch_open(Grid *g, double timeout, const char *folder, Error *err)
{
    if (g->size == 1)
        return 0;
    Watch *w = memory_zalloc(1, sizeof *w);
    *w = (Watch){.grid = g, .rank = g->rank, .size = g->size, .timeout = timeout};
    w->period = timeout / 20 > 0.5 ? 0.5 : timeout / 20 < 0.02 ? 0.02 : timeout / 20;
    w->flight = folder ? memory_format("%s/flight-%d.jsonl", folder, g->rank) : NULL;
    w->ranks = memory_zalloc((size_t)g->size, sizeof *w->ranks);
    w->connection = memory_alloc((size_t)g->size, sizeof *w->connection);
    w->known = memory_zalloc((size_t)g->size, sizeof *w->known);
    w->heard = memory_zalloc((size_t)g->size, sizeof *w->heard);
    w->changed = clock_seconds();
    pthread_mutex_init(&w->lock, NULL);
    for (int r = 0; r < g->size; r++) {
        w->connection[r] = -1;
        w->heard[r] = w->changed;
    }
    if (pipe(w->wake) != 0)
        return error_set(err, "a pipe:");
    if (meet(w, err) < 0)
        return -1;
    g->watch = g->world.watch = w;
    for (int i = 0; i < GRID_GROUPS; i++)
        g->group[i].watch = w;
    w->running = w->rank == 0 || !w->shared;
    if (w->running && pthread_create(&w->thread, NULL, watch_thread, w) != 0) {
        w->running = false;
        return error_set(err, "cannot start the thread that watches the job");
    }
    return 0;
}

void watch_close(Grid *g)
{
    Watch *w = g->watch;
    if (!w)
        return;
    g->watch = g->world.watch = NULL;
    for (int i = 0; i < GRID_GROUPS; i++)
        g->group[i].watch = NULL;
    if (w->running) {
        (void)!write(w->wake[1], "", 1);
        pthread_join(w->thread, NULL);
    }
    Status gone = {.what = GONE};
    if (w->rank > 0 && w->connection[0] >= 0)
        (void)!send(w->connection[0], &gone, sizeof gone, MSG_NOSIGNAL | MSG_DONTWAIT);
    tell_all(w, GONE);
    pthread_mutex_lock(&w->lock);
    w->gone = true;
    pthread_mutex_unlock(&w->lock);
    Shared *s = w->shared;
    if (!s) {
        free_watch(w);
        return;
    }
    pthread_mutex_lock(&s->lock);
    bool last = --s->left == 0;
    pthread_mutex_unlock(&s->lock);
    for (int r = 0; r < g->size && last; r++)
        free_watch(s->watches[r]);
    if (last) {
        pthread_mutex_destroy(&s->lock);
        free(s->watches);
        free(s);
    }
}
