/* safetensors files: u64 N, N bytes of JSON, data. Sizes against the file, holes, overlaps, duplicate names and shapes are
 * checked before anything is allocated from them. */
#ifndef IO_SAFETENSORS_H
#define IO_SAFETENSORS_H

#include <stdint.h>
#include "base/dtype.h"
#include "base/error.h"
#include "io/json.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct SafetensorsEntry {
    const char *name;
    Dtype dtype;
    int ndim;
    int64_t shape[SAFETENSORS_MAX_DIMS];
    uint64_t begin, end; /* in the data part */
} SafetensorsEntry;

typedef struct Safetensors {
    const char *path;
    SafetensorsEntry *entries; /* sorted by begin */
    size_t count;
    const JsonValue *metadata; /* object of strings, or NULL */
    const unsigned char *start, *data; /* the file and its data part, mapped read-only */
    struct SafetensorsMapping *mapping;
} Safetensors;

int safetensors_open(Safetensors *out, const char *path, Error *err);
const SafetensorsEntry *safetensors_find(const Safetensors *s, const char *name);
/* An entry's bytes have been read (filemap.h). */
void safetensors_forget(const Safetensors *s, const SafetensorsEntry *e);
void safetensors_close(Safetensors *s);

/* Writing, in the file's own order: dtype by descending width, then name. */
typedef struct SafetensorsSource {
    const char *name;
    Dtype dtype;
    int ndim;
    int64_t shape[SAFETENSORS_MAX_DIMS];
    const void *data; /* exactly the bytes of the shape */
} SafetensorsSource;
/* metadata: pairs of strings, NULL-terminated: {"format", "pt", NULL}. sum: XXH3 of the file's bytes. Written in place (io/disk.h): what is
 * there after a failure is no whole file. */
int safetensors_write(const char *path, const SafetensorsSource *tensors, size_t count, const char *const *metadata, uint64_t *sum, Error *err);

/* For a file that several write together: its header, and where each tensor's bytes begin in the file; returns the file's size.
 * data is not looked at. */
uint64_t safetensors_layout(const SafetensorsSource *tensors, size_t count, const char *const *metadata, Buffer *header, uint64_t *begin);

#endif
