#include "dist/hub.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/progress.h"

/* A head and its bytes; on the way to as many ranks as want it. */
typedef struct Parcel {
    int wanted;
    HubHead head;
    char *data;
} Parcel;

typedef struct Queued {
    Parcel *parcel;
    size_t done; /* bytes of head and data that have left */
    struct Queued *next;
} Queued;

typedef struct Line {
    int socket; /* -1: the rank has left, or is gone */
    HubHead head;
    size_t got; /* bytes of the head, then of the data */
    char *data;
    Queued *first, **end;
} Line;

/* Parts of a gather that have come. */
typedef struct Gathering {
    uint64_t group;
    int come;
    Parcel *all;
    int *ranks; /* of the job, by place in the group; -1: not yet there */
    struct Gathering *next;
} Gathering;

struct Hub {
    int size, left;
    bool lost;
    Line *lines;
    Gathering *gatherings;
    struct pollfd *poll; /* [size + 1] */
    int wake[2];
    pthread_t thread;
    bool running;
};

static void parcel_release(Parcel *p)
{
    if (--p->wanted > 0)
        return;
    free(p->data);
    free(p);
}

/* One of those that it is wanted by. */
static void queue(Line *to, Parcel *p)
{
    if (to->socket < 0) {
        parcel_release(p);
        return;
    }
    Queued *q = memory_zalloc(1, sizeof *q);
    q->parcel = p;
    *to->end = q;
    to->end = &q->next;
}

static void line_close(Hub *h, Line *l)
{
    if (l->socket < 0)
        return;
    close(l->socket);
    l->socket = -1;
    h->left++;
    for (Queued *q = l->first, *next; q; q = next) {
        next = q->next;
        parcel_release(q->parcel);
        free(q);
    }
    l->first = NULL;
    l->end = &l->first;
    free(l->data);
    l->data = NULL;
}

/* The job is over: all that are left hear of it, once. */
static void lose(Hub *h, int rank, bool told)
{
    if (h->lost)
        return;
    h->lost = true;
    Parcel *p = memory_zalloc(1, sizeof *p);
    *p = (Parcel){.wanted = h->size, .head = {.what = HUB_LOST, .rank = rank, .tag = told}};
    for (int r = 0; r < h->size; r++)
        queue(&h->lines[r], p);
}

/* Takes the data that has come on a line. False: it does not fit the others' parts. */
static bool gather(Hub *h, int from, Line *l)
{
    const HubHead *head = &l->head;
    Gathering **at = &h->gatherings, *g;
    while (*at && (*at)->group != head->group)
        at = &(*at)->next;
    if (!*at) {
        *at = g = memory_zalloc(1, sizeof *g);
        g->group = head->group;
        g->all = memory_zalloc(1, sizeof *g->all);
        g->all->head = *head;
        g->all->head.bytes = head->bytes * (uint64_t)head->size;
        g->all->data = memory_alloc((size_t)g->all->head.bytes + 1, 1);
        g->ranks = memory_alloc((size_t)head->size, sizeof *g->ranks);
        memset(g->ranks, -1, (size_t)head->size * sizeof *g->ranks);
    }
    g = *at;
    if (head->size != g->all->head.size || head->bytes * (uint64_t)head->size != g->all->head.bytes || g->ranks[head->rank] >= 0)
        return false;
    g->ranks[head->rank] = from;
    memcpy(g->all->data + (size_t)head->rank * (size_t)head->bytes, l->data, (size_t)head->bytes);
    if (++g->come < head->size)
        return true;
    g->all->wanted = g->come;
    for (int i = 0; i < g->come; i++)
        queue(&h->lines[g->ranks[i]], g->all);
    *at = g->next;
    free(g->ranks);
    free(g);
    return true;
}

static void letter(Hub *h, int from, Line *l)
{
    Parcel *p = memory_zalloc(1, sizeof *p);
    *p = (Parcel){.wanted = 1, .head = l->head, .data = l->data};
    p->head.rank = from;
    l->data = NULL;
    queue(&h->lines[l->head.rank], p);
}

static bool sensible(const Hub *h, const HubHead *head)
{
    bool place = head->what == HUB_GATHER ? head->size >= 1 && head->size <= h->size && head->rank >= 0 && head->rank < head->size
                                          : head->rank >= 0 && head->rank < h->size;
    return place && head->bytes <= (uint64_t)1 << 40;
}

/* What has come whole on a line. */
static void take(Hub *h, int from)
{
    Line *l = &h->lines[from];
    bool fits = true;
    if (l->head.what == HUB_GATHER)
        fits = gather(h, from, l);
    else if (l->head.what == HUB_LETTER)
        letter(h, from, l);
    else if (l->head.what == HUB_FAIL)
        lose(h, from, true);
    else
        line_close(h, l);
    free(l->data);
    l->data = NULL;
    l->got = 0;
    if (!fits)
        lose(h, from, false);
}

/* As much as there is. */
static void read_line(Hub *h, int from)
{
    Line *l = &h->lines[from];
    while (l->socket >= 0) {
        size_t head = sizeof l->head;
        char *to = l->got < head ? (char *)&l->head + l->got : l->data + (l->got - head);
        size_t want = l->got < head ? head - l->got : (size_t)l->head.bytes - (l->got - head);
        ssize_t n = want > 0 ? recv(l->socket, to, want, MSG_DONTWAIT) : 0;
        if (want > 0 && n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (want > 0 && n <= 0) {
            line_close(h, l);
            lose(h, from, false);
            return;
        }
        l->got += (size_t)n;
        if (l->got == head && !l->data) {
            if (!sensible(h, &l->head)) {
                line_close(h, l);
                lose(h, from, false);
                return;
            }
            l->data = memory_alloc((size_t)l->head.bytes + 1, 1);
        }
        if (l->got >= head && l->got - head == l->head.bytes)
            take(h, from);
    }
}

static void write_line(Hub *h, int to)
{
    Line *l = &h->lines[to];
    while (l->socket >= 0 && l->first) {
        Queued *q = l->first;
        Parcel *p = q->parcel;
        size_t head = sizeof p->head;
        const char *from = q->done < head ? (const char *)&p->head + q->done : p->data + (q->done - head);
        size_t want = q->done < head ? head - q->done : (size_t)p->head.bytes - (q->done - head);
        ssize_t n = want > 0 ? send(l->socket, from, want, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) { /* what it still had to say is lost with it */
            line_close(h, l);
            lose(h, to, false);
            return;
        }
        q->done += (size_t)n;
        if (q->done < head || q->done - head < p->head.bytes)
            continue;
        l->first = q->next;
        if (!l->first)
            l->end = &l->first;
        parcel_release(p);
        free(q);
    }
}

static void *hub_thread(void *argument)
{
    Hub *h = argument;
    while (h->left < h->size) {
        for (int r = 0; r < h->size; r++)
            h->poll[r] = (struct pollfd){.fd = h->lines[r].socket, .events = (short)(POLLIN | (h->lines[r].first ? POLLOUT : 0))};
        h->poll[h->size] = (struct pollfd){.fd = h->wake[0], .events = POLLIN};
        if (poll(h->poll, (nfds_t)h->size + 1, -1) < 0 && errno != EINTR)
            break;
        if (h->poll[h->size].revents)
            break;
        for (int r = 0; r < h->size; r++) {
            if (h->poll[r].revents & POLLOUT)
                write_line(h, r);
            if (h->poll[r].revents & (POLLIN | POLLHUP | POLLERR))
                read_line(h, r);
        }
    }
    return NULL;
}

Hub *hub_open(int size, const int *connections, Error *err)
{
    Hub *h = memory_zalloc(1, sizeof *h);
    h->size = size;
    h->lines = memory_zalloc((size_t)size, sizeof *h->lines);
    h->poll = memory_zalloc((size_t)size + 1, sizeof *h->poll);
    for (int r = 0; r < size; r++) {
        h->lines[r].socket = connections[r];
        h->lines[r].end = &h->lines[r].first;
    }
    h->wake[0] = h->wake[1] = -1;
    if (pipe(h->wake) == 0 && pthread_create(&h->thread, NULL, hub_thread, h) == 0) {
        h->running = true;
        return h;
    }
    error_set(err, "cannot start the thread that joins the ranks:");
    hub_close(h, 0);
    return NULL;
}

void hub_close(Hub *h, double seconds)
{
    if (!h)
        return;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)seconds;
    if (h->running && pthread_timedjoin_np(h->thread, NULL, &until) != 0) {
        (void)!write(h->wake[1], "", 1);
        pthread_join(h->thread, NULL);
    }
    for (int r = 0; r < h->size; r++)
        line_close(h, &h->lines[r]);
    for (Gathering *g = h->gatherings, *next; g; g = next) {
        next = g->next;
        g->all->wanted = 1;
        parcel_release(g->all);
        free(g->ranks);
        free(g);
    }
    for (int i = 0; i < 2; i++)
        if (h->wake[i] >= 0)
            close(h->wake[i]);
    free(h->lines);
    free(h->poll);
    free(h);
}
