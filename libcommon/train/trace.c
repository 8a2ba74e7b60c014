#include "train/trace.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/progress.h"
#include "io/json.h"
#include "io/stream.h"
#include "train/pipeline.h"

int trace_begin(Trace *t, Grid *g, Error *err)
{
    double here = 0;
    int status = comm_sum_host(&g->world, &here, 1, err);
    t->count = 0;
    t->begin = clock_seconds();
    return status;
}

void trace_add(Trace *t, TraceKind kind, int chunk, int64_t micro_batch, double begin, double end)
{
    t->events = memory_grow(t->events, &t->capacity, t->count + 1, sizeof *t->events);
    t->events[t->count++] = (TraceEvent){begin - t->begin, end - t->begin, micro_batch, (int32_t)kind, chunk};
}

void trace_close(Trace *t)
{
    free(t->events);
    *t = (Trace){0};
}

/* Where a rank stands. */
static void places(const Grid *g, int rank, int place[GRID_DIMENSIONS])
{
    for (int d = 0; d < GRID_DIMENSIONS; rank /= g->extent[d++])
        place[d] = rank % g->extent[d];
}

/* The ranks of a stage are threads beside one another. */
static void write_rank(Buffer *b, const Grid *g, int rank, const TraceEvent *events, int64_t count)
{
    static const char *const names[] = {"F", "B", "wait for "}, *const categories[] = {"forward", "backward", "wait"};
    static const char *const colours[] = {"thread_state_running", "thread_state_runnable", "grey"};
    int at[GRID_DIMENSIONS];
    places(g, rank, at);
    int beside = g->extent[GRID_TP] * g->extent[GRID_CP], thread = at[GRID_PP] * beside + at[GRID_CP] * g->extent[GRID_TP] + at[GRID_TP];
    buffer_format(b, "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"stage %d", at[GRID_DP], thread, at[GRID_PP]);
    if (beside > 1)
        buffer_format(b, ", tp %d, cp %d", at[GRID_TP], at[GRID_CP]);
    buffer_string(b, "\"}},\n");
    for (int64_t i = 0; i < count; i++) {
        const TraceEvent *e = &events[i];
        buffer_format(b, "{\"name\":\"%s%" PRId64 "\",\"cat\":\"%s\",\"cname\":\"%s\",\"ph\":\"X\",\"ts\":%.1f,\"dur\":%.1f,\"pid\":%d,\"tid\":%d,\"args\":{\"micro_batch\":%" PRId64 ",\"chunk\":%d}},\n",
                      names[e->kind], e->micro_batch, categories[e->kind], colours[e->kind], e->begin * 1e6, (e->end - e->begin) * 1e6, at[GRID_DP],
                      thread, e->micro_batch, e->chunk);
    }
}

/* Of pipeline number `dp`. */
static double idle_over_busy(const Grid *g, int dp, const TraceEvent *events, const double *counts, int64_t room)
{
    double first = INFINITY, last = 0, busy = 0;
    int ranks = 0;
    for (int r = 0; r < g->size; r++) {
        int at[GRID_DIMENSIONS];
        places(g, r, at);
        if (at[GRID_DP] != dp)
            continue;
        ranks++;
        for (int64_t i = 0; i < (int64_t)counts[r]; i++) {
            const TraceEvent *e = &events[r * room + i];
            if (e->kind == TRACE_WAIT)
                continue;
            first = fmin(first, e->begin);
            last = fmax(last, e->end);
            busy += e->end - e->begin;
        }
    }
    return busy > 0 ? ranks * (last - first) / busy - 1 : 0;
}

int trace_write(Trace *t, Grid *g, const char *path, int64_t step, int chunks, int64_t micro_batches, double *bubble, Error *err)
{
    double mine = (double)t->count, *counts = memory_alloc((size_t)g->size, sizeof *counts);
    int status = comm_gather_host(&g->world, &mine, counts, sizeof mine, err);
    int64_t room = 1;
    for (int r = 0; r < g->size && status == 0; r++)
        room = (int64_t)counts[r] > room ? (int64_t)counts[r] : room;
    TraceEvent *padded = memory_zalloc((size_t)room, sizeof *padded), *all = memory_alloc((size_t)(g->size * room), sizeof *all);
    memcpy(padded, t->events, t->count * sizeof *padded);
    if (status == 0)
        status = comm_gather_host(&g->world, padded, all, (size_t)room * sizeof *all, err);
    if (status == 0)
        *bubble = idle_over_busy(g, g->place[GRID_DP], all, counts, room);
    if (status == 0 && g->rank == 0) {
        Buffer b = {0};
        buffer_format(&b, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"step\":%" PRId64 ",\"bubble\":%.4f,\"bubble_formula\":%.4f},\"traceEvents\":[\n", step, *bubble,
                      pipeline_bubble(g->extent[GRID_PP], chunks, micro_batches));
        for (int r = 0; r < g->size; r++)
            write_rank(&b, g, r, all + r * room, (int64_t)counts[r]);
        for (int d = 0; d < g->extent[GRID_DP]; d++)
            buffer_format(&b, "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,\"args\":{\"name\":\"pipeline %d\"}}%s\n", d, d, d + 1 < g->extent[GRID_DP] ? "," : "");
        buffer_string(&b, "]}\n");
        status = file_write(path, b.data, b.length, err);
        buffer_free(&b);
    }
    free(counts);
    free(padded);
    free(all);
    return status;
}
