#include "data/blend.h"

#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

void blend_new(Blend *b, const double *weights, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += weights[i];
    *b = (Blend){.count = count, .weights = memory_alloc(count, sizeof *b->weights),
                 .used = memory_zalloc(count, sizeof *b->used)};
    for (size_t i = 0; i < count; i++)
        b->weights[i] = weights[i] / sum;
}

size_t blend_next(Blend *b, uint64_t *index)
{
    double i = b->next > 1 ? (double)b->next : 1;
    size_t best = 0;
    double most = b->weights[0] * i - (double)b->used[0];
    for (size_t d = 1; d < b->count; d++) {
        double behind = b->weights[d] * i - (double)b->used[d];
        if (behind > most) {
            most = behind;
            best = d;
        }
    }
    b->next++;
    *index = b->used[best]++;
    return best;
}

void blend_seek(Blend *b, uint64_t sample)
{
    if (sample < b->next) {
        b->next = 0;
        memset(b->used, 0, b->count * sizeof *b->used);
    }
    uint64_t index;
    if (b->count == 1) {
        b->next = b->used[0] = sample;
        return;
    }
    while (b->next < sample)
        blend_next(b, &index);
}

void blend_free(Blend *b)
{
    free(b->weights);
    free(b->used);
    *b = (Blend){0};
}
