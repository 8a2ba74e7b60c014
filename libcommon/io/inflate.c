#include "io/inflate.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include "base/memory.h"

enum { INPUT_BYTES = 1 << 18 };
enum Kind { PLAIN, GZIP, ZSTD };

struct Inflate {
    int descriptor;
    const char *name;
    enum Kind kind;
    unsigned char *input;
    size_t begin, end; /* of the bytes in `input` not yet used */
    bool ended;        /* the descriptor has no more */
    bool inside;       /* a member or frame has begun and not ended */
    z_stream zlib;
    ZSTD_DStream *zstd;
};

/* Moves what is left to the front and reads once more: 1, 0 at the end, -1. */
static int fill(Inflate *f, Error *err)
{
    memmove(f->input, f->input + f->begin, f->end - f->begin);
    f->end -= f->begin;
    f->begin = 0;
    if (f->ended)
        return 0;
    ssize_t n;
    do
        n = read(f->descriptor, f->input + f->end, INPUT_BYTES - f->end);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_set(err, "%s:", f->name);
    f->ended = n == 0;
    f->end += (size_t)n;
    return n > 0;
}

static enum Kind kind_of(const unsigned char *p, size_t n)
{
    if (n >= 2 && p[0] == 0x1f && p[1] == 0x8b)
        return GZIP;
    if (n >= 4 && p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd)
        return ZSTD;
    /* A skippable frame: pzstd and seekable zstd write them before and between frames of data. */
    if (n >= 4 && (p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18)
        return ZSTD;
    return PLAIN;
}

/* What is not read: "xz", or NULL. */
static const char *other_compression(const unsigned char *p, size_t n)
{
    static const struct {
        const char *name, *magic;
        size_t length;
    } others[] = {{"xz", "\xfd" "7zXZ", 5}, {"lz4", "\x04\x22\x4d\x18", 4}, {"zip", "PK\x03\x04", 4}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (n >= others[i].length && memcmp(p, others[i].magic, others[i].length) == 0)
            return others[i].name;
    return n >= 7 && memcmp(p, "BZh", 3) == 0 && memcmp(p + 4, "1AY", 3) == 0 ? "bzip2" : NULL;
}

/* Zeros behind the last member are padding (gzip(1) takes them so): skips them. 1: something else follows, 0: the end, -1. */
static int skip_padding(Inflate *f, Error *err)
{
    for (;;) {
        while (f->begin < f->end && f->input[f->begin] == 0)
            f->begin++;
        if (f->begin < f->end)
            return 1;
        int got = fill(f, err);
        if (got <= 0)
            return got;
    }
}

Inflate *inflate_open(int descriptor, const char *name, Error *err)
{
    Inflate *f = memory_zalloc(1, sizeof *f);
    f->descriptor = descriptor;
    f->name = name;
    f->input = memory_alloc(INPUT_BYTES, 1);
    /* No first bytes of interest have a newline among them: who types a short line is not kept waiting for another. */
    while (f->end < 8 && !memchr(f->input, '\n', f->end)) {
        int got = fill(f, err);
        if (got < 0) {
            inflate_close(f);
            return NULL;
        }
        if (got == 0)
            break;
    }
    f->kind = kind_of(f->input, f->end);
    const char *other = f->kind == PLAIN ? other_compression(f->input, f->end) : NULL;
    if (other) {
        error_set(err, "%s: %s is not read; gzip and zstd are", name, other);
        inflate_close(f);
        return NULL;
    }
    if (f->kind == GZIP && inflateInit2(&f->zlib, 15 + 16) != Z_OK) {
        error_set(err, "%s: zlib does not start", name);
        f->kind = PLAIN;
        inflate_close(f);
        return NULL;
    }
    if (f->kind == ZSTD) {
        f->zstd = ZSTD_createDStream();
        if (!f->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(f->zstd, ZSTD_d_windowLogMax, 31))) { /* what zstd --long=31 writes */
            error_set(err, "%s: zstd does not start", name);
            inflate_close(f);
            return NULL;
        }
    }
    return f;
}

static ssize_t read_plain(Inflate *f, void *buffer, size_t n, Error *err)
{
    if (f->begin == f->end) {
        f->begin = f->end = 0;
        int got = fill(f, err);
        if (got <= 0)
            return got;
    }
    if (n > f->end - f->begin)
        n = f->end - f->begin;
    memcpy(buffer, f->input + f->begin, n);
    f->begin += n;
    return (ssize_t)n;
}

/* One step of either decoder: how many bytes came out, or -1. */
static ssize_t step_gzip(Inflate *f, void *buffer, size_t n, Error *err)
{
    f->zlib.next_in = f->input + f->begin;
    f->zlib.avail_in = (unsigned)(f->end - f->begin);
    f->zlib.next_out = buffer;
    f->zlib.avail_out = n > 1u << 30 ? 1u << 30 : (unsigned)n;
    unsigned room = f->zlib.avail_out;
    f->inside = true;
    int status = inflate(&f->zlib, Z_NO_FLUSH);
    f->begin = f->end - f->zlib.avail_in;
    if (status == Z_STREAM_END) {
        inflateReset(&f->zlib);
        f->inside = false;
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
        return error_set(err, "%s: damaged gzip data (%s)", f->name, f->zlib.msg ? f->zlib.msg : zError(status));
    }
    return (ssize_t)(room - f->zlib.avail_out);
}

static ssize_t step_zstd(Inflate *f, void *buffer, size_t n, Error *err)
{
    ZSTD_inBuffer in = {f->input + f->begin, f->end - f->begin, 0};
    ZSTD_outBuffer out = {buffer, n, 0};
    size_t left = ZSTD_decompressStream(f->zstd, &out, &in);
    if (ZSTD_isError(left))
        return error_set(err, "%s: damaged zstd data (%s)", f->name, ZSTD_getErrorName(left));
    f->begin += in.pos;
    f->inside = left != 0;
    return (ssize_t)out.pos;
}

ssize_t inflate_read(Inflate *f, void *buffer, size_t n, Error *err)
{
    if (f->kind == PLAIN)
        return read_plain(f, buffer, n, err);
    for (;;) {
        if (f->begin == f->end) {
            int got = fill(f, err);
            if (got < 0)
                return -1;
            if (got == 0 && !f->inside)
                return 0;
        }
        if (!f->inside && f->end - f->begin < 4 && !f->ended && fill(f, err) < 0)
            return -1;
        if (f->kind == GZIP && !f->inside && f->begin < f->end && f->input[f->begin] == 0) {
            int more = skip_padding(f, err);
            return more <= 0 ? more : error_set(err, "%s: garbage behind the compressed data", f->name);
        }
        if (!f->inside && f->end > f->begin && kind_of(f->input + f->begin, f->end - f->begin) != f->kind)
            return error_set(err, "%s: garbage behind the compressed data", f->name);
        ssize_t got = f->kind == GZIP ? step_gzip(f, buffer, n, err) : step_zstd(f, buffer, n, err);
        if (got != 0)
            return got;
        if (f->inside && f->ended && f->begin == f->end)
            return error_set(err, "%s: compressed data ends too early", f->name);
    }
}

int inflate_is_compressed(const Inflate *f)
{
    return f->kind != PLAIN;
}

void inflate_close(Inflate *f)
{
    if (!f)
        return;
    if (f->kind == GZIP)
        inflateEnd(&f->zlib);
    ZSTD_freeDStream(f->zstd);
    if (f->descriptor >= 0)
        close(f->descriptor);
    free(f->input);
    free(f);
}
