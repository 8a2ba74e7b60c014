#include "reference.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/memory.h"
#include "io/json.h"
#include "io/stream.h"

int reference_key(Model *m, bool keep_endings, const Examples *pairs, const Examples *held_out, Comm *world, char key[17], Error *err)
{
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    const ParameterTable *t = &m->params.table;
    int status = 0;
    for (size_t i = 0; i < t->count && status == 0; i++) {
        float *host = memory_alloc(t->items[i].count, sizeof *host);
        m->device->copy(m->stream, host, t->weights + t->items[i].offset, t->items[i].count * sizeof *host, COPY_TO_HOST);
        status = m->device->stream_wait(m->stream, err);
        XXH3_64bits_update(state, host, t->items[i].count * sizeof *host);
        free(host);
    }
    const int64_t more[] = {(int64_t)m->dtype, keep_endings, (int64_t)pairs->count};
    XXH3_64bits_update(state, more, sizeof more);
    for (int side = 0; side < 2; side++) {
        const Examples *x = side ? held_out : pairs;
        for (size_t i = 0; i < x->count; i++) {
            XXH3_64bits_update(state, &x->items[i].count, sizeof x->items[i].count);
            XXH3_64bits_update(state, x->items[i].tokens, (size_t)x->items[i].count * sizeof *x->items[i].tokens);
            XXH3_64bits_update(state, x->items[i].flags, (size_t)x->items[i].count);
        }
    }
    uint64_t sum = XXH3_64bits_digest(state), *sums = memory_alloc((size_t)world->size, sizeof *sums);
    XXH3_freeState(state);
    status = comm_agree(world, status, err);
    if (status == 0 && world->size > 1) {
        status = comm_gather_host(world, &sum, sums, sizeof sum, err);
        sum = XXH3_64bits(sums, (size_t)world->size * sizeof *sums);
    }
    free(sums);
    snprintf(key, 17, "%016" PRIx64, sum);
    return status;
}

static double *sums_read(const JsonValue *list, size_t count)
{
    if (!json_is(list, JSON_ARRAY) || list->count != count)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (list->items[i].type != JSON_NUMBER && list->items[i].type != JSON_INTEGER)
            return NULL; /* a damaged file is made again */
    double *out = memory_alloc(count, sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[i] = list->items[i].number;
    return out;
}

static bool file_read_sums(Reference *r, const char *path, const char *key, size_t pairs, size_t held_out)
{
    JsonTree tree = {0};
    Error err;
    bool found = false;
    if (access(path, F_OK) == 0 && json_parse_file(&tree, path, &err) == 0) {
        const JsonValue *have = json_get(tree.root, "key");
        if (json_is(have, JSON_STRING) && strcmp(have->string.data, key) == 0) {
            r->sums = sums_read(json_get(tree.root, "pairs"), pairs);
            r->held_out = held_out ? sums_read(json_get(tree.root, "held_out"), held_out) : NULL;
            found = r->sums && (!held_out || r->held_out);
        }
    }
    json_free(&tree);
    return found;
}

int reference_read(Reference *r, const char *path, const char *key, size_t pairs, size_t held_out, Comm *world, bool *found, Error *err)
{
    *found = world->rank == 0 && file_read_sums(r, path, key, pairs, held_out);
    int status = comm_broadcast_host(world, found, sizeof *found, 0, err);
    if (world->rank > 0 && status == 0 && *found) {
        r->sums = memory_alloc(pairs, sizeof *r->sums);
        r->held_out = memory_alloc(held_out + 1, sizeof *r->held_out);
    }
    if (status == 0 && *found)
        status = comm_broadcast_host(world, r->sums, pairs * sizeof *r->sums, 0, err);
    if (status == 0 && *found && held_out)
        status = comm_broadcast_host(world, r->held_out, held_out * sizeof *r->held_out, 0, err);
    return status;
}

static void sums_write(Buffer *b, const char *name, const double *sums, size_t count)
{
    buffer_format(b, ",\n\"%s\":[", name);
    for (size_t i = 0; i < count; i++) {
        buffer_string(b, i ? "," : "");
        json_write_number(b, sums[i]);
    }
    buffer_string(b, "]");
}

int reference_write(const Reference *r, const char *path, const char *key, size_t pairs, size_t held_out, Error *err)
{
    Buffer b = {0};
    buffer_format(&b, "{\"key\":\"%s\"", key);
    sums_write(&b, "pairs", r->sums, pairs);
    if (held_out)
        sums_write(&b, "held_out", r->held_out, held_out);
    buffer_string(&b, "}\n");
    int status = file_write(path, b.data, b.length, err);
    buffer_free(&b);
    return status;
}
