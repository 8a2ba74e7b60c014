#include "base/progress.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"

struct Progress {
    const char *unit;
    uint64_t total, done;
    bool on, terminal, drawn;
    double begin, last;
    char note[80];
    pthread_mutex_t lock;
};

double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

Progress *progress_begin(const Common *common, const char *unit, uint64_t total)
{
    Progress *p = memory_zalloc(1, sizeof *p);
    *p = (Progress){.unit = unit, .total = total, .terminal = isatty(STDERR_FILENO) == 1, .begin = clock_seconds(),
                    .lock = PTHREAD_MUTEX_INITIALIZER};
    p->on = !common->quiet && (strcmp(common->progress, "always") == 0 ||
                               (p->terminal && strcmp(common->progress, "auto") == 0));
    p->last = p->begin;
    return p;
}

static void amount(char *text, size_t size, uint64_t n, const char *unit)
{
    if (strcmp(unit, "bytes") == 0)
        snprintf(text, size, "%.1f MB", (double)n / 1e6);
    else
        snprintf(text, size, "%" PRIu64 " %s", n, unit);
}

static void draw(Progress *p, double now, bool last)
{
    char done[48], share[32] = "", left[32] = "";
    double seconds = now - p->begin;
    amount(done, sizeof done, p->done, p->unit);
    if (p->total > 0) {
        double f = (double)p->done / (double)p->total;
        snprintf(share, sizeof share, " %3.0f %%", 100 * (f > 1 ? 1 : f));
        if (!last && f > 0)
            snprintf(left, sizeof left, ", %.0f s left", seconds * (1 - f) / f);
    }
    fprintf(stderr, "%s  %s%s, %.0f s%s%s%s%s", p->terminal ? "\r" : "", done, share, seconds, left, p->note[0] ? ", " : "",
            p->note, p->terminal ? "\033[K" : "\n");
    fflush(stderr);
    message_bar(p->terminal);
    p->drawn = true;
    p->last = now;
}

void progress_set(Progress *p, uint64_t done)
{
    if (!p || !p->on)
        return;
    pthread_mutex_lock(&p->lock);
    p->done = done;
    double now = clock_seconds();
    if (now - p->last >= (p->terminal ? 0.2 : 10))
        draw(p, now, false);
    pthread_mutex_unlock(&p->lock);
}

void progress_note(Progress *p, const char *format, ...)
{
    if (!p || !p->on)
        return;
    pthread_mutex_lock(&p->lock);
    va_list args;
    va_start(args, format);
    vsnprintf(p->note, sizeof p->note, format, args);
    va_end(args);
    pthread_mutex_unlock(&p->lock);
}

void progress_end(Progress *p)
{
    if (!p)
        return;
    if (p->on && (p->drawn || !p->terminal)) {
        draw(p, clock_seconds(), true);
        if (p->terminal)
            fputc('\n', stderr);
        message_bar(false);
    }
    free(p);
}
