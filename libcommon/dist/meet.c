#include "dist/meet.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/progress.h"
#include "dist/socket.h"
#include "dist/start.h"
#include "io/stream.h"
#include "io/temporary.h"

enum { MOST = 1024, ANSWER_SECONDS = 5, PAUSE = 50000 /* µs */ };
#define MAGIC "lmpipe-meet-1"

/* What the file says, a line. */
typedef struct Place {
    char job[128];
    uint64_t number;
    int size;
    SocketAddress where;
} Place;

/* What comes over a new connection, and the answer. */
typedef struct Hello {
    char magic[16];
    uint64_t number;
    int32_t rank, size;
} Hello;
enum { WELCOME = 1, TAKEN };

static void place_write(char *line, size_t size, const Place *p)
{
    snprintf(line, size, MAGIC " job=%s number=%016" PRIx64 " ranks=%d host=%s port=%d %s %s %s %s\n", p->job, p->number, p->size, p->where.host, p->where.port,
             p->where.addresses[0], p->where.addresses[1], p->where.addresses[2], p->where.addresses[3]);
}

/* 0: it is one. */
static int place_read(const char *path, Place *p)
{
    char line[MOST];
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    memset(p, 0, sizeof *p);
    char job[140];
    int fields = sscanf(line, MAGIC " %139s number=%" SCNx64 " ranks=%d host=%63s port=%d %47s %47s %47s %47s", job, &p->number, &p->size, p->where.host, &p->where.port,
                        p->where.addresses[0], p->where.addresses[1], p->where.addresses[2], p->where.addresses[3]);
    if (fields < 5 || strncmp(job, "job=", 4) != 0 || p->where.port < 1 || p->where.port > 65535 || n == 0 || line[n - 1] != '\n')
        return -1;
    snprintf(p->job, sizeof p->job, "%.127s", job + 4);
    return 0;
}

/* A stranger, who is let go, or one of the ranks, which takes its place. How many more have come. */
static int take_in(const Launch *l, uint64_t number, int s, int *connections)
{
    Error unused;
    Hello h;
    unsigned char answer = WELCOME;
    int again = 0;
    if (socket_receive(s, &h, sizeof h, ANSWER_SECONDS, &unused) < 0 || memcmp(h.magic, MAGIC, sizeof MAGIC) != 0 || h.number != number || h.size != l->size ||
        h.rank < 1 || h.rank >= l->size) {
        close(s);
        return 0;
    }
    /* One that has given up and comes again takes its own place. */
    char byte;
    int *place = &connections[h.rank];
    if (*place >= 0 && recv(*place, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        close(*place);
        *place = -1;
        again = 1;
    }
    if (*place >= 0)
        answer = TAKEN;
    if (socket_send(s, &answer, 1, &unused) < 0 || answer == TAKEN) {
        close(s);
        return 0;
    }
    *place = s;
    return 1 - again;
}

static int wait_for_all(const Launch *l, int listener, uint64_t number, int *connections, Error *err)
{
    double end = clock_seconds() + l->seconds;
    StartPlace own;
    start_place(&own);
    for (int come = 1; come < l->size;) {
        double left = end - clock_seconds();
        int s = left > 0 ? socket_accept(listener, left, err) : -1;
        if (s < 0) {
            int missing = 1;
            while (missing < l->size && connections[missing] >= 0)
                missing++;
            return error_set(err, "LMPIPE_MEET: %s: rank %d (of %d missing) has not come in %g s to rank 0 (host %s): step 0, in the start", l->file, missing,
                             l->size - come, l->seconds, own.host);
        }
        come += take_in(l, number, s, connections);
    }
    return 0;
}

/* The file may be another start's by now. */
static void file_remove(const char *path, uint64_t number)
{
    Place p;
    if (place_read(path, &p) == 0 && p.number == number)
        unlink(path);
}

static int receive_all(const Launch *l, int *connections, Error *err)
{
    Place p = {.size = l->size};
    char line[MOST];
    int listener = socket_listen(&p.where, err);
    if (listener < 0)
        return -1;
    if (getrandom(&p.number, sizeof p.number, 0) != sizeof p.number)
        p.number = (uint64_t)getpid() ^ (uint64_t)(clock_seconds() * 1e9);
    snprintf(p.job, sizeof p.job, "%s", l->job);
    place_write(line, sizeof line, &p);
    int status = file_write(l->file, line, strlen(line), err);
    int temporary = status == 0 ? temporary_add(l->file, NULL, err) : -1;
    if (status == 0)
        status = wait_for_all(l, listener, p.number, connections, err);
    file_remove(l->file, p.number);
    temporary_forget(temporary);
    close(listener);
    return status;
}

/* The connection, or -1 with why not. */
static int go_to(const Launch *l, const Place *p, Error *err)
{
    Hello h = {.magic = MAGIC, .number = p->number, .rank = l->rank, .size = l->size};
    unsigned char answer = 0;
    int s = socket_connect(&p->where, 0, err);
    if (s < 0)
        return -1;
    if (socket_send(s, &h, sizeof h, err) == 0 && socket_receive(s, &answer, 1, 6 * ANSWER_SECONDS, err) == 0 && answer == WELCOME)
        return s;
    if (answer == TAKEN)
        error_set(err, "another process is rank %d already", l->rank);
    close(s);
    return -1;
}

static int look_for_first(const Launch *l, int *connections, Error *err)
{
    double end = clock_seconds() + l->seconds;
    Error why = {"there is no such file"};
    StartPlace own;
    start_place(&own);
    do {
        Place p;
        if (place_read(l->file, &p) < 0) {
            if (access(l->file, F_OK) == 0)
                error_set(&why, "it is no such file");
        } else if (strcmp(p.job, l->job) != 0 || p.size != l->size) {
            error_set(&why, "it is of the job '%s' of %d ranks", p.job, p.size);
        } else if ((connections[0] = go_to(l, &p, &why)) >= 0) {
            return 0;
        }
        usleep(PAUSE);
    } while (clock_seconds() < end);
    return error_set(err, "LMPIPE_MEET: %s: the first rank was not found in %g s: %s; rank %d (host %s) looks for it: step 0, in the start", l->file, l->seconds, why.text,
                     l->rank, own.host);
}

int meet(const Launch *l, int *connections, Error *err)
{
    for (int r = 0; r < l->size; r++)
        connections[r] = -1;
    return l->rank == 0 ? receive_all(l, connections, err) : look_for_first(l, connections, err);
}
