#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"

int thread_default_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return 1;
}

void thread_spin_briefly(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY"))
        return;
    setenv("GOMP_SPINCOUNT", "1000", 1);
    execv("/proc/self/exe", argv); /* where that can't be done, the program goes on as it is */
}

typedef struct Parallel {
    size_t count, next;
    int (*work)(void *, size_t, int, Error *);
    void *context;
    pthread_mutex_t lock;
    size_t failed; /* lowest index that failed, count: none */
    Error error;
} Parallel;

typedef struct Worker {
    Parallel *all;
    int thread;
    pthread_t id;
} Worker;

static void *parallel_worker(void *argument)
{
    Worker *w = argument;
    Parallel *p = w->all;
    for (;;) {
        size_t i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (i >= p->count || __atomic_load_n(&p->failed, __ATOMIC_RELAXED) < i)
            return NULL;
        Error error = {{0}};
        if (p->work(p->context, i, w->thread, &error) < 0) {
            pthread_mutex_lock(&p->lock);
            if (i < p->failed) {
                __atomic_store_n(&p->failed, i, __ATOMIC_RELAXED);
                p->error = error;
            }
            pthread_mutex_unlock(&p->lock);
        }
    }
}

int thread_parallel(int threads, size_t count, int (*work)(void *, size_t, int, Error *), void *context, Error *err)
{
    Parallel p = {.count = count, .work = work, .context = context, .failed = count, .lock = PTHREAD_MUTEX_INITIALIZER};
    if (threads < 1)
        threads = thread_default_count();
    if ((size_t)threads > count)
        threads = count ? (int)count : 1;
    Worker *workers = memory_zalloc((size_t)threads, sizeof *workers);
    int started = 1;
    workers[0] = (Worker){.all = &p};
    for (int t = 1; t < threads; t++) {
        workers[t] = (Worker){.all = &p, .thread = t};
        if (pthread_create(&workers[t].id, NULL, parallel_worker, &workers[t]) != 0)
            break;
        started++;
    }
    parallel_worker(&workers[0]);
    for (int t = 1; t < started; t++)
        pthread_join(workers[t].id, NULL);
    free(workers);
    if (p.failed == count)
        return 0;
    if (err)
        *err = p.error;
    return -1;
}

/* Items go round a ring: slot = number % depth. A slot is empty, read, worked on, or ready to be written; the writer (the
 * caller's thread) takes them in order, so memory and the lead of the reader are bounded by the depth. */
enum SlotState { SLOT_EMPTY, SLOT_READ, SLOT_WORKING, SLOT_READY };

typedef struct Ring {
    const Pipeline *pipeline;
    char *items;
    enum SlotState *state;
    Error *errors;       /* of each slot's work */
    bool *failed;
    size_t depth, read, taken; /* items read, items given to workers */
    size_t *weights, held;     /* of each slot; their sum over the items in flight */
    bool ended, stop;
    int read_status;
    Error read_error;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} Ring;

typedef struct RingWorker {
    Ring *ring;
    int thread;
    pthread_t id;
} RingWorker;

static void *ring_item(Ring *r, size_t number)
{
    return r->items + number % r->depth * r->pipeline->item_size;
}

static void *ring_reader(void *argument)
{
    Ring *r = argument;
    const Pipeline *p = r->pipeline;
    for (;;) {
        pthread_mutex_lock(&r->lock);
        while (!r->stop && r->state[r->read % r->depth] != SLOT_EMPTY)
            pthread_cond_wait(&r->changed, &r->lock);
        bool stop = r->stop;
        pthread_mutex_unlock(&r->lock);
        int got = stop ? 0 : p->read(p->context, ring_item(r, r->read), &r->read_error);
        size_t slot = r->read % r->depth, weight = got > 0 && p->weight ? p->weight(p->context, ring_item(r, r->read)) : 0;
        pthread_mutex_lock(&r->lock);
        while (!r->stop && r->held > 0 && r->held + weight > p->budget)
            pthread_cond_wait(&r->changed, &r->lock);
        if (got > 0) {
            r->weights[slot] = weight;
            r->held += weight;
            r->state[slot] = SLOT_READ;
            r->read++;
        } else {
            r->ended = true;
            r->read_status = got;
        }
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
        if (got <= 0)
            return NULL;
    }
}

static void *ring_worker(void *argument)
{
    RingWorker *w = argument;
    Ring *r = w->ring;
    const Pipeline *p = r->pipeline;
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->stop && r->taken == r->read && !r->ended)
            pthread_cond_wait(&r->changed, &r->lock);
        if (r->stop || r->taken == r->read)
            break;
        size_t number = r->taken++, slot = number % r->depth;
        r->state[slot] = SLOT_WORKING;
        pthread_mutex_unlock(&r->lock);
        Error error = {{0}};
        bool failed = p->work(p->context, ring_item(r, number), w->thread, &error) < 0;
        pthread_mutex_lock(&r->lock);
        r->failed[slot] = failed;
        if (failed)
            r->errors[slot] = error;
        r->state[slot] = SLOT_READY;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static int ring_write(Ring *r, Error *err)
{
    const Pipeline *p = r->pipeline;
    int status = 0;
    pthread_mutex_lock(&r->lock);
    for (size_t number = 0; status == 0; number++) {
        size_t slot = number % r->depth;
        while (r->state[slot] != SLOT_READY && !(r->ended && number == r->read))
            pthread_cond_wait(&r->changed, &r->lock);
        if (r->state[slot] != SLOT_READY) {
            if (r->read_status < 0) {
                status = -1;
                if (err)
                    *err = r->read_error;
            }
            break;
        }
        pthread_mutex_unlock(&r->lock);
        if (r->failed[slot]) {
            status = -1;
            if (err)
                *err = r->errors[slot];
        } else {
            status = p->write(p->context, ring_item(r, number), err);
        }
        pthread_mutex_lock(&r->lock);
        r->held -= r->weights[slot];
        r->state[slot] = SLOT_EMPTY;
        pthread_cond_broadcast(&r->changed);
    }
    r->stop = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    return status;
}

int pipeline_run(const Pipeline *p, Error *err)
{
    int threads = p->threads > 0 ? p->threads : thread_default_count();
    Ring r = {.pipeline = p, .depth = p->depth ? p->depth : (size_t)threads * 4, .lock = PTHREAD_MUTEX_INITIALIZER,
              .changed = PTHREAD_COND_INITIALIZER};
    r.items = memory_zalloc(r.depth, p->item_size);
    r.state = memory_zalloc(r.depth, sizeof *r.state);
    r.errors = memory_zalloc(r.depth, sizeof *r.errors);
    r.failed = memory_zalloc(r.depth, sizeof *r.failed);
    r.weights = memory_zalloc(r.depth, sizeof *r.weights);
    RingWorker *workers = memory_zalloc((size_t)threads, sizeof *workers);
    pthread_t reader;
    int started = 0, status;
    bool reading = pthread_create(&reader, NULL, ring_reader, &r) == 0;
    while (reading && started < threads) {
        workers[started] = (RingWorker){.ring = &r, .thread = started};
        if (pthread_create(&workers[started].id, NULL, ring_worker, &workers[started]) != 0)
            break;
        started++;
    }
    if (started > 0) {
        status = ring_write(&r, err);
    } else {
        status = error_set(err, "cannot start a thread");
        pthread_mutex_lock(&r.lock);
        r.stop = true;
        pthread_cond_broadcast(&r.changed);
        pthread_mutex_unlock(&r.lock);
    }
    if (reading)
        pthread_join(reader, NULL);
    for (int t = 0; t < started; t++)
        pthread_join(workers[t].id, NULL);
    if (p->release)
        for (size_t i = 0; i < r.depth; i++)
            p->release(p->context, r.items + i * p->item_size);
    free(workers);
    free(r.items);
    free(r.state);
    free(r.errors);
    free(r.failed);
    free(r.weights);
    return status;
}
