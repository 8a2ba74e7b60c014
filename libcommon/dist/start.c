#include "dist/start.h"

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/stop.h"

enum {
    OTHERS_SECONDS = 5, /* that a machine on which nobody is missed leaves the others to speak */
    LAST_SECONDS = 15,  /* after which a rank that should not speak ends all the same */
    STOPPED_SECONDS = 2 /* that a turn of the thread takes too long where this process was stopped itself, perhaps with the whole job */
};

/* A rank's process on this machine. */
typedef struct Found {
    int64_t process; /* 0: there is none */
    bool stopped, same; /* same: it runs this program */
    char program[32];
} Found;

struct Start {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool together, met, over;
    double seconds, begun, end; /* clock_seconds */
    int rank, size, local_size;
    const char *variable; /* of the environment, that says a process's rank */
    StartPlace *places;   /* [size] once met, */
    Comm *world;          /* and how others are told */
};

/* What tells the processes of a job from those of another that the same user runs here. */
static const char *const job_variables[] = {"LMPIPE_MEET", "LMPIPE_JOB", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID", "SLURM_JOB_ID", "SLURM_STEP_ID"};

void start_place(StartPlace *own)
{
    *own = (StartPlace){.process = getpid()};
    gethostname(own->host, sizeof own->host - 1);
}

/* A variable's value among the strings of an environment. */
static const char *value_in(const char *all, size_t size, const char *variable)
{
    size_t length = strlen(variable);
    for (const char *s = all; s < all + size; s += strlen(s) + 1)
        if (strncmp(s, variable, length) == 0 && s[length] == '=')
            return s + length + 1;
    return NULL;
}

/* The environment with which a process was started, a NUL behind it; NULL: it is nobody's that concerns us. */
static char *environment_of(const char *process, size_t *size)
{
    enum { MOST = 1 << 20 };
    char path[64];
    snprintf(path, sizeof path, "/proc/%.20s/environ", process);
    FILE *f = fopen(path, "r");
    if (!f)
        return NULL;
    char *all = memory_alloc(MOST + 1, 1);
    *size = fread(all, 1, MOST, f);
    all[*size] = 0;
    fclose(f);
    return all;
}

/* Which rank of this job a process is; -1: none. */
static int rank_of(const Start *s, const char *process)
{
    size_t size = 0;
    char *all = environment_of(process, &size);
    const char *value = all ? value_in(all, size, s->variable) : NULL;
    int rank = value ? atoi(value) : -1;
    for (size_t i = 0; i < sizeof job_variables / sizeof *job_variables && rank >= 0; i++) {
        const char *own = getenv(job_variables[i]), *its = value_in(all, size, job_variables[i]);
        if (!own != !its || (own && strcmp(own, its) != 0))
            rank = -1;
    }
    free(all);
    return rank < s->size ? rank : -1;
}

/* False: it is no more. */
static bool state_of(const char *process, Found *found)
{
    char path[64], line[512] = "", *end;
    struct stat own, its;
    snprintf(path, sizeof path, "/proc/%.20s/stat", process);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    char *begin = strchr(line, '(');
    if (!begin || !(end = strrchr(begin, ')')) || end[1] != ' ' || strchr("ZX", end[2]))
        return false;
    *found = (Found){.process = strtoll(process, NULL, 10), .stopped = end[2] == 'T' || end[2] == 't'};
    snprintf(found->program, sizeof found->program, "%.*s", (int)(end - begin - 1), begin + 1);
    snprintf(path, sizeof path, "/proc/%.20s/exe", process);
    found->same = stat("/proc/self/exe", &own) == 0 && stat(path, &its) == 0 && own.st_dev == its.st_dev && own.st_ino == its.st_ino;
    return true;
}

/* found[size]: a rank may have several processes, a shell and its child. */
static void look(const Start *s, Found *found)
{
    memset(found, 0, (size_t)s->size * sizeof *found);
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] < '0' || e->d_name[0] > '9')
            continue;
        Found one;
        int rank = rank_of(s, e->d_name);
        if (rank >= 0 && state_of(e->d_name, &one) && (one.same > found[rank].same || one.stopped > found[rank].stopped || found[rank].process == 0)) {
            one.same |= found[rank].same;
            found[rank] = one;
        }
    }
    if (d)
        closedir(d);
}

/* Should it be on this machine? */
static bool expected(const Start *s, int rank)
{
    return s->met ? strcmp(s->places[rank].host, s->places[s->rank].host) == 0 : s->local_size == s->size;
}

void start_name(const Start *s, int rank, char *text, size_t size)
{
    if (s && s->met)
        snprintf(text, size, "rank %d (host %s, process %" PRId64 ")", rank, s->places[rank].host, s->places[rank].process);
    else
        snprintf(text, size, "rank %d", rank);
}

/* One that is stopped, else one that is not there; -1: neither is here. */
static int culprit_of(const Start *s, const Found *found)
{
    int missing = -1;
    for (int r = 0; r < s->size; r++) {
        if (found[r].stopped)
            return r;
        if (missing < 0 && r != s->rank && !found[r].same && expected(s, r))
            missing = r;
    }
    return missing;
}

/* The first of this machine's ranks that are as they should be. */
static bool first_here(const Start *s, const Found *found)
{
    for (int r = 0; r < s->rank; r++)
        if (found[r].same && !found[r].stopped)
            return false;
    return true;
}

/* Somebody who was there at half-time has gone: the job is ending. */
static bool ending(const Start *s, const Found *before, const Found *now)
{
    for (int r = 0; r < s->size; r++)
        if (before[r].same && now[r].process == 0)
            return true;
    return false;
}

static void speak(const Start *s, const Found *found, int culprit)
{
    Error err;
    StartPlace own;
    char more[128];
    start_place(&own);
    double waited = clock_seconds() - s->begun;
    snprintf(more, sizeof more, "step 0, in the start; rank %d has waited %.1f s for the ranks to come together", s->rank, waited);
    if (culprit < 0)
        error_set(&err, "rank %d (host %s, process %" PRId64 ") waits in vain: %s, and sees none of this machine stopped or missing", s->rank, own.host, own.process, more);
    else if (s->met && found[culprit].process == 0)
        error_set(&err, "rank %d (host %s, process %" PRId64 ") has died: %s", culprit, own.host, s->places[culprit].process, more);
    else if (found[culprit].stopped)
        error_set(&err, "rank %d (host %s, process %" PRId64 ") does not answer: %s", culprit, own.host, found[culprit].process, more);
    else if (found[culprit].process)
        error_set(&err, "rank %d (host %s, process %" PRId64 ", which runs %s) has not come: %s", culprit, own.host, found[culprit].process, found[culprit].program, more);
    else
        error_set(&err, "rank %d (host %s) has not come: %s", culprit, own.host, more);
    message_failed(&err);
}

/* False: meanwhile this rank has ended in other ways. */
static bool wait_still(Start *s, int seconds)
{
    struct timespec until;
    int status = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&s->lock);
    while (!s->together && status == 0)
        status = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    bool ended = s->together;
    pthread_mutex_unlock(&s->lock);
    return !ended;
}

/* The end of a launcher's job is the launcher's, of others the connections', once this process has ended. */
static void end(Start *s, const Found *before)
{
    Found *now = memory_alloc((size_t)s->size, sizeof *now);
    look(s, now);
    int culprit = culprit_of(s, now);
    bool speaks = first_here(s, now) && !ending(s, before, now);
    int patience = !speaks ? LAST_SECONDS : culprit < 0 ? OTHERS_SECONDS + (s->rank < 10 ? s->rank : 10) : 0;
    if (patience > 0 && !wait_still(s, patience)) {
        free(now);
        return;
    }
    if (speaks) {
        speak(s, now, culprit);
        if (s->world && s->world->ops->tell)
            s->world->ops->tell(s->world);
    }
    _exit(STATUS_FAILED);
}

static void *start_thread(void *argument)
{
    Start *s = argument;
    Found *before = memory_zalloc((size_t)s->size, sizeof *before);
    bool looked = false;
    double last = s->begun;
    pthread_mutex_lock(&s->lock);
    while (!s->together && !s->over) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&s->changed, &s->lock, &until);
        double late = clock_seconds() - last - 1;
        last = clock_seconds();
        if (late > STOPPED_SECONDS) { /* nobody has kept it waiting meanwhile */
            s->begun += late;
            s->end += late;
        }
        if (!looked && clock_seconds() > (s->begun + s->end) / 2) {
            look(s, before);
            looked = true;
        }
        s->over = !s->together && clock_seconds() > s->end;
    }
    pthread_mutex_unlock(&s->lock);
    if (s->over)
        end(s, before);
    free(before);
    return NULL;
}

Start *start_open(const Launch *l, double seconds)
{
    Start *s = memory_zalloc(1, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->rank = l->rank;
    s->size = l->size;
    s->local_size = l->local_size;
    s->variable = l->variable;
    s->begun = clock_seconds();
    s->seconds = seconds;
    /* Ranks that meet in a file have a time-out of their own for that. */
    s->end = s->begun + seconds + (l->how == LAUNCH_MEET ? l->seconds : 0);
    if (pthread_create(&s->thread, NULL, start_thread, s) == 0)
        return s;
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
    return NULL;
}

void start_met(Start *s, Comm *world, const StartPlace *places)
{
    if (!s)
        return;
    StartPlace *copy = memory_alloc((size_t)s->size, sizeof *copy);
    memcpy(copy, places, (size_t)s->size * sizeof *copy);
    pthread_mutex_lock(&s->lock);
    s->places = copy;
    s->world = world;
    s->met = true;
    s->begun = clock_seconds();
    s->end = s->begun + s->seconds;
    pthread_mutex_unlock(&s->lock);
}

bool start_over(Start *s)
{
    if (!s)
        return false;
    pthread_mutex_lock(&s->lock);
    bool over = s->over;
    pthread_mutex_unlock(&s->lock);
    return over;
}

void start_close(Start *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->together = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->places);
    free(s);
}
