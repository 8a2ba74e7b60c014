/* What the two halves of the watch share: watch.c opens it and keeps the records, watch_thread.c listens and judges. */
#ifndef DIST_WATCH_INTERNAL_H
#define DIST_WATCH_INTERNAL_H

#include <pthread.h>
#include "dist/socket.h"
#include "dist/watch.h"

enum { RECORDS = 64, NAME = 16, START_SECONDS = 1000000 /* the start (start.h) is over before */ };

typedef struct Record {
    char group[NAME];
    CommKind kind;
    int peer;
    size_t bytes;
    int64_t sequence, step;
    double begin, end; /* end 0: still in it */
} Record;

/* What a rank says of itself: GONE and FAILED without the rest. The first rank passes FAILED on. */
typedef struct Status {
    enum { HERE, GONE, FAILED } what;
    int32_t kind, peer;
    char group[NAME];
    int64_t step, sequence;
    double waiting, since; /* seconds in the operation, 0: it computes; seconds since the last change of the two */
    double beside;         /* seconds in an operation of a lane beside one that computes; kind, peer and group are its own then */
} Status;

typedef struct Identity {
    char host[64];
    int64_t process;
    SocketAddress where; /* where it listens */
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
    int64_t in[WATCH_LANES]; /* the operation that a lane is in, by its number; 0: none */
    int on;                  /* the lane that the rank's own thread waits for, 0: none */
    bool gone;
    double changed, waited;  /* of the rank's own thread */
    double device_failed; /* when a device's library first told of a failure, 0: it has not; the thread's */
    double queued;    /* seconds for which a device has not finished an operation that the host is past; the thread's */
    pthread_t thread;
    bool running;
    int wake[2];      /* a pipe: something to read ends the thread */
    bool second_died;
    int second;       /* the rank that speaks where the first cannot: on another machine, where there is one */
    int *connection;  /* [size] of the first rank; others have theirs to it at 0, to the second and the second's to them; -1: none */
    Status *known;    /* [size] of the first rank: the last that was heard, and when */
    double *heard;
};

/* The thread of a rank that is a process, or of the first of threads: its argument is the watch. It ends when w->wake can be read, or the
 * process with the job. */
void *watch_thread(void *argument);
/* Tells all that listen to this rank: all to the first, which passes on that a rank has failed, and to the second. */
void watch_tell(Watch *w, int what);

#endif
