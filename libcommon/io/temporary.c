#include "io/temporary.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"

/* A signal handler may look at these at any time: a path never moves or is freed, and `live` is set after and cleared before it
 * changes. What belongs to the process, not to a caller, like the signals themselves. */
enum { SLOTS = 1024 };
static struct {
    char path[PATH_MAX];
    char *target;
    volatile sig_atomic_t live;
    bool taken;
} slots[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool installed;

static void remove_all(void)
{
    for (int i = 0; i < SLOTS; i++)
        if (slots[i].live)
            unlink(slots[i].path);
}

static void on_signal(int signal)
{
    remove_all();
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigaction(signal, &standard, NULL);
    raise(signal); /* the process ends by the signal, as its parent expects */
}

/* Signals that somebody ignores (nohup) or handles (a training run) keep their meaning. */
static void install(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGPIPE, SIGXFSZ, SIGXCPU};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct sigaction old, action = {.sa_handler = on_signal};
        sigemptyset(&action.sa_mask);
        if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            sigaction(ends[i], &action, NULL);
    }
    memory_exhausted_call(remove_all);
    installed = true;
}

int temporary_add(const char *path, const char *target, Error *err)
{
    if (strlen(path) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return error_set(err, "%s:", path);
    }
    int number = -1;
    bool twice = false;
    pthread_mutex_lock(&lock);
    if (!installed)
        install();
    for (int i = 0; i < SLOTS; i++) {
        if (!slots[i].taken)
            number = number < 0 ? i : number;
        else if (target && slots[i].target && strcmp(slots[i].target, target) == 0)
            twice = true;
    }
    if (number >= 0 && !twice) {
        strcpy(slots[number].path, path);
        slots[number].target = target ? memory_string(target) : NULL;
        slots[number].taken = true;
        slots[number].live = 1;
    }
    pthread_mutex_unlock(&lock);
    if (twice)
        return error_set(err, "%s: is the file of two outputs", target);
    return number < 0 ? error_set(err, "%s: too many unfinished files", path) : number;
}

void temporary_forget(int number)
{
    if (number < 0)
        return;
    pthread_mutex_lock(&lock);
    slots[number].live = 0;
    slots[number].taken = false;
    free(slots[number].target);
    slots[number].target = NULL;
    pthread_mutex_unlock(&lock);
}
