#include "keys.h"

#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct KeySlot {
    Key key;
    uint64_t value;
    uint8_t used;
};

Key key_of(Span text)
{
    XXH128_hash_t h = XXH3_128bits(text.data, text.length);
    return (Key){h.low64, h.high64};
}

void keys_open(KeySet *s)
{
    s->used = 0;
    s->mask = (1 << 12) - 1;
    s->slots = memory_zalloc(s->mask + 1, sizeof *s->slots);
}

void keys_close(KeySet *s)
{
    free(s->slots);
    *s = (KeySet){0};
}

static struct KeySlot *slot_of(KeySet *s, Key k)
{
    for (size_t h = k.low;; h++) {
        struct KeySlot *slot = &s->slots[h & s->mask];
        if (!slot->used || (slot->key.low == k.low && slot->key.high == k.high))
            return slot;
    }
}

uint64_t *keys_value(KeySet *s, Key k, int *fresh)
{
    struct KeySlot *slot = slot_of(s, k);
    *fresh = !slot->used;
    if (slot->used)
        return &slot->value;
    if (++s->used * 2 > s->mask) {
        struct KeySlot *old = s->slots;
        size_t n = s->mask + 1;
        s->mask = n * 2 - 1;
        s->slots = memory_zalloc(n * 2, sizeof *s->slots);
        for (size_t i = 0; i < n; i++)
            if (old[i].used)
                *slot_of(s, old[i].key) = old[i];
        free(old);
        slot = slot_of(s, k);
    }
    slot->key = k;
    slot->used = 1;
    return &slot->value;
}
