/* Files written past the system's cache: every byte is where it belongs, whatever the pieces, whether the file system can do it or not;
 * what passes the cache is aligned; a full disk and a disk that fails are told. pwrite is this file's own. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/random.h"
#include "io/disk.h"
#include "tests/unit/tap.h"

static int refused, failing, shortened; /* O_DIRECT is not for this file system; the errno of every write; every third write is short */
static long direct_bytes, plain_bytes, crooked, calls;

ssize_t pwrite(int descriptor, const void *data, size_t n, off_t at)
{
    bool direct = fcntl(descriptor, F_GETFL) & O_DIRECT;
    if (failing || (direct && refused)) {
        errno = failing ? failing : EINVAL;
        return -1;
    }
    crooked += direct && ((uintptr_t)data | n | (size_t)at) % 4096 != 0;
    if (shortened && calls++ % 3 == 0 && n > 1)
        n = n > 8192 ? n / 2 / 4096 * 4096 : n / 2;
    *(direct ? &direct_bytes : &plain_bytes) += (long)n;
    return syscall(SYS_pwrite64, descriptor, data, n, at);
}

/* Pieces of random lengths: several one after the other, then a gap, from two writers in turn as of two ranks. */
static bool pieces(const char *path, size_t size, uint64_t seed)
{
    Error err;
    unsigned char *want = memory_zalloc(size, 1), *is = memory_alloc(size + 1, 1);
    DiskFile *first = disk_open(path, size, &err), *files[2] = {first, disk_open(path, 0, &err)};
    bool good = files[0] && files[1];
    size_t at = 0;
    for (uint64_t k = 0; good && at < size; k++) {
        size_t most = (size_t)1 << (int)(random_uniform(seed, 1, k) * 23), n = 1 + (size_t)(random_uniform(seed, 2, k) * (double)most);
        n = n < size - at ? n : size - at;
        for (size_t i = 0; i < n; i++)
            want[at + i] = (unsigned char)((at + i) * 7 + k);
        good = disk_write(files[k / 4 % 2], want + at, n, at, &err) == 0;
        at += n + (random_uniform(seed, 3, k) < 0.3 ? (size_t)(random_uniform(seed, 4, k) * 9000) : 0);
    }
    for (int i = 0; i < 2; i++)
        good = files[i] && disk_close(files[i], 0, &err) == 0 && good;
    int d = open(path, O_RDONLY);
    good = good && read(d, is, size + 1) == (ssize_t)size && memcmp(is, want, size) == 0;
    close(d);
    free(want);
    free(is);
    return good;
}

static bool all_pieces(const char *path)
{
    bool good = true;
    for (uint64_t seed = 1; seed <= 6; seed++)
        good &= pieces(path, seed == 1 ? 100 : (size_t)seed * 5000000 + seed * 777, seed);
    return good;
}

static bool told(const char *path, int reason)
{
    Error err = {.text = ""};
    DiskFile *f = disk_open(path, 10000, &err);
    failing = reason;
    int status = disk_write(f, "some bytes", 10, 0, &err);
    status = disk_close(f, status, &err);
    failing = 0;
    return status < 0 && strstr(err.text, strerror(reason)) && strstr(err.text, path);
}

int main(void)
{
    char folder[] = "/tmp/disk-XXXXXX", *path;
    if (!mkdtemp(folder))
        return 1;
    path = memory_format("%s/file", folder);
    ok(all_pieces(path), "pieces of any length and place are in the file, written by two in turn");
    int able = open(path, O_WRONLY | O_DIRECT);
    if (able < 0)
        skip("most of it passes the cache", "this file system does not");
    else
        ok(direct_bytes > 10 * plain_bytes, "most of it passes the cache: %ld bytes of %ld", direct_bytes, direct_bytes + plain_bytes);
    close(able);
    ok(crooked == 0, "in whole pages");
    shortened = true;
    ok(all_pieces(path) && crooked == 0, "also where a write takes less than it was given");
    shortened = false;
    refused = true;
    direct_bytes = 0;
    ok(all_pieces(path) && direct_bytes == 0, "also on a file system that refuses to be passed by");
    refused = false;
    ok(told(path, ENOSPC) && told(path, EIO), "a full disk and one that fails are told with the file's name");
    Error err;
    ok(!disk_open("/nowhere/file", 10, &err) && strstr(err.text, "/nowhere/file: No such file"), "and so is a folder that is not there");
    unlink(path);
    rmdir(folder);
    free(path);
    return tap_end();
}
