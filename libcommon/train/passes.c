#include "train/passes.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/progress.h"
#include "model/tensor_parallel.h"

int passes_open(Passes *p, Model *m, Grid *g, int64_t rows, Mode mode, Error *err)
{
    *p = (Passes){.model = m, .line = {&g->group[GRID_PP], &g->group[GRID_PP_BACK]}, .stages = g->extent[GRID_PP], .stage = g->place[GRID_PP], .rows = rows};
    p->slots = memory_zalloc(1, sizeof *p->slots);
    if (slot_new(&p->slots[0], m, rows, mode, err) < 0)
        return -1;
    p->slot_count = 1;
    if (p->stages == 1)
        return 0;
    p->left = m->device->alloc(m->device, PART_MAX_RANGES * sizeof *p->left);
    int unused;
    return p->left ? passes_astray(p, &unused, err) : error_set(err, "no memory for sums");
}

int passes_astray(Passes *p, int *chunk, Error *err)
{
    static const double zeros[PART_MAX_RANGES];
    double sums[PART_MAX_RANGES];
    Device *d = p->model->device;
    *chunk = -1;
    if (!p->left)
        return 0;
    d->copy(p->model->stream, sums, p->left, sizeof sums, COPY_TO_HOST);
    if (d->stream_wait(p->model->stream, err) < 0)
        return -1;
    d->copy(p->model->stream, p->left, zeros, sizeof zeros, COPY_TO_DEVICE);
    for (int i = p->model->part.ranges - 1; i >= 0; i--)
        if (!isfinite(sums[i]))
            *chunk = i;
    return 0;
}

void passes_close(Passes *p)
{
    for (int i = p->slot_count - 1; i >= 0; i--)
        slot_free(&p->slots[i]);
    free(p->slots);
    free(p->requests);
    if (p->model) {
        p->model->device->release(p->model->device, p->memory);
        p->model->device->release(p->model->device, p->left);
    }
    pipeline_close(&p->schedule);
    memset(p, 0, sizeof *p);
}

static size_t place_bytes(const Passes *p, int64_t rows)
{
    return (size_t)(tp_rows(p->model, rows) * p->model->config.hidden_size) * sizeof(float);
}

/* The schedule for so many micro-batches, and the slots and places that it wants. */
static int prepare(Passes *p, int64_t micro_batches, bool backward, Error *err)
{
    PipelineSchedule *s = &p->schedule;
    if (!s->actions || s->micro_batches != micro_batches || s->backward != backward) {
        pipeline_close(s);
        pipeline_open(s, p->stages, p->stage, p->model->part.ranges, micro_batches, backward);
    }
    if (s->slots > p->slot_count) {
        p->slots = memory_realloc(p->slots, (size_t)s->slots, sizeof *p->slots);
        for (; p->slot_count < s->slots; p->slot_count++)
            if (slot_beside(&p->slots[p->slot_count], &p->slots[0], err) < 0)
                return -1;
    }
    int places = p->stages > 1 ? s->receives + s->sends : 0;
    if (places <= p->places)
        return 0;
    Device *d = p->model->device;
    d->release(d, p->memory);
    free(p->requests);
    p->places = places;
    p->requests = memory_zalloc((size_t)places, sizeof *p->requests);
    p->memory = d->alloc(d, (size_t)places * place_bytes(p, p->rows));
    return p->memory ? 0 : error_set(err, "no memory for %zu bytes of what stages send one another", (size_t)places * place_bytes(p, p->rows));
}

/* Place `in` of what comes, or the one behind those for what leaves; no data: nothing comes or leaves. */
static Tensor place(const Passes *p, int at, bool out, int64_t rows)
{
    if (at < 0)
        return (Tensor){0};
    size_t number = (size_t)(out ? p->schedule.receives + at : at);
    return tensor_make(p->model->device, DTYPE_F32, (char *)p->memory + number * place_bytes(p, p->rows), tp_rows(p->model, rows), p->model->config.hidden_size);
}

static int wait_for(Passes *p, const PipelineAction *a, int number, Error *err)
{
    double begin = p->trace ? clock_seconds() : 0;
    int status = comm_wait(p->line[p->requests[number].tag], p->model->stream, &p->requests[number], err);
    if (p->trace)
        trace_add(p->trace, TRACE_WAIT, a, begin, clock_seconds());
    return status;
}

static int compute(Passes *p, const PipelineAction *a, int64_t rows, const PassWork *w, Error *err)
{
    Model *m = p->model;
    Slot *s = &p->slots[a->slot];
    Tensor in = place(p, a->in, false, rows), out = place(p, a->out, true, rows);
    if ((a->out >= 0 && wait_for(p, a, p->schedule.receives + a->out, err) < 0) || (a->in >= 0 && wait_for(p, a, a->in, err) < 0))
        return -1;
    double begin = p->trace ? clock_seconds() : 0;
    slot_stage(s, a->chunk);
    if (!a->backward) {
        if (w->load(w->context, p->first + a->micro_batch, s, err) < 0)
            return -1;
        stage_forward(m, s, in, out);
        if (out.data)
            m->device->ops->sum_squares(m->stream, p->left + a->chunk, out);
    }
    if (s->stage.head && a->backward == p->schedule.backward && w->head(w->context, p->first + a->micro_batch, s, err) < 0)
        return -1;
    if (a->backward) {
        m->params.table.last = w->last && p->first + a->micro_batch == p->past - 1;
        stage_backward(m, s, in, out);
        m->params.table.last = false;
    }
    if (p->trace) {
        if (m->device->stream_wait(m->stream, err) < 0)
            return -1;
        trace_add(p->trace, a->backward ? TRACE_BACKWARD : TRACE_FORWARD, a, begin, clock_seconds());
    }
    return model_check(m, err);
}

static int act(Passes *p, const PipelineAction *a, int64_t rows, const PassWork *w, Error *err)
{
    Comm *line = p->line[a->backward];
    Stream *stream = p->model->stream;
    int out = p->schedule.receives + a->out, status;
    double begin = p->trace ? clock_seconds() : 0;
    switch (a->verb) {
    case PIPELINE_RECEIVE:
        return comm_recv(line, stream, place(p, a->in, false, rows).data, place_bytes(p, rows), a->peer, a->backward, &p->requests[a->in], err);
    case PIPELINE_SEND:
        status = comm_send(line, stream, place(p, a->out, true, rows).data, place_bytes(p, rows), a->peer, a->backward, &p->requests[out], err);
        if (p->trace)
            trace_add(p->trace, TRACE_SEND, a, begin, clock_seconds());
        return status;
    case PIPELINE_COMPUTE:
        return compute(p, a, rows, w, err);
    }
    return 0;
}

/* So many micro-batches, from p->first on. */
static int run(Passes *p, int64_t micro_batches, int64_t rows, bool backward, const PassWork *w, Error *err)
{
    if (prepare(p, micro_batches, backward, err) < 0)
        return -1;
    for (size_t i = 0; i < p->schedule.count; i++)
        if (act(p, &p->schedule.actions[i], rows, w, err) < 0)
            return -1;
    for (int i = 0; i < p->places; i++)
        if (comm_wait(p->line[p->requests[i].tag], p->model->stream, &p->requests[i], err) < 0)
            return -1;
    p->first += micro_batches;
    return 0;
}

int passes_run(Passes *p, int64_t micro_batches, int64_t rows, bool backward, const PassWork *w, Error *err)
{
    const ParameterTable *t = &p->model->params.table;
    if (micro_batches == 0)
        return 0;
    if (backward && micro_batches > 1 && t->lent < t->lent_end)
        return error_set(err, "a step of %" PRId64 " passes, where activations stand in place of gradients", micro_batches);
    p->first = 0;
    p->past = micro_batches;
    if (p->trace && backward)
        p->trace->from = p->trace->count;
    /* A library of products loads a kernel when it is first wanted, and the GPU does so when nothing runs on it, not even a receive. The
     * first micro-batch of so many rows passes alone: then nothing is received yet that is not needed at once. */
    if (p->stages > 1 && !p->model->device->is_host && p->loaded[backward] != rows) {
        if (prepare(p, micro_batches, backward, err) < 0 || run(p, 1, rows, backward, w, err) < 0)
            return -1;
        p->loaded[backward] = rows;
        micro_batches--;
    }
    return micro_batches > 0 ? run(p, micro_batches, rows, backward, w, err) : 0;
}

bool passes_kept(const Passes *p, int64_t micro_batches)
{
    return p->stages == 1 && micro_batches == 1;
}

int passes_back(Passes *p, const PassWork *w, Error *err)
{
    if (w->head(w->context, 0, &p->slots[0], err) < 0)
        return -1;
    p->model->params.table.last = w->last;
    stage_backward(p->model, &p->slots[0], (Tensor){0}, (Tensor){0});
    p->model->params.table.last = false;
    return model_check(p->model, err);
}
