#include "data/document.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"

/* Lines travel in batches, so that threads meet once in a quarter of a megabyte and not once a line. */
enum { BATCH_BYTES = 1 << 18, BATCH_LINES = 4096 };
/* Batches in flight hold no more bytes of lines than this, or there is one; what a huge line grew is given back after it. */
enum { FLIGHT_BYTES = 1 << 26, KEEP_BYTES = 1 << 23 };

typedef struct Line {
    size_t offset, length;
    int64_t number;
    bool ended;
} Line;

typedef struct Batch {
    const char *file;
    uint64_t index; /* of the first document */
    Buffer text;    /* the lines, each followed by READER_PADDING bytes */
    Line *lines;
    size_t count, capacity;
    Document *documents;
    JsonField *fields;
    char *results;
    size_t prepared;
    bool *skipped;
    char **reasons;
    Buffer strings; /* unescaped values outlive the parser's next record here */
    JsonParser *parser;
} Batch;

typedef struct Run {
    DocumentReader *reader;
    const char **names; /* id, text, and the tool's */
    size_t name_count;
    const char *const *next_file;
    const char *const *standard;
    Reader *input;
    uint64_t index;
    bool skip;
    bool unreadable; /* for this reason; the lines before come first */
    Error reason;
    Progress *progress;
} Run;

static bool is_blank_line(Span s)
{
    for (size_t i = 0; i < s.length; i++)
        if (!strchr(" \t\r", s.data[i]) || s.data[i] == 0)
            return false;
    return true;
}

static int batch_read(void *context, void *item, Error *err)
{
    Run *run = context;
    Batch *b = item;
    b->count = 0;
    b->text.length = 0;
    while (!run->unreadable && b->count < BATCH_LINES && b->text.length < BATCH_BYTES) {
        if (!run->input) {
            if (b->count > 0 || !*run->next_file)
                break;
            run->input = reader_open(*run->next_file++, &run->reason);
            run->unreadable = !run->input;
            continue;
        }
        Span line;
        int got = reader_line(run->input, &line, &run->reason);
        run->unreadable = got < 0;
        if (got < 0)
            break;
        if (got == 0) {
            reader_close(run->input);
            run->input = NULL;
            continue;
        }
        if (!run->reader->common->text && is_blank_line(line))
            continue;
        if (b->count == 0) {
            ptrdiff_t file = run->next_file - run->standard - 1;
            b->file = run->reader->file_names ? run->reader->file_names[file] : run->standard[file];
            b->file = strcmp(b->file, "-") == 0 ? "stdin" : b->file;
            b->index = run->index;
        }
        b->lines = memory_grow(b->lines, &b->capacity, b->count + 1, sizeof *b->lines);
        b->lines[b->count++] = (Line){b->text.length, line.length, reader_line_number(run->input), reader_line_ended(run->input)};
        buffer_append(&b->text, line.data, line.length);
        buffer_reserve(&b->text, READER_PADDING);
        memset(b->text.data + b->text.length, 0, READER_PADDING);
        b->text.length += READER_PADDING;
        run->index++;
    }
    if (b->count > 0 || !run->unreadable)
        return b->count > 0;
    if (err)
        *err = run->reason;
    return -1;
}

static void batch_prepare(Run *run, Batch *b)
{
    size_t n = b->count;
    if (n > b->prepared) {
        b->documents = memory_realloc(b->documents, n, sizeof *b->documents);
        memset(b->documents + b->prepared, 0, (n - b->prepared) * sizeof *b->documents);
        b->fields = memory_realloc(b->fields, n * run->name_count, sizeof *b->fields);
        b->results = memory_realloc(b->results, n, run->reader->result_size + 1);
        b->skipped = memory_realloc(b->skipped, n, sizeof *b->skipped);
        b->reasons = memory_realloc(b->reasons, n, sizeof *b->reasons);
        memset(b->reasons + b->prepared, 0, (n - b->prepared) * sizeof *b->reasons);
        b->prepared = n;
    }
    if (!b->parser)
        b->parser = json_parser_new();
    b->strings.length = 0;
}

/* Values' offsets within b->strings while it may still move; made pointers once the batch is parsed. */
static void string_keep(Batch *b, JsonField *f)
{
    size_t offset = b->strings.length;
    buffer_append(&b->strings, f->string.data, f->string.length);
    buffer_byte(&b->strings, 0);
    f->string.data = (const char *)(uintptr_t)offset;
}

static int document_parse(Run *run, Batch *b, size_t i, Error *err)
{
    Document *d = &b->documents[i];
    bool text_only = run->reader->common->text;
    if (text_only ? !json_utf8_valid(d->raw) : json_record(b->parser, d->raw, run->names, run->name_count, d->fields, err) < 0) {
        bool utf16 = d->line == 1 && d->raw.length >= 2 && (memcmp(d->raw.data, "\xff\xfe", 2) == 0 || memcmp(d->raw.data, "\xfe\xff", 2) == 0);
        return utf16 ? error_set(err, "invalid UTF-8 (the file begins as UTF-16 does)") : text_only ? error_set(err, "invalid UTF-8") : -1;
    }
    if (text_only)
        return 0;
    JsonField *text = &d->fields[1];
    if (text->type != JSON_STRING && (text->type != JSON_ABSENT || !run->reader->text_optional))
        return error_set(err, text->type == JSON_ABSENT ? "no field 'text'" : "field 'text' is not a string");
    JsonType id = d->fields[0].type;
    if (id != JSON_ABSENT && id != JSON_STRING && id != JSON_INTEGER && id != JSON_NUMBER && id != JSON_NULL)
        return error_set(err, "field 'id' is neither a string nor a number");
    for (size_t f = 0; f < run->name_count; f++)
        if (d->fields[f].type == JSON_STRING)
            string_keep(b, &d->fields[f]);
    return 0;
}

static void document_identify(Document *d)
{
    if (d->fields[0].type == JSON_STRING) {
        d->id = d->fields[0].string;
    } else if (d->fields[0].type == JSON_INTEGER || d->fields[0].type == JSON_NUMBER) {
        d->id = d->fields[0].raw; /* hashes of 64 bits and more are not all an int64 */
    } else {
        d->place.length = 0;
        buffer_format(&d->place, "%s:%" PRId64, d->file, d->line);
        d->id = (Span){d->place.data, d->place.length};
    }
}

/* A malformed record that may not be skipped ends its batch: those before it are emitted. */
static int batch_work(void *context, void *item, int thread, Error *err)
{
    (void)err;
    Run *run = context;
    Batch *b = item;
    batch_prepare(run, b);
    bool ended = false;
    for (size_t i = 0; i < b->count; i++) {
        Document *d = &b->documents[i];
        d->file = b->file;
        d->line = b->lines[i].number;
        d->index = b->index + i;
        d->raw = (Span){b->text.data + b->lines[i].offset, b->lines[i].length};
        d->line_ended = b->lines[i].ended;
        d->fields = b->fields + i * run->name_count;
        d->parser = b->parser;
        d->result = b->results + i * run->reader->result_size;
        d->out.length = 0;
        memset(d->result, 0, run->reader->result_size);
        Error reason = {{0}};
        b->skipped[i] = document_parse(run, b, i, &reason) < 0;
        free(b->reasons[i]);
        b->reasons[i] = NULL;
        if (b->skipped[i])
            b->reasons[i] = memory_format("%s:%" PRId64 ": %s", d->file, d->line, reason.text);
    }
    for (size_t i = 0; i < b->count && !ended; i++) {
        Document *d = &b->documents[i];
        ended = b->skipped[i] && !run->skip;
        if (b->skipped[i])
            continue;
        for (size_t f = 0; f < run->name_count && !run->reader->common->text; f++)
            if (d->fields[f].type == JSON_STRING)
                d->fields[f].string.data = b->strings.data + (uintptr_t)d->fields[f].string.data;
        if (run->reader->common->text) {
            d->text = d->raw;
            memset(d->fields, 0, run->name_count * sizeof *d->fields);
        } else {
            d->text = d->fields[1].type == JSON_STRING ? d->fields[1].string : (Span){"", 0};
        }
        document_identify(d);
        Error reason = {{0}};
        if (run->reader->work && run->reader->work(run->reader->context, d, thread, &reason) < 0) {
            ended = !run->skip;
            b->skipped[i] = true;
            b->reasons[i] = memory_format("%s:%" PRId64 ": %s", d->file, d->line, reason.text);
        }
    }
    return 0;
}

static size_t batch_weight(void *context, void *item)
{
    (void)context;
    return ((Batch *)item)->text.length;
}

static void batch_shrink(Batch *b)
{
    if (b->text.capacity <= KEEP_BYTES && b->strings.capacity <= KEEP_BYTES)
        return;
    buffer_free(&b->text);
    buffer_free(&b->strings);
    json_parser_free(b->parser);
    b->parser = NULL;
    for (size_t i = 0; i < b->prepared; i++)
        buffer_free(&b->documents[i].out);
}

static int batch_write(void *context, void *item, Error *err)
{
    Run *run = context;
    Batch *b = item;
    DocumentReader *r = run->reader;
    for (size_t i = 0; i < b->count; i++) {
        Document *d = &b->documents[i];
        r->bytes_in += d->raw.length + 1;
        if (!b->skipped[i] && r->emit) {
            Error reason = {{0}};
            int status = r->emit(r->context, d, &reason);
            b->skipped[i] = status == DOCUMENT_MALFORMED;
            if (b->skipped[i])
                b->reasons[i] = memory_format("%s:%" PRId64 ": %s", d->file, d->line, reason.text);
            else if (status < 0)
                return error_set(err, "%s", reason.text);
        }
        if (b->skipped[i] && !run->skip) {
            r->input_failed = true;
            return error_set(err, "%s", b->reasons[i]);
        }
        if (!b->skipped[i]) {
            r->documents++;
            r->text_bytes += d->text.length;
        } else if (r->skipped++ == 0) {
            r->first_skip = memory_string(b->reasons[i]);
        }
    }
    progress_set(run->progress, r->bytes_in);
    batch_shrink(b);
    return 0;
}

static void batch_release(void *context, void *item)
{
    (void)context;
    Batch *b = item;
    for (size_t i = 0; i < b->prepared; i++) {
        buffer_free(&b->documents[i].out);
        buffer_free(&b->documents[i].place);
        free(b->reasons[i]);
    }
    buffer_free(&b->text);
    buffer_free(&b->strings);
    free(b->lines);
    free(b->documents);
    free(b->fields);
    free(b->results);
    free(b->skipped);
    free(b->reasons);
    json_parser_free(b->parser);
}

int document_run(DocumentReader *r, Error *err)
{
    static const char *const standard[] = {"-", NULL};
    const char *names[DOCUMENT_MAX_FIELDS + 2] = {"id", "text"};
    Run run = {.reader = r, .names = names, .name_count = 2};
    for (const char *const *f = r->fields; f && *f; f++)
        names[run.name_count++] = *f;
    run.standard = run.next_file = r->files && *r->files ? r->files : standard;
    run.skip = strcmp(r->common->on_error, "skip") == 0;
    r->input_failed = false;
    r->documents = r->skipped = r->bytes_in = r->text_bytes = 0;
    free(r->first_skip);
    r->first_skip = NULL;
    run.progress = progress_begin(r->common, "bytes", 0);
    Pipeline p = {.threads = (int)r->common->threads, .item_size = sizeof(Batch), .read = batch_read, .work = batch_work,
                  .write = batch_write, .release = batch_release, .weight = batch_weight, .budget = FLIGHT_BYTES, .context = &run};
    int status = pipeline_run(&p, err);
    r->input_failed |= run.unreadable && status < 0;
    progress_end(run.progress);
    reader_close(run.input);
    return status;
}

void document_report(DocumentReader *r)
{
    if (r->skipped > 0)
        message_warning("%" PRIu64 " malformed record%s skipped, the first: %s", r->skipped, r->skipped == 1 ? "" : "s",
                        r->first_skip);
    free(r->first_skip);
    r->first_skip = NULL;
}
