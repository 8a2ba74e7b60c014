#include "io/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "io/disk.h"
#include "io/filemap.h"
#include "io/stream.h"

/* The reference's limit on the header (safetensors/src/tensor.rs). */
static const uint64_t HEADER_LIMIT = 100000000;

struct SafetensorsMapping {
    FileMap file;
    JsonTree header;
};

static int entry_dtype(SafetensorsEntry *e, const JsonValue *v, const char *path, Error *err)
{
    static const Dtype known[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_I64, DTYPE_U8};
    const JsonValue *name = json_get(v, "dtype");
    if (!json_is(name, JSON_STRING))
        return error_set(err, "%s: tensor '%s' has no dtype", path, e->name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(dtype_name(known[i]), name->string.data) == 0) {
            e->dtype = known[i];
            return 0;
        }
    return error_set(err, "%s: tensor '%s' has the dtype %s, which is not supported", path, e->name, name->string.data);
}

static int entry_read(SafetensorsEntry *e, const JsonValue *v, uint64_t data_size, const char *path, Error *err)
{
    if (entry_dtype(e, v, path, err) < 0)
        return -1;
    const JsonValue *shape = json_get(v, "shape"), *offsets = json_get(v, "data_offsets");
    if (!json_is(shape, JSON_ARRAY) || shape->count > SAFETENSORS_MAX_DIMS)
        return error_set(err, "%s: tensor '%s' has no shape of at most %d dimensions", path, e->name, SAFETENSORS_MAX_DIMS);
    uint64_t bytes = dtype_size(e->dtype);
    e->ndim = (int)shape->count;
    for (size_t i = 0; i < shape->count; i++) {
        if (shape->items[i].type != JSON_INTEGER || shape->items[i].integer < 0)
            return error_set(err, "%s: tensor '%s' has a bad shape", path, e->name);
        e->shape[i] = shape->items[i].integer;
        if (__builtin_mul_overflow(bytes, (uint64_t)e->shape[i], &bytes))
            return error_set(err, "%s: tensor '%s' has an absurd shape", path, e->name);
    }
    if (!json_is(offsets, JSON_ARRAY) || offsets->count != 2 || offsets->items[0].type != JSON_INTEGER ||
        offsets->items[1].type != JSON_INTEGER || offsets->items[0].integer < 0)
        return error_set(err, "%s: tensor '%s' has no data_offsets", path, e->name);
    e->begin = (uint64_t)offsets->items[0].integer;
    e->end = (uint64_t)offsets->items[1].integer;
    if (offsets->items[1].integer < offsets->items[0].integer || e->end > data_size)
        return error_set(err, "%s: tensor '%s' lies outside the file's data", path, e->name);
    if (e->end - e->begin != bytes)
        return error_set(err, "%s: tensor '%s' has %" PRIu64 " bytes, its shape says %" PRIu64, path, e->name,
                         e->end - e->begin, bytes);
    return 0;
}

static int compare_begin(const void *a, const void *b)
{
    const SafetensorsEntry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* The reference reads it as strings to strings, and nothing else. */
static int metadata_read(Safetensors *s, const JsonValue *v, Error *err)
{
    if (!json_is(v, JSON_OBJECT))
        return error_set(err, "%s: __metadata__ is no object", s->path);
    for (size_t i = 0; i < v->count; i++)
        if (v->items[i].type != JSON_STRING)
            return error_set(err, "%s: '%s' in __metadata__ is no string", s->path, v->keys[i].data);
    s->metadata = v;
    return 0;
}

static int header_read(Safetensors *s, uint64_t header_size, Error *err)
{
    struct SafetensorsMapping *m = s->mapping;
    const char *path = s->path;
    Buffer text = {0};
    buffer_reserve(&text, header_size + READER_PADDING);
    buffer_append(&text, m->file.data + 8, header_size);
    memset(text.data + header_size, 0, READER_PADDING);
    int status = json_parse(&m->header, path, (Span){text.data, header_size}, err);
    buffer_free(&text);
    if (status < 0)
        return -1;
    const JsonValue *root = m->header.root;
    if (!json_is(root, JSON_OBJECT))
        return error_set(err, "%s: the header is not a JSON object", path);
    uint64_t data_size = m->file.size - 8 - header_size;
    s->start = m->file.data;
    s->data = m->file.data + 8 + header_size;
    s->entries = memory_zalloc(root->count, sizeof *s->entries);
    for (size_t i = 0; i < root->count; i++) {
        if (strcmp(root->keys[i].data, "__metadata__") == 0) {
            if (metadata_read(s, &root->items[i], err) < 0)
                return -1;
            continue;
        }
        SafetensorsEntry *e = &s->entries[s->count++];
        e->name = root->keys[i].data;
        if (strlen(e->name) != root->keys[i].length)
            return error_set(err, "%s: a tensor's name holds a NUL", path);
        if (entry_read(e, &root->items[i], data_size, path, err) < 0)
            return -1;
    }
    qsort(s->entries, s->count, sizeof *s->entries, compare_begin);
    uint64_t at = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (s->entries[i].begin != at)
            return error_set(err, "%s: tensor '%s' overlaps another or leaves a hole", path, s->entries[i].name);
        at = s->entries[i].end;
    }
    if (at != data_size)
        return error_set(err, "%s: the tensors have %" PRIu64 " bytes, the file holds %" PRIu64, path, at, data_size);
    return 0;
}

int safetensors_open(Safetensors *out, const char *path, Error *err)
{
    memset(out, 0, sizeof *out);
    FileMap file;
    if (filemap_open(&file, path, err) < 0)
        return -1;
    if (file.size < 8) {
        error_set(err, "%s: not a safetensors file (%zu bytes)", path, file.size);
        filemap_close(&file);
        return -1;
    }
    out->path = memory_string(path);
    out->mapping = memory_zalloc(1, sizeof *out->mapping);
    out->mapping->file = file;
    uint64_t header_size, size = file.size;
    memcpy(&header_size, file.data, 8);
    int status;
    if (header_size > HEADER_LIMIT || header_size > size - 8)
        status = error_set(err, "%s: the header claims %" PRIu64 " bytes of a file of %" PRIu64, path, header_size, size);
    else if (header_size == 0 || file.data[8] != '{')
        status = error_set(err, "%s: not a safetensors file", path);
    else
        status = header_read(out, header_size, err);
    if (status < 0)
        safetensors_close(out);
    return status;
}

const SafetensorsEntry *safetensors_find(const Safetensors *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->entries[i].name, name) == 0)
            return &s->entries[i];
    return NULL;
}

void safetensors_forget(const Safetensors *s, const SafetensorsEntry *e)
{
    size_t data = (size_t)(s->data - s->start);
    filemap_forget(&s->mapping->file, data + (size_t)e->begin, data + (size_t)e->end);
}

void safetensors_close(Safetensors *s)
{
    if (s->mapping) {
        filemap_close(&s->mapping->file);
        json_free(&s->mapping->header);
        free(s->mapping);
    }
    free(s->entries);
    free((char *)(uintptr_t)s->path);
    memset(s, 0, sizeof *s);
}

static uint64_t source_bytes(const SafetensorsSource *t)
{
    uint64_t n = dtype_size(t->dtype);
    for (int i = 0; i < t->ndim; i++)
        n *= (uint64_t)t->shape[i];
    return n;
}

/* The reference writer's order: dtype by falling alignment (…F32, I32, BF16, F16), then name. */
static int compare_sources(const void *a, const void *b)
{
    static const int rank[] = {[DTYPE_I64] = 0, [DTYPE_F32] = 1, [DTYPE_I32] = 2, [DTYPE_BF16] = 3, [DTYPE_F16] = 4, [DTYPE_U8] = 5};
    const SafetensorsSource *x = *(const SafetensorsSource *const *)a, *y = *(const SafetensorsSource *const *)b;
    if (rank[x->dtype] != rank[y->dtype])
        return rank[x->dtype] - rank[y->dtype];
    return strcmp(x->name, y->name);
}

static void write_string(Buffer *b, const char *s)
{
    json_write_string(b, (Span){s, strlen(s)});
}

/* The order in the file. */
static const SafetensorsSource **sources_sort(const SafetensorsSource *tensors, size_t count)
{
    const SafetensorsSource **order = memory_alloc(count, sizeof *order);
    for (size_t i = 0; i < count; i++)
        order[i] = &tensors[i];
    qsort(order, count, sizeof *order, compare_sources);
    return order;
}

static void header_write(Buffer *header, const SafetensorsSource *const *order, size_t count, const char *const *metadata)
{
    buffer_append(header, "\0\0\0\0\0\0\0\0{", 9);
    if (metadata && *metadata) {
        buffer_string(header, "\"__metadata__\":{");
        for (int i = 0; metadata[i]; i += 2) {
            buffer_string(header, i ? "," : "");
            write_string(header, metadata[i]);
            buffer_byte(header, ':');
            write_string(header, metadata[i + 1]);
        }
        buffer_byte(header, '}');
    }
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const SafetensorsSource *t = order[i];
        buffer_string(header, header->length > 9 ? "," : "");
        write_string(header, t->name);
        buffer_format(header, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
        for (int d = 0; d < t->ndim; d++)
            buffer_format(header, "%s%" PRId64, d ? "," : "", t->shape[d]);
        buffer_format(header, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, at + source_bytes(t));
        at += source_bytes(t);
    }
    buffer_byte(header, '}');
    while (header->length % 8)
        buffer_byte(header, ' ');
    uint64_t n = header->length - 8;
    memcpy(header->data, &n, 8);
}

uint64_t safetensors_layout(const SafetensorsSource *tensors, size_t count, const char *const *metadata, Buffer *header, uint64_t *begin)
{
    const SafetensorsSource **order = sources_sort(tensors, count);
    header_write(header, order, count, metadata);
    uint64_t at = header->length;
    for (size_t i = 0; i < count; i++) {
        begin[order[i] - tensors] = at;
        at += source_bytes(order[i]);
    }
    free(order);
    return at;
}

int safetensors_write(const char *path, const SafetensorsSource *tensors, size_t count, const char *const *metadata, uint64_t *sum, Error *err)
{
    enum { PIECE = 1 << 18 }; /* summed and copied while it is near */
    Buffer header = {0};
    uint64_t *begin = memory_alloc(count, sizeof *begin), size = safetensors_layout(tensors, count, metadata, &header, begin);
    const SafetensorsSource **order = sources_sort(tensors, count);
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, header.data, header.length);
    DiskFile *f = disk_open(path, size, err);
    int status = f ? disk_write(f, header.data, header.length, 0, err) : -1;
    for (size_t i = 0; i < count && status == 0; i++) {
        const char *data = order[i]->data;
        uint64_t at = begin[order[i] - tensors];
        for (size_t done = 0, n = source_bytes(order[i]), m; done < n && status == 0; done += m) {
            m = n - done < PIECE ? n - done : PIECE;
            XXH3_64bits_update(state, data + done, m);
            status = disk_write(f, data + done, m, at + done, err);
        }
    }
    *sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    if (f)
        status = disk_close(f, status, err);
    buffer_free(&header);
    free(begin);
    free(order);
    return status;
}
