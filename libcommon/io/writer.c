/* Writing (stream.h): a thread of its own compresses and writes; regular files are renamed into place. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include "io/stream.h"
#include "io/temporary.h"

/* The caller fills one block while a thread compresses and writes the other. A failure is kept and given to the caller's
 * next call; the thread goes on taking blocks and dropping them, so nobody waits for ever. */
enum { BLOCK_BYTES = 1 << 20 };
enum Kind { PLAIN, GZIP, ZSTD };

struct Writer {
    char *path;               /* as the user named it, for messages */
    char *target, *temporary; /* what is renamed to what; NULL: written in place */
    int unfinished; /* the temporary's number, -1: none */
    int descriptor;
    enum Kind kind;
    z_stream zlib;
    ZSTD_CCtx *zstd;
    unsigned char *packed;  /* the compressor's output */
    Buffer filling, writing;
    bool pending, finish, threaded, failed;
    Error error;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static int write_all(Writer *w, const void *data, size_t n, Error *err)
{
    const char *p = data;
    while (n > 0) {
        ssize_t done = write(w->descriptor, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return error_set(err, "%s:", w->path);
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

static int pack_gzip(Writer *w, const void *data, size_t n, bool last, Error *err)
{
    w->zlib.next_in = (unsigned char *)(uintptr_t)data;
    w->zlib.avail_in = (unsigned)n;
    do {
        w->zlib.next_out = w->packed;
        w->zlib.avail_out = BLOCK_BYTES;
        if (deflate(&w->zlib, last ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_ERROR)
            return error_set(err, "%s: zlib fails", w->path);
        if (write_all(w, w->packed, BLOCK_BYTES - w->zlib.avail_out, err) < 0)
            return -1;
    } while (w->zlib.avail_out == 0);
    return 0;
}

static int pack_zstd(Writer *w, const void *data, size_t n, bool last, Error *err)
{
    ZSTD_inBuffer in = {data, n, 0};
    size_t left;
    do {
        ZSTD_outBuffer out = {w->packed, BLOCK_BYTES, 0};
        left = ZSTD_compressStream2(w->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return error_set(err, "%s: %s", w->path, ZSTD_getErrorName(left));
        if (write_all(w, w->packed, out.pos, err) < 0)
            return -1;
    } while (last ? left != 0 : in.pos < in.size);
    return 0;
}

static int pack(Writer *w, const void *data, size_t n, bool last, Error *err)
{
    if (w->kind == GZIP)
        return pack_gzip(w, data, n, last, err);
    if (w->kind == ZSTD)
        return pack_zstd(w, data, n, last, err);
    return write_all(w, data, n, err);
}

static void *writer_thread(void *argument)
{
    Writer *w = argument;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        while (!w->pending && !w->finish)
            pthread_cond_wait(&w->changed, &w->lock);
        bool work = w->pending, failed = w->failed;
        pthread_mutex_unlock(&w->lock);
        if (!work)
            return NULL;
        Error error;
        bool bad = !failed && pack(w, w->writing.data, w->writing.length, false, &error) < 0;
        pthread_mutex_lock(&w->lock);
        if (bad) {
            w->failed = true;
            w->error = error;
        }
        w->pending = false;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
    }
}

static bool ends_with(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcmp(path + n - m, suffix) == 0;
}

/* The descriptor that /dev/stdout, /dev/fd/N and their kind name, or -1. What the shell has opened is written in place, also
 * where it is a regular file: a rename would take it from the programs that share it. */
static int descriptor_named(const char *path)
{
    static const struct {
        const char *name;
        int descriptor;
    } named[] = {{"/dev/stdout", STDOUT_FILENO}, {"/dev/stderr", STDERR_FILENO}};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (strcmp(path, named[i].name) == 0)
            return named[i].descriptor;
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        size_t n = strlen(folders[i]);
        if (strncmp(path, folders[i], n) == 0 && path[n] && strlen(path + n) < 6 && strspn(path + n, "0123456789") == strlen(path + n))
            return atoi(path + n);
    }
    return -1;
}

/* `path` with its folder's own name, so that one file has one name. */
static char *name_whole(char *path)
{
    char *slash = strrchr(path, '/');
    char *folder = slash ? memory_format("%.*s/", (int)(slash - path), path) : memory_string(".");
    char *real = realpath(folder, NULL);
    free(folder);
    if (!real || !path[0])
        return path;
    char *whole = memory_format("%s/%s", strcmp(real, "/") == 0 ? "" : real, slash ? slash + 1 : path);
    free(real);
    free(path);
    return whole;
}

/* Where a write to `path` ends up: behind links, also those whose file is not there yet. NULL where links go round. */
static char *target_of(const char *path)
{
    char *now = memory_string(path), link[PATH_MAX];
    for (int hops = 0; hops < 40; hops++) {
        char *real = realpath(now, NULL);
        ssize_t n = real ? -1 : readlink(now, link, sizeof link - 1);
        if (n < 0) {
            if (!real)
                return name_whole(now);
            free(now);
            return real;
        }
        link[n] = 0;
        char *slash = strrchr(now, '/');
        char *next = link[0] == '/' || !slash ? memory_string(link) : memory_format("%.*s/%s", (int)(slash - now), now, link);
        free(now);
        now = next;
    }
    free(now);
    errno = ELOOP;
    return NULL;
}

static int open_temporary(Writer *w, mode_t mode, Error *err)
{
    w->temporary = memory_format("%s.tmp-XXXXXX", w->target);
    w->descriptor = mkostemp(w->temporary, O_CLOEXEC);
    if (w->descriptor < 0) {
        free(w->temporary);
        w->temporary = NULL;
        return error_set(err, "%s:", w->path);
    }
    w->unfinished = temporary_add(w->temporary, w->target, err);
    if (w->unfinished < 0)
        return -1;
    return fchmod(w->descriptor, mode) != 0 && errno != EPERM ? error_set(err, "%s:", w->path) : 0;
}

/* What -o may replace: a name that is free, or a regular file (also behind a link: the link stays). */
static int open_target(Writer *w, Error *err)
{
    struct stat st;
    int shared = descriptor_named(w->path);
    if (shared >= 0) {
        w->descriptor = dup(shared);
        return w->descriptor < 0 ? error_set(err, "%s:", w->path) : 0;
    }
    bool there = stat(w->path, &st) == 0;
    if (there && !S_ISREG(st.st_mode)) {
        if (S_ISDIR(st.st_mode))
            return error_set(err, "%s: is a directory", w->path);
        w->descriptor = open(w->path, O_WRONLY | O_CLOEXEC);
        return w->descriptor < 0 ? error_set(err, "%s:", w->path) : 0;
    }
    if (there && access(w->path, W_OK) != 0) /* a rename would replace what its owner protects */
        return error_set(err, "%s:", w->path);
    char *target = target_of(w->path);
    if (!target || !*target) {
        if (target)
            errno = ENOENT;
        free(target);
        return error_set(err, "%s:", w->path);
    }
    w->target = target;
    mode_t mask = umask(0);
    umask(mask);
    return open_temporary(w, there ? st.st_mode & 0777 : 0666 & ~mask, err);
}

static int open_packer(Writer *w, const char *path, Error *err)
{
    static const char *const others[] = {".xz", ".bz2", ".lz4", ".zip"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (ends_with(path, others[i]))
            return error_set(err, "%s: %s is not written; .gz and .zst are", path, others[i] + 1);
    enum Kind kind = ends_with(path, ".gz") ? GZIP : ends_with(path, ".zst") ? ZSTD : PLAIN;
    if (kind == PLAIN)
        return 0;
    if (kind == GZIP && deflateInit2(&w->zlib, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return error_set(err, "%s: zlib does not start", w->path);
    w->kind = kind;
    w->packed = memory_alloc(BLOCK_BYTES, 1);
    if (kind == ZSTD) {
        w->zstd = ZSTD_createCCtx();
        if (!w->zstd || ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1)))
            return error_set(err, "%s: zstd does not start", w->path);
    }
    return 0;
}

static int open_standard(Writer *w, Error *err)
{
    w->descriptor = dup(STDOUT_FILENO);
    return w->descriptor < 0 ? error_set(err, "%s:", w->path) : 0;
}

Writer *writer_open(const char *path, Error *err)
{
    Writer *w = memory_zalloc(1, sizeof *w);
    bool standard = !path || strcmp(path, "-") == 0;
    w->path = memory_string(standard ? "standard output" : path);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->descriptor = w->unfinished = -1;
    int status = standard ? open_standard(w, err) : open_target(w, err);
    if (status == 0 && !standard)
        status = open_packer(w, path, err);
    if (status == 0) {
        w->threaded = pthread_create(&w->thread, NULL, writer_thread, w) == 0;
        if (!w->threaded)
            status = error_set(err, "%s: cannot start a thread", w->path);
    }
    if (status < 0) {
        writer_abandon(w);
        return NULL;
    }
    return w;
}

/* Waits until the thread has written its block. */
static int wait_idle(Writer *w, Error *err)
{
    pthread_mutex_lock(&w->lock);
    while (w->pending)
        pthread_cond_wait(&w->changed, &w->lock);
    bool failed = w->failed;
    pthread_mutex_unlock(&w->lock);
    if (failed && err)
        *err = w->error;
    return failed ? -1 : 0;
}

static int hand_over(Writer *w, Error *err)
{
    if (wait_idle(w, err) < 0)
        return -1;
    if (w->filling.length == 0)
        return 0;
    Buffer b = w->writing;
    w->writing = w->filling;
    w->filling = b;
    w->filling.length = 0;
    pthread_mutex_lock(&w->lock);
    w->pending = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

int writer_write(Writer *w, const void *data, size_t n, Error *err)
{
    const char *p = data;
    while (n > 0) {
        size_t room = BLOCK_BYTES - w->filling.length, m = n < room ? n : room;
        buffer_append(&w->filling, p, m);
        p += m;
        n -= m;
        if (w->filling.length == BLOCK_BYTES && hand_over(w, err) < 0)
            return -1;
    }
    return 0;
}

int writer_flush(Writer *w, Error *err)
{
    return hand_over(w, err) < 0 || wait_idle(w, err) < 0 ? -1 : 0;
}

static void stop_thread(Writer *w)
{
    if (!w->threaded)
        return;
    pthread_mutex_lock(&w->lock);
    w->finish = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    w->threaded = false;
}

static void writer_free(Writer *w)
{
    stop_thread(w);
    if (w->descriptor >= 0)
        close(w->descriptor);
    if (w->kind == GZIP)
        deflateEnd(&w->zlib);
    ZSTD_freeCCtx(w->zstd);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    buffer_free(&w->filling);
    buffer_free(&w->writing);
    free(w->packed);
    free(w->path);
    free(w->target);
    free(w->temporary);
    free(w);
}

void writer_abandon(Writer *w)
{
    if (!w)
        return;
    if (w->temporary)
        unlink(w->temporary);
    else if (w->threaded && w->kind == PLAIN)
        writer_flush(w, NULL);
    temporary_forget(w->unfinished);
    writer_free(w);
}

static int sync_parent(const char *path, Error *err)
{
    char *folder = memory_string(path), *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    int status = folder_sync(slash ? folder : ".", err);
    free(folder);
    return status;
}

int writer_close(Writer *w, Error *err)
{
    if (!w)
        return 0;
    int status = writer_flush(w, err);
    stop_thread(w);
    if (status == 0 && w->kind != PLAIN)
        status = pack(w, "", 0, true, err);
    if (status == 0 && w->temporary && fsync(w->descriptor) != 0)
        status = error_set(err, "%s:", w->path);
    int closed = close(w->descriptor);
    w->descriptor = -1;
    if (status == 0 && closed != 0)
        status = error_set(err, "%s:", w->path);
    if (status == 0 && w->temporary && rename(w->temporary, w->target) != 0)
        status = error_set(err, "%s:", w->path);
    if (status < 0) {
        writer_abandon(w);
        return -1;
    }
    temporary_forget(w->unfinished);
    if (w->temporary)
        status = sync_parent(w->target, err);
    writer_free(w);
    return status;
}

int file_write(const char *path, const void *data, size_t n, Error *err)
{
    Writer *w = writer_open(path, err);
    if (!w)
        return -1;
    if (writer_write(w, data, n, err) < 0) {
        writer_abandon(w);
        return -1;
    }
    return writer_close(w, err);
}

int folder_sync(const char *path, Error *err)
{
    int d = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d < 0)
        return error_set(err, "%s:", path);
    int status = fsync(d) != 0 && errno != EINVAL ? error_set(err, "%s:", path) : 0;
    close(d);
    return status;
}

int folder_create(const char *path, Error *err)
{
    char *copy = memory_string(path);
    int status = 0;
    for (char *p = copy + 1; status == 0; p++) {
        if (*p != '/' && *p != 0)
            continue;
        char c = *p;
        *p = 0;
        struct stat st;
        bool made = mkdir(copy, 0777) == 0, other = !made && errno == EEXIST && stat(copy, &st) == 0 && !S_ISDIR(st.st_mode);
        if (other)
            errno = ENOTDIR;
        if (other || (!made && errno != EEXIST))
            status = error_set(err, "%s:", copy);
        *p = c;
        if (c == 0)
            break;
    }
    free(copy);
    return status;
}
