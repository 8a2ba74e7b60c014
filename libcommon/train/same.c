#include "train/same.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "io/stream.h"

/* A rank's own affair. */
static const char *const own_options[] = {"threads", "log", "progress", "quiet", "verbose", "stats", "config", "tmp", "memory", "tensorboard", "trace", "profile", NULL};

static bool is_named(const char *const *names, Span key)
{
    for (; names && *names; names++)
        if (strlen(*names) == key.length && memcmp(*names, key.data, key.length) == 0)
            return true;
    return false;
}

static void value_text(Buffer *b, const JsonValue *v)
{
    b->length = 0;
    if (v)
        json_write_value(b, v, -1);
    else
        buffer_string(b, "nothing");
    buffer_byte(b, 0);
}

int options_parse(JsonTree *out, Buffer *text, const char *json, Error *err)
{
    text->length = 0;
    buffer_string(text, json);
    size_t length = text->length;
    buffer_reserve(text, READER_PADDING);
    memset(text->data + length, 0, READER_PADDING);
    return json_parse(out, "options", (Span){text->data, length}, err);
}

bool options_differ(const JsonValue *first, const JsonValue *second, const char *const *free_options, OptionDifference *d)
{
    *d = (OptionDifference){0};
    for (int side = 0; side < 2; side++) {
        const JsonValue *all = side ? first : second;
        for (size_t i = 0; i < all->count; i++) {
            if (is_named(free_options, all->keys[i]))
                continue;
            d->name = all->keys[i].data;
            value_text(&d->first, json_get(first, d->name));
            value_text(&d->second, json_get(second, d->name));
            if (strcmp(d->first.data, d->second.data) != 0)
                return true;
        }
    }
    return false;
}

/* The first rank whose number is another than that of the first rank that should have the same: of the same kind. -1: none. */
static int odd_one(const uint64_t (*all)[2], int size, int *like)
{
    for (int r = 1; r < size; r++)
        for (*like = 0; *like < r; ++*like)
            if (all[*like][0] == all[r][0]) {
                if (all[*like][1] != all[r][1])
                    return r;
                break;
            }
    return -1;
}

/* Who is odd among the ranks that name the same kind. */
static int find_odd(Grid *g, uint64_t kind, uint64_t number, int *odd, int *like, Error *err)
{
    uint64_t mine[2] = {kind, number}, (*all)[2] = memory_alloc((size_t)g->size, sizeof *all);
    int status = comm_gather_host(&g->world, mine, all, sizeof mine, err);
    *odd = status == 0 ? odd_one((const uint64_t(*)[2])all, g->size, like) : -1;
    free(all);
    return status;
}

/* In what the odd rank differs, said on that rank. */
static void tell_difference(Grid *g, const char *first, const char *own, Error *err)
{
    JsonTree a = {0}, b = {0};
    Buffer x = {0}, y = {0};
    OptionDifference d = {0};
    if (options_parse(&a, &x, first, err) == 0 && options_parse(&b, &y, own, err) == 0 && options_differ(a.root, b.root, own_options, &d))
        error_set(err, "rank %d (host %s) was started with --%s %s, rank 0 with %s: step 0, in the start", g->rank, grid_host(g, g->rank), d.name, d.second.data, d.first.data);
    buffer_free(&d.first);
    buffer_free(&d.second);
    json_free(&a);
    json_free(&b);
    buffer_free(&x);
    buffer_free(&y);
}

/* The options that all must have, and the tool's name. */
static uint64_t options_number(const OptionSet *set, const char *json, Error *err)
{
    JsonTree tree = {0};
    Buffer text = {0}, value = {0};
    uint64_t number = XXH3_64bits(set->tool, strlen(set->tool));
    if (options_parse(&tree, &text, json, err) == 0)
        for (size_t i = 0; i < tree.root->count; i++) {
            Span key = tree.root->keys[i];
            if (is_named(own_options, key))
                continue;
            value_text(&value, json_get(tree.root, key.data));
            number = XXH3_64bits_withSeed(key.data, key.length, number);
            number = XXH3_64bits_withSeed(value.data, value.length, number);
        }
    json_free(&tree);
    buffer_free(&text);
    buffer_free(&value);
    return number;
}

int ranks_same_options(Grid *g, const OptionSet *set, Error *err)
{
    if (g->size == 1 || g->threads)
        return 0;
    char *own = option_json(set);
    int odd, like, status = find_odd(g, 0, options_number(set, own, err), &odd, &like, err);
    if (status == 0 && odd >= 0) {
        uint64_t length = strlen(own) + 1;
        status = comm_broadcast_host(&g->world, &length, sizeof length, 0, err);
        char *first = memory_zalloc(length, 1);
        if (g->rank == 0)
            memcpy(first, own, length);
        if (status == 0)
            status = comm_broadcast_host(&g->world, first, length, 0, err);
        Error said;
        error_set(&said, "rank %d (host %s) runs another program than rank 0: step 0, in the start", odd, grid_host(g, odd));
        if (g->rank == odd)
            tell_difference(g, first, own, &said);
        if (status == 0)
            status = comm_broadcast_host(&g->world, &said, sizeof said, odd, err);
        if (status == 0)
            *err = said;
        free(first);
        status = status == 0 ? comm_agree(&g->world, -1, err) : -1;
    }
    free(own);
    return status;
}

static uint64_t config_number(const ModelConfig *c)
{
    Buffer text = {0};
    config_write(c, DTYPE_F32, &text);
    uint64_t number = XXH3_64bits(text.data, text.length);
    buffer_free(&text);
    return number;
}

/* Of all weights that this rank holds, as they lie in its arena before ranks share them. */
static uint64_t weights_number(const Model *m)
{
    enum { PIECE = 1 << 20 };
    const ParameterTable *t = &m->params.table;
    Device *d = t->device;
    XXH3_state_t *state = XXH3_createState();
    float *piece = d->is_host ? NULL : memory_alloc(PIECE, sizeof *piece);
    XXH3_64bits_reset(state);
    for (size_t at = 0; at < t->total; at += PIECE) {
        size_t n = t->total - at < PIECE ? t->total - at : PIECE;
        if (piece) {
            d->copy(t->stream, piece, t->weights + at, n * sizeof *piece, COPY_TO_HOST);
            d->stream_wait(t->stream, NULL);
        }
        XXH3_64bits_update(state, piece ? piece : t->weights + at, n * sizeof *piece);
    }
    uint64_t number = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    free(piece);
    return number;
}

int ranks_same_model(Grid *g, Model *m, Error *err)
{
    if (g->size == 1 || g->threads)
        return 0;
    int odd, like, status = find_odd(g, 0, config_number(&m->config), &odd, &like, err);
    const char *what = "another model configuration";
    if (status == 0 && odd < 0 && !m->params.table.sharding) {
        /* Data- and context-parallel ranks hold the same. */
        status = find_odd(g, (uint64_t)(g->place[GRID_TP] + g->extent[GRID_TP] * g->place[GRID_PP]), weights_number(m), &odd, &like, err);
        what = "other weights";
    }
    if (status < 0 || odd < 0)
        return status;
    error_set(err, "rank %d (host %s) has %s than rank %d (host %s), from the same options: step 0, in the start", odd, grid_host(g, odd), what, like, grid_host(g, like));
    return comm_agree(&g->world, -1, err);
}

int ranks_same_data(Grid *g, const DataNumber *data, size_t count, Error *err)
{
    if (g->size == 1 || g->threads)
        return 0;
    uint64_t number = count;
    int odd, like;
    for (size_t i = 0; i < count; i++)
        number = XXH3_64bits_withSeed(&data[i].number, sizeof data[i].number, number);
    int status = find_odd(g, 0, number, &odd, &like, err);
    if (status < 0 || odd < 0)
        return status;
    error_set(err, "rank %d (host %s) has other data than rank %d (host %s) under the same names: step 0, in the start", odd, grid_host(g, odd), like, grid_host(g, like));
    return comm_agree(&g->world, -1, err);
}

static void data_write(const DataNumber *data, size_t count, Buffer *b)
{
    for (size_t i = 0; i < count; i++) {
        buffer_string(b, i > 0 ? ",\n {\"name\": " : "[{\"name\": ");
        json_write_string(b, (Span){data[i].name, strlen(data[i].name)});
        buffer_format(b, ", \"xxh3\": \"%016" PRIx64 "\"}", data[i].number);
    }
    buffer_string(b, "]\n");
}

static int data_compare(const Run *run, const DataNumber *data, size_t count, const char *path, Error *err)
{
    JsonTree tree = {0};
    if (json_parse_file(&tree, path, err) < 0)
        return -1;
    int status = 0;
    size_t saved;
    const JsonValue *items = json_list(tree.root, &saved);
    for (size_t i = 0; i < count && status == 0; i++) {
        const JsonValue *was = i < saved ? json_get(&items[i], "xxh3") : NULL;
        char now[17];
        snprintf(now, sizeof now, "%016" PRIx64, data[i].number);
        if (!json_is(was, JSON_STRING) || strcmp(was->string.data, now) != 0)
            status = error_set(err, "%s: the run was started with other data than %s has now; give another -o for another run", run->folder, data[i].name);
    }
    json_free(&tree);
    return status;
}

int run_same_data(const Run *run, const DataNumber *data, size_t count, Error *err)
{
    if (count == 0)
        return 0;
    char *path = memory_format("%s/data.json", run->folder);
    int status;
    if (access(path, F_OK) == 0) {
        status = data_compare(run, data, count, path, err);
    } else {
        Buffer text = {0};
        data_write(data, count, &text);
        status = file_write(path, text.data, text.length, err);
        buffer_free(&text);
    }
    free(path);
    return status;
}

/* The line at `at`, less what is before and behind its field. */
static Span field_at(const Buffer *b, size_t at)
{
    while (at > 0 && b->data[at - 1] != '\n')
        at--;
    at += strspn(b->data + at, " ");
    size_t length = strcspn(b->data + at, "\n");
    return (Span){b->data + at, length > 0 && b->data[at + length - 1] == ',' ? length - 1 : length};
}

int run_same_model(const Run *run, const Model *m, const char *folder, Error *err)
{
    if (m->config.lora)
        return 0; /* the base lies elsewhere */
    char *path = memory_format("%s/config.json", folder);
    ModelConfig saved;
    Buffer a = {0}, b = {0};
    int status = config_read(&saved, path, err);
    if (status == 0) {
        config_write(&saved, DTYPE_F32, &a);
        config_write(&m->config, DTYPE_F32, &b);
        buffer_byte(&a, 0);
        buffer_byte(&b, 0);
        size_t at = 0;
        while (a.data[at] && a.data[at] == b.data[at])
            at++;
        if (a.data[at] != b.data[at]) {
            Span x = field_at(&a, at), y = field_at(&b, at);
            status = error_set(err, "%s: the run was started with a model of %.*s, not %.*s; give another -o for another run", run->folder, (int)x.length, x.data,
                               (int)y.length, y.data);
        }
    }
    buffer_free(&a);
    buffer_free(&b);
    free(path);
    return status;
}
