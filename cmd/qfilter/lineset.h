/* A set of strings by 128-bit hash, for one document. */
#ifndef QFILTER_LINESET_H
#define QFILTER_LINESET_H

#include <stdbool.h>
#include <stdint.h>
#include "base/memory.h"

typedef struct LineSet {
    uint64_t (*slots)[2];
    size_t mask, used;
} LineSet;

void lineset_open(LineSet *s);
/* Adds and says whether it was there. */
bool lineset_add(LineSet *s, Span text);
bool lineset_has(const LineSet *s, Span text);
void lineset_close(LineSet *s);

#endif
