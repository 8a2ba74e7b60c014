#include "dist/watch_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/progress.h"
#include "dist/internal.h"

void watch_begin(Watch *w, int lane, const char *group, CommKind kind, size_t bytes, int peer)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    Record *r = &w->ring[++w->sequence % RECORDS];
    *r = (Record){.kind = kind, .peer = peer, .bytes = bytes, .sequence = w->sequence, .step = w->step, .begin = clock_seconds()};
    snprintf(r->group, sizeof r->group, "%s", group);
    w->in[lane] = w->sequence;
    if (lane == 0)
        w->changed = r->begin;
    pthread_mutex_unlock(&w->lock);
}

void watch_end(Watch *w, int lane)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    double now = clock_seconds();
    Record *r = &w->ring[w->in[lane] % RECORDS];
    if (r->sequence == w->in[lane]) /* not so many others have begun since */
        r->end = now;
    if (lane == 0) {
        w->waited += now - w->changed;
        w->changed = now;
    }
    w->in[lane] = 0;
    pthread_mutex_unlock(&w->lock);
}

void watch_blocked(Watch *w, int lane)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->on = lane;
    w->changed = clock_seconds();
    pthread_mutex_unlock(&w->lock);
}

void watch_unblocked(Watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    double now = clock_seconds();
    w->waited += now - w->changed;
    w->changed = now;
    w->on = 0;
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

/* Rank `from` and those behind it come. */
static int accept_all(Watch *w, int listener, int from, Error *err)
{
    int status = 0, rank;
    for (int r = from; r < w->size && status == 0; r++) {
        if (r == w->rank)
            continue;
        int s = socket_accept(listener, START_SECONDS, err);
        status = s < 0 ? -1 : socket_receive(s, &rank, sizeof rank, START_SECONDS, err);
        if (status == 0 && (rank < from || rank >= w->size || w->connection[rank] >= 0))
            status = error_set(err, "a stranger has come as rank %d", rank);
        if (status == 0)
            w->connection[rank] = s;
        else if (s >= 0)
            close(s);
    }
    return status;
}

static int go_to(Watch *w, int to, Error *err)
{
    w->connection[to] = socket_connect(&w->ranks[to].where, START_SECONDS, err);
    return w->connection[to] < 0 ? -1 : socket_send(w->connection[to], &w->rank, sizeof w->rank, err);
}

/* The first rank takes in the others, and so does the second but for the first. */
static int connect_all(Watch *w, int listener, Error *err)
{
    if (w->rank == 0)
        return accept_all(w, listener, 1, err);
    if (go_to(w, 0, err) < 0)
        return -1;
    return w->rank == w->second ? accept_all(w, listener, 1, err) : go_to(w, w->second, err);
}

/* The first on another machine than the first rank's, where there are several. */
static int second_of(const Watch *w)
{
    for (int r = 1; r < w->size; r++)
        if (strcmp(w->ranks[r].host, w->ranks[0].host) != 0)
            return r;
    return 1;
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
    } else if (!w->grid->threads && (listener = socket_listen(&mine.where, err)) < 0) {
        return -1;
    }
    int status = comm_gather_host(&w->grid->world, &mine, w->ranks, sizeof mine, err);
    w->shared = status == 0 ? w->ranks[0].shared : NULL;
    w->second = status == 0 ? second_of(w) : 0;
    if (w->shared)
        w->shared->watches[w->rank] = w;
    else if (status == 0)
        status = connect_all(w, listener, err);
    /* Nobody judges before all are connected. */
    int here = 0, *all = memory_zalloc((size_t)w->size, sizeof *all);
    if (status == 0 && !w->shared)
        status = comm_gather_host(&w->grid->world, &here, all, sizeof here, err);
    free(all);
    if (listener >= 0)
        close(listener);
    return status;
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

void watch_close(Grid *g, bool failed)
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
    watch_tell(w, failed ? FAILED : GONE);
    pthread_mutex_lock(&w->lock);
    w->gone = true;
    pthread_mutex_unlock(&w->lock);
    Shared *s = w->shared;
    if (!s) {
        bool used = false;
        for (int i = 0; i < GRID_SIDES; i++)
            used |= g->sides[i] != NULL; /* a process that has failed ends with its threads */
        if (!used)
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
