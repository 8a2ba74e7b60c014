#include "feed.h"

#include "data/samples.h"

void feed_enter(Feed *f, const Stage *stage, int64_t most)
{
    if (stage == f->stage)
        return;
    feed_leave(f);
    f->stage = stage;
    f->micro_batch = stage_pass(stage, most, f->grid->extent);
    dealer_open(&f->dealer, stage, f->sources);
    batch_new(&f->whole, f->micro_batch, stage->sequence_length);
    batch_new(&f->part, f->micro_batch, stage->sequence_length / f->grid->extent[GRID_CP]);
}

void feed_leave(Feed *f)
{
    if (f->stage) {
        dealer_close(&f->dealer);
        batch_free(&f->whole);
        batch_free(&f->part);
    }
    f->stage = NULL;
}

void feed_begin(Feed *f, const Source *source, int64_t first, int64_t samples)
{
    f->source = source;
    f->first = first;
    f->samples = samples;
    f->placed = -1;
    if (!source)
        dealer_mark(&f->dealer, first);
}

int64_t feed_passes(const Feed *f)
{
    int64_t all = (f->samples + f->micro_batch - 1) / f->micro_batch, ranks = f->grid->extent[GRID_DP];
    return all / ranks + (f->even ? all % ranks > 0 : f->grid->place[GRID_DP] < all % ranks);
}

/* Sample number `number` of a source in epochs: permuted but for the first. */
static int64_t sample_of(const Feed *f, const Source *s, int64_t number)
{
    int64_t samples = samples_count(&s->shard, f->stage->sequence_length);
    return samples_order(number + (f->shuffle ? samples : 0), samples, f->seed);
}

static void place(Feed *f, int64_t first, int64_t n)
{
    batch_clear(&f->whole);
    f->whole.sample = first;
    if (!f->source && n > 0)
        dealer_seek(&f->dealer, first);
    for (int64_t i = 0; i < n; i++) {
        int64_t number = first + i;
        const Source *s = f->source ? f->source : dealer_next(&f->dealer, &number);
        samples_place(&s->shard, f->source ? number : sample_of(f, s, number), &f->whole, i);
    }
    batch_deal(&f->part, &f->whole, f->grid->place[GRID_CP], f->grid->extent[GRID_CP]);
}

const Batch *feed_batch(Feed *f, int64_t pass)
{
    int64_t done = (pass * f->grid->extent[GRID_DP] + f->grid->place[GRID_DP]) * f->micro_batch, left = f->samples - done;
    if (f->placed != pass)
        place(f, f->first + done, left < 0 ? 0 : left < f->micro_batch ? left : f->micro_batch);
    f->placed = pass;
    return &f->part;
}
