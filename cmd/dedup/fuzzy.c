#include "fuzzy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "minhash.h"

enum { PERMUTATIONS = 128, LEAST_SLOTS = 1 << 8 };

/* A band of a kept document. Packed: the table is what takes the memory. */
typedef struct __attribute__((packed)) Entry {
    uint64_t key;
    uint32_t document; /* place in kept + 1; 0: empty slot */
} Entry;

typedef struct Kept {
    uint64_t number, offset; /* of its shingles in the store */
    uint32_t count;
} Kept;

struct Fuzzy {
    MinHash hash;
    double threshold;
    int ngram, bands, rows;
    size_t memory, used, mask;
    Entry *slots;
    Kept *kept; /* in the order of their numbers */
    size_t kept_count, kept_capacity;
    Spool *store;
    uint32_t *candidates;
    size_t candidate_capacity;
    uint64_t *mine, *theirs; /* shingles read from the store */
    size_t mine_capacity, theirs_capacity;
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

Fuzzy *fuzzy_open(double threshold, int ngram, int bands, int rows, size_t memory, Spool *store, Error *err)
{
    if (bands == 0 || rows == 0)
        choose_bands(threshold, &bands, &rows);
    if (bands * rows > MINHASH_MOST) {
        error_set(err, "--bands %d times --rows %d are more than %d hashes", bands, rows, MINHASH_MOST);
        return NULL;
    }
    Fuzzy *f = memory_aligned(1, sizeof *f); /* the hash constants are aligned */
    *f = (Fuzzy){.threshold = threshold, .ngram = ngram, .bands = bands, .rows = rows, .memory = memory, .store = store, .mask = LEAST_SLOTS - 1};
    minhash_open(&f->hash, bands * rows, 1);
    f->slots = memory_zalloc(f->mask + 1, sizeof *f->slots);
    return f;
}

void fuzzy_close(Fuzzy *f)
{
    if (!f)
        return;
    free(f->slots);
    free(f->kept);
    free(f->candidates);
    free(f->mine);
    free(f->theirs);
    free(f);
}

int fuzzy_bands(const Fuzzy *f)
{
    return f->bands;
}

int fuzzy_rows(const Fuzzy *f)
{
    return f->rows;
}

void fuzzy_prepare(const Fuzzy *f, Shingles *scratch, Span text, Buffer *out)
{
    uint64_t signature[MINHASH_MOST];
    out->length = 0;
    shingles_make(scratch, text, f->ngram);
    if (scratch->count == 0)
        return;
    minhash_sign(&f->hash, scratch->hashes, scratch->count, signature);
    buffer_reserve(out, ((size_t)f->bands + scratch->count) * sizeof *signature);
    for (int b = 0; b < f->bands; b++) {
        uint64_t key = XXH64(signature + b * f->rows, (size_t)f->rows * sizeof *signature, (uint64_t)b);
        buffer_append(out, &key, sizeof key);
    }
    buffer_append(out, scratch->hashes, scratch->count * sizeof *scratch->hashes);
}

Sketch fuzzy_sketch(const Fuzzy *f, const Buffer *prepared)
{
    if (prepared->length == 0)
        return (Sketch){.offset = UINT64_MAX};
    const uint64_t *keys = (const uint64_t *)(const void *)prepared->data;
    return (Sketch){keys, keys + f->bands, UINT64_MAX, prepared->length / sizeof *keys - (size_t)f->bands};
}

int fuzzy_store(Fuzzy *f, Sketch *s, Error *err)
{
    if (s->offset != UINT64_MAX || s->count == 0)
        return 0;
    s->offset = spool_size(f->store);
    return spool_append(f->store, s->hashes, s->count * sizeof *s->hashes, err);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Places in `kept` that share a band and are of a size that allows the threshold: ascending, each once. */
static size_t candidates_find(Fuzzy *f, const Sketch *s)
{
    size_t n = 0;
    for (int b = 0; b < f->bands; b++)
        for (size_t h = s->keys[b]; f->slots[h & f->mask].document; h++) {
            if (f->slots[h & f->mask].key != s->keys[b])
                continue;
            uint32_t place = f->slots[h & f->mask].document - 1;
            size_t count = f->kept[place].count, less = count < s->count ? count : s->count, more = count < s->count ? s->count : count;
            if ((double)less < f->threshold * (double)more)
                continue; /* sets of such different sizes cannot be that similar */
            f->candidates = memory_grow(f->candidates, &f->candidate_capacity, n + 1, sizeof *f->candidates);
            f->candidates[n++] = place;
        }
    if (n < 2)
        return n;
    qsort(f->candidates, n, sizeof *f->candidates, compare_u32);
    size_t different = 1;
    for (size_t i = 1; i < n; i++)
        if (f->candidates[i] != f->candidates[different - 1])
            f->candidates[different++] = f->candidates[i];
    return different;
}

int fuzzy_find(Fuzzy *f, const Sketch *s, uint64_t *match, double *similarity, Error *err)
{
    size_t n = s->count ? candidates_find(f, s) : 0;
    const uint64_t *mine = s->hashes;
    if (n > 0 && !mine) {
        f->mine = memory_grow(f->mine, &f->mine_capacity, s->count, sizeof *f->mine);
        if (spool_read(f->store, f->mine, s->count * sizeof *f->mine, s->offset, err) < 0)
            return -1;
        mine = f->mine;
    }
    for (size_t i = 0; i < n; i++) {
        const Kept *k = &f->kept[f->candidates[i]];
        f->theirs = memory_grow(f->theirs, &f->theirs_capacity, k->count, sizeof *f->theirs);
        if (spool_read(f->store, f->theirs, k->count * sizeof *f->theirs, k->offset, err) < 0)
            return -1;
        double j = shingles_jaccard(mine, s->count, f->theirs, k->count);
        if (j >= f->threshold) {
            *match = k->number;
            *similarity = j;
            return 1;
        }
    }
    return 0;
}

static void entry_put(Fuzzy *f, Entry e)
{
    size_t h = e.key;
    while (f->slots[h & f->mask].document)
        h++;
    f->slots[h & f->mask] = e;
}

/* Room for the bands of one more document; while the table grows, the old one and the new one are both there. */
static bool has_room(Fuzzy *f)
{
    size_t n = f->mask + 1, bands = (size_t)f->bands, kept = (f->kept_count + 1) * sizeof *f->kept;
    while ((f->used + bands) * 4 > n * 3) {
        if (n * 3 * sizeof *f->slots + 2 * kept > f->memory && f->kept_count > 0)
            return false;
        Entry *old = f->slots;
        f->mask = n * 2 - 1;
        f->slots = memory_zalloc(n * 2, sizeof *f->slots);
        for (size_t i = 0; i < n; i++)
            if (old[i].document)
                entry_put(f, old[i]);
        free(old);
        n *= 2;
    }
    return f->kept_count == 0 || (n * sizeof *f->slots + kept <= f->memory && f->kept_count < UINT32_MAX - 1);
}

int fuzzy_add(Fuzzy *f, Sketch *s, uint64_t number, Error *err)
{
    if (s->count == 0)
        return 1;
    if (!has_room(f))
        return 0;
    if (s->count > UINT32_MAX)
        return error_set(err, "a document of more than 4 billion shingles");
    if (fuzzy_store(f, s, err) < 0)
        return -1;
    f->kept = memory_grow(f->kept, &f->kept_capacity, f->kept_count + 1, sizeof *f->kept);
    f->kept[f->kept_count++] = (Kept){number, s->offset, (uint32_t)s->count};
    for (int b = 0; b < f->bands; b++)
        entry_put(f, (Entry){s->keys[b], (uint32_t)f->kept_count});
    f->used += (size_t)f->bands;
    return 1;
}

void fuzzy_clear(Fuzzy *f)
{
    memset(f->slots, 0, (f->mask + 1) * sizeof *f->slots);
    f->used = f->kept_count = 0;
}
