#include "dist/side.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/progress.h"
#include "dist/internal.h"
#include "dist/watch.h"

typedef struct Job {
    CommKind kind;
    Dtype type;
    const void *from;
    void *to;
    size_t n; /* bytes or numbers, as the collective counts */
    int event; /* -1: nobody looks */
} Job;

struct Side {
    Grid *grid;
    Comm *comm; /* the group, or on a host the thread's own */
    Comm own;
    Stream *stream; /* a device's */
    bool threaded, ended, failed;
    Error failure;
    Job *jobs; /* begun, of which `done` are over; emptied when all are */
    size_t count, done, capacity;
    bool closing;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool recording;
    SideEvent **events; /* each a piece of memory: a device's stream writes into it when it comes to it */
    size_t event_count, event_room;
};

static int perform(Side *s, const Job *j, Error *err)
{
    switch (j->kind) {
    case COMM_ALL_GATHER:
        return comm_all_gather(s->comm, s->stream, j->from, j->to, j->n, err);
    case COMM_REDUCE_SCATTER:
        return comm_reduce_scatter(s->comm, s->stream, j->type, j->from, j->to, j->n, err);
    default:
        return comm_sum(s->comm, s->stream, j->type, j->to, j->n, err);
    }
}

static void stamp(void *time)
{
    *(double *)time = clock_seconds();
}

/* -1: it has failed, and nothing is begun any more. */
static int perform_timed(Side *s, const Job *j, SideEvent *event, Error *err)
{
    Device *d = s->stream ? s->stream->device : NULL;
    if (event && d)
        d->stream_call(s->stream, stamp, &event->begin);
    else if (event)
        stamp(&event->begin);
    int status = perform(s, j, err);
    if (event && d)
        d->stream_call(s->stream, stamp, &event->end);
    else if (event)
        stamp(&event->end);
    return status;
}

static void *thread_main(void *argument)
{
    Side *s = argument;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->done == s->count && !s->closing)
            pthread_cond_wait(&s->changed, &s->lock);
        if (s->done == s->count)
            break;
        Job j = s->jobs[s->done];
        SideEvent *event = j.event >= 0 ? s->events[j.event] : NULL;
        bool failed = s->failed;
        pthread_mutex_unlock(&s->lock);
        Error err;
        int status = failed ? 0 : perform_timed(s, &j, event, &err);
        pthread_mutex_lock(&s->lock);
        if (status < 0) {
            s->failed = true;
            s->failure = err;
        }
        s->done++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

Side *side_open(Grid *g, int group, Device *d, Error *err)
{
    int lane = 0;
    while (lane < GRID_SIDES && g->sides[lane])
        lane++;
    if (lane == GRID_SIDES) {
        error_set(err, "no more than %d threads beside the computation", GRID_SIDES);
        return NULL;
    }
    const char *wanted = getenv("LMPIPE_BESIDE");
    Side *s = memory_zalloc(1, sizeof *s);
    s->grid = g;
    s->comm = &g->group[group];
    comm_one(&s->own);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    g->sides[lane] = s;
    int status = 0;
    if (!d->is_host) {
        s->stream = d->stream_new(d);
        status = s->stream ? 0 : error_set(err, "no memory for a stream");
    } else if (s->comm->size > 1 && s->comm->threads && !(wanted && strcmp(wanted, "0") == 0)) {
        status = comm_split(s->comm, 0, s->comm->name, &s->own, err);
        s->own.counted = s->comm->counted ? s->comm->counted : s->comm;
        s->own.lane = lane + 1;
        s->comm = &s->own;
        if (status == 0 && pthread_create(&s->thread, NULL, thread_main, s) != 0)
            status = error_set(err, "cannot start a thread beside the computation");
        s->threaded = status == 0;
    }
    if (status == 0)
        return s;
    side_close(s);
    return NULL;
}

void side_end(Side *s)
{
    if (!s || !s->threaded || s->ended)
        return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->ended = true;
}

void side_close(Side *s)
{
    if (!s)
        return;
    side_end(s);
    if (s->stream) {
        s->stream->device->stream_wait(s->stream, NULL);
        s->stream->device->stream_free(s->stream);
    }
    side_record(s, false);
    comm_close(&s->own);
    for (int i = 0; i < GRID_SIDES; i++)
        if (s->grid->sides[i] == s)
            s->grid->sides[i] = NULL;
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->jobs);
    free(s);
}

static int begin(Side *s, Stream *after, Job j, int label, size_t bytes, Error *err)
{
    j.event = -1;
    pthread_mutex_lock(&s->lock);
    if (s->recording) {
        j.event = (int)s->event_count;
        s->events = memory_grow(s->events, &s->event_room, s->event_count + 1, sizeof *s->events);
        s->events[s->event_count] = memory_alloc(1, sizeof **s->events);
        *s->events[s->event_count++] = (SideEvent){.given = clock_seconds(), .kind = j.kind, .label = label, .bytes = bytes};
    }
    if (s->threaded) {
        if (s->done == s->count)
            s->done = s->count = 0;
        s->jobs = memory_grow(s->jobs, &s->capacity, s->count + 1, sizeof *s->jobs);
        s->jobs[s->count++] = j;
        pthread_cond_broadcast(&s->changed);
    }
    int status = s->failed ? -1 : 0;
    if (s->failed)
        *err = s->failure;
    pthread_mutex_unlock(&s->lock);
    if (s->threaded || status < 0)
        return status;
    if (s->stream)
        s->stream->device->stream_order(after, s->stream);
    status = perform_timed(s, &j, j.event >= 0 ? s->events[j.event] : NULL, &s->failure);
    s->failed = status < 0;
    if (s->failed)
        *err = s->failure;
    return status;
}

int side_all_gather(Side *s, Stream *after, const void *mine, void *all, size_t bytes_each, int label, Error *err)
{
    return begin(s, after, (Job){.kind = COMM_ALL_GATHER, .from = mine, .to = all, .n = bytes_each}, label, bytes_each * (size_t)s->comm->size, err);
}

int side_reduce_scatter(Side *s, Stream *after, Dtype t, const void *all, void *mine, size_t n_each, int label, Error *err)
{
    return begin(s, after, (Job){.kind = COMM_REDUCE_SCATTER, .type = t, .from = all, .to = mine, .n = n_each}, label, n_each * (size_t)s->comm->size * dtype_size(t), err);
}

int side_sum(Side *s, Stream *after, Dtype t, void *data, size_t n, int label, Error *err)
{
    return begin(s, after, (Job){.kind = COMM_SUM, .type = t, .to = data, .n = n}, label, n * dtype_size(t), err);
}

int side_wait(Side *s, Stream *stream, Error *err)
{
    pthread_mutex_lock(&s->lock);
    if (s->done < s->count) {
        watch_blocked(s->own.watch, s->own.lane);
        while (s->done < s->count)
            pthread_cond_wait(&s->changed, &s->lock);
        watch_unblocked(s->own.watch);
    }
    bool failed = s->failed;
    if (failed)
        *err = s->failure;
    pthread_mutex_unlock(&s->lock);
    if (s->stream)
        s->stream->device->stream_order(s->stream, stream);
    return failed ? -1 : 0;
}

void side_record(Side *s, bool on)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->event_count; i++)
        free(s->events[i]);
    free(s->events);
    s->events = NULL;
    s->event_count = s->event_room = 0;
    s->recording = on;
}

const SideEvent *side_event(const Side *s, size_t i)
{
    return i < s->event_count ? s->events[i] : NULL;
}
