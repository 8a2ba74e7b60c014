#include "train/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/memory.h"
#include "model/sharding.h"
#include "model/tensor_parallel.h"

static Comm *data_group(const Optimizer *o)
{
    return &o->grid->group[GRID_DATA];
}

void optimizer_slice(const Optimizer *o, int unit, size_t *begin, size_t *end)
{
    param_unit_slice(o->table, unit, data_group(o), begin, end);
}

/* What this rank steps: its slice, or all. */
static void stepped_part(const Optimizer *o, int unit, size_t *begin, size_t *end)
{
    if (o->shard > 0)
        optimizer_slice(o, unit, begin, end);
    else
        param_unit_trained(o->table, unit, begin, end);
}

size_t optimizer_place(const Optimizer *o, int unit)
{
    size_t begin, end, own;
    optimizer_slice(o, unit, &own, &end);
    param_unit_trained(o->table, unit, &begin, &end);
    return o->shard > 0 ? (begin - o->table->frozen) / (size_t)data_group(o)->size : own - o->table->frozen;
}

size_t optimizer_states(const Optimizer *o)
{
    return param_trained_total(o->table) / (o->shard > 0 ? (size_t)data_group(o)->size : 1);
}

static int check_units(const Optimizer *o, Error *err)
{
    size_t ranks = (size_t)data_group(o)->size;
    for (int i = 0; i < o->table->unit_count; i++) {
        size_t begin, end;
        param_unit_trained(o->table, i, &begin, &end);
        if ((end - begin) % ranks != 0)
            return error_set(err, "%s: %zu floats cannot be cut among %zu ranks", o->table->items[o->table->units[i].first].name, end - begin, ranks);
    }
    return 0;
}

/* With shard > 1 gradients are cut into slices before tensor-parallel ranks add up what several of them hold: an element must lie in
 * the same slice on all of them. */
static int check_replicas(const Optimizer *o, Error *err)
{
    const ParameterTable *t = o->table;
    Comm *tp = &o->grid->group[GRID_TP];
    uint64_t sum = 0, *sums = memory_zalloc((size_t)tp->size, sizeof *sums);
    for (int u = 0; u < t->unit_count; u++) {
        size_t begin, end;
        param_unit_trained(t, u, &begin, &end);
        for (int i = t->units[u].first; i <= t->units[u].last; i++) {
            const Parameter *p = &t->items[i];
            const uint64_t place[] = {end - begin, p->offset - begin, p->count, sum};
            if (p->trainable && p->replicas > 1)
                sum = XXH3_64bits(place, sizeof place);
        }
    }
    int status = comm_gather_host(tp, &sum, sums, sizeof sum, err);
    for (int r = 0; r < tp->size && status == 0; r++)
        if (sums[r] != sum)
            status = error_set(err, "--shard %d with --tp %d: heads, the MLP's width or the vocabulary do not divide evenly; take --shard 1", o->shard, tp->size);
    free(sums);
    return status;
}

/* The unit's gradient is complete on this rank: the ranks' come together from here on. Where widths do not divide evenly an element lies in
 * another slice on the next tensor-parallel rank, so those add up first; of slices that come together during the passes (shard > 1), which are
 * equal (optimizer_open), they do so behind that. */
static int unit_begin(Optimizer *o, int unit, Error *err)
{
    ParameterTable *t = o->table;
    size_t begin, end, all_begin, all_end;
    param_unit_trained(t, unit, &all_begin, &all_end);
    optimizer_slice(o, unit, &begin, &end);
    if (all_begin == all_end || o->shard > 1)
        return 0;
    if (tp_reduce(o->model, unit, err) < 0)
        return -1;
    float *all = param_kept_gradient(t, unit, all_begin);
    if (o->grid->size > 1)
        t->device->ops->sum_squares(t->stream, o->sum + 1, tensor_make(t->device, DTYPE_F32, all, 1, (int64_t)(all_end - all_begin)));
    if (!o->reduce)
        return 0;
    if (o->shard == 1)
        return side_reduce_scatter(o->reduce, t->stream, DTYPE_F32, all, param_kept_gradient(t, unit, begin), end - begin, unit, err);
    return side_sum(o->reduce, t->stream, DTYPE_F32, all, all_end - all_begin, unit, err);
}

/* The last unit's gradient is complete first: from there on whatever is ready begins. */
static void units_begin(Optimizer *o)
{
    for (; o->next >= 0 && o->ready[o->next] && !o->failed; o->next--)
        o->failed = unit_begin(o, o->next, &o->failure) < 0;
}

static void finished(void *context, int unit)
{
    Optimizer *o = context;
    o->ready[unit] = true;
    if (o->shard > 1)
        sharding_finished(o->table, unit);
    units_begin(o);
}

int optimizer_open(Optimizer *o, Model *m, Grid *g, int shard, const AdamW *how, Error *err)
{
    ParameterTable *t = &m->params.table;
    *o = (Optimizer){.model = m, .table = t, .grid = g, .beta1 = how->beta1, .beta2 = how->beta2, .eps = how->eps, .decay = how->decay, .clip = how->clip};
    o->shard = data_group(o)->size > 1 ? shard : 0;
    if ((o->shard > 0 && check_units(o, err) < 0) || (o->shard > 1 && check_replicas(o, err) < 0) || (o->shard < 2 && param_need_gradients(t, err) < 0))
        return -1;
    if (data_group(o)->size > 1 && !(o->reduce = side_open(g, GRID_DATA, t->device, err)))
        return -1;
    if (o->shard > 2 && !(o->gather = side_open(g, GRID_DATA, t->device, err)))
        return -1;
    o->ready = memory_zalloc((size_t)t->unit_count, sizeof *o->ready);
    t->finished = finished;
    t->finished_context = o;
    size_t bytes = optimizer_states(o) * sizeof(float);
    o->first = t->device->alloc(t->device, bytes);
    o->second = t->device->alloc(t->device, bytes);
    o->sum = t->device->alloc(t->device, 2 * sizeof(double));
    if (!o->first || !o->second || !o->sum) {
        optimizer_close(o);
        return error_set(err, "no memory for %zu bytes of optimiser states", 2 * bytes);
    }
    return o->shard > 1 ? sharding_open(t, o->shard, data_group(o), o->reduce, o->gather, o->sum + 1, err) : 0;
}

void optimizer_close(Optimizer *o)
{
    if (!o->table)
        return;
    Device *d = o->table->device;
    o->table->finished = NULL;
    side_close(o->reduce);
    side_close(o->gather);
    sharding_close(o->table);
    free(o->ready);
    d->release(d, o->first);
    d->release(d, o->second);
    d->release(d, o->sum);
    memset(o, 0, sizeof *o);
}

void optimizer_clear(Optimizer *o)
{
    ParameterTable *t = o->table;
    static const double zeros[2];
    o->next = t->unit_count - 1;
    memset(o->ready, 0, (size_t)t->unit_count * sizeof *o->ready);
    t->device->copy(t->stream, o->sum, zeros, sizeof zeros, COPY_TO_DEVICE);
    for (int i = 0; i < t->unit_count; i++) {
        size_t begin, end;
        if (o->shard > 1) /* of the rest nothing is kept */
            optimizer_slice(o, i, &begin, &end);
        else
            param_unit_trained(t, i, &begin, &end);
        t->units[i].cleared = false;
        if (!param_is_lent(t, i))
            param_clear(t, i, begin, end);
    }
}

/* The two ends of a pipeline add up their copies, each of its slice. */
static int reduce_tied(Optimizer *o, const Parameter *p, size_t begin, size_t end, Error *err)
{
    Comm *embed = &o->grid->group[GRID_EMBED];
    if (!p->tied || !p->trainable || !param_within(p, &begin, &end))
        return 0;
    return comm_sum(embed, o->table->stream, DTYPE_F32, param_kept_gradient(o->table, p->unit, begin), end - begin, err);
}

/* What follows when the data group's ranks have come together. */
static int unit_end(Optimizer *o, int unit, Error *err)
{
    const ParameterTable *t = o->table;
    size_t begin, end;
    stepped_part(o, unit, &begin, &end);
    for (int i = t->units[unit].first; i <= t->units[unit].last; i++)
        if (reduce_tied(o, &t->items[i], begin, end, err) < 0)
            return -1;
    return o->shard > 1 ? tp_reduce(o->model, unit, err) : 0;
}

int optimizer_reduce(Optimizer *o, Error *err)
{
    /* Of a rank that had no pass, or whose passes ended early, nothing has come to some units. */
    for (int i = 0; i < o->table->unit_count; i++)
        param_begin(o->table, o->table->units[i].first);
    memset(o->ready, true, (size_t)o->table->unit_count * sizeof *o->ready);
    units_begin(o);
    if (o->failed)
        *err = o->failure;
    if (o->failed || (o->shard > 1 && sharding_finish(o->table, err) < 0) || (o->reduce && side_wait(o->reduce, o->table->stream, err) < 0))
        return -1;
    for (int i = o->table->unit_count - 1; i >= 0; i--)
        if (unit_end(o, i, err) < 0)
            return -1;
    return 0;
}

/* What is done with a parameter, 0: nothing. */
static int measured(const Parameter *p)
{
    return p->trainable && p->owner;
}

enum { STEP_ALONE = 1, STEP_AND_DECAY };

static int stepped(const Parameter *p)
{
    return !p->trainable ? 0 : p->decayed ? STEP_AND_DECAY : STEP_ALONE;
}

/* Every rank squares its slices, whether it has the others' gradients or not, so that the sums have the same bits in all forms. */
int optimizer_norm(Optimizer *o, double *norm, Error *err)
{
    ParameterTable *t = o->table;
    double sums[2], total;
    for (int u = 0; u < t->unit_count; u++) {
        size_t begin, end;
        optimizer_slice(o, u, &begin, &end);
        for (int i = t->units[u].first, next; i <= t->units[u].last; i = next) {
            size_t from = begin, to = end;
            next = param_run(t, i, measured, &from, &to);
            if (measured(&t->items[i]) && from < to)
                t->device->ops->sum_squares(t->stream, o->sum, tensor_make(t->device, DTYPE_F32, param_kept_gradient(t, u, from), 1, (int64_t)(to - from)));
        }
    }
    t->device->copy(t->stream, sums, o->sum, sizeof sums, COPY_TO_HOST);
    if (t->device->stream_wait(t->stream, err) < 0)
        return -1;
    total = sums[0];
    o->squares = sums[1];
    if (comm_sum_host(&o->grid->world, &total, 1, err) < 0)
        return -1;
    *norm = sqrt(total);
    return 0;
}

static void step_unit(Optimizer *o, int unit, double rate, double scale)
{
    ParameterTable *t = o->table;
    size_t begin, end;
    stepped_part(o, unit, &begin, &end);
    size_t states = o->shard > 0 ? optimizer_place(o, unit) : begin - t->frozen;
    for (int i = t->units[unit].first, next; i <= t->units[unit].last; i = next) {
        size_t from = begin, to = end;
        int kind = stepped(&t->items[i]);
        next = param_run(t, i, stepped, &from, &to);
        if (!kind || from >= to)
            continue;
        size_t at = states + (from - begin);
        t->device->ops->adamw(t->stream, param_kept_weight(t, unit, from), param_kept_gradient(t, unit, from), o->first + at, o->second + at, (int64_t)(to - from), (float)rate,
                              (float)o->beta1, (float)o->beta2, (float)o->eps, kind == STEP_AND_DECAY ? (float)o->decay : 0, (float)scale, o->steps);
    }
}

int optimizer_step(Optimizer *o, double rate, double norm, Error *err)
{
    ParameterTable *t = o->table;
    double scale = o->clip > 0 && norm > 0 ? o->clip / (norm + 1e-6) : 1;
    if (scale > 1)
        scale = 1;
    o->steps++;
    for (int u = 0; u < t->unit_count; u++) {
        size_t begin, end, all_begin, all_end;
        param_unit_trained(t, u, &all_begin, &all_end);
        optimizer_slice(o, u, &begin, &end);
        step_unit(o, u, rate, scale);
        if ((o->shard == 1 || o->shard == 2) && comm_all_gather(data_group(o), t->stream, t->weights + begin, t->weights + all_begin, (end - begin) * sizeof(float), err) < 0)
            return -1;
    }
    param_changed(t);
    return 0;
}
