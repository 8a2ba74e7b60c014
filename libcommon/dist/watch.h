/* Watching a job: every rank remembers its last operations (a flight recorder), and a thread of its own tells the first rank twice
 * a second what it is doing. Who dies, or keeps the others waiting for longer than allowed, is named once with its host, step and operation,
 * and the job ends. Ranks that are threads share memory instead of connections. */
#ifndef DIST_WATCH_H
#define DIST_WATCH_H

#include "dist/comm.h"

typedef struct Watch Watch;

/* timeout: seconds that a rank may wait in one operation. folder: where flight-RANK.jsonl is written when the job is ended, NULL:
 * nowhere. A collective; the grid's groups are watched from then on. */
int watch_open(Grid *g, double timeout, const char *folder, Error *err);
/* This rank leaves. failed: it has said itself why, and the other processes end too. */
void watch_close(Grid *g, bool failed);

/* Around whatever may wait for other ranks; w may be NULL. lane: 0 the rank's own thread, else one of those beside it (side.h). peer: of one
 * rank alone, else -1. */
enum { WATCH_LANES = 3 };
void watch_begin(Watch *w, int lane, const char *group, CommKind kind, size_t bytes, int peer);
void watch_end(Watch *w, int lane);
/* Around the waiting of the rank's own thread for what a lane beside it does. */
void watch_blocked(Watch *w, int lane);
void watch_unblocked(Watch *w);
void watch_step(Watch *w, int64_t step);
/* Seconds of the rank's own thread in operations since the last call. */
double watch_waited(Watch *w);
const char *watch_host(const Watch *w, int rank);

#endif
