/* --lines and --paragraphs cut parts of texts. A first look gives every part its hash and its place among all parts; sorted by
 * hash, the parts that are to be cut are found, and sorted again by place they are met in order by the second look. Both sorts
 * stay within the memory (sorter.h). */
#include <stdlib.h>
#include <string.h>
#include "dedup.h"
#include "keys.h"
#include "sorter.h"

typedef struct Cut {
    Dedup *d;
    Method method;
    Source *from;
    Sink *to;
    Sorter *parts; /* {hash, hash, place} */
    Sorter *cuts;  /* {place} */
    uint64_t documents, place;
    SortRecord next; /* the next cut */
    bool more;
    Buffer text;
} Cut;

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static Span trimmed(Span s)
{
    while (s.length && is_blank(s.data[s.length - 1]))
        s.length--;
    while (s.length && is_blank(*s.data)) {
        s.data++;
        s.length--;
    }
    return s;
}

/* The line at `at` without its blanks; *end is where the next one begins. */
static Span line_at(Span text, size_t at, size_t *end)
{
    const char *newline = memchr(text.data + at, '\n', text.length - at);
    size_t stop = newline ? (size_t)(newline - text.data) : text.length;
    *end = stop + (newline != NULL);
    return trimmed((Span){text.data + at, stop - at});
}

/* The part at `at`, and in *end where the next one begins. A line goes with its newline, a paragraph (lines that are not
 * blank) with the blank lines behind it. What is compared lies between blanks; it is empty where there is nothing to cut. */
static Span part_at(Method method, Span text, size_t at, size_t *end)
{
    Span line = line_at(text, at, end);
    if (method == METHOD_LINES || line.length == 0)
        return line;
    const char *begin = line.data, *stop = line.data + line.length;
    bool inside = true;
    for (size_t next; *end < text.length; *end = next) {
        line = line_at(text, *end, &next);
        if (line.length > 0 && !inside)
            break;
        if (line.length > 0)
            stop = line.data + line.length;
        else
            inside = false;
    }
    return (Span){begin, (size_t)(stop - begin)};
}

static int hash_work(void *context, Document *document, int thread, Error *err)
{
    Cut *c = context;
    (void)thread;
    (void)err;
    for (size_t at = 0, end; at < document->text.length; at = end) {
        Span part = part_at(c->method, document->text, at, &end);
        if (part.length > 0) {
            Key k = key_of(part);
            buffer_append(&document->out, &k, sizeof k);
        }
    }
    return 0;
}

/* A line's hash holds its bucket, so that one sort serves all. */
static int hash_emit(void *context, Document *document, Error *err)
{
    Cut *c = context;
    uint64_t bucket = c->method == METHOD_LINES ? c->documents++ / (uint64_t)c->d->bucket : 0;
    for (size_t i = 0; i < document->out.length; i += sizeof(Key)) {
        Key k;
        memcpy(&k, document->out.data + i, sizeof k);
        SortRecord r = {{k.low, k.high ^ bucket * UINT64_C(0x9E3779B97F4A7C15), c->place++}};
        if (sorter_add(c->parts, r, err) < 0)
            return -1;
    }
    return 0;
}

/* Of a hash that stands more than `most` times all parts are cut, or all but the first. */
static int cuts_find(Cut *c, Error *err)
{
    bool lines = c->method == METHOD_LINES, spare = !lines || c->d->keep_first;
    uint64_t most = lines ? (uint64_t)c->d->max_line_count : 1, seen = 0, *held = NULL;
    size_t held_count = 0, held_capacity = 0;
    SortRecord r, last = {{0, 0, 0}};
    int got = sorter_finish(c->parts, err);
    while (got == 0 && (got = sorter_next(c->parts, &r, err)) > 0) {
        got = 0;
        if (seen == 0 || r.key[0] != last.key[0] || r.key[1] != last.key[1])
            seen = held_count = 0;
        last = r;
        /* The first `most` wait until it is known that there are more. */
        if (++seen <= most) {
            if (seen == 1 && spare)
                continue;
            held = memory_grow(held, &held_capacity, held_count + 1, sizeof *held);
            held[held_count++] = r.key[2];
            continue;
        }
        for (size_t i = 0; i < held_count && got == 0; i++)
            got = sorter_add(c->cuts, (SortRecord){{held[i], 0, 0}}, err);
        held_count = 0;
        if (got == 0)
            got = sorter_add(c->cuts, (SortRecord){{r.key[2], 0, 0}}, err);
    }
    free(held);
    return got;
}

static int cut_next(Cut *c, Error *err)
{
    int got = sorter_next(c->cuts, &c->next, err);
    c->more = got > 0;
    return got < 0 ? -1 : 0;
}

/* Writes the document with the text that is left; with none left it is removed. */
static int write_text(Cut *c, const Document *document, uint64_t number, Error *err)
{
    Span text = {c->text.data, c->text.length};
    size_t i = 0;
    while (i < text.length && (is_blank(text.data[i]) || text.data[i] == '\n'))
        i++;
    if (i == text.length)
        return document_remove(c->d, c->method, number, document->raw, UINT64_MAX, -1, err);
    Buffer value = {0}, line = {0};
    json_write_string(&value, text);
    json_record_set(&line, document->raw, &document->fields[1], "text", (Span){value.data, value.length});
    int status = sink_write(c->d, c->to, number, (Span){line.data, line.length}, err);
    buffer_free(&value);
    buffer_free(&line);
    return status;
}

static int cut_emit(void *context, Document *document, Error *err)
{
    Cut *c = context;
    uint64_t number;
    bool changed = false;
    if (source_number(c->d, c->from, document, &number, err) < 0)
        return -1;
    c->text.length = 0;
    for (size_t at = 0, end; at < document->text.length; at = end) {
        Span part = part_at(c->method, document->text, at, &end);
        bool cut = part.length > 0 && c->more && c->next.key[0] == c->place;
        c->place += part.length > 0;
        if (!cut) {
            buffer_append(&c->text, document->text.data + at, end - at);
            continue;
        }
        changed = true;
        c->d->cut++;
        if (cut_next(c, err) < 0)
            return -1;
    }
    return changed ? write_text(c, document, number, err) : sink_write(c->d, c->to, number, document->raw, err);
}

static int first_look(Cut *c, Error *err)
{
    DocumentReader r = {.common = &c->d->common, .files = c->from->files, .file_names = c->from->names, .work = hash_work, .emit = hash_emit, .context = c};
    return document_run(&r, err);
}

static int second_look(Cut *c, Error *err)
{
    uint64_t parts = c->place;
    c->place = 0;
    DocumentReader r = {.common = &c->d->common, .files = c->from->files, .file_names = c->from->names, .emit = cut_emit, .context = c};
    int status = cut_next(c, err) < 0 ? -1 : document_run(&r, err);
    document_report(&r);
    if (!c->from->numbers) {
        c->d->documents_in = r.documents;
        c->d->bytes_in = r.bytes_in;
        c->d->skipped = r.skipped;
    }
    if (status == 0 && c->place != parts)
        return error_set(err, "the input has changed while it was read");
    return status;
}

int cut_run(Dedup *d, Method method, Source *from, Sink *to, Error *err)
{
    /* The sort by place comes while the other one is read. */
    size_t memory = (size_t)d->common.memory;
    Cut c = {.d = d, .method = method, .from = from, .to = to};
    c.parts = sorter_new(d->common.tmp, memory / 4 * 3, (int)d->common.threads);
    c.cuts = sorter_new(d->common.tmp, memory / 4, (int)d->common.threads);
    int status = first_look(&c, err);
    if (status == 0)
        status = cuts_find(&c, err);
    d->spills += sorter_runs(c.parts) + sorter_runs(c.cuts);
    sorter_free(c.parts);
    if (status == 0)
        status = sorter_finish(c.cuts, err);
    if (status == 0)
        status = second_look(&c, err);
    sorter_free(c.cuts);
    buffer_free(&c.text);
    return status;
}
