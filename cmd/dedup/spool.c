#include "spool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"

enum { PENDING = 1 << 16 };

struct Spool {
    int file;
    uint64_t written; /* bytes in the file; behind them come the pending ones */
    size_t pending;
    char *path, *name; /* name: NULL once it is unlinked */
    char buffer[PENDING];
};

Spool *spool_open(const char *folder, Error *err)
{
    Spool *s = memory_alloc(1, sizeof *s);
    s->written = s->pending = 0;
    s->name = memory_format("%s/dedup-XXXXXX", folder);
    s->file = mkstemp(s->name);
    if (s->file < 0) {
        error_set(err, "%s:", s->name);
        free(s->name);
        free(s);
        return NULL;
    }
    s->path = memory_format("/proc/self/fd/%d", s->file);
    if (access(s->path, R_OK) == 0) {
        unlink(s->name);
        free(s->name);
        s->name = NULL;
    } else { /* without /proc the name has to stay */
        free(s->path);
        s->path = memory_string(s->name);
    }
    return s;
}

void spool_close(Spool *s)
{
    if (!s)
        return;
    close(s->file);
    if (s->name)
        unlink(s->name);
    free(s->name);
    free(s->path);
    free(s);
}

uint64_t spool_size(const Spool *s)
{
    return s->written + s->pending;
}

static int write_all(const Spool *s, const char *p, size_t n, uint64_t offset, Error *err)
{
    while (n > 0) {
        ssize_t done = pwrite(s->file, p, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return error_set(err, "temporary file:");
        p += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

static int flush(Spool *s, Error *err)
{
    if (write_all(s, s->buffer, s->pending, s->written, err) < 0)
        return -1;
    s->written += s->pending;
    s->pending = 0;
    return 0;
}

int spool_append(Spool *s, const void *data, size_t n, Error *err)
{
    if (n == 0)
        return 0;
    if (n > PENDING - s->pending && flush(s, err) < 0)
        return -1;
    if (n > PENDING) {
        if (write_all(s, data, n, s->written, err) < 0)
            return -1;
        s->written += n;
        return 0;
    }
    memcpy(s->buffer + s->pending, data, n);
    s->pending += n;
    return 0;
}

int spool_put(Spool *s, const void *data, size_t n, uint64_t offset, Error *err)
{
    if (offset >= s->written) {
        memcpy(s->buffer + (offset - s->written), data, n);
        return 0;
    }
    if (offset + n > s->written && flush(s, err) < 0)
        return -1;
    return write_all(s, data, n, offset, err);
}

int spool_read(Spool *s, void *to, size_t n, uint64_t offset, Error *err)
{
    if (offset >= s->written) {
        memcpy(to, s->buffer + (offset - s->written), n);
        return 0;
    }
    if (offset + n > s->written && flush(s, err) < 0)
        return -1;
    for (char *p = to; n > 0;) {
        ssize_t got = pread(s->file, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return error_set(err, got < 0 ? "temporary file:" : "a temporary file has lost bytes");
        p += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

const char *spool_path(Spool *s, Error *err)
{
    return flush(s, err) < 0 ? NULL : s->path;
}
