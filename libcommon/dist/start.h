/* The time before the watch (watch.h): ranks that are processes find one another and make their groups. Who does not come, or hangs,
 * keeps the others waiting where nobody hears them, in MPI's start most of all. A thread looks for it among this machine's processes
 * when the time is over, names it, and ends this process and so the job. */
#ifndef DIST_START_H
#define DIST_START_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "dist/internal.h"

typedef struct Start Start;

/* What ranks tell one another when they have met. */
typedef struct StartPlace {
    char host[64];
    int64_t process;
} StartPlace;
void start_place(StartPlace *own);

/* seconds: that the ranks have to come together; NULL where no thread can be had. */
Start *start_open(const Launch *l, double seconds);
/* They have met: they have the time again for what is left. places[size] is copied. s may be NULL, here and below. */
void start_met(Start *s, Comm *world, const StartPlace *places);
/* The time is over: the thread says why, of this rank or another, and nobody else should. */
bool start_over(Start *s);
/* "rank 1 (host a, process 7)", as far as it is known. */
void start_name(const Start *s, int rank, char *text, size_t size);
/* The watch is open, or the rank ends. */
void start_close(Start *s);

#endif
