#include "io/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/memory.h"

/* What goes into the cache after all leaves it so often. */
enum { BLOCK_BYTES = 1 << 19, CACHE_BYTES = 8 << 20, SECTOR_BYTES = 4096, LARGEST_PAGE = 64 << 10 };

struct DiskFile {
    char *path;
    int plain, direct;   /* descriptors; direct passes the cache, -1: it cannot */
    size_t page;         /* what passes the cache begins and ends at multiples of this, in the file and in memory */
    char *block;         /* [BLOCK_BYTES] */
    uint64_t at;         /* where its first byte lies in the file: a multiple of page */
    size_t begin, end;   /* what of it is waiting */
    uint64_t cached, cached_begin, cached_end; /* bytes that went into the cache, and between what places */
};

/* What the cache holds as one: another process may write the rest of it there. A network's file systems tell larger blocks, which are not that. */
static size_t page_of(int descriptor)
{
    struct stat st;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), block = fstat(descriptor, &st) == 0 && st.st_blksize <= LARGEST_PAGE ? (size_t)st.st_blksize : 0;
    page = page > block ? page : block;
    return page > SECTOR_BYTES ? page : SECTOR_BYTES;
}

DiskFile *disk_open(const char *path, uint64_t size, Error *err)
{
    int plain = open(path, O_WRONLY | O_CLOEXEC | (size ? O_CREAT | O_TRUNC : 0), 0666);
    if (plain < 0) {
        error_set(err, "%s:", path);
        return NULL;
    }
    if (size > 0 && ftruncate(plain, (off_t)size) != 0) {
        error_set(err, "%s:", path);
        close(plain);
        return NULL;
    }
    DiskFile *f = memory_zalloc(1, sizeof *f);
    *f = (DiskFile){.path = memory_string(path), .plain = plain, .direct = open(path, O_WRONLY | O_CLOEXEC | O_DIRECT), .page = page_of(plain),
                    .block = memory_large(BLOCK_BYTES, 1)};
    return f;
}

/* What lies in the cache goes to the disk and out of it. */
static int cache_leave(DiskFile *f, Error *err)
{
    off_t begin = (off_t)f->cached_begin, n = (off_t)(f->cached_end - f->cached_begin);
    f->cached = 0;
    /* An error of the disk is told once, here and not by fsync; others mean that the file is no file of a disk. */
    if (sync_file_range(f->plain, begin, n, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) != 0 &&
        (errno == EIO || errno == ENOSPC || errno == EDQUOT))
        return error_set(err, "%s:", f->path);
    posix_fadvise(f->plain, begin, n, POSIX_FADV_DONTNEED);
    return 0;
}

static int cache_count(DiskFile *f, uint64_t at, size_t n, Error *err)
{
    if (f->cached == 0 || at < f->cached_begin)
        f->cached_begin = at;
    if (f->cached == 0 || at + n > f->cached_end)
        f->cached_end = at + n;
    f->cached += n;
    return f->cached < CACHE_BYTES ? 0 : cache_leave(f, err);
}

/* Writes what waits in the block: whole pages past the cache, what lies before and behind them through it. */
static int block_write(DiskFile *f, Error *err)
{
    while (f->begin < f->end) {
        size_t n = f->end - f->begin, into = f->begin % f->page;
        bool direct = f->direct >= 0 && into == 0 && n >= f->page;
        if (direct)
            n -= n % f->page;
        else if (f->direct >= 0 && n > f->page - into)
            n = f->page - into;
        ssize_t done = pwrite(direct ? f->direct : f->plain, f->block + f->begin, n, (off_t)(f->at + f->begin));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && direct && errno == EINVAL) { /* the file system cannot after all */
            close(f->direct);
            f->direct = -1;
            continue;
        }
        if (done < 0)
            return error_set(err, "%s:", f->path);
        if (!direct && cache_count(f, f->at + f->begin, (size_t)done, err) < 0)
            return -1;
        f->begin += (size_t)done;
    }
    return 0;
}

int disk_write(DiskFile *f, const void *data, size_t n, uint64_t at, Error *err)
{
    const char *p = data;
    if (at != f->at + f->end && block_write(f, err) < 0)
        return -1;
    while (n > 0) {
        if (f->begin == f->end) {
            f->begin = f->end = at % f->page;
            f->at = at - f->begin;
        }
        size_t room = BLOCK_BYTES - f->end, m = n < room ? n : room;
        memcpy(f->block + f->end, p, m);
        f->end += m;
        p += m;
        at += m;
        n -= m;
        if (f->end == BLOCK_BYTES && block_write(f, err) < 0)
            return -1;
    }
    return 0;
}

int disk_close(DiskFile *f, int status, Error *err)
{
    if (status == 0)
        status = block_write(f, err);
    if (status == 0 && fsync(f->plain) != 0)
        status = error_set(err, "%s:", f->path);
    if (f->direct >= 0)
        close(f->direct);
    if (close(f->plain) != 0 && status == 0)
        status = error_set(err, "%s:", f->path);
    free(f->block);
    free(f->path);
    free(f);
    return status;
}
