/* A device: memory, copies, streams and a table of operations. The engine above knows no device by name: it asks
 * device_open and goes through these pointers. Nothing here is global; a rank that is a thread opens its own. */
#ifndef KERNELS_DEVICE_H
#define KERNELS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/dtype.h"
#include "base/error.h"

typedef struct Device Device;
typedef struct Stream Stream; /* operations on one stream run in order; the CPU's run at once */

/* A matrix on a device: row-major, `ld` elements from row to row (>= cols), so that a column range of a wider matrix is a
 * Tensor too. Vectors have one row. Tensors are values; they own nothing. */
typedef struct Tensor {
    void *data; /* NULL: absent (where an operation says so) */
    Device *device;
    Dtype dtype;
    int64_t rows, cols, ld;
} Tensor;

typedef enum CopyKind { COPY_TO_DEVICE, COPY_TO_HOST, COPY_ON_DEVICE } CopyKind;

struct Ops;

struct Device {
    const char *name; /* "cpu", "cuda" */
    bool is_host;     /* its memory can be read by the CPU */
    bool rounds;      /* products of bf16 round f32 weights as they read them (matmul of ops.h): nobody needs a bf16 copy */
    int threads;      /* of the CPU device: OpenMP threads an operation may use */
    const struct Ops *ops;
    void *state;      /* the implementation's */
    struct Profile *profile; /* kernels/profile.h; NULL: nobody looks */
    /* 64-byte aligned, cleared; NULL when memory runs out. */
    void *(*alloc)(Device *d, size_t bytes);
    void (*release)(Device *d, void *p);
    Stream *(*stream_new)(Device *d);
    void (*stream_free)(Stream *s);
    /* Waits until everything on the stream is done; reports what failed meanwhile. */
    int (*stream_wait)(Stream *s, Error *err);
    void (*copy)(Stream *s, void *to, const void *from, size_t bytes, CopyKind kind);
    /* Marks a point of `from` that `to` must reach before it goes on. */
    void (*stream_order)(Stream *from, Stream *to);
    /* Calls work(context), which leaves the device alone, when the stream comes to it. */
    void (*stream_call)(Stream *s, void (*work)(void *context), void *context);
    void (*close)(Device *d);
};

/* What every implementation's stream begins with. */
struct Stream {
    Device *device;
};

/* name: "cpu", "cuda" or "auto" (cuda where its shared object loads and finds a GPU, else cpu). threads 0: one a CPU. The
 * CUDA object is looked for in $LMPIPE_CUDA, beside the program (../lib/), and in PREFIX/lib/lmpipe; "cuda" fails with the
 * reason where it can't be loaded, "auto" says it in a message where a GPU's driver is there. */
Device *device_open(const char *name, int threads, Error *err);
/* The same, but the GPU of that number (0 …) of this machine: ranks that share a machine take one each, and one is `told`. */
Device *device_open_index(const char *name, int index, int threads, bool told, Error *err);
void device_close(Device *d);

Tensor tensor_make(Device *d, Dtype t, void *data, int64_t rows, int64_t cols);
/* Columns begin … begin+cols of x. */
Tensor tensor_columns(Tensor x, int64_t begin, int64_t cols);
Tensor tensor_rows(Tensor x, int64_t begin, int64_t rows);

#endif
