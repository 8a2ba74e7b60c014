#include "dist/internal.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/plugin.h"
#include "base/stop.h"
#include "base/thread.h"
#include "dist/pace.h"
#include "dist/side.h"
#include "dist/start.h"
#include "dist/watch.h"

enum { START_SECONDS = 60 }; /* that ranks have to come together where the time-out is shorter */

static const char *const names[GRID_GROUPS] = {"tp", "cp", "pp", "dp", "data", "embed", "pp back"};

int grid_launched(void)
{
    Launch l;
    Error unused;
    return launch_read(&l, &unused) < 0 ? 1 : l.size;
}

int grid_launched_here(void)
{
    Launch l;
    Error unused;
    return launch_read(&l, &unused) < 0 ? 1 : l.local_size > 0 ? l.local_size : l.size;
}

static bool failed(int status)
{
    return status != STATUS_DONE && status != STATUS_STOPPED;
}

/* The whole grid for a job of `size` ranks; 0: as many as the extents say. */
static int extents(Grid *g, const int extent[GRID_DIMENSIONS], int size, Error *err)
{
    int64_t others = 1, all;
    for (int d = 0; d < GRID_DIMENSIONS; d++) {
        g->extent[d] = extent[d];
        others *= d == GRID_DP ? 1 : extent[d];
    }
    if (g->extent[GRID_DP] == 0)
        g->extent[GRID_DP] = size > others ? (int)(size / others) : 1;
    all = others * g->extent[GRID_DP];
    if (size > 1 && all != size)
        return error_set(err, "the job has %d ranks, the grid --tp %d --cp %d --pp %d --dp %d has %" PRId64, size, g->extent[GRID_TP],
                         g->extent[GRID_CP], g->extent[GRID_PP], g->extent[GRID_DP], all);
    g->size = (int)all;
    return 0;
}

/* Ranks of the same colour share group i; its size, to spare groups of one a collective. */
static int group_colour(const Grid *g, int i, int *size)
{
    int stride[GRID_DIMENSIONS], next = 1;
    for (int d = 0; d < GRID_DIMENSIONS; next *= g->extent[d++])
        stride[d] = next;
    int stages = g->extent[GRID_PP], stage = g->place[GRID_PP];
    switch (i) {
    case GRID_DATA:
        *size = g->extent[GRID_CP] * g->extent[GRID_DP];
        return g->rank - g->place[GRID_CP] * stride[GRID_CP] - g->place[GRID_DP] * stride[GRID_DP];
    case GRID_EMBED: /* stages in between stay alone */
        *size = stages > 1 ? 2 : 1;
        return stage == 0 || stage == stages - 1 ? g->rank - stage * stride[GRID_PP] : g->rank;
    case GRID_PP_BACK:
        *size = stages;
        return g->rank - stage * stride[GRID_PP];
    default:
        *size = g->extent[i];
        return g->rank - g->place[i] * stride[i];
    }
}

static int groups_open(Grid *g, Error *err)
{
    int stride = 1, status = 0;
    for (int d = 0; d < GRID_DIMENSIONS; stride *= g->extent[d++])
        g->place[d] = g->rank / stride % g->extent[d];
    for (int i = 0; i < GRID_GROUPS && status == 0; i++) {
        int size, colour = group_colour(g, i, &size);
        if (size > 1)
            status = comm_split(&g->world, colour, names[i], &g->group[i], err);
    }
    return status;
}

/* Threads beside the computation end before what they use does. Processes do not wait for them: nobody frees them of what they wait for. */
static void abandon(Grid *g)
{
    if (g->threads)
        g->world.ops->failing(&g->world);
    for (int i = 0; i < GRID_SIDES && g->threads; i++)
        side_end(g->sides[i]);
    watch_close(g, true);
    g->world.ops->failing(&g->world);
    for (int i = 0; i < GRID_GROUPS; i++)
        g->group[i].ops->abandon(&g->group[i]);
    g->world.ops->abandon(&g->world);
}

int64_t grid_sent(const Grid *g, int group, CommKind kind)
{
    return (group == GRID_GROUPS ? &g->world : &g->group[group])->count[kind].bytes;
}

const char *grid_group_name(int group)
{
    return group == GRID_GROUPS ? "world" : names[group];
}

char *grid_sent_key(int group, CommKind kind)
{
    char *key = memory_format("sent_%s_%s", grid_group_name(group), comm_kind_name(kind));
    for (char *c = key; *c; c++)
        *c = *c == ' ' || *c == '-' ? '_' : *c;
    return key;
}

static void start_end(Grid *g)
{
    start_close(g->start);
    g->start = NULL;
}

int grid_watch(Grid *g, double timeout, const char *folder, Error *err)
{
    int status = watch_open(g, timeout, folder, err);
    if (status == 0)
        start_end(g);
    return status;
}

void grid_step(Grid *g, int64_t step)
{
    watch_step(g->watch, step);
}

double grid_waited(Grid *g)
{
    return watch_waited(g->watch);
}

const char *grid_host(const Grid *g, int rank)
{
    return watch_host(g->watch, rank);
}

int grid_failed(Grid *g, const Error *err)
{
    if (g->world.agreed && strstr(err->text, g->world.agreed->text)) {
        g->agreed = true;
        return g->rank == 0 ? message_failed(err) : STATUS_FAILED;
    }
    bool tells = g->world.ops->failing(&g->world) && !start_over(g->start);
    if (tells && g->start && g->world.gone >= 0) {
        Error died;
        char name[128];
        start_name(g->start, g->world.gone, name, sizeof name);
        error_set(&died, "%s has died: step 0, in the start", name);
        message_failed(&died);
    } else if (tells) {
        message_failed(err);
    }
    abandon(g);
    return STATUS_FAILED;
}

/* What ranks that are processes tell one another first. Those of one machine that see the same GPUs take them apart. */
typedef struct Seat {
    StartPlace place;
    char gpus[192];
    int extent[GRID_DIMENSIONS]; /* as its command says */
} Seat;

static Seat *seats_gather(Grid *g, const int extent[GRID_DIMENSIONS], Error *err)
{
    const char *gpus = getenv("CUDA_VISIBLE_DEVICES");
    Seat mine = {.extent = {0}}, *all = memory_zalloc((size_t)g->world.size, sizeof *all);
    StartPlace *places = memory_alloc((size_t)g->world.size, sizeof *places);
    start_place(&mine.place);
    snprintf(mine.gpus, sizeof mine.gpus, "%s", gpus ? gpus : "all");
    memcpy(mine.extent, extent, sizeof mine.extent);
    int status = comm_gather_host(&g->world, &mine, all, sizeof mine, err);
    for (int r = 0; r < g->world.size; r++)
        places[r] = all[r].place;
    if (status == 0)
        start_met(g->start, &g->world, places);
    free(places);
    if (status == 0)
        return all;
    free(all);
    return NULL;
}

static void seat_take(Grid *g, const Seat *all)
{
    const Seat *mine = &all[g->rank];
    g->local_rank = g->local_size = g->gpu = 0;
    for (int r = 0; r < g->world.size; r++) {
        bool here = strcmp(all[r].place.host, mine->place.host) == 0;
        g->local_size += here;
        g->local_rank += here && r < g->rank;
        g->gpu += here && r < g->rank && strcmp(all[r].gpus, mine->gpus) == 0;
    }
}

/* Do all ranks' commands name one grid? */
static int seats_agree(const Grid *g, const Seat *all, Error *err)
{
    for (int r = 1; r < g->world.size; r++) {
        const int *e = all[r].extent, *first = all[0].extent;
        if (memcmp(e, first, sizeof all[r].extent) != 0)
            return error_set(err, "rank %d (host %s, process %" PRId64 ") was started with --tp %d --cp %d --pp %d --dp %d, rank 0 with --tp %d --cp %d --pp %d --dp %d: step 0, in the start", r,
                             all[r].place.host, all[r].place.process, e[GRID_TP], e[GRID_CP], e[GRID_PP], e[GRID_DP], first[GRID_TP], first[GRID_CP], first[GRID_PP], first[GRID_DP]);
    }
    return 0;
}

/* One rank from its world to its exit status. */
static int rank_run(Grid *g, int (*work)(void *, Grid *), void *context)
{
    Error error;
    for (int i = 0; i < GRID_GROUPS; i++)
        comm_one(&g->group[i]);
    int status = pace_open(&g->pace, &error);
    g->world.pace = g->pace;
    if (status == 0)
        status = groups_open(g, &error);
    status = status == 0 ? work(context, g) : grid_failed(g, &error);
    if (failed(status) && !g->agreed)
        abandon(g);
    watch_close(g, false);
    for (int i = 0; i < GRID_GROUPS; i++)
        comm_close(&g->group[i]);
    comm_close(&g->world);
    pace_close(g->pace);
    return status;
}

void grid_one(Grid *g)
{
    *g = (Grid){.size = 1, .local_size = 1};
    comm_one(&g->world);
    for (int d = 0; d < GRID_DIMENSIONS; d++)
        g->extent[d] = 1;
    for (int i = 0; i < GRID_GROUPS; i++)
        comm_one(&g->group[i]);
}

typedef struct RankThread {
    Grid grid;
    int (*work)(void *, Grid *);
    void *context;
    int status;
    pthread_t id;
} RankThread;

static void *rank_thread(void *argument)
{
    RankThread *r = argument;
    r->status = rank_run(&r->grid, r->work, r->context);
    return NULL;
}

static int threads_run(const Grid *like, int (*work)(void *, Grid *), void *context, Error *err)
{
    Team *world = team_open(like->size);
    RankThread *ranks = memory_zalloc((size_t)like->size, sizeof *ranks);
    int started = 0, status = 0;
    memory_threads();
    for (; started < like->size; started++) {
        RankThread *r = &ranks[started];
        *r = (RankThread){.grid = *like, .work = work, .context = context};
        r->grid.rank = r->grid.local_rank = r->grid.gpu = started;
        r->grid.local_size = like->size;
        r->grid.threads = true;
        team_comm(world, started, &r->grid.world);
        if (pthread_create(&r->id, NULL, rank_thread, r) != 0) {
            status = error_set(err, "cannot start rank %d of %d as a thread", started, like->size);
            r->grid.world.ops->failing(&r->grid.world);
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        pthread_join(ranks[i].id, NULL);
        status = status ? status : ranks[i].status;
    }
    team_close(world);
    free(ranks);
    return status;
}

static int world_open(Grid *g, const Launch *l, Error *err)
{
    if (l->how == LAUNCH_MEET)
        return link_open(l, &g->world, err);
    MpiOpen open = (MpiOpen)(uintptr_t)plugin_symbol("MPI", "LMPIPE_MPI", "liblmpipe-mpi.so", "mpi_open", true, err);
    return open ? open(&g->world, err) : error_prefix(err, "this process is one of %d that a launcher started", l->size);
}

/* This process is a rank. */
static int process_run(Grid *g, const Launch *l, const int extent[GRID_DIMENSIONS], int (*work)(void *, Grid *), void *context, Error *err)
{
    if (world_open(g, l, err) < 0)
        return -1;
    g->rank = g->world.rank;
    Seat *seats = seats_gather(g, extent, err);
    if (!seats)
        return grid_failed(g, err);
    int status = seats_agree(g, seats, err);
    seat_take(g, seats);
    free(seats);
    if (status < 0 || extents(g, extent, g->world.size, err) < 0) {
        /* All ranks fail alike. The first says why, and none leaves before that: a launcher ends the job with the first that does. */
        Error unused;
        double met = 0;
        if (g->rank == 0)
            message_failed(err);
        comm_sum_host(&g->world, &met, 1, &unused);
        comm_close(&g->world);
        return STATUS_FAILED;
    }
    return rank_run(g, work, context);
}

int grid_run(const int extent[GRID_DIMENSIONS], int (*work)(void *context, Grid *grid), void *context, Error *err)
{
    return grid_run_within(extent, 0, work, context, err);
}

/* What CUDA reads when a rank among several opens its GPU. Set before there are threads: they read the environment, which may move. */
static void environment_set(void)
{
    /* A kernel loaded at its first launch waits until the GPU is idle; a receive that waits on the GPU for a sender, which loads a kernel
     * itself, would never end. */
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    /* Streams beyond these share a queue of the GPU, where one waits for what stands before it of another; NCCL makes two a group. */
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
}

int grid_run_within(const int extent[GRID_DIMENSIONS], double seconds, int (*work)(void *context, Grid *grid), void *context, Error *err)
{
    Grid g;
    Launch l;
    grid_one(&g);
    if (launch_read(&l, err) < 0)
        return -1;
    if (l.how != LAUNCH_ALONE) {
        environment_set();
        if (seconds > 0)
            g.start = start_open(&l, l.seconds > 0 && getenv("LMPIPE_MEET_TIMEOUT") ? l.seconds : seconds < START_SECONDS ? START_SECONDS : seconds);
        int status = process_run(&g, &l, extent, work, context, err);
        start_end(&g);
        return status;
    }
    if (extents(&g, extent, 0, err) < 0)
        return -1;
    if (g.size == 1)
        return rank_run(&g, work, context);
    environment_set();
    return threads_run(&g, work, context, err);
}

static int nccl_use(Grid *g, Device *d, Error *err)
{
    NcclWrap wrap = (NcclWrap)(uintptr_t)plugin_symbol("NCCL", "LMPIPE_NCCL", "liblmpipe-nccl.so", "nccl_wrap", false, err);
    int status = wrap ? 0 : -1;
    for (int i = 0; i < GRID_GROUPS && status == 0; i++) {
        if (g->group[i].size == 1)
            continue;
        watch_begin(g->watch, 0, names[i], COMM_START, 0, -1);
        status = wrap(&g->group[i], d, i == GRID_PP ? 1 : i == GRID_PP_BACK ? -1 : 0, err);
        watch_end(g->watch, 0);
    }
    return status;
}

Device *grid_device(Grid *g, const char *name, int threads, Error *err)
{
    if (g->threads)
        threads = 1;
    else if (threads == 0 && g->local_size > 1)
        threads = thread_default_count() / g->local_size > 1 ? thread_default_count() / g->local_size : 1;
    Device *d = device_open_index(name, g->gpu, threads, g->rank == 0, err);
    if (!d)
        return NULL;
    double hosts = d->is_host;
    int status = comm_sum_host(&g->world, &hosts, 1, err);
    if (status == 0 && hosts > 0 && hosts < g->size)
        status = error_set(err, "%d of %d ranks have no GPU; say --device cpu or start fewer ranks", (int)hosts, g->size);
    if (status == 0 && !d->is_host && g->size > 1)
        status = nccl_use(g, d, err);
    if (status < 0) {
        device_close(d);
        return NULL;
    }
    return d;
}
