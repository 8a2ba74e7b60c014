#include "parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const char magic[12] = "lmpipe dedup";
static const char *const kind_names[FILE_KINDS] = {"signatures", "sorted keys", "pairs", "matches", "fates"};

/* Whether the file ends in terms: 1, 0, -1 on errors. Only a regular file does. */
static int terms_read(const char *path, FileMap *map, Terms *t, Error *err)
{
    struct stat s;
    *map = (FileMap){0};
    if (strcmp(path, "-") == 0 || stat(path, &s) < 0 || !S_ISREG(s.st_mode) || (size_t)s.st_size < sizeof *t)
        return 0;
    if (filemap_open(map, path, err) < 0)
        return -1;
    memcpy(t, map->data + map->size - sizeof *t, sizeof *t);
    if (memcmp(t->magic, magic, sizeof magic) == 0 && t->kind < FILE_KINDS)
        return 1;
    filemap_close(map);
    return 0;
}

/* a + b · c, or UINT64_MAX where it does not fit. */
static uint64_t sum(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t product, total;
    return __builtin_mul_overflow(b, c, &product) || __builtin_add_overflow(a, product, &total) ? UINT64_MAX : total;
}

static int broken(const char *path, Error *err)
{
    return error_set(err, "%s: its sizes disagree with its length", path);
}

static int part_open(Part *p, Error *err)
{
    const Terms *t = &p->terms;
    uint64_t size = sizeof *t, with_set = 0;
    size = sum(size, t->count, sizeof *p->hashes);
    size = sum(size, t->documents, 2 * sizeof *p->set_ends);
    size = sum(size, t->name_bytes, 1);
    if (size > p->map.size || t->bands == 0 || t->method >= METHODS || !(t->threshold > 0 && t->threshold <= 1))
        return broken(p->path, err);
    p->hashes = (const uint64_t *)(const void *)p->map.data;
    p->names = (const char *)p->map.data + p->map.size - sizeof *t - t->name_bytes;
    p->keys = p->hashes + t->count;
    size_t numbers = (p->map.size - sizeof *t - t->name_bytes) / sizeof *p->keys;
    p->set_ends = p->hashes + numbers - 2 * t->documents;
    p->name_ends = p->set_ends + t->documents;
    uint64_t set = 0, name = 0;
    for (uint64_t i = 0; i < t->documents; i++) {
        if (p->set_ends[i] < set || p->set_ends[i] > t->count || p->name_ends[i] < name || p->name_ends[i] > t->name_bytes)
            return broken(p->path, err);
        with_set += p->set_ends[i] > set;
        set = p->set_ends[i];
        name = p->name_ends[i];
    }
    size = sum(size, with_set, (uint64_t)t->bands * sizeof *p->keys);
    return size == p->map.size && set == t->count && name == t->name_bytes ? 0 : broken(p->path, err);
}

static bool same_terms(const Terms *a, const Terms *b)
{
    return a->method == b->method && a->ngram == b->ngram && a->bands == b->bands && a->rows == b->rows && a->threshold == b->threshold;
}

static int add_part(Inputs *in, const char *path, FileMap map, Terms t, Error *err)
{
    in->parts = memory_realloc(in->parts, in->part_count + 1, sizeof *in->parts);
    Part *p = &in->parts[in->part_count++];
    *p = (Part){.path = path, .map = map, .terms = t, .first = in->part_count > 1 ? in->terms.documents : 0};
    if (part_open(p, err) < 0)
        return -1;
    if (in->part_count == 1)
        in->terms = (Terms){.threshold = t.threshold, .method = t.method, .ngram = t.ngram, .bands = t.bands, .rows = t.rows};
    else if (!same_terms(&in->terms, &t))
        return error_set(err, "%s: was signed with other settings than %s", path, in->parts[0].path);
    in->terms.documents += t.documents;
    uint64_t both[2] = {in->terms.checksum, t.checksum};
    in->terms.checksum = XXH64(both, sizeof both, t.documents);
    return in->terms.documents >> 61 ? error_set(err, "%s: too many documents", path) : 0;
}

static int add_file(Inputs *in, const char *path, FileMap map, Terms t, Error *err)
{
    in->files = memory_realloc(in->files, in->file_count + 1, sizeof *in->files);
    RecordFile *f = &in->files[in->file_count++];
    *f = (RecordFile){path, map, t, (const SortRecord *)(const void *)map.data};
    return sum(sizeof t, t.count, sizeof *f->records) == map.size ? 0 : broken(path, err);
}

static bool same_corpus(const Terms *a, const Terms *b)
{
    return a->documents == b->documents && a->checksum == b->checksum;
}

static const char *first_path(const Inputs *in)
{
    return in->part_count ? in->parts[0].path : in->file_count ? in->files[0].path : "nothing";
}

/* All of one deduplication: the parts' files, where parts are given, else the first file's. */
static int check_together(Inputs *in, Error *err)
{
    if (in->part_count == 0 && in->file_count > 0)
        in->terms = in->files[0].terms;
    for (size_t i = 0; i < in->file_count; i++)
        if (!same_terms(&in->terms, &in->files[i].terms) || !same_corpus(&in->terms, &in->files[i].terms))
            return error_set(err, "%s: is of other parts, or of the same in another order, than %s", in->files[i].path, first_path(in));
    return 0;
}

int inputs_open(Inputs *in, const char *const *paths, FileKind kind, bool documents, Error *err)
{
    *in = (Inputs){0};
    size_t count = 0;
    while (paths[count])
        count++;
    in->others = memory_zalloc(count + 1, sizeof *in->others);
    for (; *paths; paths++) {
        FileMap map;
        Terms t;
        int is = terms_read(*paths, &map, &t, err), status = is;
        if (is > 0 && t.kind == FILE_SIGNATURES)
            status = add_part(in, *paths, map, t, err);
        else if (is > 0 && t.kind == kind)
            status = add_file(in, *paths, map, t, err);
        else if (is > 0) {
            filemap_close(&map);
            status = error_set(err, "%s: holds %s, which this step does not take", *paths, kind_names[t.kind]);
        } else if (is == 0 && documents)
            in->others[in->other_count++] = *paths;
        else if (is == 0)
            status = error_set(err, "%s: is no file of dedup's steps, or was cut off", *paths);
        if (status < 0)
            return -1;
    }
    return check_together(in, err);
}

void inputs_close(Inputs *in)
{
    for (size_t i = 0; i < in->part_count; i++)
        filemap_close(&in->parts[i].map);
    for (size_t i = 0; i < in->file_count; i++)
        filemap_close(&in->files[i].map);
    free(in->parts);
    free(in->files);
    free(in->others);
    *in = (Inputs){0};
}

const Part *part_of(const Inputs *in, uint64_t number)
{
    size_t low = 0, high = in->part_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (in->parts[middle].first <= number)
            low = middle;
        else
            high = middle;
    }
    return &in->parts[low];
}

Set part_set(const Part *p, uint64_t index)
{
    uint64_t begin = index ? p->set_ends[index - 1] : 0;
    return (Set){p->hashes + begin, p->set_ends[index] - begin};
}

Span part_name(const Part *p, uint64_t index)
{
    uint64_t begin = index ? p->name_ends[index - 1] : 0;
    return (Span){p->names + begin, p->name_ends[index] - begin};
}

int terms_write(Writer *out, Terms terms, FileKind kind, Error *err)
{
    terms.kind = (uint32_t)kind;
    memcpy(terms.magic, magic, sizeof magic);
    return writer_write(out, &terms, sizeof terms, err);
}

int records_open(RecordWriter *w, const char *path, FileKind kind, const Terms *corpus, Error *err)
{
    *w = (RecordWriter){writer_open(path, err), *corpus};
    w->terms.count = 0;
    w->terms.kind = (uint32_t)kind;
    return w->out ? 0 : -1;
}

int records_write(RecordWriter *w, SortRecord r, Error *err)
{
    w->terms.count++;
    return writer_write(w->out, &r, sizeof r, err);
}

int records_close(RecordWriter *w, Error *err)
{
    if (terms_write(w->out, w->terms, w->terms.kind, err) < 0) {
        records_abandon(w);
        return -1;
    }
    return writer_close(w->out, err);
}

void records_abandon(RecordWriter *w)
{
    writer_abandon(w->out);
    w->out = NULL;
}

int fates_open(Fates *f, const char *path, const Inputs *in, Error *err)
{
    int is = terms_read(path, &f->map, &f->terms, err);
    if (is < 0)
        return -1;
    if (is == 0 || f->terms.kind != FILE_FATES) {
        filemap_close(&f->map);
        return error_set(err, "%s: holds no fates of dedup apply, or was cut off", path);
    }
    f->fates = (const uint64_t *)(const void *)f->map.data;
    int status = 0;
    if (f->terms.count != f->terms.documents || sum(sizeof f->terms, f->terms.count, sizeof *f->fates) != f->map.size)
        status = broken(path, err);
    else if (!same_corpus(&f->terms, &in->terms))
        status = error_set(err, "%s: is of another corpus than %s", path, first_path(in));
    if (status < 0)
        filemap_close(&f->map);
    return status;
}

void fates_close(Fates *f)
{
    filemap_close(&f->map);
}

int share_parse(const char *text, uint64_t *index, uint64_t *count, Error *err)
{
    char rest;
    if (sscanf(text, "%" SCNu64 "/%" SCNu64 "%c", index, count, &rest) != 2 || *index < 1 || *index > *count || *count > 1000000)
        return error_set(err, "--part %s is not I/N with 1 <= I <= N", text);
    --*index;
    return 0;
}
