#include "sources.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "data/samples.h"

/* "math=0.25:dir/math" -> math, 0.25, dir/math. A prefix alone is named by its last part. */
static int source_parse(Source *s, const char *text, const char *option, const char **prefix, Error *err)
{
    const char *colon = strchr(text, ':'), *equals = strchr(text, '=');
    s->weight = 1;
    if (!colon || strchr(text, '/') < colon) {
        if (!colon || (strchr(text, '/') && strchr(text, '/') < colon)) {
            const char *slash = strrchr(text, '/');
            s->name = memory_string(slash ? slash + 1 : text);
            *prefix = text;
            return 0;
        }
    }
    *prefix = colon + 1;
    if (equals && equals < colon) {
        char *end;
        s->weight = strtod(equals + 1, &end);
        if (end != colon || !(s->weight > 0) || s->weight > 1e12)
            return error_set(err, "--%s %s: the weight must be a positive number", option, text);
    } else {
        equals = colon;
    }
    s->name = memory_copy(text, (size_t)(equals - text));
    return 0;
}

int sources_open(Sources *s, const OptionList *list, const char *option, int64_t sequence_length, int64_t vocabulary, Error *err)
{
    *s = (Sources){.items = memory_zalloc(list->count, sizeof *s->items)};
    for (size_t i = 0; i < list->count; i++) {
        Source *one = &s->items[i];
        const char *prefix;
        if (source_parse(one, list->values[i], option, &prefix, err) < 0 || shard_open(&one->shard, prefix, err) < 0)
            return -1;
        s->count++;
        if (samples_count(&one->shard, sequence_length) < 1)
            return error_set(err, "%s: %" PRId64 " tokens are less than one sample of %" PRId64, prefix, one->shard.tokens, sequence_length);
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
