/* dedup: drops documents, lines or paragraphs that were there before.
 *
 * Methods run in the order given. --url, --exact, --fuzzy and --paragraphs decide as documents come; --lines must have seen a
 * whole bucket before it can cut, so the documents before it wait in a temporary file. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/thread.h"
#include "data/document.h"
#include "fuzzy.h"
#include "keys.h"

typedef enum Method { METHOD_URL, METHOD_EXACT, METHOD_FUZZY, METHOD_PARAGRAPHS, METHOD_LINES, METHODS } Method;
static const char *const method_names[] = {"url", "exact", "fuzzy", "paragraphs", "lines"};

typedef struct Dedup {
    Common common;
    bool wanted[METHODS], keep_first;
    double threshold;
    int64_t ngram, bands, rows, max_line_count, bucket;
    const char *removed_path;
    Writer *removed, *out;
    uint64_t removed_count[METHODS], cut_lines, documents_in, bytes_in, bytes_out, documents_out, skipped;
    char **names;          /* of documents by number, so that a removed record can say which one stayed */
    uint64_t name_count;
    size_t name_capacity;
} Dedup;

static Dedup self = {.common = COMMON_DEFAULT, .threshold = 0.8, .ngram = 5, .max_line_count = 6, .bucket = 30000000};

static const Option options[] = {
    {"url", 0, OPTION_FLAG, &self.wanted[METHOD_URL], 0, "one document an address (`url`)", 0, 0, 0},
    {"exact", 0, OPTION_FLAG, &self.wanted[METHOD_EXACT], 0, "one document a text, byte for byte", 0, 0, 0},
    {"fuzzy", 0, OPTION_FLAG, &self.wanted[METHOD_FUZZY], 0, "near-duplicates: MinHash bands, verified by Jaccard", 0, 0, 0},
    {"threshold", 0, OPTION_NUMBER, &self.threshold, "J", "least Jaccard similarity of --fuzzy (default 0.8)", 0, 0.01, 1},
    {"ngram", 0, OPTION_INTEGER, &self.ngram, "N", "words a shingle (default 5)", 0, 1, 100},
    {"bands", 0, OPTION_INTEGER, &self.bands, "B", "bands of the signature (default: by the threshold)", 0, 1, 256},
    {"rows", 0, OPTION_INTEGER, &self.rows, "R", "hashes a band (default: by the threshold)", 0, 1, 256},
    {"lines", 0, OPTION_FLAG, &self.wanted[METHOD_LINES], 0, "cut lines seen more than --max-line-count times", 0, 0, 0},
    {"max-line-count", 0, OPTION_INTEGER, &self.max_line_count, "N", "(default 6)", 0, 1, 1e15},
    {"bucket", 0, OPTION_INTEGER, &self.bucket, "N", "documents in which lines are counted (default 30 million)", 0, 1, 1e15},
    {"keep-first", 0, OPTION_FLAG, &self.keep_first, 0, "leave the first copy of a line that is cut", 0, 0, 0},
    {"paragraphs", 0, OPTION_FLAG, &self.wanted[METHOD_PARAGRAPHS], 0, "cut paragraphs that stood before, anywhere", 0, 0, 0},
    {"removed", 0, OPTION_STRING, &self.removed_path, "FILE", "write removed documents there, with the reason", 0, 0, 0},
    {"output", 'o', OPTION_STRING, &self.common.output, "FILE", "write there instead of standard output", 0, 0, 0},
    OPTION_COMMON_TMP(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_END(&self.common),
};

/* One pass: streaming methods in their order, or --lines' second look. */
typedef struct Stage {
    Dedup *d;
    Method methods[METHODS];
    int count;
    bool first, counting; /* the first stage names documents; counting is --lines' first look */
    KeySet urls, texts, paragraphs, lines;
    Fuzzy *fuzzy;
    Shingles *scratch;    /* one a thread */
    Writer *out;
    uint64_t number, bucket;
} Stage;

/* What a worker finds out. */
typedef struct Look {
    Key url, text;
    bool has_url;
    Buffer fuzzy;
} Look;

static bool stage_has(const Stage *s, Method m)
{
    for (int i = 0; i < s->count; i++)
        if (s->methods[i] == m)
            return true;
    return false;
}

static int look_work(void *context, Document *d, int thread, Error *err)
{
    Stage *s = context;
    Look *look = d->result;
    (void)err;
    if (d->fields[2].type == JSON_STRING) {
        look->has_url = true;
        look->url = key_of(d->fields[2].string);
    }
    /* Methods that rewrite the text come before the others in their own stage, so this text is the one they see. */
    look->text = key_of(d->text);
    if (stage_has(s, METHOD_FUZZY))
        fuzzy_prepare(s->fuzzy, &s->scratch[thread], d->text, &look->fuzzy);
    return 0;
}

static int remove_document(Stage *s, Document *d, Method m, uint64_t match, double similarity, Error *err)
{
    Dedup *u = s->d;
    u->removed_count[m]++;
    if (!u->removed)
        return 0;
    Buffer value = {0}, line = {0};
    JsonField absent = {0};
    buffer_format(&value, "{\"method\":\"%s\"", method_names[m]);
    if (match != UINT64_MAX) {
        Span name = {u->names[match], strlen(u->names[match])};
        buffer_string(&value, ",\"kept\":");
        json_write_string(&value, name);
        buffer_string(&value, ",\"match\":");
        json_write_string(&value, name);
    }
    if (m == METHOD_FUZZY) {
        buffer_string(&value, ",\"similarity\":");
        json_write_number(&value, similarity);
    }
    buffer_byte(&value, '}');
    json_record_set(&line, d->raw, &absent, "removed", (Span){value.data, value.length});
    buffer_byte(&line, '\n');
    int status = writer_write(u->removed, line.data, line.length, err);
    buffer_free(&value);
    buffer_free(&line);
    return status;
}

static int write_document(Stage *s, Span line, Error *err)
{
    if (writer_write(s->out, line.data, line.length, err) < 0)
        return -1;
    return writer_write(s->out, "\n", 1, err);
}

/* Writes the document with another text; an empty one is removed. */
static int write_text(Stage *s, Document *d, Method m, const Buffer *text, Error *err)
{
    if (text->length == d->text.length)
        return write_document(s, d->raw, err);
    size_t blank = 0;
    while (blank < text->length && strchr(" \t\r\n", text->data[blank]))
        blank++;
    if (blank == text->length)
        return remove_document(s, d, m, UINT64_MAX, 0, err);
    Buffer value = {0}, line = {0};
    json_write_string(&value, (Span){text->data, text->length});
    json_record_set(&line, d->raw, &d->fields[1], "text", (Span){value.data, value.length});
    int status = write_document(s, (Span){line.data, line.length}, err);
    buffer_free(&value);
    buffer_free(&line);
    return status;
}

static int cut_paragraphs(Stage *s, Document *d, Error *err)
{
    Buffer text = {0};
    for (size_t at = 0; at < d->text.length;) {
        size_t end = at;
        while (end < d->text.length && !(d->text.data[end] == '\n' && end + 1 < d->text.length && d->text.data[end + 1] == '\n'))
            end++;
        size_t next = end;
        while (next < d->text.length && d->text.data[next] == '\n')
            next++;
        int fresh = 1;
        if (end > at)
            keys_value(&s->paragraphs, key_of((Span){d->text.data + at, end - at}), &fresh);
        if (fresh)
            buffer_append(&text, d->text.data + at, next - at);
        else
            s->d->cut_lines++;
        at = next;
    }
    int status = write_text(s, d, METHOD_PARAGRAPHS, &text, err);
    buffer_free(&text);
    return status;
}

static Span trimmed(Span s)
{
    while (s.length && strchr(" \t\r", s.data[s.length - 1]))
        s.length--;
    while (s.length && strchr(" \t\r", *s.data)) {
        s.data++;
        s.length--;
    }
    return s;
}

static void bucket_turn(Stage *s)
{
    if (s->number > 0 && s->number % (uint64_t)s->d->bucket == 0)
        s->bucket++;
    s->number++;
}

/* A line's key holds its bucket, so that one table serves all. */
static uint64_t *line_value(Stage *s, Span line)
{
    Key k = key_of(line);
    int fresh;
    k.high ^= s->bucket * UINT64_C(0x9E3779B97F4A7C15);
    return keys_value(&s->lines, k, &fresh);
}

static int look_lines(Stage *s, Document *d, Error *err)
{
    bucket_turn(s);
    Buffer text = {0};
    const uint64_t shown = UINT64_C(1) << 63; /* a copy has been left */
    for (size_t at = 0; at < d->text.length;) {
        const char *newline = memchr(d->text.data + at, '\n', d->text.length - at);
        size_t end = newline ? (size_t)(newline - d->text.data) : d->text.length, next = end + (newline != NULL);
        Span line = trimmed((Span){d->text.data + at, end - at});
        bool cut = false;
        if (line.length > 0) {
            uint64_t *count = line_value(s, line);
            if (s->counting) {
                ++*count;
            } else if ((*count & ~shown) > (uint64_t)s->d->max_line_count) {
                cut = !s->d->keep_first || (*count & shown);
                *count |= shown;
            }
        }
        s->d->cut_lines += cut;
        if (!s->counting && !cut)
            buffer_append(&text, d->text.data + at, next - at);
        at = next;
    }
    int status = s->counting ? 0 : write_text(s, d, METHOD_LINES, &text, err);
    buffer_free(&text);
    return status;
}

static uint64_t name_document(Dedup *u, const Document *d)
{
    u->names = memory_grow(u->names, &u->name_capacity, u->name_count + 1, sizeof *u->names);
    u->names[u->name_count] = memory_copy(d->id.data, d->id.length);
    return u->name_count++;
}

/* A set's value is the first document's number + 1. */
static int key_seen(KeySet *set, Key k, uint64_t number, uint64_t *match)
{
    int fresh;
    uint64_t *value = keys_value(set, k, &fresh);
    if (fresh)
        *value = number;
    *match = *value;
    return !fresh;
}

static int look_emit(void *context, Document *d, Error *err)
{
    Stage *s = context;
    Look *look = d->result;
    int status = 0;
    if (s->counting || s->methods[0] == METHOD_LINES) {
        status = look_lines(s, d, err);
    } else if (s->methods[0] == METHOD_PARAGRAPHS) {
        status = cut_paragraphs(s, d, err);
    } else {
        uint64_t number = name_document(s->d, d), match = 0;
        double similarity = 0;
        int found = 0;
        Method m = s->methods[0];
        for (int i = 0; i < s->count && found == 0; i++) {
            m = s->methods[i];
            if (m == METHOD_URL)
                found = look->has_url && key_seen(&s->urls, look->url, number, &match);
            else if (m == METHOD_EXACT)
                found = key_seen(&s->texts, look->text, number, &match);
            else
                found = fuzzy_look(s->fuzzy, &look->fuzzy, number, &match, &similarity, err);
        }
        status = found < 0 ? -1 : found ? remove_document(s, d, m, match, similarity, err) : write_document(s, d->raw, err);
        if (found) { /* the name of a removed document is not needed again */
            free(s->d->names[--s->d->name_count]);
        }
    }
    buffer_free(&look->fuzzy);
    return status;
}

static int stage_pass(Stage *s, const char *const *files, Writer *out, Error *err)
{
    static const char *const fields[] = {"url", NULL};
    Dedup *u = s->d;
    Common common = u->common;
    s->out = out;
    DocumentReader r = {.common = &common, .files = files, .fields = fields, .result_size = sizeof(Look), .work = look_work, .emit = look_emit, .context = s};
    int status = document_run(&r, err);
    document_report(&r);
    if (s->first && !s->counting) {
        u->documents_in = r.documents;
        u->bytes_in = r.bytes_in;
        u->skipped = r.skipped;
    }
    return status;
}

static int stage_run(Stage *s, const char *const *files, Writer *out, Error *err)
{
    Dedup *u = s->d;
    int threads = (int)u->common.threads;
    const char *tmp = u->common.tmp;
    keys_open(&s->urls);
    keys_open(&s->texts);
    keys_open(&s->paragraphs);
    keys_open(&s->lines);
    s->scratch = memory_zalloc((size_t)threads, sizeof *s->scratch);
    int status = 0;
    if (stage_has(s, METHOD_FUZZY)) {
        s->fuzzy = fuzzy_open(u->threshold, (int)u->ngram, (int)u->bands, (int)u->rows, tmp, err);
        status = s->fuzzy ? 0 : -1;
    }
    if (status == 0 && s->methods[0] == METHOD_LINES) {
        s->counting = true;
        status = stage_pass(s, files, NULL, err);
        s->counting = false;
        s->number = s->bucket = 0;
    }
    if (status == 0)
        status = stage_pass(s, files, out, err);
    keys_close(&s->urls);
    keys_close(&s->texts);
    keys_close(&s->paragraphs);
    keys_close(&s->lines);
    fuzzy_close(s->fuzzy);
    for (int i = 0; i < threads; i++)
        shingles_free(&s->scratch[i]);
    free(s->scratch);
    return status;
}

/* Stages: runs of url, exact and fuzzy together; paragraphs and lines, which rewrite texts, alone. */
static int make_stages(OptionSet *set, Stage *stages)
{
    int n = 0;
    for (size_t i = 0; i < set->given_count; i++)
        for (int m = 0; m < METHODS; m++)
            if (set->given[i]->value == &self.wanted[m] && self.wanted[m]) {
                bool alone = m == METHOD_LINES || m == METHOD_PARAGRAPHS;
                bool before = n > 0 && (stages[n - 1].methods[0] == METHOD_LINES || stages[n - 1].methods[0] == METHOD_PARAGRAPHS);
                if (n > 0 && stage_has(&stages[n - 1], (Method)m))
                    continue;
                if (n == 0 || alone || before) {
                    stages[n] = (Stage){.d = &self, .first = n == 0};
                    n++;
                }
                stages[n - 1].methods[stages[n - 1].count++] = (Method)m;
            }
    return n;
}

static char *spool_path(const Dedup *u, int i)
{
    return memory_format("%s/dedup-%ld-%d.jsonl", u->common.tmp, (long)getpid(), i);
}

/* Standard input can be read once; what --lines looks at twice is copied to a file first. */
static int spool_input(Dedup *u, const char *const *files, const char *path, Error *err)
{
    static const char *const standard[] = {"-", NULL};
    Writer *w = writer_open(path, err);
    int status = w ? 0 : -1;
    for (files = *files ? files : standard; *files && status == 0; files++) {
        Reader *r = reader_open(*files, err);
        status = r ? 0 : -1;
        char piece[1 << 16];
        ssize_t n = 0, last = 0;
        while (status == 0 && (n = reader_read(r, piece, sizeof piece, err)) > 0) {
            status = writer_write(w, piece, (size_t)n, err);
            last = n;
        }
        if (n < 0)
            status = -1;
        if (status == 0 && last > 0 && piece[last - 1] != '\n')
            status = writer_write(w, "\n", 1, err);
        reader_close(r);
    }
    (void)u;
    if (status < 0) {
        writer_abandon(w);
        return -1;
    }
    return writer_close(w, err);
}

static bool reads_standard(const char *const *files)
{
    if (!*files)
        return true;
    for (; *files; files++)
        if (strcmp(*files, "-") == 0)
            return true;
    return false;
}

static int run_stages(Dedup *u, Stage *stages, int n, const char *const *files, Error *err)
{
    const char *now[] = {NULL, NULL};
    char *spool = NULL;
    int status = 0;
    if (stages[0].methods[0] == METHOD_LINES && reads_standard(files)) {
        spool = spool_path(u, 0);
        status = spool_input(u, files, spool, err);
        now[0] = spool;
        files = now;
    }
    for (int i = 0; i < n && status == 0; i++) {
        bool last = i + 1 == n;
        char *next = last ? NULL : spool_path(u, i + 1);
        Writer *out = last ? u->out : writer_open(next, err);
        status = out ? stage_run(&stages[i], files, out, err) : -1;
        if (!last && status == 0)
            status = writer_close(out, err);
        else if (!last)
            writer_abandon(out);
        if (spool) {
            unlink(spool);
            free(spool);
        }
        spool = next;
        now[0] = next;
        files = now;
    }
    if (spool) {
        unlink(spool);
        free(spool);
    }
    return status;
}

static int write_stats(const Dedup *u, Error *err)
{
    Buffer b = {0};
    buffer_format(&b, "{\"documents_in\":%" PRIu64 ",\"bytes_in\":%" PRIu64 ",\"skipped\":%" PRIu64 ",\"cut\":%" PRIu64 ",\"removed\":{", u->documents_in,
                  u->bytes_in, u->skipped, u->cut_lines);
    uint64_t removed = 0;
    for (int m = 0; m < METHODS; m++) {
        buffer_format(&b, "%s\"%s\":%" PRIu64, m ? "," : "", method_names[m], u->removed_count[m]);
        removed += u->removed_count[m];
    }
    buffer_format(&b, "},\"documents_out\":%" PRIu64 "}\n", u->documents_in - removed);
    int status = file_write(u->common.stats, b.data, b.length, err);
    buffer_free(&b);
    return status;
}

int main(int argc, char **argv)
{
    OptionSet set = {.tool = "dedup", .synopsis = "dedup [--url] [--exact] [--lines] [--paragraphs] [--fuzzy]\n[OPTION]… [FILE]…",
                     .summary = "Drop documents, lines or paragraphs that were there before; the first stays.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Stage stages[METHODS];
    int n = make_stages(&set, stages);
    if (n == 0)
        return message_usage("nothing to do: --url, --exact, --lines, --paragraphs or --fuzzy");
    if (self.common.threads < 1)
        self.common.threads = thread_default_count();
    if (!self.common.tmp)
        self.common.tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    Error err;
    status = 0;
    if (self.removed_path)
        status = (self.removed = writer_open(self.removed_path, &err)) ? 0 : -1;
    if (status == 0)
        status = (self.out = writer_open(self.common.output, &err)) ? 0 : -1;
    if (status == 0)
        status = run_stages(&self, stages, n, (const char *const *)set.operands, &err);
    if (status < 0) {
        writer_abandon(self.out);
        writer_abandon(self.removed);
        return message_failed(&err);
    }
    if (writer_close(self.out, &err) < 0) {
        writer_abandon(self.removed);
        return message_failed(&err);
    }
    status = writer_close(self.removed, &err);
    if (status == 0 && self.common.stats)
        status = write_stats(&self, &err);
    for (uint64_t i = 0; i < self.name_count; i++)
        free(self.names[i]);
    free(self.names);
    option_free(&set);
    return status < 0 ? message_failed(&err) : 0;
}
