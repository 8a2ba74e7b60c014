#include "train/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"

void plan_open(Plan *p, const Examples *e, double epochs, int64_t records_per_step, int64_t sequence_length, int64_t rows, uint64_t seed, const Grid *g, bool even)
{
    int64_t share = sequence_length / g->extent[GRID_CP], sequences = rows / share < 1 ? 1 : rows / share;
    *p = (Plan){.examples = e, .records_per_step = records_per_step, .sequence_length = sequence_length, .most = sequences, .seed = seed, .grid = g, .even = even};
    p->steps_per_epoch = ((int64_t)e->groups + records_per_step - 1) / records_per_step;
    p->steps = (int64_t)ceil(epochs * (double)p->steps_per_epoch);
    batch_new(&p->whole, sequences, sequence_length);
    batch_new(&p->part, sequences, share);
}

void plan_close(Plan *p)
{
    batch_free(&p->whole);
    batch_free(&p->part);
    free(p->step_examples);
    free(p->bin);
    free(p->offset);
    free(p->behind);
    memset(p, 0, sizeof *p);
}

static void record_add(Plan *p, size_t record)
{
    for (size_t i = p->examples->group_first[record]; i < p->examples->group_first[record + 1]; i++) {
        p->step_examples = memory_grow(p->step_examples, &p->step_capacity, p->step_count + 1, sizeof *p->step_examples);
        p->step_examples[p->step_count++] = i;
    }
}

/* Sequences into batches. */
static void deal(Plan *p)
{
    int64_t bins = (int64_t)p->bins, ranks = p->grid->extent[GRID_DP], stages = p->grid->extent[GRID_PP];
    int64_t each = stages > 1 ? bins / (4 * ranks * stages) : (bins + ranks - 1) / ranks;
    p->whole.sequences = each < 1 ? 1 : each < p->most ? each : p->most;
    p->whole.rows = p->whole.sequences * p->sequence_length;
    p->batches = (bins + p->whole.sequences - 1) / p->whole.sequences;
    p->placed = -1;
}

/* The answers of step_examples[first …], a whole group of `count`, in a row if it fits: the row's length, else 0. */
static int64_t shuffle_row(Plan *p, size_t group, size_t first, size_t count)
{
    const Example *e = &p->examples->items[p->step_examples[first]];
    int64_t length = examples_row(p->examples, group), at = e->answer;
    if (length == 0 || length > p->row)
        return 0;
    uint64_t seed = p->seed ^ (uint64_t)e->source << 20;
    for (size_t place = 0; place < count; place++)
        for (size_t k = 0; k < count; k++)
            if (random_permute(seed, RANDOM_ORDER + (p->epoch << 8), k, count) == place) {
                p->behind[first + k] = at;
                at += e[k].count - e[k].answer;
            }
    return length;
}

/* Packs units (examples, or whole groups) into sequences, and sequences into batches. A group longer than a sequence falls
 * back to examples of its own: only a batch must hold it whole, so its members are kept in neighbouring bins. */
static void pack(Plan *p)
{
    size_t n = p->step_count, units = 0;
    p->bin = memory_realloc(p->bin, n + 1, sizeof *p->bin);
    p->offset = memory_realloc(p->offset, n + 1, sizeof *p->offset);
    p->behind = memory_realloc(p->behind, n + 1, sizeof *p->behind);
    memset(p->behind, 0, (n + 1) * sizeof *p->behind);
    int64_t *lengths = memory_alloc(n + 1, sizeof *lengths);
    size_t *unit = memory_alloc(n + 1, sizeof *unit), *unit_bin = memory_alloc(n + 1, sizeof *unit_bin);
    int64_t *inside = memory_alloc(n + 1, sizeof *inside), *unit_offset = memory_alloc(n + 1, sizeof *unit_offset);
    for (size_t i = 0; i < n; i++) {
        const Example *e = &p->examples->items[p->step_examples[i]];
        size_t group = p->row > 0 && e->rank == 0 ? examples_group(p->examples, p->step_examples[i]) : 0;
        size_t count = p->row > 0 && e->rank == 0 ? p->examples->group_first[group + 1] - p->examples->group_first[group] : 0;
        if (count > 0 && (lengths[units] = shuffle_row(p, group, i, count)) > 0) {
            for (size_t k = 0; k < count; k++) {
                unit[i + k] = units;
                inside[i + k] = 0;
            }
            units++;
            i += count - 1;
            continue;
        }
        bool joins = p->grouped && i > 0 && e->source == p->examples->items[p->step_examples[i - 1]].source &&
                     p->behind[i - 1] == 0 &&
                     lengths[units - 1] + e->count <= p->sequence_length;
        if (!joins)
            lengths[units++] = 0;
        unit[i] = units - 1;
        inside[i] = lengths[units - 1];
        lengths[units - 1] += e->count;
    }
    p->bins = batch_pack_bfd(lengths, units, p->sequence_length, unit_bin, unit_offset);
    for (size_t i = 0; i < n; i++) {
        p->bin[i] = unit_bin[unit[i]];
        p->offset[i] = unit_offset[unit[i]] + inside[i];
    }
    free(lengths);
    free(unit);
    free(unit_bin);
    free(inside);
    free(unit_offset);
    deal(p);
}

void plan_step(Plan *p, int64_t step)
{
    int64_t records = (int64_t)p->examples->groups, first = step % p->steps_per_epoch * p->records_per_step;
    uint64_t epoch = p->epoch = (uint64_t)(step / p->steps_per_epoch);
    p->step_count = 0;
    for (int64_t i = first; i < first + p->records_per_step && i < records; i++)
        record_add(p, (size_t)random_permute(p->seed, RANDOM_SHUFFLE + (epoch << 8), (uint64_t)i, (uint64_t)records));
    pack(p);
}

void plan_all(Plan *p)
{
    p->step_count = 0;
    for (size_t i = 0; i < p->examples->groups; i++)
        record_add(p, i);
    pack(p);
}

/* Tokens that an example of the step adds to the batch: its prompt stands once in a row, before the first. */
static int64_t row_tokens(const Plan *p, size_t i)
{
    const Example *e = &p->examples->items[p->step_examples[i]];
    return p->behind[i] > e->answer ? e->count - e->answer : e->count;
}

int64_t plan_tokens(const Plan *p)
{
    int64_t tokens = 0;
    for (size_t i = 0; i < p->step_count; i++)
        tokens += row_tokens(p, i);
    return tokens;
}

/* Is the token behind this one learned? */
static bool learns(const Example *e, int64_t t)
{
    return t + 1 < e->count && (e->flags[t + 1] & TOKEN_TRAINED);
}

double plan_weight(const Plan *p)
{
    double weight = 0;
    for (size_t i = 0; i < p->step_count; i++) {
        const Example *e = &p->examples->items[p->step_examples[i]];
        for (int64_t t = 0; t < e->count; t++)
            weight += learns(e, t);
    }
    return weight;
}

int64_t plan_passes(const Plan *p)
{
    int64_t ranks = p->grid->extent[GRID_DP], more = p->batches % ranks;
    return p->batches / ranks + (p->even ? more > 0 : p->grid->place[GRID_DP] < more);
}

int64_t plan_rows(const Plan *p)
{
    return p->whole.rows / p->grid->extent[GRID_CP];
}

PlanMost plan_most(Plan *p)
{
    PlanMost most = {.one_pass = true};
    int64_t limit = p->most * p->sequence_length / p->grid->extent[GRID_CP];
    for (int64_t i = 0; i < p->steps && (most.rows < limit || most.one_pass); i++) {
        plan_step(p, i);
        most.rows = plan_rows(p) > most.rows ? plan_rows(p) : most.rows;
        most.one_pass &= p->batches <= p->grid->extent[GRID_DP];
    }
    return most;
}

/* An answer into the row that begins at `first`; the first one brings the prompt. */
static void place_in_row(Plan *p, size_t i, int64_t first)
{
    const Example *e = &p->examples->items[p->step_examples[i]];
    Batch *b = &p->whole;
    int64_t from = p->behind[i] > e->answer ? e->answer : 0, at = p->behind[i] - (e->answer - from);
    batch_place(b, first + at, e->tokens + from, NULL, NULL, e->count - from, (int32_t)e->source, e->rank, (int64_t)p->step_examples[i]);
    for (int64_t r = first + at; r < first + at + e->count - from; r++) {
        b->positions[r] = (int32_t)(r - first);
        b->begin[r] = (int32_t)first;
        b->weights[r] = 0;
    }
    BatchDocument *d = &b->documents[b->document_count - 1];
    d->first = first;
    d->count += at;
}

static void place(Plan *p, int64_t index)
{
    Batch *b = &p->whole;
    batch_clear(b);
    float *weights = memory_alloc((size_t)p->sequence_length, sizeof *weights);
    for (size_t i = 0; i < p->step_count; i++) {
        int64_t sequence = (int64_t)p->bin[i] - index * b->sequences;
        if (sequence < 0 || sequence >= b->sequences)
            continue;
        const Example *e = &p->examples->items[p->step_examples[i]];
        if (p->behind[i] > 0) {
            place_in_row(p, i, sequence * p->sequence_length + p->offset[i]);
            continue;
        }
        for (int64_t t = 0; t < e->count; t++)
            weights[t] = learns(e, t);
        batch_place(b, sequence * p->sequence_length + p->offset[i], e->tokens, NULL, weights, e->count, (int32_t)e->source, e->rank,
                    (int64_t)p->step_examples[i]);
    }
    free(weights);
    /* Only labels that count are computed. */
    for (int64_t r = 0; r < b->rows; r++)
        if (b->weights[r] == 0)
            b->labels[r] = -1;
}

const Batch *plan_batch(Plan *p, int64_t pass)
{
    if (p->placed != pass) {
        place(p, pass * p->grid->extent[GRID_DP] + p->grid->place[GRID_DP]);
        batch_deal(&p->part, &p->whole, p->grid->place[GRID_CP], p->grid->extent[GRID_CP]);
    }
    p->placed = pass;
    return &p->part;
}
