/* smoke: pipeline schedules, simulated for many numbers of stages, chunks and micro-batches: every pass once and after what it needs,
 * no more activations than promised, an end whatever the sends wait for, and the bubble of the formula. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "tests/unit/tap.h"
#include "train/pipeline.h"

enum { MOST_STAGES = 8, FORWARD_TIME = 1, BACKWARD_TIME = 2 };

/* What a send waits for: nothing; the receiver's posting; or, when its place is wanted again, the compute that uses it. Or it is
 * computes that wait, until all that was posted is over. */
typedef enum Sends { SENDS_ASYNCHRONOUS, SENDS_BLOCKING, SENDS_HELD, SENDS_DRAINED, SENDS } Sends;

/* Messages from one rank to another in one direction of passes, in order. */
typedef struct Channel {
    double *sent, *posted, *used; /* when; -1: not yet */
    int64_t *micro_batch;
    int *target;                  /* global stage that it is for */
    int64_t sends, receives, uses;
} Channel;

typedef struct Rank {
    PipelineSchedule s;
    size_t at;
    double time, busy;
    Channel *place[64]; /* what each outgoing place was last sent on, */
    int64_t message[64]; /* and as which message */
} Rank;

typedef struct Simulation {
    int stages, chunks;
    int64_t micro_batches;
    bool backward;
    Sends sends;
    Rank ranks[MOST_STAGES];
    Channel channels[MOST_STAGES][MOST_STAGES][2];
    const char *wrong;
    double *forward_done, *backward_done; /* [stages · chunks, M], -1: not yet */
    int most_places;
} Simulation;

static void channel_open(Channel *c, int64_t room)
{
    double **arrays[] = {&c->sent, &c->posted, &c->used};
    for (int i = 0; i < 3; i++) {
        *arrays[i] = memory_alloc((size_t)room, sizeof(double));
        for (int64_t k = 0; k < room; k++)
            (*arrays[i])[k] = -1;
    }
    c->micro_batch = memory_alloc((size_t)room, sizeof *c->micro_batch);
    c->target = memory_alloc((size_t)room, sizeof *c->target);
}

static void channel_close(Channel *c)
{
    free(c->sent);
    free(c->posted);
    free(c->used);
    free(c->micro_batch);
    free(c->target);
}

static int64_t index_of(const Simulation *x, int global, int64_t micro_batch)
{
    return (int64_t)global * x->micro_batches + micro_batch;
}

/* Has what the rank posts to receive been sent, and is what it sends received? */
static bool drained(const Simulation *x, int r)
{
    for (int q = 0; q < x->stages; q++)
        for (int d = 0; d < 2; d++) {
            const Channel *in = &x->channels[q][r][d], *out = &x->channels[r][q][d];
            if ((in->receives > 0 && in->sent[in->receives - 1] < 0) || (out->sends > 0 && out->posted[out->sends - 1] < 0))
                return false;
        }
    return true;
}

/* One action of a rank; false: it must wait. */
static bool act(Simulation *x, int r)
{
    Rank *rank = &x->ranks[r];
    const PipelineAction *a = &rank->s.actions[rank->at];
    int global = a->chunk * x->stages + r, last = x->stages * x->chunks - 1;
    if (a->verb == PIPELINE_RECEIVE) {
        Channel *c = &x->channels[a->peer][r][a->backward];
        c->posted[c->receives++] = rank->time;
        return true;
    }
    if (a->verb == PIPELINE_SEND) {
        Channel *c = &x->channels[r][a->peer][a->backward];
        if (c->sent[c->sends] < 0) {
            c->sent[c->sends] = rank->time;
            c->micro_batch[c->sends] = a->micro_batch;
            c->target[c->sends] = global + (a->backward ? -1 : 1);
            rank->place[a->out] = c;
            rank->message[a->out] = c->sends;
        }
        if (x->sends == SENDS_BLOCKING && c->posted[c->sends] < 0)
            return false;
        if (x->sends == SENDS_BLOCKING)
            rank->time = fmax(rank->time, c->posted[c->sends]);
        c->sends++;
        return true;
    }
    bool first = a->backward ? global == last : global == 0, end = a->backward ? global == 0 : global == last;
    int peer = ((a->backward ? global + 1 : global - 1) + x->stages) % x->stages;
    double *done = a->backward ? x->backward_done : x->forward_done, begin = rank->time;
    Channel *from = &x->channels[peer][r][a->backward];
    if (x->sends == SENDS_DRAINED && !drained(x, r))
        return false;
    if (x->sends == SENDS_HELD && a->out >= 0 && rank->place[a->out]) {
        double used = rank->place[a->out]->used[rank->message[a->out]];
        if (used < 0)
            return false;
        begin = fmax(begin, used);
    }
    if (!first) {
        if (from->sent[from->uses] < 0)
            return false;
        begin = fmax(begin, from->sent[from->uses]);
        if (from->posted[from->uses] < 0)
            x->wrong = "a pass uses what no receive was posted for";
        if (from->micro_batch[from->uses] != a->micro_batch || from->target[from->uses] != global)
            x->wrong = "a message is taken for another";
        from->used[from->uses++] = begin;
    }
    if (first != (a->in < 0) || end != (a->out < 0))
        x->wrong = "messages where there are none";
    if (done[index_of(x, global, a->micro_batch)] >= 0)
        x->wrong = "a pass twice";
    if (a->backward && x->forward_done[index_of(x, global, a->micro_batch)] < 0)
        x->wrong = "backward before forward";
    double takes = (a->backward ? BACKWARD_TIME : FORWARD_TIME);
    rank->time = begin + takes;
    rank->busy += takes;
    done[index_of(x, global, a->micro_batch)] = rank->time;
    return true;
}

/* Slots: held by one pass at a time, the same one forward and backward; all of them are needed. */
static const char *check_slots(const PipelineSchedule *s)
{
    int64_t *holder = memory_alloc((size_t)s->slots, sizeof *holder);
    int live = 0, most = 0;
    const char *wrong = NULL;
    for (int i = 0; i < s->slots; i++)
        holder[i] = -1;
    for (size_t i = 0; i < s->count; i++) {
        const PipelineAction *a = &s->actions[i];
        int64_t who = a->micro_batch * s->chunks + a->chunk;
        if (a->verb != PIPELINE_COMPUTE)
            continue;
        if (a->slot < 0 || a->slot >= s->slots || holder[a->slot] != (a->backward ? who : -1)) {
            wrong = "a slot is not whose it should be";
            break;
        }
        holder[a->slot] = a->backward || !s->backward ? -1 : who;
        live += a->backward ? -1 : 1;
        most = live > most ? live : most;
        if (!s->backward)
            live = 0;
    }
    free(holder);
    return wrong ? wrong : most != s->slots ? "slots are left" : NULL;
}

/* The time that all take, or -1. */
static double simulate(Simulation *x)
{
    int64_t all = (int64_t)x->stages * x->chunks * x->micro_batches;
    x->forward_done = memory_alloc((size_t)all, sizeof(double));
    x->backward_done = memory_alloc((size_t)all, sizeof(double));
    for (int64_t i = 0; i < all; i++)
        x->forward_done[i] = x->backward_done[i] = -1;
    for (int r = 0; r < x->stages; r++) {
        pipeline_open(&x->ranks[r].s, x->stages, r, x->chunks, x->micro_batches, x->backward);
        const char *wrong = check_slots(&x->ranks[r].s);
        x->wrong = wrong ? wrong : x->wrong;
        for (int q = 0; q < x->stages; q++)
            for (int d = 0; d < 2; d++)
                channel_open(&x->channels[r][q][d], x->micro_batches * x->chunks);
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (int r = 0; r < x->stages; r++)
            while (x->ranks[r].at < x->ranks[r].s.count && act(x, r)) {
                x->ranks[r].at++;
                moved = true;
            }
    }
    double end = 0;
    for (int r = 0; r < x->stages; r++) {
        if (x->ranks[r].at < x->ranks[r].s.count)
            x->wrong = "the ranks wait for one another";
        end = fmax(end, x->ranks[r].time);
    }
    for (int64_t i = 0; i < all; i++)
        if (x->forward_done[i] < 0 || (x->backward && x->backward_done[i] < 0))
            x->wrong = x->wrong ? x->wrong : "a pass is missing";
    for (int r = 0; r < x->stages; r++) {
        pipeline_close(&x->ranks[r].s);
        for (int q = 0; q < x->stages; q++)
            for (int d = 0; d < 2; d++)
                channel_close(&x->channels[r][q][d]);
    }
    free(x->forward_done);
    free(x->backward_done);
    return end;
}

typedef struct Count {
    int cases, wrong, bubbles, late;
} Count;

static void try(Count *n, int stages, int chunks, int64_t micro_batches, bool backward, Sends sends)
{
    Simulation *x = memory_zalloc(1, sizeof *x);
    *x = (Simulation){.stages = stages, .chunks = chunks, .micro_batches = micro_batches, .backward = backward, .sends = sends};
    double end = simulate(x), ideal = (double)(micro_batches * chunks * (FORWARD_TIME + (backward ? BACKWARD_TIME : 0)));
    double bubble = end / ideal - 1, formula = pipeline_bubble(stages, chunks, micro_batches);
    n->cases++;
    if (x->wrong && n->wrong++ == 0)
        printf("# %d stages, %d chunks, %d micro-batches, sends %d: %s\n", stages, chunks, (int)micro_batches, sends, x->wrong);
    bool as_formula = fabs(bubble - formula) < 1e-9;
    if (micro_batches >= stages && !as_formula && n->late++ == 0)
        printf("# %d stages, %d chunks, %d micro-batches, sends %d: bubble %g, formula %g\n", stages, chunks, (int)micro_batches, sends, bubble, formula);
    free(x);
}

int main(void)
{
    static const char *const names[SENDS] = {"that wait for nothing", "that wait for a receive", "whose places wait for their use", "and receives that computes wait for, one micro-batch"};
    for (int backward = 1; backward >= 0; backward--)
        for (Sends sends = 0; sends < SENDS; sends++) {
            Count n = {0};
            for (int stages = 1; stages <= MOST_STAGES; stages++)
                for (int chunks = 1; chunks <= (stages > 1 ? 4 : 1); chunks++)
                    for (int64_t m = 1; m <= (sends == SENDS_DRAINED ? 1 : 33); m++)
                        try(&n, stages, chunks, m, backward, sends);
            ok(n.wrong == 0, "%s with sends %s: %d schedules are whole, in order, end, and hold what they promise (%d wrong)",
               backward ? "training" : "forward alone", names[sends], n.cases, n.wrong);
            ok(n.late == 0, "and have the formula's bubble from as many micro-batches as stages on (%d have not)", n.late);
        }
    return tap_end();
}
