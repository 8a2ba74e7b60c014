#include "train/pipeline.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

/* Pass number `index` of a rank, forward or backward: which micro-batch through which chunk. */
typedef struct Pass {
    int chunk;
    int64_t micro_batch;
} Pass;

static int64_t groups_of(const PipelineSchedule *s)
{
    return s->micro_batches < s->stages ? 1 : s->micro_batches / s->stages;
}

/* The larger groups come first. */
static int64_t largest_group(const PipelineSchedule *s)
{
    int64_t groups = groups_of(s);
    return (s->micro_batches + groups - 1) / groups;
}

static Pass pass_of(const PipelineSchedule *s, int64_t index, bool backward)
{
    int64_t groups = groups_of(s), small = s->micro_batches / groups, larger = s->micro_batches % groups, first = 0, size;
    for (int64_t g = 0;; g++, first += size) {
        size = small + (g < larger);
        if (index < size * s->chunks)
            break;
        index -= size * s->chunks;
    }
    int chunk = (int)(index / size);
    return (Pass){backward ? s->chunks - 1 - chunk : chunk, first + index % size};
}

/* Forward passes before the first backward pass. */
static int64_t warm_up(const PipelineSchedule *s)
{
    int64_t all = s->micro_batches * s->chunks, behind = s->stages - 1 - s->stage;
    int64_t w = s->chunks == 1 ? behind : 2 * behind + (s->chunks - 1) * largest_group(s);
    return !s->backward || w > all ? all : w;
}

typedef struct Writer {
    PipelineSchedule *s;
    int *slot_of; /* [micro_batches · chunks] */
    bool *busy;   /* [slots] */
    int64_t computes, sends;
} Writer;

/* The rank before (by −1) or behind (by 1) a pass's chunk; -1: it is the first or the last of all. */
static int neighbour(const PipelineSchedule *s, Pass p, int by)
{
    int64_t global = (int64_t)p.chunk * s->stages + s->stage + by;
    return global < 0 || global >= (int64_t)s->stages * s->chunks ? -1 : (int)(global % s->stages);
}

static void receive(Writer *w, Pass p, bool backward, int64_t compute)
{
    int from = neighbour(w->s, p, backward ? 1 : -1);
    if (from >= 0)
        w->s->actions[w->s->count++] = (PipelineAction){PIPELINE_RECEIVE, backward, p.chunk, p.micro_batch, from, (int)(compute % w->s->receives), -1, -1};
}

static void compute(Writer *w, Pass p, bool backward)
{
    PipelineSchedule *s = w->s;
    int *slot = &w->slot_of[p.micro_batch * s->chunks + p.chunk];
    int from = neighbour(s, p, backward ? 1 : -1), to = neighbour(s, p, backward ? -1 : 1);
    if (!backward)
        for (*slot = 0; w->busy[*slot];)
            ++*slot;
    w->busy[*slot] = !backward && s->backward;
    PipelineAction a = {PIPELINE_COMPUTE, backward, p.chunk, p.micro_batch, -1, from < 0 ? -1 : (int)(w->computes % s->receives),
                        to < 0 ? -1 : (int)(w->sends % s->sends), *slot};
    s->actions[s->count++] = a;
    if (to >= 0) {
        a.verb = PIPELINE_SEND;
        a.peer = to;
        a.in = a.slot = -1;
        s->actions[s->count++] = a;
        w->sends++;
    }
    w->computes++;
}

/* Compute number n of the rank: warm-up, then forward and backward in turn, then what is left. */
static Pass compute_of(const PipelineSchedule *s, int64_t n, bool *backward)
{
    int64_t w = warm_up(s), all = s->micro_batches * s->chunks, turns = 2 * (all - w), index;
    if (n < w) {
        *backward = false;
        index = n;
    } else if (n < w + turns) {
        *backward = (n - w) % 2 == 1;
        index = (n - w) / 2 + (*backward ? 0 : w);
    } else {
        *backward = true;
        index = n - all;
    }
    return pass_of(s, index, *backward);
}

void pipeline_size(PipelineSchedule *s, int stages, int stage, int chunks, int64_t micro_batches, bool backward)
{
    *s = (PipelineSchedule){.stages = stages, .stage = stage, .chunks = chunks, .micro_batches = micro_batches, .backward = backward};
    int64_t all = micro_batches * chunks, w = warm_up(s);
    s->slots = !backward ? 1 : (int)(w < all ? w + 1 : all);
    /* One place in use and one on the way. Of chunks, what the last rank hands to the first waits until the first has passed the rest
     * of a group, and so does the other way round. The numbers are those that the simulations of tests/unit/pipeline.c need. */
    int waiting = chunks > 1 && largest_group(s) >= stages ? 2 * (int)(largest_group(s) - stages) + 1 : 0;
    s->receives = s->sends = 2 + waiting;
}

void pipeline_open(PipelineSchedule *s, int stages, int stage, int chunks, int64_t micro_batches, bool backward)
{
    pipeline_size(s, stages, stage, chunks, micro_batches, backward);
    int64_t all = micro_batches * chunks, computes = backward ? 2 * all : all;
    if (micro_batches == 0)
        return;
    s->actions = memory_alloc((size_t)(3 * computes), sizeof *s->actions);
    Writer out = {.s = s, .slot_of = memory_alloc((size_t)all, sizeof *out.slot_of), .busy = memory_zalloc((size_t)s->slots, sizeof *out.busy)};
    int64_t early = micro_batches > 1 ? s->receives : 1; /* one is nowhere else while it comes */
    for (int64_t n = 0, ahead = 0; n < computes; n++) {
        bool back;
        Pass p;
        /* Receives for the computes to come are posted before this one: so messages travel while ranks compute, and ranks that send
         * to each other have both posted a receive. */
        for (; ahead < n + early && ahead < computes; ahead++) {
            p = compute_of(s, ahead, &back);
            receive(&out, p, back, ahead);
        }
        p = compute_of(s, n, &back);
        compute(&out, p, back);
    }
    free(out.slot_of);
    free(out.busy);
}

void pipeline_close(PipelineSchedule *s)
{
    free(s->actions);
    memset(s, 0, sizeof *s);
}

double pipeline_bubble(int stages, int chunks, int64_t micro_batches)
{
    return (double)(stages - 1) / ((double)chunks * (double)micro_batches);
}
