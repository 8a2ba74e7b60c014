#include "train/state.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/memory.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/stream.h"
#include "model/folder.h"

static const char *const summed[] = {"config.json", "model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json",
                                     "trainer/average.safetensors"};
enum { SUMMED = sizeof summed / sizeof *summed, AVERAGE = SUMMED - 1 /* not always there */ };

static char *join(const char *folder, const char *name)
{
    return memory_format("%s/%s", folder, name);
}

static int file_sum(const char *path, char text[17], Error *err)
{
    int d = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (d < 0 || fstat(d, &st) != 0) {
        error_set(err, "%s:", path);
        if (d >= 0)
            close(d);
        return -1;
    }
    size_t size = (size_t)st.st_size;
    void *map = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, d, 0) : NULL;
    close(d);
    if (map == MAP_FAILED)
        return error_set(err, "%s:", path);
    snprintf(text, 17, "%016" PRIx64, (uint64_t)XXH3_64bits(map, size));
    if (map)
        munmap(map, size);
    return 0;
}

static char *box_text(const Parameter *p)
{
    if (p->ndim == 1)
        return memory_format("global %" PRId64 " box %" PRId64 "+%" PRId64, p->shape[0], p->begin[0], p->extent[0]);
    return memory_format("global %" PRId64 ",%" PRId64 " box %" PRId64 "+%" PRId64 ",%" PRId64 "+%" PRId64, p->shape[0], p->shape[1],
                         p->begin[0], p->extent[0], p->begin[1], p->extent[1]);
}

int snapshot_take(Snapshot *to, Model *m, const Optimizer *o, const Average *a, const TrainState *s, Error *err)
{
    const ParameterTable *t = &m->params.table;
    float **host[] = {&to->weights, &to->first, &to->second, &to->average};
    const float *device[] = {t->weights + t->frozen, o->first, o->second, a->weights};
    size_t n = param_trained_total(t);
    for (int i = 0; i < 4; i++) {
        if (!device[i])
            continue;
        if (!*host[i])
            *host[i] = memory_alloc(n, sizeof(float));
        m->device->copy(m->stream, *host[i], device[i], n * sizeof(float), COPY_TO_HOST);
    }
    to->optimizer_steps = o->steps;
    to->averaged = a->count;
    to->state = *s;
    return m->device->stream_wait(m->stream, err);
}

void snapshot_free(Snapshot *s)
{
    free(s->weights);
    free(s->first);
    free(s->second);
    free(s->average);
    *s = (Snapshot){0};
}

static int moments_save(const char *folder, const Model *m, const Snapshot *s, Error *err)
{
    const ParameterTable *t = &m->params.table;
    SafetensorsSource *sources = memory_zalloc(2 * t->count, sizeof *sources);
    const char **metadata = memory_zalloc(2 * t->count + 3, sizeof *metadata);
    float *host[2] = {s->first, s->second};
    size_t n = 0, pairs = 0;
    metadata[pairs++] = "format";
    metadata[pairs++] = "pt";
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i];
        if (!p->trainable)
            continue;
        metadata[pairs++] = p->name;
        metadata[pairs++] = box_text(p);
        for (int k = 0; k < 2; k++)
            sources[n++] = (SafetensorsSource){.name = memory_format("%s.%s", k ? "exp_avg_sq" : "exp_avg", p->name), .dtype = DTYPE_F32,
                                               .ndim = p->ndim, .shape = {p->extent[0], p->extent[1]}, .data = param_trained(t, host[k], p)};
    }
    char *path = join(folder, "trainer/optimizer.safetensors");
    int status = safetensors_write(path, sources, n, metadata, err);
    free(path);
    for (size_t i = 0; i < n; i++)
        free((char *)(uintptr_t)sources[i].name);
    for (size_t i = 3; i < pairs; i += 2)
        free((char *)(uintptr_t)metadata[i]);
    free(sources);
    free(metadata);
    return status;
}

static int average_save(const char *folder, const Model *m, float *average, Error *err)
{
    const ParameterTable *t = &m->params.table;
    SafetensorsSource *sources = memory_zalloc(t->count, sizeof *sources);
    size_t n = 0;
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i];
        if (p->trainable)
            sources[n++] = (SafetensorsSource){.name = p->name, .dtype = DTYPE_F32, .ndim = p->ndim, .shape = {p->extent[0], p->extent[1]},
                                               .data = param_trained(t, average, p)};
    }
    char *path = join(folder, summed[AVERAGE]);
    int status = safetensors_write(path, sources, n, NULL, err);
    free(path);
    free(sources);
    return status;
}

static int write_json(const char *folder, const char *name, Buffer *b, Error *err)
{
    char *path = join(folder, name);
    int status = file_write(path, b->data, b->length, err);
    free(path);
    b->length = 0;
    return status;
}

int state_save(const char *folder, const Model *m, const Snapshot *snapshot, Error *err)
{
    const TrainState *s = &snapshot->state;
    char *trainer = join(folder, "trainer");
    int status = folder_create(trainer, err);
    free(trainer);
    if (status < 0 || folder_write(m, snapshot->weights, DTYPE_F32, folder, err) < 0 || moments_save(folder, m, snapshot, err) < 0 ||
        (snapshot->averaged && average_save(folder, m, snapshot->average, err) < 0))
        return -1;
    Buffer b = {0};
    buffer_format(&b, "{\n  \"step\": %" PRId64 ",\n  \"tokens\": %" PRId64 ",\n  \"skipped\": %" PRId64 ",\n  \"optimizer_steps\": %" PRId64
                      ",\n  \"averaged\": %" PRId64 ",\n  \"flops\": ",
                  s->step, s->tokens, s->skipped, snapshot->optimizer_steps, snapshot->averaged);
    json_write_number(&b, s->flops);
    buffer_string(&b, ",\n  \"best\": ");
    json_write_number(&b, s->best);
    buffer_format(&b, ",\n  \"stale\": %" PRId64 "\n}\n", s->stale);
    status = write_json(folder, "trainer/state.json", &b, err);
    buffer_string(&b, "{");
    for (int i = 0; i < (snapshot->averaged ? SUMMED : AVERAGE) && status == 0; i++) {
        char *path = join(folder, summed[i]), text[17];
        status = file_sum(path, text, err);
        buffer_format(&b, "%s\n  \"%s\": \"%s\"", i ? "," : "", summed[i], text);
        free(path);
    }
    buffer_string(&b, "\n}\n");
    if (status == 0)
        status = write_json(folder, "trainer/checksums.json", &b, err);
    buffer_free(&b);
    return status;
}

int state_check(const char *folder, Error *err)
{
    char *path = join(folder, "trainer/checksums.json");
    JsonTree tree = {0};
    int status = json_parse_file(&tree, path, err);
    free(path);
    for (int i = 0; i < SUMMED && status == 0; i++) {
        const JsonValue *want = json_get(tree.root, summed[i]);
        if (i == AVERAGE && !want)
            break;
        char *file = join(folder, summed[i]), text[17];
        status = file_sum(file, text, err);
        if (status == 0 && (!json_is(want, JSON_STRING) || strcmp(want->string.data, text) != 0))
            status = error_set(err, "%s: damaged (its checksum does not fit)", file);
        free(file);
    }
    json_free(&tree);
    return status;
}

/* One arena from a file, whose entries are named prefix + the parameter's name. */
static int arena_load(const Safetensors *file, const char *prefix, Model *m, float *arena, Error *err)
{
    const ParameterTable *t = &m->params.table;
    int status = 0;
    for (size_t i = 0; i < t->count && status == 0; i++) {
        const Parameter *p = &t->items[i];
        if (!p->trainable)
            continue;
        char *name = memory_format("%s%s", prefix, p->name);
        const SafetensorsEntry *e = safetensors_find(file, name);
        if (!e || e->dtype != DTYPE_F32 || e->end - e->begin != p->count * sizeof(float))
            status = error_set(err, "%s: '%s' is missing or of another shape", file->path, name);
        else
            m->device->copy(m->stream, param_trained(t, arena, p), file->data + e->begin, p->count * sizeof(float), COPY_TO_DEVICE);
        free(name);
    }
    return m->device->stream_wait(m->stream, err) < 0 ? -1 : status;
}

static int moments_load(const char *folder, Model *m, Optimizer *o, Error *err)
{
    char *path = join(folder, "trainer/optimizer.safetensors");
    Safetensors file;
    int status = safetensors_open(&file, path, err);
    if (status == 0) {
        status = arena_load(&file, "exp_avg.", m, o->first, err) < 0 || arena_load(&file, "exp_avg_sq.", m, o->second, err) < 0 ? -1 : 0;
        safetensors_close(&file);
    }
    free(path);
    return status;
}

static int average_load(const char *folder, Model *m, Average *a, Error *err)
{
    if (average_need(a, &m->params.table, err) < 0)
        return -1;
    char *path = join(folder, summed[AVERAGE]);
    Safetensors file;
    int status = safetensors_open(&file, path, err);
    if (status == 0) {
        status = arena_load(&file, "", m, a->weights, err);
        safetensors_close(&file);
    }
    free(path);
    return status;
}

static int64_t integer_of(const JsonTree *t, const char *key)
{
    const JsonValue *v = json_get(t->root, key);
    return json_is(v, JSON_INTEGER) ? v->integer : 0;
}

static double number_of(const JsonTree *t, const char *key)
{
    const JsonValue *v = json_get(t->root, key);
    return json_is(v, JSON_NUMBER) ? v->number : 0;
}

int state_load(const char *folder, Model *m, Optimizer *o, Average *a, TrainState *s, Error *err)
{
    Model saved;
    if (folder_load(&saved, folder, 0, 0, NULL, m->device, err) < 0)
        return -1;
    int status = param_copy(&m->params.table, &saved.params.table, err);
    if (status < 0)
        error_prefix(err, "%s", folder);
    model_close(&saved);
    if (status < 0 || moments_load(folder, m, o, err) < 0)
        return -1;
    JsonTree tree = {0};
    char *path = join(folder, "trainer/state.json");
    status = json_parse_file(&tree, path, err);
    if (status == 0) {
        *s = (TrainState){.step = integer_of(&tree, "step"), .tokens = integer_of(&tree, "tokens"), .skipped = integer_of(&tree, "skipped"),
                          .flops = number_of(&tree, "flops"), .best = number_of(&tree, "best"), .stale = integer_of(&tree, "stale")};
        o->steps = integer_of(&tree, "optimizer_steps");
        a->count = integer_of(&tree, "averaged");
        if (a->count > 0)
            status = average_load(folder, m, a, err);
    }
    free(path);
    json_free(&tree);
    return status;
}
