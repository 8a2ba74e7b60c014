/* Reading (stream.h): a thread of its own reads and decompresses. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/inflate.h"
#include "io/stream.h"

/* A thread of its own reads and decompresses into two blocks in turn; the caller takes lines out of a buffer that always
 * has READER_PADDING bytes behind its end. */
enum { BLOCK_BYTES = 1 << 20, KEEP_BYTES = 1 << 24 };
static const size_t LINE_LIMIT = (size_t)1 << 30;

typedef struct Block {
    char *data;
    size_t length;
    bool full;
} Block;

struct Reader {
    char *name;
    Inflate *source;
    Block blocks[2];
    int next; /* the block that the caller takes next */
    bool ended, stop;
    int status;
    Error error;
    pthread_t thread;
    bool threaded;
    pthread_mutex_t lock;
    pthread_cond_t changed;

    Buffer text;      /* capacity always covers length + READER_PADDING */
    size_t begin;     /* of what is not yet handed out */
    bool exhausted;   /* nothing more will come into `text` */
    bool line_ended, started;
    int64_t line;
};

static void *reader_thread(void *argument)
{
    Reader *r = argument;
    for (int i = 0;; i ^= 1) {
        Block *b = &r->blocks[i];
        pthread_mutex_lock(&r->lock);
        while (b->full && !r->stop)
            pthread_cond_wait(&r->changed, &r->lock);
        bool stop = r->stop;
        pthread_mutex_unlock(&r->lock);
        if (stop)
            return NULL;
        size_t length = 0;
        ssize_t got = 1;
        /* A pipe is passed on as it comes, so that an interactive writer is not kept waiting. */
        while (length < BLOCK_BYTES && (got = inflate_read(r->source, b->data + length, BLOCK_BYTES - length, &r->error)) > 0) {
            length += (size_t)got;
            if (!inflate_is_compressed(r->source))
                break;
        }
        pthread_mutex_lock(&r->lock);
        b->length = length;
        b->full = true;
        if (got <= 0) {
            r->ended = true;
            r->status = got < 0 ? -1 : 0;
        }
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
        if (got <= 0)
            return NULL;
    }
}

Reader *reader_open(const char *path, Error *err)
{
    bool standard = !path || strcmp(path, "-") == 0;
    int descriptor = standard ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    const char *name = standard ? "stdin" : path;
    struct stat st;
    if (descriptor < 0 || fstat(descriptor, &st) != 0) {
        error_set(err, "%s:", name);
        if (descriptor >= 0)
            close(descriptor);
        return NULL;
    }
    struct stat out;
    bool directory = S_ISDIR(st.st_mode);
    /* `tool FILE >> FILE` would read what it writes, for ever; `tool FILE > FILE` has lost its input already. */
    bool own = S_ISREG(st.st_mode) && fstat(STDOUT_FILENO, &out) == 0 && st.st_dev == out.st_dev && st.st_ino == out.st_ino;
    if (directory || own) {
        close(descriptor);
        error_set(err, directory ? "%s: is a directory" : "%s: is the output too; -o can replace its own input", name);
        return NULL;
    }
    Reader *r = memory_zalloc(1, sizeof *r);
    r->name = memory_string(name);
    r->source = inflate_open(descriptor, r->name, err);
    if (!r->source) {
        free(r->name);
        free(r);
        return NULL;
    }
    for (int i = 0; i < 2; i++)
        r->blocks[i].data = memory_alloc(BLOCK_BYTES, 1);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->threaded = pthread_create(&r->thread, NULL, reader_thread, r) == 0;
    if (!r->threaded) {
        error_set(err, "%s: cannot start a thread", name);
        reader_close(r);
        return NULL;
    }
    return r;
}

/* Appends the next block to `text`: 1, 0 at the end, -1. */
static int take_block(Reader *r, Error *err)
{
    pthread_mutex_lock(&r->lock);
    Block *b = &r->blocks[r->next];
    while (!b->full && !r->ended)
        pthread_cond_wait(&r->changed, &r->lock);
    bool full = b->full;
    pthread_mutex_unlock(&r->lock);
    if (full) {
        if (r->begin > 0) {
            memmove(r->text.data, r->text.data + r->begin, r->text.length - r->begin);
            r->text.length -= r->begin;
            r->begin = 0;
        }
        if (r->text.length == 0 && r->text.capacity > KEEP_BYTES) /* a huge line has gone by */
            buffer_free(&r->text);
        buffer_reserve(&r->text, b->length + READER_PADDING);
        memcpy(r->text.data + r->text.length, b->data, b->length);
        r->text.length += b->length;
        memset(r->text.data + r->text.length, 0, READER_PADDING);
        pthread_mutex_lock(&r->lock);
        b->full = false;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
        r->next ^= 1;
        return 1;
    }
    r->exhausted = true;
    if (r->status < 0) {
        if (err)
            *err = r->error;
        return -1;
    }
    return 0;
}

ssize_t reader_read(Reader *r, void *buffer, size_t n, Error *err)
{
    while (r->begin == r->text.length) {
        int got = r->exhausted && r->status == 0 ? 0 : take_block(r, err);
        if (got <= 0)
            return got;
    }
    if (n > r->text.length - r->begin)
        n = r->text.length - r->begin;
    memcpy(buffer, r->text.data + r->begin, n);
    r->begin += n;
    return (ssize_t)n;
}

int reader_line(Reader *r, Span *line, Error *err)
{
    size_t searched = 0;
    for (;;) {
        size_t left = r->text.length - r->begin;
        if (!r->started && (left >= 3 || r->exhausted)) {
            r->started = true;
            if (left >= 3 && memcmp(r->text.data + r->begin, "\xef\xbb\xbf", 3) == 0) {
                r->begin += 3;
                continue;
            }
        }
        char *from = r->text.data ? r->text.data + r->begin : NULL;
        char *newline = left > searched ? memchr(from + searched, '\n', left - searched) : NULL;
        if (r->started && (newline || (r->exhausted && left > 0))) {
            r->line_ended = newline != NULL;
            line->data = from;
            line->length = newline ? (size_t)(newline - from) : left;
            r->begin += line->length + (newline != NULL);
            r->line++;
            return 1;
        }
        if (r->exhausted && r->started)
            return r->status < 0 ? take_block(r, err) : 0;
        searched = r->started ? left : 0; /* while a byte order mark may yet come, no newline counts */
        if (left > LINE_LIMIT)
            return error_set(err, "%s:%lld: the line is longer than 1 GiB", r->name, (long long)r->line + 1);
        if (take_block(r, err) < 0)
            return -1;
    }
}

bool reader_line_ended(const Reader *r)
{
    return r->line_ended;
}

int64_t reader_line_number(const Reader *r)
{
    return r->line;
}

const char *reader_name(const Reader *r)
{
    return r->name;
}

void reader_close(Reader *r)
{
    if (!r)
        return;
    if (r->threaded) {
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
        pthread_cancel(r->thread); /* it may sit in a read of a pipe that never comes back */
        pthread_join(r->thread, NULL);
    }
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    inflate_close(r->source);
    free(r->blocks[0].data);
    free(r->blocks[1].data);
    buffer_free(&r->text);
    free(r->name);
    free(r);
}

int file_read(const char *path, Buffer *out, size_t limit, Error *err)
{
    Reader *r = reader_open(path, err);
    if (!r)
        return -1;
    if (limit == 0)
        limit = (size_t)1 << 32;
    ssize_t got;
    out->length = 0;
    do {
        buffer_reserve(out, BLOCK_BYTES + READER_PADDING + 1);
        got = reader_read(r, out->data + out->length, BLOCK_BYTES, err);
        out->length += got > 0 ? (size_t)got : 0;
        if (out->length > limit)
            got = error_set(err, "%s: longer than %zu bytes", reader_name(r), limit);
    } while (got > 0);
    memset(out->data + out->length, 0, READER_PADDING + 1);
    reader_close(r);
    return got < 0 ? -1 : 0;
}
