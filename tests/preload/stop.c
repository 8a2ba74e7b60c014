/* The process of rank $STOP_RANK sends itself $STOP_SIGNAL (a number) in its $STOP_AT-th call of $STOP_IN: gethostname, which ranks call
 * while they come together, fsync or rename, which they call while they save, or logf, which a loss takes for each row. That of rank $SLOW_RANK
 * sleeps for $SLOW_MICROSECONDS in each call of the last. */
#include <dlfcn.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "rank.h"

static void called(const char *function)
{
    static int calls;
    const char *in = getenv("STOP_IN");
    if (in && strcmp(in, function) == 0 && rank() == number("STOP_RANK") && __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) == number("STOP_AT"))
        kill(getpid(), number("STOP_SIGNAL"));
}

int gethostname(char *name, size_t size)
{
    int (*real)(char *, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "gethostname");
    called("gethostname");
    return real(name, size);
}

int fsync(int descriptor)
{
    int (*real)(int);
    *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    called("fsync");
    return real(descriptor);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);
    *(void **)&real = dlsym(RTLD_NEXT, "rename");
    called("rename");
    return real(from, to);
}

float logf(float x)
{
    static float (*real)(float);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "logf");
    called("logf");
    if (rank() >= 0 && rank() == number("SLOW_RANK"))
        usleep((useconds_t)number("SLOW_MICROSECONDS"));
    return real(x);
}
