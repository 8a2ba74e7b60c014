#include "fuzzy.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { PERMUTATIONS = 128 };

/* Documents with the same key of a band form a chain. */
typedef struct Entry {
    uint64_t key;
    uint32_t document; /* place in kept + 1; 0: empty slot */
} Entry;

typedef struct Kept {
    uint64_t number, offset; /* of its shingles in the file */
    uint32_t count;
} Kept;

struct Fuzzy {
    MinHash hash;
    double threshold;
    int ngram, bands, rows, file;
    Entry *slots;
    size_t used, mask;
    Kept *kept;
    size_t kept_count, kept_capacity;
    uint64_t file_size;
    uint64_t *read;
    size_t read_capacity;
    uint32_t *seen; /* the last document that looked at a kept one: each is verified once */
    size_t seen_capacity;
    uint32_t looks;
};

/* The most rows whose bands still find a pair of similarity t + 0.04 with probability 0.998. */
static void choose_bands(double t, int *bands, int *rows)
{
    double s = t + 0.04 < 0.999 ? t + 0.04 : 0.999;
    for (*rows = 32; *rows > 1; --*rows) {
        *bands = PERMUTATIONS / *rows;
        if (1 - pow(1 - pow(s, *rows), *bands) >= 0.998)
            return;
    }
    *bands = PERMUTATIONS;
}

Fuzzy *fuzzy_open(double threshold, int ngram, int bands, int rows, const char *tmp, Error *err)
{
    Fuzzy *f = memory_zalloc(1, sizeof *f);
    f->threshold = threshold;
    f->ngram = ngram;
    f->bands = bands;
    f->rows = rows;
    if (bands == 0 || rows == 0)
        choose_bands(threshold, &f->bands, &f->rows);
    if (f->bands * f->rows > MINHASH_MOST) {
        error_set(err, "--bands %d times --rows %d are more than %d hashes", f->bands, f->rows, MINHASH_MOST);
        free(f);
        return NULL;
    }
    minhash_open(&f->hash, f->bands * f->rows, 1);
    char *path = memory_format("%s/dedup-XXXXXX", tmp);
    f->file = mkstemp(path);
    if (f->file < 0) {
        error_set(err, "%s:", path);
        free(path);
        free(f);
        return NULL;
    }
    unlink(path);
    free(path);
    f->mask = (1 << 16) - 1;
    f->slots = memory_zalloc(f->mask + 1, sizeof *f->slots);
    return f;
}

void fuzzy_close(Fuzzy *f)
{
    if (!f)
        return;
    close(f->file);
    free(f->slots);
    free(f->kept);
    free(f->read);
    free(f->seen);
    free(f);
}

void fuzzy_prepare(const Fuzzy *f, Shingles *scratch, Span text, Buffer *out)
{
    uint64_t signature[MINHASH_MOST];
    out->length = 0;
    shingles_make(scratch, text, f->ngram);
    if (scratch->count == 0)
        return;
    minhash_sign(&f->hash, scratch, signature);
    for (int b = 0; b < f->bands; b++) {
        uint64_t key = XXH64(signature + b * f->rows, (size_t)f->rows * sizeof *signature, (uint64_t)b);
        buffer_append(out, &key, sizeof key);
    }
    buffer_append(out, scratch->hashes, scratch->count * sizeof *scratch->hashes);
}

static int read_all(int file, void *to, size_t n, uint64_t offset, Error *err)
{
    for (char *p = to; n > 0;) {
        ssize_t got = pread(file, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return error_set(err, "temporary file:");
        p += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

static int write_all(int file, const void *from, size_t n, uint64_t offset, Error *err)
{
    for (const char *p = from; n > 0;) {
        ssize_t done = pwrite(file, p, n, (off_t)offset);
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

static void slots_grow(Fuzzy *f)
{
    Entry *old = f->slots;
    size_t n = f->mask + 1;
    f->mask = n * 2 - 1;
    f->slots = memory_zalloc(n * 2, sizeof *f->slots);
    for (size_t i = 0; i < n; i++)
        if (old[i].document) {
            size_t h = old[i].key;
            while (f->slots[h & f->mask].document)
                h++;
            f->slots[h & f->mask] = old[i];
        }
    free(old);
}

static int keep(Fuzzy *f, const uint64_t *keys, const uint64_t *hashes, size_t count, uint64_t number, Error *err)
{
    if (f->kept_count >= UINT32_MAX - 1)
        return error_set(err, "more than 4 billion documents");
    if (write_all(f->file, hashes, count * sizeof *hashes, f->file_size, err) < 0)
        return -1;
    f->kept = memory_grow(f->kept, &f->kept_capacity, f->kept_count + 1, sizeof *f->kept);
    f->kept[f->kept_count++] = (Kept){number, f->file_size, (uint32_t)count};
    size_t old = f->seen_capacity;
    f->seen = memory_grow(f->seen, &f->seen_capacity, f->kept_count, sizeof *f->seen);
    memset(f->seen + old, 0, (f->seen_capacity - old) * sizeof *f->seen);
    f->file_size += count * sizeof *hashes;
    for (int b = 0; b < f->bands; b++) {
        if (++f->used * 2 > f->mask)
            slots_grow(f);
        size_t h = keys[b];
        while (f->slots[h & f->mask].document)
            h++;
        f->slots[h & f->mask] = (Entry){keys[b], (uint32_t)f->kept_count};
    }
    return 0;
}

int fuzzy_look(Fuzzy *f, const Buffer *prepared, uint64_t number, uint64_t *match, double *similarity, Error *err)
{
    if (prepared->length == 0)
        return 0; /* shorter documents never match */
    const uint64_t *keys = (const uint64_t *)(const void *)prepared->data, *hashes = keys + f->bands;
    size_t count = prepared->length / sizeof *keys - (size_t)f->bands;
    f->looks++;
    for (int b = 0; b < f->bands; b++)
        for (size_t h = keys[b]; f->slots[h & f->mask].document; h++) {
            if (f->slots[h & f->mask].key != keys[b])
                continue;
            uint32_t place = f->slots[h & f->mask].document - 1;
            if (f->seen[place] == f->looks)
                continue;
            f->seen[place] = f->looks;
            const Kept *k = &f->kept[place];
            size_t less = k->count < count ? k->count : count, more = k->count < count ? count : k->count;
            if ((double)less < f->threshold * (double)more)
                continue; /* sets of such different sizes cannot be that similar */
            f->read = memory_grow(f->read, &f->read_capacity, k->count, sizeof *f->read);
            if (read_all(f->file, f->read, k->count * sizeof *f->read, k->offset, err) < 0)
                return -1;
            double j = shingles_jaccard(hashes, count, f->read, k->count);
            if (j >= f->threshold) {
                *match = k->number;
                *similarity = j;
                return 1;
            }
        }
    return keep(f, keys, hashes, count, number, err);
}
