/* A step of a pipeline, event by event. */
#include <math.h>
#include <stdlib.h>
#include "base/memory.h"
#include "train/cost.h"
#include "train/pipeline.h"

typedef struct Messages {
    double *arrives; /* of the k-th message of one direction between two ranks */
    size_t sent, received, capacity;
    double link_free;
} Messages;

typedef struct SimulatedRank {
    PipelineSchedule schedule;
    size_t next;
    double clock, busy;
    double *sent_until;      /* [sends] when a place that leaves is free again */
    size_t *expected;        /* [receives] which message of its sender lands in the place */
    int *sender, *direction; /* [receives] */
} SimulatedRank;

/* Does the rank's next action; false: it waits for a message that has not been sent. */
static bool act(SimulatedRank *ranks, Messages *messages, int stages, int at, CostDuration duration, void *context, double message,
                double latency)
{
    SimulatedRank *r = &ranks[at];
    const PipelineAction *a = &r->schedule.actions[r->next];
    if (a->verb == PIPELINE_RECEIVE) {
        Messages *q = &messages[(a->peer * stages + at) * 2 + a->backward];
        r->expected[a->in] = q->received++;
        r->sender[a->in] = a->peer;
        r->direction[a->in] = a->backward;
    } else if (a->verb == PIPELINE_SEND) {
        Messages *q = &messages[(at * stages + a->peer) * 2 + a->backward];
        double leaves = fmax(r->clock, q->link_free) + message;
        q->arrives = memory_grow(q->arrives, &q->capacity, q->sent + 1, sizeof *q->arrives);
        q->arrives[q->sent++] = leaves + latency;
        q->link_free = r->sent_until[a->out] = leaves;
    } else {
        double begin = r->clock;
        if (a->in >= 0) {
            const Messages *q = &messages[(r->sender[a->in] * stages + at) * 2 + r->direction[a->in]];
            if (r->expected[a->in] >= q->sent)
                return false;
            begin = fmax(begin, q->arrives[r->expected[a->in]]);
        }
        if (a->out >= 0)
            begin = fmax(begin, r->sent_until[a->out]);
        double takes = duration(context, at, a->chunk, a->micro_batch, a->backward);
        r->busy += takes;
        r->clock = begin + takes;
    }
    r->next++;
    return true;
}

int cost_simulate(int stages, int chunks, int64_t micro_batches, CostDuration duration, void *context, double message, double latency, CostSimulation *out, Error *err)
{
    SimulatedRank *ranks = memory_zalloc((size_t)stages, sizeof *ranks);
    Messages *messages = memory_zalloc((size_t)stages * (size_t)stages * 2, sizeof *messages);
    for (int i = 0; i < stages; i++) {
        SimulatedRank *r = &ranks[i];
        pipeline_open(&r->schedule, stages, i, chunks, micro_batches, true);
        r->sent_until = memory_zalloc((size_t)r->schedule.sends + 1, sizeof *r->sent_until);
        r->expected = memory_zalloc((size_t)r->schedule.receives + 1, sizeof *r->expected);
        r->sender = memory_zalloc((size_t)r->schedule.receives + 1, sizeof *r->sender);
        r->direction = memory_zalloc((size_t)r->schedule.receives + 1, sizeof *r->direction);
    }
    bool moved = true, done = false;
    while (moved && !done) {
        moved = false;
        done = true;
        for (int i = 0; i < stages; i++) {
            while (ranks[i].next < ranks[i].schedule.count && act(ranks, messages, stages, i, duration, context, message, latency))
                moved = true;
            done &= ranks[i].next == ranks[i].schedule.count;
        }
    }
    *out = (CostSimulation){0};
    for (int i = 0; i < stages; i++) {
        out->seconds = fmax(out->seconds, ranks[i].clock);
        out->busy_most = fmax(out->busy_most, ranks[i].busy);
        free(ranks[i].sent_until);
        free(ranks[i].expected);
        free(ranks[i].sender);
        free(ranks[i].direction);
        pipeline_close(&ranks[i].schedule);
    }
    for (int i = 0; i < stages * stages * 2; i++)
        free(messages[i].arrives);
    free(ranks);
    free(messages);
    out->bubble = out->seconds / out->busy_most - 1;
    return done ? 0 : error_set(err, "a schedule of %d stages, %d chunks and %lld micro-batches waits for ever", stages, chunks, (long long)micro_batches);
}
