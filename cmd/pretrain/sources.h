/* Token shards by name and weight, as --data and --val name them: PREFIX, NAME:PREFIX or NAME=WEIGHT:PREFIX. No two have one name. */
#ifndef PRETRAIN_SOURCES_H
#define PRETRAIN_SOURCES_H

#include "base/memory.h"
#include "base/option.h"
#include "data/shard.h"

typedef struct Source {
    char *name;
    double weight;
    Shard shard;
} Source;

typedef struct Sources {
    Source *items;
    size_t count;
} Sources;

/* Opens every shard, which must hold a sample of that length, and checks its ids against the vocabulary. */
int sources_open(Sources *s, const OptionList *list, const char *option, int64_t sequence_length, int64_t vocabulary, Error *err);
/* The place of the source with that name, -1: none. */
int64_t sources_find(const Sources *s, Span name);
void sources_close(Sources *s);

#endif
