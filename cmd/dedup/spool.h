/* Temporary files under --tmp: bytes appended, read back from anywhere. A file loses its name as soon as it is open, so nothing
 * stays behind however the program ends. */
#ifndef DEDUP_SPOOL_H
#define DEDUP_SPOOL_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct Spool Spool;

Spool *spool_open(const char *folder, Error *err);
void spool_close(Spool *s); /* NULL is fine */
uint64_t spool_size(const Spool *s);
/* Appends at offset spool_size(). */
int spool_append(Spool *s, const void *data, size_t n, Error *err);
/* Overwrites bytes that are there. */
int spool_put(Spool *s, const void *data, size_t n, uint64_t offset, Error *err);
int spool_read(Spool *s, void *to, size_t n, uint64_t offset, Error *err);
/* A path under which another open() finds what was appended so far; valid until spool_close. NULL on errors. */
const char *spool_path(Spool *s, Error *err);

#endif
