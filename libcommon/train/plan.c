#include "train/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"

void plan_open(Plan *p, const Examples *e, double epochs, int64_t records_per_step, int64_t sequence_length, int64_t rows_per_batch, uint64_t seed)
{
    memset(p, 0, sizeof *p);
    int64_t sequences = rows_per_batch / sequence_length < 1 ? 1 : rows_per_batch / sequence_length;
    *p = (Plan){.examples = e, .records_per_step = records_per_step, .sequence_length = sequence_length, .rows = sequences * sequence_length, .seed = seed,
                .ranks = 1, .most = sequences};
    p->steps_per_epoch = ((int64_t)e->groups + records_per_step - 1) / records_per_step;
    p->steps = (int64_t)ceil(epochs * (double)p->steps_per_epoch);
    batch_new(&p->batch, sequences, sequence_length);
}

void plan_share(Plan *p, int64_t rank, int64_t ranks)
{
    p->rank = rank;
    p->ranks = ranks;
}

bool plan_mine(const Plan *p, int64_t index)
{
    return index % p->ranks == p->rank;
}

void plan_close(Plan *p)
{
    batch_free(&p->batch);
    free(p->step_examples);
    free(p->bin);
    free(p->offset);
    memset(p, 0, sizeof *p);
}

static void record_add(Plan *p, size_t record)
{
    for (size_t i = p->examples->group_first[record]; i < p->examples->group_first[record + 1]; i++) {
        p->step_examples = memory_grow(p->step_examples, &p->step_capacity, p->step_count + 1, sizeof *p->step_examples);
        p->step_examples[p->step_count++] = i;
    }
}

/* Packs units (examples, or whole groups) into sequences, and sequences into batches. A group longer than a sequence falls
 * back to examples of its own: only a batch must hold it whole, so its members are kept in neighbouring bins. */
static int64_t pack(Plan *p, bool grouped)
{
    size_t n = p->step_count, units = 0;
    p->bin = memory_realloc(p->bin, n + 1, sizeof *p->bin);
    p->offset = memory_realloc(p->offset, n + 1, sizeof *p->offset);
    int64_t *lengths = memory_alloc(n + 1, sizeof *lengths);
    size_t *unit = memory_alloc(n + 1, sizeof *unit), *unit_bin = memory_alloc(n + 1, sizeof *unit_bin);
    int64_t *inside = memory_alloc(n + 1, sizeof *inside), *unit_offset = memory_alloc(n + 1, sizeof *unit_offset);
    for (size_t i = 0; i < n; i++) {
        const Example *e = &p->examples->items[p->step_examples[i]];
        bool joins = grouped && i > 0 && e->source == p->examples->items[p->step_examples[i - 1]].source &&
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
    if (p->ranks > 1) {
        int64_t each = ((int64_t)p->bins + p->ranks - 1) / p->ranks;
        p->batch.sequences = each < p->most ? each > 0 ? each : 1 : p->most;
        p->batch.rows = p->batch.sequences * p->sequence_length;
    }
    return ((int64_t)p->bins + p->batch.sequences - 1) / p->batch.sequences;
}

int64_t plan_step(Plan *p, int64_t step, bool grouped)
{
    int64_t records = (int64_t)p->examples->groups, first = step % p->steps_per_epoch * p->records_per_step;
    uint64_t epoch = (uint64_t)(step / p->steps_per_epoch);
    p->step_count = 0;
    for (int64_t i = first; i < first + p->records_per_step && i < records; i++)
        record_add(p, (size_t)random_permute(p->seed, RANDOM_SHUFFLE + (epoch << 8), (uint64_t)i, (uint64_t)records));
    return pack(p, grouped);
}

int64_t plan_all(Plan *p, bool grouped)
{
    p->step_count = 0;
    for (size_t i = 0; i < p->examples->groups; i++)
        record_add(p, i);
    return pack(p, grouped);
}

void plan_batch(Plan *p, int64_t index, bool endings)
{
    Batch *b = &p->batch;
    batch_clear(b);
    float *weights = memory_alloc((size_t)p->sequence_length, sizeof *weights);
    for (size_t i = 0; i < p->step_count; i++) {
        int64_t sequence = (int64_t)p->bin[i] - index * b->sequences;
        if (sequence < 0 || sequence >= b->sequences)
            continue;
        const Example *e = &p->examples->items[p->step_examples[i]];
        for (int64_t t = 0; t < e->count; t++) {
            unsigned char next = t + 1 < e->count ? e->flags[t + 1] : 0;
            weights[t] = (next & TOKEN_TRAINED) && (endings || !(next & TOKEN_ENDING)) ? 1 : 0;
        }
        batch_place(b, sequence * p->sequence_length + p->offset[i], e->tokens, NULL, weights, e->count, (int32_t)e->source, e->rank,
                    (int64_t)p->step_examples[i]);
    }
    /* Only labels that count are computed. */
    for (int64_t r = 0; r < b->rows; r++)
        if (b->weights[r] == 0)
            b->labels[r] = -1;
    free(weights);
}
