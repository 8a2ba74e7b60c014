/* tokenize: documents to token ids or shards, and ids back to text. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "data/document.h"
#include "data/shard.h"
#include "io/stats.h"
#include "text/tokenizer.h"

typedef struct Tokenize {
    Common common;
    const char *path, *eos, *parse;
    bool ids, count, decode, no_eos, skip_special;
    Tokenizer *tokenizer;
    Encoder **encoders;   /* one a thread */
    ParseSpecial special;
    int64_t max_tokens;   /* of a document, eos among them; 0: all */
    int32_t eos_id;
    Writer *out;
    ShardWriter *shard;
    const char *const *counted; /* the file that --count is at, of the NULL-terminated rest */
    uint64_t documents, bytes, tokens; /* of that file */
    uint64_t all_bytes, all_tokens;
} Tokenize;

static Tokenize self = {.common = COMMON_DEFAULT, .eos_id = -1};

static const Option options[] = {
    {"tokenizer", 0, OPTION_STRING, &self.path, "PATH", "folder, tokenizer.json or .tiktoken file", 0, 0, 0},
    {"ids", 0, OPTION_FLAG, &self.ids, 0, "write {\"id\":…,\"ids\":[…]} a document", 0, 0, 0},
    {"count", 0, OPTION_FLAG, &self.count, 0, "write documents, bytes and tokens a file", 0, 0, 0},
    {"decode", 0, OPTION_FLAG, &self.decode, 0, "read --ids lines, write documents (--text: lines)", 0, 0, 0},
    {"output", 'o', OPTION_STRING, &self.common.output, "PREFIX", "write the shard PREFIX.bin, PREFIX.idx (or, with the above, a file)", 0, 0, 0},
    {"no-eos", 0, OPTION_FLAG, &self.no_eos, 0, "put no end-of-text token behind documents of a shard", 0, 0, 0},
    {"eos", 0, OPTION_STRING, &self.eos, "TOKEN", "that token (default: the tokenizer's eos_token)", 0, 0, 0},
    {"max-tokens", 0, OPTION_INTEGER, &self.max_tokens, "N", "keep a document's first N tokens, the last one end-of-text", 0, 1, INT64_MAX},
    {"parse-special", 0, OPTION_OPTIONAL, &self.parse, "LIST", "take added tokens in the text as tokens: all, none or a list", "all", 0, 0},
    {"skip-special", 0, OPTION_FLAG, &self.skip_special, 0, "--decode leaves special tokens out", 0, 0, 0},
    OPTION_COMMON_TEXT(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_END(&self.common),
};

/* A document as text and as tokens, whichever was there first. */
typedef struct Work {
    Ids ids;      /* not of --decode, which is done with them */
    size_t bytes; /* of the text */
    size_t tokens;
} Work;

static int encode_work(void *context, Document *d, int thread, Error *err)
{
    Tokenize *t = context;
    Work *w = d->result;
    int status = encoder_encode(t->encoders[thread], d->text, &t->special, &w->ids, err);
    size_t most = t->max_tokens ? (size_t)t->max_tokens - (t->eos_id >= 0) : SIZE_MAX;
    if (w->ids.count > most)
        w->ids.count = most;
    w->bytes = d->text.length;
    w->tokens = w->ids.count;
    return status;
}

/* Counts a document that was dealt with. */
static void work_end(Tokenize *t, Work *w)
{
    t->all_bytes += w->bytes;
    t->all_tokens += w->tokens;
    ids_free(&w->ids);
}

static void write_id(Buffer *b, const Document *d)
{
    if (d->fields[0].type == JSON_ABSENT || d->fields[0].type == JSON_NULL)
        return;
    buffer_string(b, "\"id\":");
    buffer_append(b, d->fields[0].raw.data, d->fields[0].raw.length);
    buffer_byte(b, ',');
}

static int emit_ids(void *context, Document *d, Error *err)
{
    Tokenize *t = context;
    Work *w = d->result;
    buffer_byte(&d->out, '{');
    write_id(&d->out, d);
    buffer_string(&d->out, "\"ids\":[");
    for (size_t i = 0; i < w->ids.count; i++) {
        char number[16];
        int n = snprintf(number, sizeof number, i ? ",%d" : "%d", w->ids.data[i]);
        buffer_append(&d->out, number, (size_t)n);
    }
    buffer_string(&d->out, "]}\n");
    work_end(t, w);
    return writer_write(t->out, d->out.data, d->out.length, err);
}

static int emit_shard(void *context, Document *d, Error *err)
{
    Tokenize *t = context;
    Work *w = d->result;
    if (t->eos_id >= 0)
        ids_add(&w->ids, t->eos_id);
    w->tokens = w->ids.count;
    int status = w->ids.count ? shard_writer_add(t->shard, w->ids.data, (int64_t)w->ids.count, err) : 0;
    work_end(t, w);
    return status;
}

static const char *counted_name(const Tokenize *t)
{
    return strcmp(*t->counted, "-") == 0 ? "stdin" : *t->counted;
}

/* The line of the present file; the next one begins. */
static int count_write(Tokenize *t, Error *err)
{
    const char *name = counted_name(t);
    Buffer b = {0};
    buffer_string(&b, "{\"file\":");
    json_write_string(&b, (Span){name, strlen(name)});
    buffer_format(&b, ",\"documents\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"tokens\":%" PRIu64 "}\n", t->documents, t->bytes, t->tokens);
    int status = writer_write(t->out, b.data, b.length, err);
    buffer_free(&b);
    t->documents = t->bytes = t->tokens = 0;
    t->counted++;
    return status;
}

/* A file given twice is two operands with one text, so pointers are compared. */
static bool is_counted(const Tokenize *t, const Document *d)
{
    return !t->counted[1] || (strcmp(*t->counted, "-") == 0 ? strcmp(d->file, "stdin") == 0 : *t->counted == d->file);
}

static int emit_count(void *context, Document *d, Error *err)
{
    Tokenize *t = context;
    Work *w = d->result;
    while (!is_counted(t, d)) /* a file without documents has a line too */
        if (count_write(t, err) < 0)
            return -1;
    t->documents++;
    t->bytes += w->bytes;
    t->tokens += w->tokens;
    work_end(t, w);
    return 0;
}

/* --decode: {"id":…,"ids":[…]} back to text. */
static int decode_work(void *context, Document *d, int thread, Error *err)
{
    Tokenize *t = context;
    Work *w = d->result;
    (void)thread;
    if (d->fields[2].type != JSON_ARRAY)
        return error_set(err, "no list 'ids'");
    const JsonValue *list = json_field_tree(d->parser, &d->fields[2], err);
    if (!list)
        return -1;
    Buffer text = {0};
    Ids ids = {0};
    int status = 0;
    for (size_t i = 0; i < list->count && status == 0; i++) {
        const JsonValue *v = &list->items[i];
        if (v->type != JSON_INTEGER || v->integer < 0 || v->integer > INT32_MAX)
            status = error_set(err, "'ids' holds something that is no id");
        else
            ids_add(&ids, (int32_t)v->integer);
    }
    if (status == 0)
        status = tokenizer_decode(t->tokenizer, ids.data, ids.count, t->skip_special, &text, err);
    w->bytes = text.length;
    w->tokens = ids.count;
    ids_free(&ids);
    if (status == 0 && t->common.text) {
        buffer_append(&d->out, text.data, text.length);
        buffer_byte(&d->out, '\n');
    } else if (status == 0 && !json_utf8_valid((Span){text.data ? text.data : "", text.length})) {
        status = error_set(err, "the ids decode to invalid UTF-8, which no JSON string can hold (--text writes the bytes)");
    } else if (status == 0) {
        buffer_byte(&d->out, '{');
        write_id(&d->out, d);
        buffer_string(&d->out, "\"text\":");
        json_write_string(&d->out, (Span){text.data ? text.data : "", text.length});
        buffer_string(&d->out, "}\n");
    }
    buffer_free(&text);
    return status;
}

static int emit_out(void *context, Document *d, Error *err)
{
    Tokenize *t = context;
    work_end(t, d->result);
    return writer_write(t->out, d->out.data, d->out.length, err);
}

static int find_eos(Tokenize *t, Error *err)
{
    if (t->ids || t->count || t->decode || t->no_eos)
        return 0;
    t->eos_id = t->eos ? tokenizer_id(t->tokenizer, t->eos) : tokenizer_eos(t->tokenizer);
    if (t->eos_id < 0 && t->eos)
        return error_set(err, "%s: no token '%s'", t->path, t->eos);
    if (t->eos_id < 0)
        return error_set(err, "%s: names no eos_token; give --eos TOKEN or --no-eos", t->path);
    return 0;
}

/* A name that is no added token would be looked for in vain. */
static int check_special(const Tokenize *t, Error *err)
{
    int status = 0;
    for (const char *p = t->special.list; p && status == 0; p = *p ? p + 1 : NULL) {
        size_t n = strcspn(p, ",");
        char *name = memory_format("%.*s", (int)n, p);
        if (tokenizer_id(t->tokenizer, name) < 0)
            status = error_set(err, "%s: no added token '%s' (--parse-special)", t->path, name);
        free(name);
        p += n;
    }
    return status;
}

static int run(Tokenize *t, OptionSet *set, Error *err)
{
    static const char *const decode_fields[] = {"ids", NULL}, *const standard[] = {"-", NULL};
    Common common = t->common;
    if (t->decode)
        common.text = false; /* there it is the output that is text */
    int threads = t->common.threads > 0 ? (int)t->common.threads : thread_default_count();
    common.threads = threads;
    t->encoders = memory_zalloc((size_t)threads, sizeof *t->encoders);
    for (int i = 0; i < threads; i++)
        t->encoders[i] = encoder_new(t->tokenizer);
    DocumentReader r = {.common = &common, .files = set->operands, .context = t, .result_size = sizeof(Work)};
    t->counted = set->operand_count > 0 ? set->operands : standard;
    bool shard = !t->ids && !t->count && !t->decode;
    r.work = t->decode ? decode_work : encode_work;
    r.emit = t->decode ? emit_out : t->ids ? emit_ids : t->count ? emit_count : emit_shard;
    r.fields = t->decode ? decode_fields : NULL;
    r.text_optional = t->decode;
    if (shard)
        t->shard = shard_writer_open(t->common.output, tokenizer_size(t->tokenizer), err);
    else
        t->out = writer_open(t->common.output, err);
    double begin = clock_seconds();
    int status = t->shard || t->out ? document_run(&r, err) : -1;
    while (status == 0 && t->count && *t->counted)
        status = count_write(t, err);
    if (status < 0) {
        shard_writer_abandon(t->shard);
        writer_abandon(t->out);
    } else {
        status = shard ? shard_writer_close(t->shard, err) : writer_close(t->out, err);
    }
    document_report(&r);
    const StatsItem items[] = {{"documents", (double)r.documents}, {"bytes", (double)t->all_bytes}, {"tokens", (double)t->all_tokens}, {"skipped", (double)r.skipped}};
    if (status == 0)
        status = stats_write(t->common.stats, items, sizeof items / sizeof *items, begin, err);
    for (int i = 0; i < threads; i++)
        encoder_free(t->encoders[i]);
    free(t->encoders);
    return status;
}

int main(int argc, char **argv)
{
    OptionSet set = {.tool = "tokenize", .synopsis = "tokenize --tokenizer PATH {--ids | --count | --decode | -o PREFIX}\n[OPTION]… [FILE]…",
                     .summary = "Turn documents into token ids or shards, and ids back into text.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Error err;
    if (!self.path)
        return message_usage("--tokenizer is needed");
    if (self.ids + self.count + self.decode > 1)
        return message_usage("only one of --ids, --count and --decode can be done");
    if (self.decode && self.max_tokens)
        return message_usage("--max-tokens is for text, not for --decode");
    if (!self.ids && !self.count && !self.decode && !self.common.output)
        return message_usage("one of --ids, --count, --decode and -o PREFIX is needed");
    if (self.parse && strcmp(self.parse, "none") != 0) {
        self.special.all = strcmp(self.parse, "all") == 0;
        self.special.list = self.special.all ? NULL : self.parse;
    }
    self.tokenizer = tokenizer_open(self.path, &err);
    if (!self.tokenizer || check_special(&self, &err) < 0 || find_eos(&self, &err) < 0 || run(&self, &set, &err) < 0)
        status = message_failed(&err);
    else
        status = 0;
    tokenizer_close(self.tokenizer);
    option_free(&set);
    return status;
}
