#include "lineset.h"

#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static void allocate(LineSet *s, size_t slots)
{
    s->slots = memory_zalloc(slots, sizeof *s->slots);
    s->mask = slots - 1;
}

void lineset_open(LineSet *s)
{
    s->used = 0;
    allocate(s, 64);
}

static uint64_t *slot_of(const LineSet *s, uint64_t low, uint64_t high)
{
    for (size_t i = (size_t)(low >> 1);; i++) {
        uint64_t *slot = s->slots[i & s->mask];
        if (!slot[0] || (slot[0] == low && slot[1] == high))
            return slot;
    }
}

bool lineset_add(LineSet *s, Span text)
{
    XXH128_hash_t h = XXH3_128bits(text.data, text.length);
    uint64_t *slot = slot_of(s, h.low64 | 1, h.high64);
    if (slot[0])
        return true;
    slot[0] = h.low64 | 1;
    slot[1] = h.high64;
    if (++s->used * 2 > s->mask) {
        uint64_t(*old)[2] = s->slots;
        size_t n = s->mask + 1;
        allocate(s, n * 2);
        for (size_t i = 0; i < n; i++)
            if (old[i][0]) {
                uint64_t *to = slot_of(s, old[i][0], old[i][1]);
                to[0] = old[i][0];
                to[1] = old[i][1];
            }
        free(old);
    }
    return false;
}

bool lineset_has(const LineSet *s, Span text)
{
    XXH128_hash_t h = XXH3_128bits(text.data, text.length);
    return slot_of(s, h.low64 | 1, h.high64)[0] != 0;
}

void lineset_close(LineSet *s)
{
    free(s->slots);
    *s = (LineSet){0};
}
