#include "train/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/memory.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/stream.h"
#include "model/box.h"
#include "model/folder.h"
#include "model/folder_parts.h"

/* What a rank's files are called: the first's have no number. */
static char *rank_file(const char *folder, const char *stem, const char *ending, int rank)
{
    return rank == 0 ? memory_format("%s/trainer/%s.%s", folder, stem, ending) : memory_format("%s/trainer/%s-%05d.%s", folder, stem, rank, ending);
}

static char *join(const char *folder, const char *name)
{
    return memory_format("%s/%s", folder, name);
}

/* A descriptor of a file: a pipe in its place would be waited for, a device read without end. */
static int regular_open(const char *path, Error *err)
{
    int d = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (d < 0 || (fstat(d, &st) == 0 && S_ISREG(st.st_mode)))
        return d >= 0 ? d : error_set(err, "%s:", path);
    close(d);
    return error_set(err, "%s: not a regular file", path);
}

static int regular_parse(JsonTree *out, const char *path, Error *err)
{
    int d = regular_open(path, err);
    if (d < 0)
        return -1;
    close(d);
    return json_parse_file(out, path, err);
}

/* Read piece by piece: a mapping would count as the process's memory. */
static int file_sum(const char *path, char text[17], Error *err)
{
    enum { PIECE = 1 << 20 };
    int d = regular_open(path, err);
    if (d < 0)
        return -1;
    XXH3_state_t *sum = XXH3_createState();
    char *piece = memory_alloc(PIECE, 1);
    ssize_t n;
    XXH3_64bits_reset(sum);
    while ((n = read(d, piece, PIECE)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0)
            XXH3_64bits_update(sum, piece, (size_t)n);
    int status = n < 0 ? error_set(err, "%s:", path) : 0;
    snprintf(text, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(sum));
    XXH3_freeState(sum);
    free(piece);
    close(d);
    return status;
}

ArenaShare share_open(const Optimizer *o)
{
    const ParameterTable *t = o->table;
    ArenaShare s = {.stretches = memory_alloc((size_t)t->unit_count, sizeof *s.stretches), .n = t->unit_count, .rank = o->grid->rank, .ranks = o->grid->size};
    for (int i = 0; i < s.n; i++) {
        size_t begin, end;
        optimizer_slice(o, i, &begin, &end);
        s.stretches[i] = (ArenaStretch){begin - t->frozen, end - t->frozen};
        s.count += end - begin;
    }
    return s;
}

void share_close(ArenaShare *s)
{
    free(s->stretches);
    *s = (ArenaShare){0};
}

void share_copy(const ArenaShare *s, const Optimizer *o, float *to, const float *arena, bool states)
{
    ParameterTable *t = o->table;
    bool sliced = states || o->shard > 2;
    for (int i = 0; i < s->n; i++) {
        size_t n = s->stretches[i].end - s->stretches[i].begin;
        if (n > 0)
            t->device->copy(t->stream, to, arena + (sliced ? optimizer_place(o, i) : s->stretches[i].begin), n * sizeof *to, COPY_TO_HOST);
        to += n;
    }
}

const float *share_in_place(const ArenaShare *s, const Optimizer *o, const float *arena)
{
    for (int i = 1; i < s->n; i++)
        if (s->stretches[i].begin != s->stretches[i - 1].end)
            return NULL;
    return o->table->device->is_host && o->shard <= 2 && s->n > 0 ? arena + s->stretches[0].begin : NULL;
}

int snapshot_take(Snapshot *to, const Optimizer *o, const Average *a, const TrainState *s, Error *err)
{
    ParameterTable *t = o->table;
    bool first = !to->share.stretches;
    float **host[] = {&to->weights, &to->first, &to->second, &to->average};
    const float *device[] = {param_kept_trained(t), o->first, o->second, a->weights};
    if (first)
        to->share = share_open(o);
    for (int i = 0; i < 4; i++) {
        if (!device[i] || (i == 3 && !first && a->count == 0))
            continue;
        if (!*host[i])
            *host[i] = memory_large(to->share.count, sizeof(float));
        share_copy(&to->share, o, *host[i], device[i], i == 1 || i == 2);
    }
    to->optimizer_steps = o->steps;
    to->averaged = a->count;
    to->state = *s;
    return t->device->stream_wait(t->stream, err);
}

void snapshot_free(Snapshot *s)
{
    share_close(&s->share);
    free(s->weights);
    free(s->first);
    free(s->second);
    free(s->average);
    *s = (Snapshot){0};
}

/* A file of boxes: entries of safetensors, and what each box is of under the entry's name less its prefix. */
typedef struct BoxFile {
    SafetensorsSource *sources;
    char **metadata; /* pairs */
    size_t count, source_capacity, pairs, pair_capacity;
} BoxFile;

/* prefixes NULL-terminated, an arena each. */
static void add_boxes(BoxFile *f, const Model *m, const Snapshot *s, const char *const *prefixes, const float *const *arenas)
{
    size_t count;
    OwnBox *boxes = boxes_own(&m->params.table, s->share.stretches, s->share.n, &count);
    for (size_t i = 0; i < count; i++) {
        const OwnBox *b = &boxes[i];
        /* A second box of a tensor needs another name. */
        char *name = b->number ? memory_format("%s#%d", b->parameter->name, b->number) : memory_string(b->parameter->name);
        f->metadata = memory_grow(f->metadata, &f->pair_capacity, f->pairs + 3, sizeof *f->metadata);
        f->metadata[f->pairs++] = name;
        f->metadata[f->pairs++] = box_text(b->parameter, &b->box);
        for (int j = 0; prefixes[j]; j++) {
            f->sources = memory_grow(f->sources, &f->source_capacity, f->count + 1, sizeof *f->sources);
            f->sources[f->count++] = (SafetensorsSource){.name = memory_format("%s%s", prefixes[j], name), .dtype = DTYPE_F32, .ndim = b->parameter->ndim,
                                                         .shape = {b->box.extent[0], b->box.extent[1]}, .data = arenas[j] + b->at};
        }
    }
    free(boxes);
}

/* Adds a file's checksum under its name inside the folder. */
static void sum_add(Buffer *sums, const char *folder, const char *path, const char *text)
{
    buffer_format(sums, ",\n  \"%s\": \"%s\"", path + strlen(folder) + 1, text);
}

static int boxes_save(const char *folder, const char *path, const Model *m, const Snapshot *s, const char *const *prefixes, const float *const *arenas,
                      Buffer *sums, Error *err)
{
    BoxFile f = {0};
    f.metadata = memory_grow(NULL, &f.pair_capacity, 3, sizeof *f.metadata);
    f.metadata[f.pairs++] = memory_string("format");
    f.metadata[f.pairs++] = memory_string("pt");
    add_boxes(&f, m, s, prefixes, arenas);
    f.metadata[f.pairs] = NULL;
    uint64_t sum;
    char text[17];
    int status = safetensors_write(path, f.sources, f.count, (const char *const *)f.metadata, &sum, err);
    if (status == 0) {
        snprintf(text, sizeof text, "%016" PRIx64, sum);
        sum_add(sums, folder, path, text);
    }
    for (size_t i = 0; i < f.count; i++)
        free((char *)(uintptr_t)f.sources[i].name);
    for (size_t i = 0; i < f.pairs; i++)
        free(f.metadata[i]);
    free(f.sources);
    free(f.metadata);
    return status;
}

static const char *const moments[] = {"exp_avg.", "exp_avg_sq.", NULL}, *const averages[] = {"", NULL};

static int write_json(const char *path, Buffer *b, Error *err)
{
    int status = file_write(path, b->data, b->length, err);
    b->length = 0;
    return status;
}

static int counters_save(const char *folder, const Snapshot *snapshot, Error *err)
{
    const TrainState *s = &snapshot->state;
    Buffer b = {0};
    buffer_format(&b, "{\n  \"step\": %" PRId64 ",\n  \"tokens\": %" PRId64 ",\n  \"skipped\": %" PRId64 ",\n  \"optimizer_steps\": %" PRId64
                      ",\n  \"averaged\": %" PRId64 ",\n  \"ranks\": %d,\n  \"flops\": ",
                  s->step, s->tokens, s->skipped, snapshot->optimizer_steps, snapshot->averaged, snapshot->share.ranks);
    json_write_number(&b, s->flops);
    buffer_string(&b, ",\n  \"best\": ");
    json_write_number(&b, s->best);
    buffer_format(&b, ",\n  \"stale\": %" PRId64 "\n}\n", s->stale);
    char *path = join(folder, "trainer/state.json");
    int status = write_json(path, &b, err);
    free(path);
    buffer_free(&b);
    return status;
}

int state_begin(const char *folder, const Model *m, Error *err)
{
    char *trainer = join(folder, "trainer");
    int status = folder_create(trainer, err);
    free(trainer);
    return status < 0 ? -1 : folder_begin(m, DTYPE_F32, folder, err);
}

static int sum_file(Buffer *sums, const char *folder, const char *name, Error *err)
{
    char text[17], *path = join(folder, name);
    bool there = access(path, F_OK) == 0;
    int status = there ? file_sum(path, text, err) : 0;
    if (there && status == 0)
        sum_add(sums, folder, path, text);
    free(path);
    return status;
}

/* The first rank's sums are those too of what nobody writes a part of. */
static int sums_save(const char *folder, const Model *m, const Snapshot *s, Buffer *sums, Error *err)
{
    int status = 0;
    if (s->share.rank == 0) {
        status = sum_file(sums, folder, "trainer/state.json", err);
        for (int i = 0; folder_texts[i] && status == 0; i++)
            status = sum_file(sums, folder, folder_texts[i], err);
        if (status == 0)
            status = parts_sum_header(m, folder, sums, err);
    }
    sums->data[0] = '{'; /* for the first comma */
    buffer_string(sums, "\n}\n");
    char *path = rank_file(folder, "checksums", "json", s->share.rank);
    if (status == 0)
        status = write_json(path, sums, err);
    free(path);
    return status;
}

int state_save(const char *folder, const Model *m, const Snapshot *s, Error *err)
{
    char *optimizer = rank_file(folder, "optimizer", "safetensors", s->share.rank), *average = rank_file(folder, "average", "safetensors", s->share.rank);
    Buffer sums = {0};
    int status = boxes_save(folder, optimizer, m, s, moments, (const float *const[]){s->first, s->second}, &sums, err);
    if (status == 0 && s->averaged)
        status = boxes_save(folder, average, m, s, averages, (const float *const[]){s->average}, &sums, err);
    if (status == 0)
        status = parts_write(m, s->weights, s->share.stretches, s->share.n, DTYPE_F32, folder, &sums, err);
    if (status == 0 && s->share.rank == 0)
        status = counters_save(folder, s, err);
    if (status == 0)
        status = sums_save(folder, m, s, &sums, err);
    free(optimizer);
    free(average);
    buffer_free(&sums);
    return status;
}

/* What one rank has written. */
static int sums_check(const char *folder, int rank, Error *err)
{
    char *path = rank_file(folder, "checksums", "json", rank);
    JsonTree tree = {0};
    int status = regular_parse(&tree, path, err);
    if (status == 0 && !json_is(tree.root, JSON_OBJECT))
        status = error_set(err, "%s: damaged (no JSON object)", path);
    if (status == 0 && rank == 0 && !json_get(tree.root, "trainer/state.json"))
        status = error_set(err, "%s: damaged (no sum of trainer/state.json)", path);
    free(path);
    for (size_t i = 0; status == 0 && i < tree.root->count; i++) {
        const JsonValue *want = &tree.root->items[i];
        const char *name = tree.root->keys[i].data;
        if (strchr(name, ' '))
            continue; /* a box of the model */
        char *file = join(folder, name), text[17];
        status = file_sum(file, text, err);
        if (status == 0 && (!json_is(want, JSON_STRING) || strcmp(want->string.data, text) != 0))
            status = error_set(err, "%s: damaged (its checksum does not fit)", file);
        free(file);
    }
    if (status == 0)
        status = parts_check(folder, tree.root, err);
    json_free(&tree);
    return status;
}

static int64_t integer_of(const JsonTree *t, const char *key)
{
    const JsonValue *v = json_get(t->root, key);
    return json_is(v, JSON_INTEGER) ? v->integer : 0;
}

/* How many ranks have written the checkpoint; -1. */
static int writers(const char *folder, Error *err)
{
    JsonTree tree = {0};
    char *path = join(folder, "trainer/state.json");
    int status = regular_parse(&tree, path, err);
    int64_t n = status == 0 ? integer_of(&tree, "ranks") : 0;
    if (status == 0 && (n < 0 || n > 1 << 20))
        status = error_set(err, "%s: %" PRId64 " ranks", path, n);
    free(path);
    json_free(&tree);
    return status < 0 ? -1 : n > 0 ? (int)n : 1; /* before there were several, nobody counted */
}

int state_check(const char *folder, int rank, int ranks, Error *err)
{
    int n = writers(folder, err), status = n < 0 ? -1 : 0;
    for (int i = rank; i < n && status == 0; i += ranks)
        status = sums_check(folder, i, err);
    return status;
}

static double number_of(const JsonTree *t, const char *key)
{
    const JsonValue *v = json_get(t->root, key);
    return json_is(v, JSON_NUMBER) ? v->number : 0;
}

/* An entry of a file of boxes. */
typedef struct Stored {
    char *name; /* of the parameter */
    const Safetensors *file;
    const SafetensorsEntry *entry;
} Stored;

typedef struct BoxFiles {
    Safetensors *files;
    int count;
    Stored *stored; /* sorted by name */
    size_t stored_count, capacity;
} BoxFiles;

static int compare_stored(const void *a, const void *b)
{
    return strcmp(((const Stored *)a)->name, ((const Stored *)b)->name);
}

static void boxes_close(BoxFiles *b)
{
    for (size_t i = 0; i < b->stored_count; i++)
        free(b->stored[i].name);
    for (int i = 0; i < b->count; i++)
        safetensors_close(&b->files[i]);
    free(b->stored);
    free(b->files);
}

static int boxes_open(BoxFiles *b, const char *folder, const char *stem, int ranks, Error *err)
{
    *b = (BoxFiles){.files = memory_zalloc((size_t)ranks, sizeof *b->files)};
    for (; b->count < ranks; b->count++) {
        char *path = rank_file(folder, stem, "safetensors", b->count);
        int status = safetensors_open(&b->files[b->count], path, err);
        free(path);
        if (status < 0) {
            boxes_close(b);
            return -1;
        }
    }
    for (int f = 0; f < ranks; f++)
        for (size_t i = 0; i < b->files[f].count; i++) {
            const SafetensorsEntry *e = &b->files[f].entries[i];
            b->stored = memory_grow(b->stored, &b->capacity, b->stored_count + 1, sizeof *b->stored);
            b->stored[b->stored_count++] = (Stored){memory_copy(e->name, strcspn(e->name, "#")), &b->files[f], e};
        }
    qsort(b->stored, b->stored_count, sizeof *b->stored, compare_stored);
    return 0;
}

/* The part of a tensor that an entry is; without a word about it, all. prefix: of entries' names. */
static int stored_box(const Stored *s, size_t prefix, const Parameter *p, Box *b, Error *err)
{
    const SafetensorsEntry *e = s->entry;
    const JsonValue *text = s->file->metadata ? json_get(s->file->metadata, e->name + prefix) : NULL;
    *b = (Box){.extent = {p->shape[0], p->ndim == 2 ? p->shape[1] : 1}};
    if (json_is(text, JSON_STRING) && box_parse(text->string.data, p, b, err) < 0)
        return error_prefix(err, "%s", s->file->path);
    if (e->dtype != DTYPE_F32 || e->end - e->begin != box_count(b) * sizeof(float))
        return error_set(err, "%s: '%s' has another type or size than its box", s->file->path, e->name);
    return 0;
}

/* This rank's box of a parameter from those in the files. */
static int box_load(const BoxFiles *f, const char *prefix, const Parameter *p, float *values, Error *err)
{
    char *name = memory_format("%s%s", prefix, p->name);
    size_t low = 0, high = f->stored_count, found = 0;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(f->stored[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    Box want = box_of(p);
    int status = 0;
    for (; status == 0 && low < f->stored_count && strcmp(f->stored[low].name, name) == 0; low++) {
        const Stored *s = &f->stored[low];
        Box there, both;
        status = stored_box(s, strlen(prefix), p, &there, err);
        if (status == 0 && box_meet(&want, &there, &both)) {
            box_copy(values, &want, s->file->data + s->entry->begin, &there, &both, sizeof *values);
            found += box_count(&both);
        }
    }
    if (status == 0 && found != p->count)
        status = error_set(err, "%s: '%s' is missing or of another shape", f->files[0].path, name);
    free(name);
    return status;
}

/* Where a parameter's values go: to all of an arena, or of states or weights of which the rank keeps its slices alone, to those. */
static void store(const Optimizer *o, const Parameter *p, const float *values, float *arena, bool states)
{
    ParameterTable *t = o->table;
    if (states ? o->shard == 0 : o->shard < 3) {
        t->device->copy(t->stream, param_trained(t, arena, p), values, p->count * sizeof *values, COPY_TO_DEVICE);
        return;
    }
    for (int u = 0; u < t->unit_count; u++) {
        size_t begin, end;
        optimizer_slice(o, u, &begin, &end);
        size_t from = begin, to = end;
        if (param_within(p, &from, &to))
            t->device->copy(t->stream, arena + optimizer_place(o, u) + (from - begin), values + (from - p->offset), (to - from) * sizeof *values, COPY_TO_DEVICE);
    }
}

/* One arena from the files, whose entries are named prefix + the parameter's name. */
static int arena_load(const BoxFiles *f, const char *prefix, const Optimizer *o, float *arena, bool states, Error *err)
{
    ParameterTable *t = o->table;
    int status = 0;
    for (size_t i = 0; i < t->count && status == 0; i++) {
        const Parameter *p = &t->items[i];
        if (!p->trainable)
            continue;
        float *values = memory_alloc(p->count, sizeof *values);
        status = box_load(f, prefix, p, values, err);
        if (status == 0)
            store(o, p, values, arena, states);
        if (t->device->stream_wait(t->stream, err) < 0)
            status = -1;
        free(values);
    }
    return status;
}

static int boxes_load(const char *folder, const char *stem, int ranks, const char *const *prefixes, const Optimizer *o, float *const *arenas, bool states,
                      Error *err)
{
    BoxFiles f;
    if (boxes_open(&f, folder, stem, ranks, err) < 0)
        return -1;
    int status = 0;
    for (int i = 0; prefixes[i] && status == 0; i++)
        status = arena_load(&f, prefixes[i], o, arenas[i], states, err);
    boxes_close(&f);
    return status;
}

int state_load(const char *folder, Model *m, Optimizer *o, Average *a, TrainState *s, Error *err)
{
    int ranks = writers(folder, err);
    if (ranks < 0 || folder_reload(m, folder, err) < 0 ||
        boxes_load(folder, "optimizer", ranks, moments, o, (float *const[]){o->first, o->second}, true, err) < 0)
        return -1;
    JsonTree tree = {0};
    char *path = join(folder, "trainer/state.json");
    int status = json_parse_file(&tree, path, err);
    if (status == 0) {
        *s = (TrainState){.step = integer_of(&tree, "step"), .tokens = integer_of(&tree, "tokens"), .skipped = integer_of(&tree, "skipped"),
                          .flops = number_of(&tree, "flops"), .best = number_of(&tree, "best"), .stale = integer_of(&tree, "stale")};
        o->steps = integer_of(&tree, "optimizer_steps");
        a->count = integer_of(&tree, "averaged");
        if (a->count > 0)
            status = average_need(a, &m->params.table, err);
        if (a->count > 0 && status == 0)
            status = boxes_load(folder, "average", ranks, averages, o, (float *const[]){a->weights}, false, err);
    }
    free(path);
    json_free(&tree);
    return status;
}
