/* --url, --exact, --fuzzy: filters in a row. Each has a table of what it kept. When the table is full, documents are still
 * compared with it, but those that are not in it wait in a temporary file; at the end the table is emptied and they come again,
 * and so on in rounds. A document meets every document kept before it, in whichever round, and the first that it matches is the
 * same whatever the memory; documents leave in their order, because all that wait come after all that were kept. */
#include <stdlib.h>
#include "dedup.h"
#include "fuzzy.h"
#include "keys.h"
#include "minhash.h"

/* A document on its way. */
typedef struct Item {
    uint64_t number, line_offset, line_length; /* offset in the store; UINT64_MAX: not there yet */
    Key url, text;
    bool has_url;
    Sketch sketch;
    const char *line; /* NULL: only in the store */
} Item;

typedef struct Filter {
    Method method;
    KeyTable keys;
    Fuzzy *fuzzy;
    bool full;
    Spool *waiting; /* Items with their band keys behind them, all of one size */
} Filter;

typedef struct Match {
    Dedup *d;
    Source *from;
    Sink *to;
    Filter filters[METHODS];
    int count;
    Fuzzy *fuzzy;
    Shingles *scratch; /* one a thread */
    Spool *store;      /* shingles, and lines that wait */
    Buffer line;
} Match;

/* What a worker finds out. */
typedef struct Look {
    Key url, text;
    bool has_url;
    Buffer prepared;
} Look;

static int look_work(void *context, Document *document, int thread, Error *err)
{
    Match *m = context;
    Look *look = document->result;
    (void)err;
    if (document->fields[2].type == JSON_STRING) {
        look->has_url = true;
        look->url = key_of(document->fields[2].string);
    }
    look->text = key_of(document->text);
    if (m->fuzzy)
        fuzzy_prepare(m->fuzzy, &m->scratch[thread], document->text, &look->prepared);
    return 0;
}

/* The item's line, from the store if need be; it lives until the next call. */
static int item_line(Match *m, const Item *item, Span *line, Error *err)
{
    *line = (Span){item->line, item->line_length};
    if (item->line)
        return 0;
    m->line.length = 0;
    buffer_reserve(&m->line, item->line_length + 1);
    line->data = m->line.data;
    return spool_read(m->store, m->line.data, item->line_length, item->line_offset, err);
}

static int filter_find(Filter *f, const Item *item, uint64_t *match, double *similarity, Error *err)
{
    if (f->method == METHOD_FUZZY)
        return fuzzy_find(f->fuzzy, &item->sketch, match, similarity, err);
    if (f->method == METHOD_URL)
        return item->has_url && keys_find(&f->keys, item->url, match);
    return keys_find(&f->keys, item->text, match);
}

static int filter_add(Filter *f, Item *item, Error *err)
{
    if (f->method == METHOD_FUZZY)
        return fuzzy_add(f->fuzzy, &item->sketch, item->number, err);
    if (f->method == METHOD_URL)
        return !item->has_url || keys_add(&f->keys, item->url, item->number);
    return keys_add(&f->keys, item->text, item->number);
}

static int filter_wait(Match *m, Filter *f, Item *item, Error *err)
{
    if (!f->waiting && !(f->waiting = spool_open(m->d->common.tmp, err)))
        return -1;
    if (item->line_offset == UINT64_MAX) {
        item->line_offset = spool_size(m->store);
        if (spool_append(m->store, item->line, item->line_length, err) < 0)
            return -1;
    }
    if (m->fuzzy && fuzzy_store(m->fuzzy, &item->sketch, err) < 0)
        return -1;
    static const uint64_t none[MINHASH_MOST]; /* of a document that is too short */
    const uint64_t *keys = item->sketch.count ? item->sketch.keys : none;
    Item stored = *item;
    stored.line = NULL;
    stored.sketch.keys = stored.sketch.hashes = NULL;
    if (spool_append(f->waiting, &stored, sizeof stored, err) < 0)
        return -1;
    return m->fuzzy ? spool_append(f->waiting, keys, (size_t)fuzzy_bands(m->fuzzy) * sizeof *keys, err) : 0;
}

/* Sends a document through the filters from `at` on. */
static int item_pass(Match *m, int at, Item *item, Error *err)
{
    Span line;
    for (; at < m->count; at++) {
        Filter *f = &m->filters[at];
        uint64_t match = 0;
        double similarity = -1;
        int status = filter_find(f, item, &match, &similarity, err);
        if (status < 0)
            return -1;
        if (status > 0)
            return item_line(m, item, &line, err) < 0 ? -1 : document_remove(m->d, f->method, item->number, line, match, similarity, err);
        if (!f->full) {
            status = filter_add(f, item, err);
            if (status < 0)
                return -1;
            f->full = status == 0;
        }
        if (f->full)
            return filter_wait(m, f, item, err);
    }
    return item_line(m, item, &line, err) < 0 ? -1 : sink_write(m->d, m->to, item->number, line, err);
}

/* One more round of a filter over what waits. */
static int filter_round(Match *m, int at, Error *err)
{
    Filter *f = &m->filters[at];
    Spool *waiting = f->waiting;
    size_t keys_size = m->fuzzy ? (size_t)fuzzy_bands(m->fuzzy) * sizeof(uint64_t) : 0, size = sizeof(Item) + keys_size;
    uint64_t *keys = memory_alloc(keys_size, 1);
    f->waiting = NULL;
    f->full = false;
    m->d->spills++;
    if (f->method == METHOD_FUZZY)
        fuzzy_clear(f->fuzzy);
    else
        keys_clear(&f->keys);
    int status = 0;
    for (uint64_t i = 0; i < spool_size(waiting) && status == 0; i += size) {
        Item item;
        status = spool_read(waiting, &item, sizeof item, i, err);
        if (status == 0)
            status = spool_read(waiting, keys, keys_size, i + sizeof item, err);
        item.sketch.keys = keys;
        if (status == 0)
            status = item_pass(m, at, &item, err);
    }
    free(keys);
    spool_close(waiting);
    return status;
}

static int look_emit(void *context, Document *document, Error *err)
{
    Match *m = context;
    Look *look = document->result;
    Item item = {.line_offset = UINT64_MAX, .line = document->raw.data, .line_length = document->raw.length, .url = look->url, .text = look->text,
                 .has_url = look->has_url};
    if (m->fuzzy)
        item.sketch = fuzzy_sketch(m->fuzzy, &look->prepared);
    int status = source_number(m->d, m->from, document, &item.number, err);
    if (status == 0)
        status = item_pass(m, 0, &item, err);
    buffer_free(&look->prepared);
    return status;
}

int match_run(Dedup *d, const Method *methods, int count, Source *from, Sink *to, Error *err)
{
    static const char *const fields[] = {"url", NULL};
    Match m = {.d = d, .from = from, .to = to, .count = count};
    size_t memory = (size_t)d->common.memory / (size_t)count;
    m.scratch = memory_zalloc((size_t)d->common.threads, sizeof *m.scratch);
    m.store = spool_open(d->common.tmp, err);
    int status = m.store ? 0 : -1;
    for (int i = 0; i < count && status == 0; i++) {
        Filter *f = &m.filters[i];
        f->method = methods[i];
        if (f->method != METHOD_FUZZY)
            keys_open(&f->keys, memory);
        else if (!(f->fuzzy = m.fuzzy = fuzzy_open(d->threshold, (int)d->ngram, (int)d->bands, (int)d->rows, memory, m.store, err)))
            status = -1;
    }
    DocumentReader r = {.common = &d->common, .files = from->files, .file_names = from->names, .fields = fields, .result_size = sizeof(Look),
                        .work = look_work, .emit = look_emit, .context = &m};
    if (status == 0)
        status = document_run(&r, err);
    document_report(&r);
    if (!from->numbers) {
        d->documents_in = r.documents;
        d->bytes_in = r.bytes_in;
        d->skipped = r.skipped;
    }
    for (int i = 0; i < count && status == 0; i++)
        while (m.filters[i].waiting && status == 0)
            status = filter_round(&m, i, err);
    for (int i = 0; i < count; i++) {
        keys_close(&m.filters[i].keys);
        spool_close(m.filters[i].waiting);
    }
    fuzzy_close(m.fuzzy);
    spool_close(m.store);
    for (int i = 0; i < d->common.threads; i++)
        shingles_free(&m.scratch[i]);
    free(m.scratch);
    buffer_free(&m.line);
    return status;
}
