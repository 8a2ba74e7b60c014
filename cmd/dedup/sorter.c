#include "sorter.h"

#include <stdbool.h>
#include <stdlib.h>
#include "base/memory.h"
#include "base/thread.h"
#include "spool.h"

enum { LEAST_RECORDS = 128 };

/* A sorted stretch of the temporary file, read through a piece of the buffer. */
typedef struct Run {
    uint64_t offset, left; /* bytes and records not read yet */
    SortRecord *piece;
    size_t at, count;
} Run;

struct Sorter {
    const char *tmp;
    int threads;
    size_t most, capacity, count, at; /* records in memory */
    SortRecord *records;
    Spool *spool;
    Run *runs; /* once finished, a heap by the next record */
    size_t run_count, run_capacity, piece_records, open;
};

Sorter *sorter_new(const char *tmp, size_t memory, int threads)
{
    Sorter *s = memory_zalloc(1, sizeof *s);
    s->tmp = tmp;
    s->threads = threads;
    s->most = memory / sizeof(SortRecord) < LEAST_RECORDS ? LEAST_RECORDS : memory / sizeof(SortRecord);
    return s;
}

void sorter_free(Sorter *s)
{
    if (!s)
        return;
    spool_close(s->spool);
    free(s->records);
    free(s->runs);
    free(s);
}

uint64_t sorter_runs(const Sorter *s)
{
    return s->run_count;
}

static inline bool before(const SortRecord *a, const SortRecord *b)
{
    if (a->key[0] != b->key[0])
        return a->key[0] < b->key[0];
    if (a->key[1] != b->key[1])
        return a->key[1] < b->key[1];
    return a->key[2] < b->key[2];
}

static inline void swap(SortRecord *a, SortRecord *b)
{
    SortRecord t = *a;
    *a = *b;
    *b = t;
}

/* Quicksort in place: glibc's qsort takes as much memory again. */
static void quicksort(SortRecord *r, size_t n)
{
    while (n > 16) {
        size_t i = 0, j = n - 1;
        if (before(&r[n / 2], &r[0]))
            swap(&r[n / 2], &r[0]);
        if (before(&r[n - 1], &r[0]))
            swap(&r[n - 1], &r[0]);
        if (before(&r[n - 1], &r[n / 2]))
            swap(&r[n - 1], &r[n / 2]);
        SortRecord middle = r[n / 2];
        for (;;) {
            while (before(&r[i], &middle))
                i++;
            while (before(&middle, &r[j]))
                j--;
            if (i >= j)
                break;
            swap(&r[i++], &r[j--]);
        }
        /* The shorter side by recursion, so that the stack stays low. */
        size_t right = n - (j + 1);
        if (j + 1 < right) {
            quicksort(r, j + 1);
            r += j + 1;
            n = right;
        } else {
            quicksort(r + j + 1, right);
            n = j + 1;
        }
    }
    for (size_t i = 1; i < n; i++) {
        SortRecord x = r[i];
        size_t k = i;
        for (; k > 0 && before(&x, &r[k - 1]); k--)
            r[k] = r[k - 1];
        r[k] = x;
    }
}

typedef struct Buckets {
    SortRecord *records;
    size_t begin[257];
} Buckets;

static int sort_bucket(void *context, size_t index, int thread, Error *err)
{
    Buckets *b = context;
    (void)thread;
    (void)err;
    quicksort(b->records + b->begin[index], b->begin[index + 1] - b->begin[index]);
    return 0;
}

/* By the first byte in place, then each bucket on a thread: keys are hashes, so buckets are alike. */
static void sort(Sorter *s)
{
    Buckets b = {.records = s->records};
    size_t next[256];
    for (size_t i = 0; i < s->count; i++)
        b.begin[(s->records[i].key[0] >> 56) + 1]++;
    for (int k = 0; k < 256; k++) {
        b.begin[k + 1] += b.begin[k];
        next[k] = b.begin[k];
    }
    for (int k = 0; k < 256; k++)
        while (next[k] < b.begin[k + 1]) {
            size_t to = s->records[next[k]].key[0] >> 56;
            if (to == (size_t)k)
                next[k]++;
            else
                swap(&s->records[next[k]], &s->records[next[to]++]);
        }
    thread_parallel(s->threads, 256, sort_bucket, &b, NULL);
}

static int run_write(Sorter *s, Error *err)
{
    if (!s->spool && !(s->spool = spool_open(s->tmp, err)))
        return -1;
    sort(s);
    s->runs = memory_grow(s->runs, &s->run_capacity, s->run_count + 1, sizeof *s->runs);
    s->runs[s->run_count++] = (Run){.offset = spool_size(s->spool), .left = s->count};
    int status = spool_append(s->spool, s->records, s->count * sizeof *s->records, err);
    s->count = 0;
    return status;
}

int sorter_add(Sorter *s, SortRecord record, Error *err)
{
    if (s->count == s->most && run_write(s, err) < 0)
        return -1;
    if (s->count == s->capacity) {
        s->capacity = s->capacity < LEAST_RECORDS ? LEAST_RECORDS : s->capacity > s->most / 2 ? s->most : s->capacity * 2;
        s->records = memory_realloc(s->records, s->capacity, sizeof *s->records);
    }
    s->records[s->count++] = record;
    return 0;
}

static int run_fill(Sorter *s, Run *r, Error *err)
{
    r->count = r->left < s->piece_records ? r->left : s->piece_records;
    r->at = 0;
    size_t bytes = r->count * sizeof *r->piece;
    if (spool_read(s->spool, r->piece, bytes, r->offset, err) < 0)
        return -1;
    r->offset += bytes;
    r->left -= r->count;
    return 0;
}

static void heap_down(Sorter *s, size_t i)
{
    Run top = s->runs[i];
    for (size_t child; (child = 2 * i + 1) < s->open; i = child) {
        if (child + 1 < s->open && before(&s->runs[child + 1].piece[s->runs[child + 1].at], &s->runs[child].piece[s->runs[child].at]))
            child++;
        if (!before(&s->runs[child].piece[s->runs[child].at], &top.piece[top.at]))
            break;
        s->runs[i] = s->runs[child];
    }
    s->runs[i] = top;
}

int sorter_finish(Sorter *s, Error *err)
{
    if (s->run_count == 0) {
        sort(s);
        return 0;
    }
    if (s->count > 0 && run_write(s, err) < 0)
        return -1;
    /* The buffer is dealt out among the runs. */
    s->piece_records = s->most / s->run_count < LEAST_RECORDS ? LEAST_RECORDS : s->most / s->run_count;
    s->records = memory_realloc(s->records, s->piece_records * s->run_count, sizeof *s->records);
    s->open = s->run_count;
    for (size_t i = 0; i < s->open; i++) {
        s->runs[i].piece = s->records + i * s->piece_records;
        if (run_fill(s, &s->runs[i], err) < 0)
            return -1;
    }
    for (size_t i = s->open / 2; i-- > 0;)
        heap_down(s, i);
    return 0;
}

int sorter_next(Sorter *s, SortRecord *out, Error *err)
{
    if (s->run_count == 0) {
        if (s->at == s->count)
            return 0;
        *out = s->records[s->at++];
        return 1;
    }
    if (s->open == 0)
        return 0;
    Run *r = &s->runs[0];
    *out = r->piece[r->at++];
    if (r->at == r->count && r->left > 0 && run_fill(s, r, err) < 0)
        return -1;
    if (r->at == r->count)
        s->runs[0] = s->runs[--s->open];
    if (s->open > 0)
        heap_down(s, 0);
    return 1;
}
