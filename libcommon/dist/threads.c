/* Ranks that are threads of one process. A collective is: everybody shows where its memory lies, all meet, each works on its
 * share of the elements for all, all meet again. */
#include "dist/internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

struct Team {
    int size, arrived;
    unsigned generation; /* of meetings */
    const void **shown;  /* [size] */
    Team *world, *next;  /* teams made by splitting hang on the world's list */
    /* The world's alone: */
    bool failed;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static Team *team_new(int size, Team *world)
{
    Team *t = memory_zalloc(1, sizeof *t);
    t->size = size;
    t->shown = memory_zalloc((size_t)size, sizeof *t->shown);
    t->world = world ? world : t;
    return t;
}

Team *team_open(int size)
{
    Team *t = team_new(size, NULL);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    return t;
}

void team_close(Team *world)
{
    pthread_mutex_destroy(&world->lock);
    pthread_cond_destroy(&world->changed);
    for (Team *t = world, *next; t; t = next) {
        next = t->next;
        free(t->shown);
        free(t);
    }
}

static int meet(Comm *c, Error *err)
{
    Team *t = c->state, *w = t->world;
    pthread_mutex_lock(&w->lock);
    unsigned generation = t->generation;
    if (++t->arrived == t->size) {
        t->arrived = 0;
        t->generation++;
        pthread_cond_broadcast(&w->changed);
    }
    while (t->generation == generation && !w->failed)
        pthread_cond_wait(&w->changed, &w->lock);
    bool met = t->generation != generation;
    pthread_mutex_unlock(&w->lock);
    return met ? 0 : error_set(err, "another rank has failed");
}

/* Shows `mine` to the others; they may read it until the next meeting. */
static int show(Comm *c, const void *mine, Error *err)
{
    Team *t = c->state;
    t->shown[c->rank] = mine;
    return meet(c, err);
}

static int threads_gather(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    Team *t = c->state;
    if (show(c, mine, err) < 0)
        return -1;
    for (int r = 0; r < c->size; r++)
        memcpy((char *)all + (size_t)r * bytes, t->shown[r], bytes);
    return meet(c, err);
}

/* Rank r adds up the r-th share of everybody's elements, in pieces that stay in the cache, and writes the sums back to all. */
static int threads_sum_f32(Comm *c, Stream *s, float *data, size_t n, Error *err)
{
    (void)s;
    enum { PIECE = 4096 };
    Team *t = c->state;
    if (show(c, data, err) < 0)
        return -1;
    size_t share = (n + (size_t)c->size - 1) / (size_t)c->size, begin = share * (size_t)c->rank, end = begin + share < n ? begin + share : n;
    float sum[PIECE];
    for (size_t at = begin; at < end; at += PIECE) {
        size_t m = end - at < PIECE ? end - at : PIECE;
        for (int r = 0; r < c->size; r++) {
            const float *x = (const float *)t->shown[r] + at;
            for (size_t i = 0; i < m; i++)
                sum[i] = r ? sum[i] + x[i] : x[i];
        }
        for (int r = 0; r < c->size; r++)
            memcpy((float *)(uintptr_t)t->shown[r] + at, sum, m * sizeof *sum);
    }
    return meet(c, err);
}

static int threads_split(Comm *c, int colour, Comm *out, Error *err)
{
    Team *t = c->state, *mine = NULL;
    int *colours = memory_alloc((size_t)c->size, sizeof *colours), size = 0, rank = 0, first = -1;
    Team **teams = memory_alloc((size_t)c->size, sizeof *teams);
    int status = threads_gather(c, &colour, colours, sizeof colour, err);
    for (int r = 0; r < c->size && status == 0; r++)
        if (colours[r] == colour) {
            first = first < 0 ? r : first;
            rank += r < c->rank;
            size++;
        }
    if (status == 0 && size > 1 && first == c->rank) {
        mine = team_new(size, t->world);
        pthread_mutex_lock(&t->world->lock);
        mine->next = t->world->next;
        t->world->next = mine;
        pthread_mutex_unlock(&t->world->lock);
    }
    if (status == 0)
        status = threads_gather(c, &mine, teams, sizeof mine, err);
    if (status == 0 && size > 1)
        *out = (Comm){.rank = rank, .size = size, .ops = c->ops, .state = teams[first]};
    else
        comm_one(out);
    free(colours);
    free(teams);
    return status;
}

static bool threads_failing(Comm *c)
{
    Team *w = ((Team *)c->state)->world;
    pthread_mutex_lock(&w->lock);
    bool first = !w->failed;
    w->failed = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return first;
}

static void threads_nothing(Comm *c)
{
    (void)c; /* the others know; team_close frees all teams */
}

void team_comm(Team *world, int rank, Comm *out)
{
    static const CommOps ops = {"threads", threads_gather, threads_sum_f32, threads_split, threads_failing, threads_nothing, threads_nothing};
    *out = (Comm){.rank = rank, .size = world->size, .ops = &ops, .state = world};
}
