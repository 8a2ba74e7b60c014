/* Bytes in and out. Compressed input (gzip, also several members; zstd) is recognised by its first bytes and
 * decompressed on a thread of its own; output is compressed by the path's suffix (.gz, .zst), also off the caller's
 * thread. */
#ifndef IO_STREAM_H
#define IO_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/error.h"
#include "base/memory.h"

/* Behind every line that reader_line returns lie this many readable bytes (simdjson reads past the end). */
enum { READER_PADDING = 64 };

typedef struct Reader Reader;

/* path NULL or "-": standard input. A directory or a missing file is an error here, not later. */
Reader *reader_open(const char *path, Error *err);
/* Up to n bytes; 0 at the end, -1 on errors (truncated gzip, …), which name the file. */
ssize_t reader_read(Reader *r, void *buffer, size_t n, Error *err);
/* The next line without its newline (a CR before it stays), valid until the next call: 1, or 0 at the end, -1 on errors.
 * A last line without newline counts. A leading byte order mark is skipped. Lines may be up to 1 GiB; longer is an
 * error that names the line. */
int reader_line(Reader *r, Span *line, Error *err);
bool reader_line_ended(const Reader *r);      /* did the last line returned end in a newline? */
int64_t reader_line_number(const Reader *r);  /* of the last line, from 1 */
const char *reader_name(const Reader *r);     /* for messages: the path, or "stdin" */
void reader_close(Reader *r);

/* The whole of a (possibly compressed) file, NUL-terminated, with READER_PADDING readable bytes behind. More than
 * `limit` bytes is an error (0: 4 GiB). */
int file_read(const char *path, Buffer *out, size_t limit, Error *err);

typedef struct Writer Writer;

/* path NULL or "-": standard output, which is never compressed. A regular file appears whole or not at all: a temporary name
 * beside it, fsync, rename at writer_close. Devices and pipes are written in place. */
Writer *writer_open(const char *path, Error *err);
/* Failures of the background thread (disk full) are returned by a later call or by close. */
int writer_write(Writer *w, const void *data, size_t n, Error *err);
int writer_flush(Writer *w, Error *err); /* everything so far reaches the file */
/* Finishes and renames; the writer is gone afterwards, also on errors (then no file appears). NULL is fine. */
int writer_close(Writer *w, Error *err);
/* Gives up: the temporary file is removed; what is written in place has what was written so far. NULL is fine. */
void writer_abandon(Writer *w);

/* A small file written whole: temporary name, fsync, rename, fsync of the folder. */
int file_write(const char *path, const void *data, size_t n, Error *err);
int folder_create(const char *path, Error *err); /* with parents; one that exists is fine */
int folder_sync(const char *path, Error *err);

#endif
