/* A large file on its way to the disk. Its bytes pass by the system's cache (O_DIRECT) where the file system can do that: fresh pages
 * of the cache cost the CPU ten times what the writing costs, and checkpoints are written while training wants the CPU. Elsewhere they
 * are written as always and leave the cache as they go. Several processes may write one file, each its own bytes. */
#ifndef IO_DISK_H
#define IO_DISK_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct DiskFile DiskFile;

/* Makes a file of so many bytes, replacing what was there; or opens one that is there for writing into (size 0). */
DiskFile *disk_open(const char *path, uint64_t size, Error *err);
/* Cheapest where `at` is where the write before has ended. What fails may be told by a later call or by disk_close. */
int disk_write(DiskFile *f, const void *data, size_t n, uint64_t at, Error *err);
/* Writes what is left and waits until all has reached the disk, unless status, returned then, is -1 already. The file is gone afterwards;
 * what there is of the one on the disk stays. */
int disk_close(DiskFile *f, int status, Error *err);

#endif
