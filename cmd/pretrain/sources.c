#include "sources.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "data/samples.h"
#include "data/source.h"

int64_t sources_find(const Sources *s, Span name)
{
    for (size_t i = 0; i < s->count; i++)
        if (strlen(s->items[i].name) == name.length && memcmp(s->items[i].name, name.data, name.length) == 0)
            return (int64_t)i;
    return -1;
}

/* Logs and mixes tell shards apart by their names: of two prefixes with the same last part the second has its whole one. */
static int name_choose(const Sources *all, const SourceOperand *o, Span *name, const char *option, const char *text, Error *err)
{
    *name = o->name;
    if (sources_find(all, *name) >= 0 && !o->named)
        *name = (Span){o->prefix, strlen(o->prefix)};
    return sources_find(all, *name) < 0 ? 0 : error_set(err, "--%s %s: the name %.*s is there twice", option, text, (int)name->length, name->data);
}

static int source_open(Source *s, const Sources *all, const char *text, const char *option, Error *err)
{
    SourceOperand o;
    if (source_parse(&o, text, err) < 0)
        return -1;
    if (!(o.weight > 0))
        return error_set(err, "--%s %s: the weight must be a positive number", option, text);
    s->weight = o.weight;
    Span name;
    if (name_choose(all, &o, &name, option, text, err) < 0 || shard_open(&s->shard, o.prefix, err) < 0)
        return -1;
    s->name = memory_copy(name.data, name.length);
    return 0;
}

/* A document's last token has no label, so single ones teach nothing. */
static bool has_labels(const Shard *s)
{
    for (int64_t d = 0; d < s->documents; d++)
        if (s->length[d] > 1)
            return true;
    return false;
}

int sources_open(Sources *s, const OptionList *list, const char *option, int64_t sequence_length, int64_t vocabulary, Error *err)
{
    *s = (Sources){.items = memory_zalloc(list->count, sizeof *s->items)};
    for (size_t i = 0; i < list->count; i++) {
        Source *one = &s->items[i];
        if (source_open(one, s, list->values[i], option, err) < 0)
            return -1;
        s->count++;
        if (samples_count(&one->shard, sequence_length) < 1)
            return error_set(err, "%s: %" PRId64 " tokens are less than one sample of %" PRId64, list->values[i], one->shard.tokens, sequence_length);
        if (!has_labels(&one->shard))
            return error_set(err, "%s: no document has two tokens, so none has a next one to learn", list->values[i]);
        if (shard_check_ids(&one->shard, vocabulary, err) < 0)
            return -1;
    }
    return 0;
}

void sources_close(Sources *s)
{
    for (size_t i = 0; i < s->count; i++) {
        shard_close(&s->items[i].shard);
        free(s->items[i].name);
    }
    free(s->items);
    *s = (Sources){0};
}
