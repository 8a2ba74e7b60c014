#include "train/trace.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/progress.h"
#include "io/json.h"
#include "io/stream.h"
#include "train/cost.h"

int trace_begin(Trace *t, Grid *g, Error *err)
{
    double now = clock_seconds(), *all = memory_alloc((size_t)g->size, sizeof *all);
    int status = comm_gather_host(&g->world, &now, all, sizeof now, err);
    t->count = t->from = 0;
    t->begin = clock_seconds();
    if (g->local_size == g->size && status == 0) { /* one clock: the last one's that came */
        t->begin = all[0];
        for (int r = 1; r < g->size; r++)
            t->begin = fmax(t->begin, all[r]);
    }
    free(all);
    return status;
}

static void append(Trace *t, TraceEvent e)
{
    t->events = memory_grow(t->events, &t->capacity, t->count + 1, sizeof *t->events);
    t->events[t->count++] = e;
}

void trace_add(Trace *t, TraceKind kind, const PipelineAction *of, double begin, double end)
{
    append(t, (TraceEvent){.begin = begin - t->begin, .end = end - t->begin, .micro_batch = of->micro_batch, .kind = (int32_t)kind, .chunk = of->chunk});
}

void trace_add_side(Trace *t, const Side *s)
{
    const SideEvent *e;
    for (size_t i = 0; s && (e = side_event(s, i)); i++)
        append(t, (TraceEvent){.begin = e->begin - t->begin, .end = e->end - t->begin, .micro_batch = e->label,
                               .kind = e->kind == COMM_ALL_GATHER ? TRACE_GATHER : TRACE_REDUCE, .given = e->given - t->begin, .bytes = (double)e->bytes});
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

static bool is_beside(const TraceEvent *e)
{
    return e->kind == TRACE_REDUCE || e->kind == TRACE_GATHER;
}

static void name_thread(Buffer *b, const Grid *g, const int at[GRID_DIMENSIONS], int thread, const char *what)
{
    buffer_format(b, "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"stage %d", at[GRID_DP], thread, at[GRID_PP]);
    if (g->extent[GRID_TP] * g->extent[GRID_CP] > 1)
        buffer_format(b, ", tp %d, cp %d", at[GRID_TP], at[GRID_CP]);
    buffer_format(b, "%s\"}},\n", what);
}

/* The ranks of a stage are threads beside one another; what goes on beside the passes is as many threads behind all of them, of reductions
 * and behind these of gathers: both go on at a time, and boxes of a thread that neither follow nor hold one another are not drawn. */
static void write_rank(Buffer *b, const Grid *g, int rank, const TraceEvent *events, int64_t count)
{
    static const char *const names[] = {"F", "B", "wait for ", "send ", "reduce ", "gather "}, *const categories[] = {"forward", "backward", "wait", "send", "reduce", "gather"};
    static const char *const colours[] = {"thread_state_running", "thread_state_runnable", "grey", "thread_state_iowait", "rail_response", "rail_load"};
    int at[GRID_DIMENSIONS];
    places(g, rank, at);
    int beside = g->extent[GRID_TP] * g->extent[GRID_CP], thread = at[GRID_PP] * beside + at[GRID_CP] * g->extent[GRID_TP] + at[GRID_TP];
    const int all = beside * g->extent[GRID_PP], threads[] = {thread, thread, thread, thread, thread + all, thread + 2 * all};
    bool there[sizeof threads / sizeof *threads] = {false};
    for (int64_t i = 0; i < count; i++)
        there[events[i].kind] = true;
    name_thread(b, g, at, thread, "");
    if (there[TRACE_REDUCE])
        name_thread(b, g, at, threads[TRACE_REDUCE], ", reduce");
    if (there[TRACE_GATHER])
        name_thread(b, g, at, threads[TRACE_GATHER], ", gather");
    for (int64_t i = 0; i < count; i++) {
        const TraceEvent *e = &events[i];
        bool away = is_beside(e);
        buffer_format(b, "{\"name\":\"%s%" PRId64 "\",\"cat\":\"%s\",\"cname\":\"%s\",\"ph\":\"X\",\"ts\":%.1f,\"dur\":%.1f,\"pid\":%d,\"tid\":%d,\"args\":{",
                      names[e->kind], e->micro_batch, categories[e->kind], colours[e->kind], e->begin * 1e6, (e->end - e->begin) * 1e6, at[GRID_DP],
                      threads[e->kind]);
        if (away)
            buffer_format(b, "\"unit\":%" PRId64 ",\"bytes\":%.0f,\"given\":%.1f}},\n", e->micro_batch, e->bytes, e->given * 1e6);
        else
            buffer_format(b, "\"micro_batch\":%" PRId64 ",\"chunk\":%d}},\n", e->micro_batch, e->chunk);
    }
}

/* All ranks' events, `room` for each. */
typedef struct Timeline {
    const Grid *grid;
    const TraceEvent *events;
    const double *counts, *from; /* of each rank */
    int64_t room;
} Timeline;

static bool is_pass(const TraceEvent *e)
{
    return e->kind == TRACE_FORWARD || e->kind == TRACE_BACKWARD;
}

/* The ranks from `first` on at a stride, `count` of them: from their first pass to their last, and what their passes take together. */
static void measure(const Timeline *t, int first, int stride, int count, double *begin, double *end, double *busy)
{
    *begin = INFINITY;
    *end = *busy = 0;
    for (int r = first; r < first + count * stride; r += stride)
        for (int64_t i = (int64_t)t->from[r]; i < (int64_t)t->counts[r]; i++) {
            const TraceEvent *e = &t->events[r * t->room + i];
            if (!is_pass(e))
                continue;
            *begin = fmin(*begin, e->begin);
            *end = fmax(*end, e->end);
            *busy += e->end - e->begin;
        }
}

/* One pipeline of one rank a stage: what each of its passes takes. */
typedef struct Line {
    int chunks;
    int64_t micro_batches;
    double *seconds; /* [stages, chunks, micro_batches, 2] */
} Line;

static double *line_at(const Line *l, int stage, int chunk, int64_t micro_batch, bool backward)
{
    return &l->seconds[(((int64_t)stage * l->chunks + chunk) * l->micro_batches + micro_batch) * 2 + backward];
}

static double line_duration(void *context, int stage, int chunk, int64_t micro_batch, bool backward)
{
    return *line_at(context, stage, chunk, micro_batch, backward);
}

static int64_t passes_forward(const Timeline *t, int rank)
{
    int64_t n = 0;
    for (int64_t i = (int64_t)t->from[rank]; i < (int64_t)t->counts[rank]; i++)
        n += t->events[rank * t->room + i].kind == TRACE_FORWARD;
    return n;
}

/* The line that begins at rank `first`, simulated; seconds 0: it has no passes. */
static int simulate(const Timeline *t, int first, int chunks, CostSimulation *out, Error *err)
{
    int stages = t->grid->extent[GRID_PP], stride = t->grid->extent[GRID_TP] * t->grid->extent[GRID_CP];
    Line l = {.chunks = chunks, .micro_batches = passes_forward(t, first) / chunks};
    *out = (CostSimulation){0};
    if (l.micro_batches == 0)
        return 0;
    l.seconds = memory_zalloc((size_t)(stages * chunks * l.micro_batches * 2), sizeof *l.seconds);
    for (int stage = 0; stage < stages; stage++)
        for (int64_t i = (int64_t)t->from[first + stage * stride]; i < (int64_t)t->counts[first + stage * stride]; i++) {
            const TraceEvent *e = &t->events[(first + stage * stride) * t->room + i];
            if (is_pass(e))
                *line_at(&l, stage, e->chunk, e->micro_batch, e->kind == TRACE_BACKWARD) = e->end - e->begin;
        }
    int status = cost_simulate(stages, chunks, l.micro_batches, line_duration, &l, 0, 0, out, err);
    free(l.seconds);
    return status;
}

/* Ranks that share a pipeline's stages go side by side: each line is as long as its own passes, all are as long as the longest. */
static int summarise(const Timeline *t, int chunks, TraceSummary *s, Error *err)
{
    const Grid *g = t->grid;
    int beside = g->extent[GRID_TP] * g->extent[GRID_CP], stages = g->extent[GRID_PP];
    double begin, end, busy, first = INFINITY, last = 0, simulated = 0, first_pipeline = 0;
    measure(t, 0, 1, g->size, &first, &last, &busy);
    for (int d = 0; d < g->extent[GRID_DP]; d++)
        for (int b = 0; b < beside; b++) {
            CostSimulation x;
            int rank = d * stages * beside + b;
            if (simulate(t, rank, chunks, &x, err) < 0)
                return -1;
            measure(t, rank, beside, stages, &begin, &end, &busy);
            if (x.seconds > 0)
                simulated = fmax(simulated, begin - first + x.seconds);
            if (d == 0)
                first_pipeline = fmax(first_pipeline, x.seconds);
        }
    measure(t, 0, 1, stages * beside, &begin, &end, &busy);
    *s = (TraceSummary){.seconds = last - first, .simulated = simulated, .bubble = stages * beside * (end - begin) / busy - 1,
                        .simulated_bubble = stages * beside * first_pipeline / busy - 1,
                        .formula = pipeline_bubble(stages, chunks, passes_forward(t, 0) / chunks)};
    return 0;
}

static int write_file(const Timeline *t, const char *path, int64_t step, const TraceSummary *s, Error *err)
{
    const Grid *g = t->grid;
    Buffer b = {0};
    buffer_format(&b, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"step\":%" PRId64 ",\"seconds\":%.6f,\"seconds_simulated\":%.6f,\"bubble\":%.4f,"
                      "\"bubble_simulated\":%.4f,\"bubble_formula\":%.4f},\"traceEvents\":[\n",
                  step, s->seconds, s->simulated, s->bubble, s->simulated_bubble, s->formula);
    for (int r = 0; r < g->size; r++)
        write_rank(&b, g, r, t->events + r * t->room, (int64_t)t->counts[r]);
    for (int d = 0; d < g->extent[GRID_DP]; d++)
        buffer_format(&b, "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,\"args\":{\"name\":\"pipeline %d\"}}%s\n", d, d, d + 1 < g->extent[GRID_DP] ? "," : "");
    buffer_string(&b, "]}\n");
    int status = file_write(path, b.data, b.length, err);
    buffer_free(&b);
    return status;
}

int trace_write(Trace *t, Grid *g, const char *path, int64_t step, int chunks, TraceSummary *s, Error *err)
{
    double count = (double)t->count, begin = (double)t->from, *counts = memory_alloc((size_t)g->size, sizeof *counts), *from = memory_alloc((size_t)g->size, sizeof *from);
    int status = comm_gather_host(&g->world, &count, counts, sizeof count, err);
    if (status == 0)
        status = comm_gather_host(&g->world, &begin, from, sizeof begin, err);
    int64_t room = 1;
    *s = (TraceSummary){0};
    for (int r = 0; r < g->size && status == 0; r++)
        room = (int64_t)counts[r] > room ? (int64_t)counts[r] : room;
    TraceEvent *padded = memory_zalloc((size_t)room, sizeof *padded), *all = memory_alloc((size_t)(g->size * room), sizeof *all);
    memcpy(padded, t->events, t->count * sizeof *padded);
    if (status == 0)
        status = comm_gather_host(&g->world, padded, all, (size_t)room * sizeof *all, err);
    Timeline line = {g, all, counts, from, room};
    if (status == 0 && g->rank == 0 && passes_forward(&line, 0) > 0)
        status = summarise(&line, chunks, s, err);
    if (status == 0 && g->rank == 0)
        status = write_file(&line, path, step, s, err);
    free(counts);
    free(from);
    free(padded);
    free(all);
    return status;
}
