#include "keys.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct KeySlot {
    Key key; /* all zeros: empty */
    uint64_t number;
};

enum { LEAST_SLOTS = 1 << 8 };

Key key_of(Span text)
{
    XXH128_hash_t h = XXH3_128bits(text.data, text.length);
    return (Key){h.low64, h.high64 ? h.high64 : 1};
}

void keys_open(KeyTable *t, size_t memory)
{
    *t = (KeyTable){.mask = LEAST_SLOTS - 1, .memory = memory};
    t->slots = memory_zalloc(t->mask + 1, sizeof *t->slots);
}

void keys_close(KeyTable *t)
{
    free(t->slots);
    *t = (KeyTable){0};
}

void keys_clear(KeyTable *t)
{
    memset(t->slots, 0, (t->mask + 1) * sizeof *t->slots);
    t->used = 0;
}

static struct KeySlot *slot_of(const KeyTable *t, Key k)
{
    for (size_t h = k.low;; h++) {
        struct KeySlot *slot = &t->slots[h & t->mask];
        if (slot->key.high == 0 || (slot->key.low == k.low && slot->key.high == k.high))
            return slot;
    }
}

bool keys_find(const KeyTable *t, Key k, uint64_t *number)
{
    const struct KeySlot *slot = slot_of(t, k);
    *number = slot->number;
    return slot->key.high != 0;
}

bool keys_add(KeyTable *t, Key k, uint64_t number)
{
    size_t n = t->mask + 1;
    if ((t->used + 1) * 4 > n * 3) {
        /* While it grows, the old table and the new one, twice as large, are both there. */
        if (n > t->memory / sizeof *t->slots / 3)
            return false;
        struct KeySlot *old = t->slots;
        t->mask = n * 2 - 1;
        t->slots = memory_zalloc(n * 2, sizeof *t->slots);
        for (size_t i = 0; i < n; i++)
            if (old[i].key.high)
                *slot_of(t, old[i].key) = old[i];
        free(old);
    }
    *slot_of(t, k) = (struct KeySlot){k, number};
    t->used++;
    return true;
}
