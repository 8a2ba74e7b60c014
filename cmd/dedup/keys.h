/* A set of 128-bit keys (XXH3) with the number of the first document that had each. Two different texts share a key with a
 * probability below 2^-64 for any corpus that fits a machine. */
#ifndef DEDUP_KEYS_H
#define DEDUP_KEYS_H

#include <stdint.h>
#include "base/memory.h"

typedef struct Key {
    uint64_t low, high;
} Key;

typedef struct KeySet {
    struct KeySlot *slots;
    size_t used, mask;
} KeySet;

Key key_of(Span text);
void keys_open(KeySet *s);
void keys_close(KeySet *s);
/* The slot's value for a key: *fresh says whether it was not there; the value starts at 0. */
uint64_t *keys_value(KeySet *s, Key k, int *fresh);

#endif
