#include "dist/watch_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/message.h"
#include "base/progress.h"
#include "base/stop.h"
#include "dist/internal.h"

enum { SECOND_SECONDS = 5 }; /* that others leave the second rank to speak */

static Status status_of(Watch *w)
{
    Status s = {.what = HERE};
    pthread_mutex_lock(&w->lock);
    s.what = w->gone ? GONE : HERE;
    int lane = w->on;
    for (int i = 1; i < WATCH_LANES && w->on == 0 && w->in[0] == 0 && lane == 0; i++)
        lane = w->in[i] ? i : 0;
    const Record *r = &w->ring[(w->in[lane] ? w->in[lane] : w->sequence) % RECORDS];
    double now = clock_seconds(), in = w->in[lane] ? now - r->begin : 0;
    s.kind = r->kind;
    s.peer = r->peer;
    memcpy(s.group, r->group, sizeof s.group);
    s.step = w->step;
    s.sequence = w->sequence;
    s.since = now - w->changed;
    s.waiting = w->queued;
    if (w->on > 0) /* each operation of the lane has its time */
        s.waiting = in > 0 && in < s.since ? in : s.since;
    else if (lane > 0)
        s.beside = in;
    else if (w->in[0])
        s.waiting = s.since;
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

void watch_tell(Watch *w, int what)
{
    Status s = {.what = what};
    for (int r = 0; r < w->size; r++)
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
    watch_tell(w, FAILED);
    end_quietly(w);
}

static double later(double a, double b)
{
    return a > b ? a : b;
}

/* Seconds for which some thread of the rank waits. */
static double waits_for(const Status *s)
{
    return later(s->waiting, s->beside);
}

/* In which operation a rank is that has died: the one that this rank waits in, else the last that the other was heard to begin. */
static void end_dead(Watch *w, int culprit, const Status *last)
{
    Status own = status_of(w);
    bool waits = waits_for(&own) > 0;
    Status seen = waits || own.sequence >= last->sequence ? own : *last;
    seen.step = own.step > last->step ? own.step : last->step;
    end_job(w, culprit, "has died", &seen, waits || (&seen == last && waits_for(last) > 0), "");
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

/* Is somebody kept waiting for too long, and by whom? A rank that is not heard, else one that computes, of these one that does not wait beside
 * that, else the odd one out. */
static void judge(Watch *w)
{
    double now = clock_seconds(), silence = later(w->period * 4, w->timeout / 2 < 2 ? w->timeout / 2 : 2), longest = 0;
    int waiter = -1, culprit = -1;
    for (int r = 0; r < w->size; r++)
        if (w->known[r].what == HERE && waits_for(&w->known[r]) > w->timeout && (waiter < 0 || waits_for(&w->known[r]) > waits_for(&w->known[waiter])))
            waiter = r;
    if (waiter < 0)
        return;
    const char *does = "does not answer";
    for (int r = 0; r < w->size; r++)
        if (w->known[r].what == HERE && now - w->heard[r] > silence && now - w->heard[r] > longest) {
            culprit = r;
            longest = now - w->heard[r];
        }
    for (int beside = 0; beside < 2 && culprit < 0; beside++)
        for (int r = 0; r < w->size; r++)
            if (w->known[r].what == HERE && w->known[r].waiting == 0 && (w->known[r].beside > 0) == beside && (culprit < 0 || w->known[r].since > w->known[culprit].since)) {
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
    snprintf(more, sizeof more, "; rank %d has waited %.1f s in %s (--comm-timeout %g)", waiter, waits_for(k), operation, w->timeout);
    Status seen = w->known[culprit];
    seen.step = seen.step > k->step ? seen.step : k->step;
    end_job(w, culprit, does, &seen, waits_for(&seen) > 0, more);
}

/* A device's queue may stand while the host goes on, and its library know of a failure. Most often because another rank has died: who
 * that is the first rank hears at once, and so the library's word waits, the first rank's for less than the others'. */
static void check_devices(Watch *w)
{
    Error err;
    double queued = 0, pending, now = clock_seconds(), patience = w->timeout < 2 ? w->timeout : 2;
    bool failed = false;
    for (int i = 0; i < GRID_GROUPS; i++) {
        Comm *c = &w->grid->group[i];
        pending = 0;
        int status = c->size > 1 && c->ops->check ? c->ops->check(c, &pending, &err) : 0;
        queued = later(queued, pending);
        if (status == 0)
            continue;
        failed = true;
        w->device_failed = w->device_failed > 0 ? w->device_failed : now;
        if (now - w->device_failed <= (w->rank == 0 ? patience : 3 * patience))
            continue;
        Status own = status_of(w);
        error_prefix(&err, "rank %d (host %s, process %" PRId64 "): step %" PRId64 ", %s", w->rank, w->ranks[w->rank].host, w->ranks[w->rank].process, own.step, c->name);
        message_failed(&err);
        watch_tell(w, FAILED);
        end_quietly(w);
    }
    w->device_failed = failed ? w->device_failed : 0;
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
            if (s.what == FAILED) {
                watch_tell(w, FAILED);
                end_quietly(w);
            }
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

/* Has the second rank ended the job, or died? */
static void listen_to_second(Watch *w)
{
    Status second = {.what = HERE};
    int *connection = &w->connection[w->second];
    if (w->rank == w->second || *connection < 0)
        return;
    int status = hear(*connection, &second);
    if (second.what == FAILED)
        end_quietly(w);
    if (status < 0) {
        close(*connection);
        *connection = -1;
        w->second_died = second.what == HERE;
    }
}

/* Does this rank speak for the first, without waiting for others to do so? */
static bool next_to_speak(const Watch *w)
{
    int third = w->second == 1 ? 2 : 1;
    return w->rank == w->second || (w->second_died && w->rank == third);
}

/* One round of another's. gone: when the first rank's connection ended, 0: it has not. */
static void tell_first(Watch *w, bool slept, double *gone)
{
    Status own = status_of(w), first = {.what = HERE};
    if (w->connection[0] < 0)
        return;
    listen_to_second(w);
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
    /* The second rank speaks for the first, or the third for both: nobody tells those behind it that it has. */
    if (*gone > 0 && next_to_speak(w))
        end_dead(w, 0, &own);
    if (*gone > 0 && clock_seconds() - *gone > SECOND_SECONDS)
        end_quietly(w);
    /* The first rank has had the time to say more. */
    if (!slept && waits_for(&own) > w->timeout + w->period * 3 + 0.2 + (next_to_speak(w) ? 0 : SECOND_SECONDS)) {
        char more[64];
        snprintf(more, sizeof more, "; rank %d has waited %.1f s (--comm-timeout %g)", w->rank, waits_for(&own), w->timeout);
        end_job(w, 0, "does not answer", &own, true, more);
    }
}

void *watch_thread(void *argument)
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
        if (slept) { /* as long as this process was stopped, perhaps with the whole job, nobody has kept it waiting */
            pthread_mutex_lock(&w->lock);
            w->changed = now;
            for (int i = 1; i < WATCH_LANES; i++)
                if (w->in[i])
                    w->ring[w->in[i] % RECORDS].begin = now;
            pthread_mutex_unlock(&w->lock);
        }
        if (w->rank == 0)
            listen_to_all(w, slept);
        else
            tell_first(w, slept, &gone);
        check_devices(w);
    }
}
