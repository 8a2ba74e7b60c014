/* Random numbers inside a training pass: which draw is whose. A row's key is its record's number and its position, so that packing and
 * grids change no draw. */
#include <math.h>
#include <stdlib.h>
#include "base/memory.h"
#include "base/random.h"
#include "model/model.h"

int slot_randomise(Slot *s, double neftune, Error *err)
{
    Device *d = s->model->device;
    size_t n = (size_t)(s->rows + s->model->part.tp_size); /* the last rank's rows may end behind the batch */
    s->random.neftune = (float)neftune;
    s->random.keys = d->alloc(d, n * sizeof *s->random.keys);
    s->random.noise = d->alloc(d, n * sizeof *s->random.noise);
    s->random.host_keys = memory_zalloc(n, sizeof *s->random.host_keys);
    s->random.host_noise = memory_zalloc(n, sizeof *s->random.host_noise);
    return s->random.keys && s->random.noise ? 0 : error_set(err, "no memory for the keys of %zu rows", n);
}

void slot_random_free(Slot *s)
{
    Device *d = s->model ? s->model->device : NULL;
    if (s->random.keys)
        d->release(d, s->random.keys);
    if (s->random.noise)
        d->release(d, s->random.noise);
    free(s->random.host_keys);
    free(s->random.host_noise);
}

void slot_draws(Slot *s, uint64_t seed, int64_t step)
{
    uint32_t word[4];
    random_block(seed, RANDOM_NOISE, (uint64_t)step, word);
    s->random.draw = s->random.keys ? (uint64_t)word[0] << 32 | word[1] | 1 : 0;
}

uint64_t slot_draw(const Slot *s, uint64_t use)
{
    uint32_t word[4];
    random_block(s->random.draw, RANDOM_NOISE, use, word);
    return (uint64_t)word[0] << 32 | word[1];
}

void slot_random_load(Slot *s, const Batch *b)
{
    Model *m = s->model;
    for (int64_t r = 0; r < b->rows; r++) {
        const BatchDocument *d = b->document[r] < 0 ? NULL : &b->documents[b->document[r]];
        s->random.host_keys[r] = d ? (uint64_t)d->source << 32 | (uint64_t)b->positions[r] : 0;
        s->random.host_noise[r] = d ? s->random.neftune / sqrtf((float)d->count * (float)m->config.hidden_size) : 0;
    }
    m->device->copy(m->stream, s->random.keys, s->random.host_keys, (size_t)b->rows * sizeof *s->random.keys, COPY_TO_DEVICE);
    m->device->copy(m->stream, s->random.noise, s->random.host_noise, (size_t)b->rows * sizeof *s->random.noise, COPY_TO_DEVICE);
}

void slot_add_noise(Slot *s, Tensor x)
{
    int64_t first = s->model->part.tp_rank * s->mine;
    if (s->random.draw && s->random.neftune > 0)
        s->model->device->ops->noise(s->model->stream, x, s->random.keys + first, s->random.noise + first, slot_draw(s, UINT64_MAX));
}
