#include "removed.h"

#include <stdbool.h>
#include <stdlib.h>
#include "io/json.h"
#include "io/stream.h"
#include "sorter.h"
#include "spool.h"

/* Of every document of the input. */
typedef struct Name {
    uint64_t offset, length; /* in the file of names */
    uint64_t fate;           /* number + 1 of the document that removed it; 0: it stays; GONE: cut away */
} Name;

enum { STAYS = 0 };
static const uint64_t GONE = UINT64_MAX;

typedef struct Entry {
    Removal removal;
    uint64_t offset, length; /* of the line */
} Entry;

struct Removed {
    Writer *out;
    Spool *names, *index, *lines;
    Sorter *order; /* {number, place in the lines} */
};

static void removed_free(Removed *r)
{
    spool_close(r->names);
    spool_close(r->index);
    spool_close(r->lines);
    sorter_free(r->order);
    free(r);
}

Removed *removed_open(const char *path, const char *tmp, size_t memory, int threads, Error *err)
{
    Removed *r = memory_zalloc(1, sizeof *r);
    r->order = sorter_new(tmp, memory, threads);
    if ((r->out = writer_open(path, err)) && (r->names = spool_open(tmp, err)) && (r->index = spool_open(tmp, err)) && (r->lines = spool_open(tmp, err)))
        return r;
    removed_abandon(r);
    return NULL;
}

void removed_abandon(Removed *r)
{
    if (!r)
        return;
    writer_abandon(r->out);
    removed_free(r);
}

int removed_name(Removed *r, Span id, Error *err)
{
    Name n = {spool_size(r->names), id.length, STAYS};
    return spool_append(r->index, &n, sizeof n, err) < 0 ? -1 : spool_append(r->names, id.data, id.length, err);
}

int removed_add(Removed *r, Removal removal, Span line, Error *err)
{
    uint64_t fate = removal.match == UINT64_MAX ? GONE : removal.match + 1, at = spool_size(r->lines);
    Entry e = {removal, at + sizeof e, line.length};
    if (spool_put(r->index, &fate, sizeof fate, removal.number * sizeof(Name) + offsetof(Name, fate), err) < 0 ||
        spool_append(r->lines, &e, sizeof e, err) < 0 || spool_append(r->lines, line.data, line.length, err) < 0)
        return -1;
    return sorter_add(r->order, (SortRecord){{removal.number, at, 0}}, err);
}

static int name_of(Removed *r, uint64_t number, Name *n, Error *err)
{
    return spool_read(r->index, n, sizeof *n, number * sizeof *n, err);
}

static int read_name(Removed *r, Buffer *id, const Name *n, Error *err)
{
    id->length = 0;
    buffer_reserve(id, n->length + 1);
    id->length = n->length;
    return spool_read(r->names, id->data, n->length, n->offset, err);
}

/* The names of `match` and of the document that stays at the end of the chain that begins there: *stays, if there is one. */
static int match_names(Removed *r, uint64_t match, Buffer *name, Buffer *last_name, bool *stays, Error *err)
{
    Name first, last;
    if (name_of(r, match, &first, err) < 0)
        return -1;
    for (last = first; last.fate != STAYS && last.fate != GONE;)
        if (name_of(r, last.fate - 1, &last, err) < 0)
            return -1;
    *stays = last.fate == STAYS;
    return read_name(r, name, &first, err) < 0 ? -1 : read_name(r, last_name, &last, err);
}

static void put_name(Buffer *value, const char *key, const Span *name)
{
    if (!name)
        return;
    buffer_format(value, ",\"%s\":", key);
    json_write_string(value, *name);
}

void removal_write(Buffer *line, Span raw, const char *method, const Span *kept, const Span *match, double similarity)
{
    Buffer value = {0};
    JsonField absent = {0};
    buffer_format(&value, "{\"method\":\"%s\"", method);
    put_name(&value, "kept", kept);
    put_name(&value, "match", match);
    if (similarity >= 0) {
        buffer_string(&value, ",\"similarity\":");
        json_write_number(&value, similarity);
    }
    buffer_byte(&value, '}');
    json_record_set(line, raw, &absent, "removed", (Span){value.data, value.length});
    buffer_byte(line, '\n');
    buffer_free(&value);
}

static int write_one(Removed *r, uint64_t at, Buffer *line, Error *err)
{
    Entry e;
    if (spool_read(r->lines, &e, sizeof e, at, err) < 0)
        return -1;
    Buffer raw = {0}, name = {0}, last_name = {0};
    bool matched = e.removal.match != UINT64_MAX, stays = false;
    buffer_reserve(&raw, e.length + 1);
    int status = spool_read(r->lines, raw.data, e.length, e.offset, err);
    if (status == 0 && matched)
        status = match_names(r, e.removal.match, &name, &last_name, &stays, err);
    line->length = 0;
    if (status == 0) {
        Span match = {name.data, name.length}, kept = {last_name.data, last_name.length};
        removal_write(line, (Span){raw.data, e.length}, e.removal.method, stays ? &kept : NULL, matched ? &match : NULL, e.removal.similarity);
        status = writer_write(r->out, line->data, line->length, err);
    }
    buffer_free(&name);
    buffer_free(&last_name);
    buffer_free(&raw);
    return status;
}

int removed_close(Removed *r, Error *err)
{
    if (!r)
        return 0;
    SortRecord next;
    Buffer line = {0};
    int got = -1;
    if (sorter_finish(r->order, err) == 0)
        while ((got = sorter_next(r->order, &next, err)) > 0)
            if (write_one(r, next.key[1], &line, err) < 0) {
                got = -1;
                break;
            }
    buffer_free(&line);
    if (got < 0) {
        removed_abandon(r);
        return -1;
    }
    int status = writer_close(r->out, err);
    removed_free(r);
    return status;
}
