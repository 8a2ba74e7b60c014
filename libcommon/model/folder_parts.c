#include "model/folder_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/memory.h"
#include "io/disk.h"
#include "io/safetensors.h"
#include "model/lora.h"

/* The file's name. */
static const char *file_of(const Model *m)
{
    return m->config.lora ? "adapter_model.safetensors" : "model.safetensors";
}

/* What a parameter is called in the file; caller frees. */
static char *entry_name(const Model *m, const Parameter *p)
{
    bool prefixed = m->config.lora && strncmp(p->name, ADAPTER_PREFIX, strlen(ADAPTER_PREFIX)) != 0;
    return memory_format("%s%s", prefixed ? ADAPTER_PREFIX : "", p->name);
}

static char *file_path(const Model *m, const char *folder)
{
    return memory_format("%s/%s", folder, file_of(m));
}

/* Where the whole model's tensors lie in its file. */
typedef struct FileLayout {
    ModelParameters whole;
    Buffer header;
    uint64_t *begin; /* of each parameter that is saved */
    uint64_t size;
} FileLayout;

static int layout_open(FileLayout *l, const Model *m, Dtype type, Error *err)
{
    *l = (FileLayout){0};
    ModelPart all = part_whole(&m->config);
    if (param_open(&l->whole, &m->config, &all, NULL, NULL, err) < 0)
        return -1;
    const ParameterTable *t = &l->whole.table;
    SafetensorsSource *sources = memory_zalloc(t->count, sizeof *sources);
    uint64_t *begin = memory_alloc(t->count, sizeof *begin);
    size_t *places = memory_alloc(t->count, sizeof *places), n = 0;
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i];
        if (!p->trainable)
            continue; /* it stays where it came from */
        places[n] = i;
        sources[n++] = (SafetensorsSource){.name = entry_name(m, p), .dtype = type, .ndim = p->ndim, .shape = {p->shape[0], p->shape[1]}};
    }
    static const char *const metadata[] = {"format", "pt", NULL};
    l->size = safetensors_layout(sources, n, metadata, &l->header, begin);
    l->begin = memory_zalloc(t->count, sizeof *l->begin);
    for (size_t i = 0; i < n; i++) {
        l->begin[places[i]] = begin[i];
        free((char *)(uintptr_t)sources[i].name);
    }
    free(places);
    free(begin);
    free(sources);
    return 0;
}

static void layout_close(FileLayout *l)
{
    param_close(&l->whole);
    buffer_free(&l->header);
    free(l->begin);
}

int parts_begin(const Model *m, Dtype type, const char *folder, Error *err)
{
    FileLayout l;
    char *path = file_path(m, folder);
    int status = layout_open(&l, m, type, err);
    if (status == 0) {
        DiskFile *file = disk_open(path, l.size, err);
        status = file ? disk_close(file, disk_write(file, l.header.data, l.header.length, 0, err), err) : -1;
        layout_close(&l);
    }
    free(path);
    return status;
}

static void sum_add(Buffer *sums, const char *file, const char *what, XXH64_hash_t sum)
{
    buffer_format(sums, ",\n  \"%s %s\": \"%016" PRIx64 "\"", file, what, (uint64_t)sum);
}

/* n numbers that lie together in the file, piece by piece: a second copy of a whole embedding would be the largest thing in memory. */
static int write_stretch(DiskFile *file, const float *values, size_t n, Dtype type, uint64_t at, XXH3_state_t *sum, Error *err)
{
    enum { PIECE = 1 << 16 };
    size_t size = dtype_size(type);
    char *bytes = memory_alloc(n < PIECE ? n : PIECE, size);
    int status = 0;
    for (size_t begin = 0; begin < n && status == 0; begin += PIECE) {
        size_t count = n - begin < PIECE ? n - begin : PIECE;
        dtype_convert(bytes, type, values + begin, DTYPE_F32, count);
        XXH3_64bits_update(sum, bytes, count * size);
        status = disk_write(file, bytes, count * size, at + begin * size, err);
    }
    free(bytes);
    return status;
}

/* values: those of the box, row by row. */
static int write_box(const Model *m, DiskFile *file, const Parameter *p, const Box *b, const float *values, Dtype type, uint64_t at, Buffer *sums, Error *err)
{
    size_t size = dtype_size(type), count = box_count(b), columns = p->ndim == 2 ? (size_t)p->shape[1] : 1, width = (size_t)b->extent[1];
    int64_t rows = width == columns ? 1 : b->extent[0];
    size_t stretch = count / (size_t)rows;
    XXH3_state_t *sum = XXH3_createState();
    int status = 0;
    XXH3_64bits_reset(sum);
    for (int64_t r = 0; r < rows && status == 0; r++)
        status = write_stretch(file, values + (size_t)r * stretch, stretch, type, at + ((size_t)(b->begin[0] + r) * columns + (size_t)b->begin[1]) * size, sum, err);
    if (sums) {
        char *box = box_text(p, b), *name = entry_name(m, p), *what = memory_format("%s %s", name, box);
        sum_add(sums, file_of(m), what, XXH3_64bits_digest(sum));
        free(box);
        free(name);
        free(what);
    }
    XXH3_freeState(sum);
    return status;
}

int parts_write(const Model *m, const float *values, const ArenaStretch *stretches, int n, Dtype type, const char *folder, Buffer *sums, Error *err)
{
    FileLayout l;
    if (layout_open(&l, m, type, err) < 0)
        return -1;
    char *path = file_path(m, folder);
    DiskFile *file = disk_open(path, 0, err);
    int status = file ? 0 : -1;
    size_t count;
    OwnBox *boxes = boxes_own(&m->params.table, stretches, n, &count);
    for (size_t i = 0; i < count && status == 0; i++) {
        const Parameter *p = boxes[i].parameter;
        status = write_box(m, file, p, &boxes[i].box, values + boxes[i].at, type, l.begin[param_find(&l.whole.table, p->name)], sums, err);
    }
    free(boxes);
    if (file)
        status = disk_close(file, status, err);
    free(path);
    layout_close(&l);
    return status;
}

static XXH64_hash_t header_sum(const Safetensors *file)
{
    return XXH3_64bits(file->start, (size_t)(file->data - file->start));
}

int parts_sum_header(const Model *m, const char *folder, Buffer *sums, Error *err)
{
    Safetensors file;
    char *path = file_path(m, folder);
    int status = safetensors_open(&file, path, err);
    if (status == 0) {
        sum_add(sums, file_of(m), "header", header_sum(&file));
        safetensors_close(&file);
    }
    free(path);
    return status;
}

static XXH64_hash_t box_sum(const Safetensors *file, const SafetensorsEntry *e, const Parameter *p, const Box *b)
{
    size_t size = dtype_size(e->dtype), columns = p->ndim == 2 ? (size_t)p->shape[1] : 1, width = (size_t)b->extent[1];
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    for (int64_t r = 0; r < b->extent[0]; r++)
        XXH3_64bits_update(state, file->data + e->begin + ((size_t)(b->begin[0] + r) * columns + (size_t)b->begin[1]) * size, width * size);
    XXH64_hash_t sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return sum;
}

/* what: "header", or "NAME global … box …". */
static int member_check(const Safetensors *file, const char *what, const JsonValue *want, Error *err)
{
    const char *space = strchr(what, ' ');
    char *name = memory_copy(what, space ? (size_t)(space - what) : strlen(what)), text[17];
    const SafetensorsEntry *e = safetensors_find(file, name);
    Parameter p = {.name = name, .ndim = e && e->ndim == 2 ? 2 : 1};
    Box b;
    int status = 0;
    if (!space)
        snprintf(text, sizeof text, "%016" PRIx64, (uint64_t)header_sum(file));
    else if (!e || e->ndim < 1 || e->ndim > 2)
        status = error_set(err, "%s: damaged (it has no '%s')", file->path, name);
    else {
        memcpy(p.shape, e->shape, sizeof p.shape);
        status = box_parse(space + 1, &p, &b, err);
        if (status < 0)
            error_prefix(err, "%s: damaged", file->path);
        else
            snprintf(text, sizeof text, "%016" PRIx64, (uint64_t)box_sum(file, e, &p, &b));
    }
    if (status == 0 && (!json_is(want, JSON_STRING) || strcmp(text, want->string.data) != 0))
        status = error_set(err, "%s: damaged (the checksum of '%s' does not fit)", file->path, what);
    free(name);
    return status;
}

int parts_check(const char *folder, const JsonValue *sums, Error *err)
{
    Safetensors file = {0};
    int status = 0;
    for (size_t i = 0; i < sums->count && status == 0; i++) {
        const char *key = sums->keys[i].data, *space = strchr(key, ' ');
        if (!space)
            continue;
        char *path = memory_format("%s/%.*s", folder, (int)(space - key), key);
        if (file.path && strcmp(file.path, path) != 0)
            safetensors_close(&file);
        if (!file.path)
            status = safetensors_open(&file, path, err);
        free(path);
        if (status == 0)
            status = member_check(&file, space + 1, &sums->items[i], err);
    }
    if (file.path)
        safetensors_close(&file);
    return status;
}
