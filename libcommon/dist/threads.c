/* Ranks that are threads of one process. A collective is: everybody shows where its memory lies, all meet, each works on its
 * share of the elements for all, all meet again. */
#include "dist/internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

/* A send or a receive that waits for its counterpart, or for its owner to hear that it is done. */
typedef struct Post {
    bool send, met, done; /* met: its counterpart is there, and the bytes move */
    int from, to, tag;
    void *data;
    size_t bytes;
    struct Post *next;
} Post;

struct Team {
    int size, arrived;
    unsigned generation; /* of meetings */
    const void **shown;  /* [size] */
    const void **from;   /* [size][size]: where each rank finds what it adds up */
    Post *posts;         /* without counterpart, oldest first; under the world's lock */
    Team *world, *next;  /* teams made by splitting hang on the world's list */
    /* The world's alone: */
    Post *spare;         /* for the next messages */
    bool failed;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static Team *team_new(int size, Team *world)
{
    Team *t = memory_zalloc(1, sizeof *t);
    t->size = size;
    t->shown = memory_zalloc((size_t)size, sizeof *t->shown);
    t->from = memory_zalloc((size_t)size * (size_t)size, sizeof *t->from);
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

static void posts_free(Post *p)
{
    for (Post *after; p; p = after) {
        after = p->next;
        free(p);
    }
}

void team_close(Team *world)
{
    pthread_mutex_destroy(&world->lock);
    pthread_cond_destroy(&world->changed);
    posts_free(world->spare);
    for (Team *t = world, *next; t; t = next) {
        next = t->next;
        posts_free(t->posts);
        free(t->shown);
        free(t->from);
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

static int threads_all_gather(Comm *c, Stream *stream, const void *mine, void *all, size_t bytes, Error *err)
{
    (void)stream;
    Team *t = c->state;
    if (show(c, mine, err) < 0)
        return -1;
    for (int r = 0; r < c->size; r++) {
        char *to = (char *)all + (size_t)r * bytes;
        if (t->shown[r] != to) /* this rank's own may lie in its place */
            memcpy(to, t->shown[r], bytes);
    }
    return meet(c, err);
}

static int threads_gather_host(Comm *c, const void *mine, void *all, size_t bytes, Error *err)
{
    return threads_all_gather(c, NULL, mine, all, bytes, err);
}

/* Elements begin … begin+n of what everybody shows, to a place that nobody else reads. */
static void reduce_shown(Comm *c, Dtype t, void *to, size_t begin, size_t n)
{
    Team *team = c->state;
    const void **from = team->from + c->rank * c->size;
    for (int r = 0; r < c->size; r++)
        from[r] = (const char *)team->shown[r] + begin * dtype_size(t);
    reduce_ranks(t, to, from, c->size, n);
}

static int threads_reduce_scatter(Comm *c, Stream *s, Dtype t, const void *all, void *mine, size_t n_each, Error *err)
{
    (void)s;
    if (show(c, all, err) < 0)
        return -1;
    reduce_shown(c, t, mine, (size_t)c->rank * n_each, n_each);
    return meet(c, err);
}

/* Rank r adds up the r-th share of everybody's elements and writes the sums back to all. */
static int threads_sum(Comm *c, Stream *s, Dtype t, void *data, size_t n, Error *err)
{
    (void)s;
    Team *team = c->state;
    if (show(c, data, err) < 0)
        return -1;
    size_t begin, m, size = dtype_size(t);
    comm_share(n, c->size, c->rank, &begin, &m);
    char *mine = (char *)data + begin * size;
    reduce_shown(c, t, mine, begin, m);
    for (int r = 0; r < c->size; r++)
        if (r != c->rank)
            memcpy((char *)(uintptr_t)team->shown[r] + begin * size, mine, m * size);
    return meet(c, err);
}

static Post *post_take(Team *world)
{
    pthread_mutex_lock(&world->lock);
    Post *p = world->spare;
    if (p)
        world->spare = p->next;
    pthread_mutex_unlock(&world->lock);
    return p ? p : memory_alloc(1, sizeof *p);
}

/* Whichever of a send and its receive is posted second copies, so neither end waits for the other to wait. */
static int post(Comm *c, bool send, void *data, size_t bytes, int peer, int tag, uintptr_t *handle, Error *err)
{
    Team *t = c->state, *w = t->world;
    Post *mine = post_take(w);
    *mine = (Post){.send = send, .from = send ? c->rank : peer, .to = send ? peer : c->rank, .tag = tag, .data = data, .bytes = bytes};
    *handle = (uintptr_t)mine;
    pthread_mutex_lock(&w->lock);
    Post **end = &t->posts, *other = NULL;
    for (; *end && !other; end = other ? end : &(*end)->next)
        if ((*end)->send != send && (*end)->from == mine->from && (*end)->to == mine->to && (*end)->tag == tag) {
            other = *end;
            *end = other->next;
            other->met = true;
        }
    size_t others = other ? other->bytes : bytes; /* which its owner frees once it is done */
    if (!other)
        *end = mine;
    pthread_mutex_unlock(&w->lock);
    if (other) {
        /* Nobody else sees either of them now, and the memory of both is lent until they are waited for. */
        if (others == bytes)
            memcpy(send ? other->data : data, send ? data : other->data, bytes);
        pthread_mutex_lock(&w->lock);
        mine->done = other->done = true;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
    }
    if (others == bytes)
        return 0;
    return error_set(err, "%s: rank %d sends other than the %zu bytes that rank %d receives", c->name, send ? c->rank : peer, send ? others : bytes, send ? peer : c->rank);
}

static int threads_send(Comm *c, Stream *s, const void *data, size_t bytes, int to, int tag, uintptr_t *handle, Error *err)
{
    (void)s;
    return post(c, true, (void *)(uintptr_t)data, bytes, to, tag, handle, err);
}

static int threads_recv(Comm *c, Stream *s, void *data, size_t bytes, int from, int tag, uintptr_t *handle, Error *err)
{
    (void)s;
    return post(c, false, data, bytes, from, tag, handle, err);
}

static int threads_wait(Comm *c, Stream *s, uintptr_t handle, Error *err)
{
    (void)s;
    Team *w = ((Team *)c->state)->world;
    Post *p = (Post *)handle;
    pthread_mutex_lock(&w->lock);
    while (!p->done && (p->met || !w->failed))
        pthread_cond_wait(&w->changed, &w->lock);
    bool done = p->done;
    if (done) { /* one that is not hangs on the team, which frees it */
        p->next = w->spare;
        w->spare = p;
    }
    pthread_mutex_unlock(&w->lock);
    return done ? 0 : error_set(err, "another rank has failed");
}

static int threads_split(Comm *c, int colour, Comm *out, Error *err)
{
    Team *t = c->state, *mine = NULL;
    int *colours = memory_alloc((size_t)c->size, sizeof *colours), size = 0, rank = 0, first = -1;
    Team **teams = memory_alloc((size_t)c->size, sizeof *teams);
    int status = threads_gather_host(c, &colour, colours, sizeof colour, err);
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
        status = threads_gather_host(c, &mine, teams, sizeof mine, err);
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
    static const CommOps ops = {"threads", threads_gather_host, threads_all_gather, threads_reduce_scatter, threads_sum, threads_send, threads_recv,
                                threads_wait, threads_split, threads_failing, threads_nothing, threads_nothing, NULL, NULL};
    *out = (Comm){.rank = rank, .size = world->size, .name = "world", .threads = true, .gone = -1, .ops = &ops, .state = world};
}
