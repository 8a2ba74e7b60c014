#include "dist/pace.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include "base/memory.h"
#include "base/progress.h"

struct Pace {
    pthread_mutex_t lock;
    double rate, free; /* bytes a second; when the link has moved all so far, by clock_seconds */
};

int pace_open(Pace **p, Error *err)
{
    const char *text = getenv("LMPIPE_LINK");
    char *end;
    *p = NULL;
    if (!text || !*text)
        return 0;
    double rate = strtod(text, &end);
    if (*end || !(rate > 0))
        return error_set(err, "LMPIPE_LINK=%s: not a number of bytes a second", text);
    *p = memory_zalloc(1, sizeof **p);
    (*p)->rate = rate;
    pthread_mutex_init(&(*p)->lock, NULL);
    return 0;
}

void pace_close(Pace *p)
{
    if (!p)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void pace_take(Pace *p, size_t bytes)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    double now = clock_seconds();
    p->free = (p->free > now ? p->free : now) + (double)bytes / p->rate;
    double left = p->free - now;
    pthread_mutex_unlock(&p->lock);
    struct timespec rest = {.tv_sec = (time_t)left, .tv_nsec = (long)((left - (double)(time_t)left) * 1e9)};
    while (nanosleep(&rest, &rest) != 0)
        ;
}
