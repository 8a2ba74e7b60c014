/* A table of 128-bit keys (XXH3) with the number of the first document that had each, within a given memory. Two different
 * texts share a key with a probability below 2^-64 for any corpus that fits a machine. */
#ifndef DEDUP_KEYS_H
#define DEDUP_KEYS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/memory.h"

typedef struct Key {
    uint64_t low, high;
} Key;

typedef struct KeyTable {
    struct KeySlot *slots;
    size_t used, mask, memory;
} KeyTable;

Key key_of(Span text);
void keys_open(KeyTable *t, size_t memory);
void keys_close(KeyTable *t);
void keys_clear(KeyTable *t);
bool keys_find(const KeyTable *t, Key k, uint64_t *number);
/* Puts in a key that is not there; false if the table is full. */
bool keys_add(KeyTable *t, Key k, uint64_t number);

#endif
