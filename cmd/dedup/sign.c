/* dedup sign: what the other steps need to know of a part's documents. */
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "base/message.h"
#include "fuzzy.h"
#include "keys.h"
#include "parts.h"

enum { COPY_BYTES = 1 << 16 };

static bool wanted[METHODS];
static Dedup self = {.common = COMMON_DEFAULT, .threshold = 0.8, .ngram = 5};

static const Option options[] = {
    OPTION_WHOLE_DOCUMENTS(wanted, &self),
    OPTION_COMMON_OUTPUT(&self.common),
    OPTION_COMMON_TMP(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_END(&self.common),
};

typedef struct Signing {
    Method method;
    Fuzzy *fuzzy;      /* NULL: not --fuzzy */
    Shingles *scratch; /* one a thread */
    Writer *out;       /* the sets go there at once, the rest follows them */
    Spool *keys, *set_ends, *name_ends, *names;
    XXH64_state_t checksum;
    Terms terms;
} Signing;

static int sign_work(void *context, Document *document, int thread, Error *err)
{
    Signing *s = context;
    Buffer *prepared = document->result;
    (void)err;
    if (s->fuzzy) {
        fuzzy_prepare(s->fuzzy, &s->scratch[thread], document->text, prepared);
        return 0;
    }
    if (s->method == METHOD_URL && document->fields[2].type != JSON_STRING)
        return 0;
    Key k = key_of(s->method == METHOD_URL ? document->fields[2].string : document->text);
    buffer_append(prepared, &k, sizeof k);
    return 0;
}

static int sign_emit(void *context, Document *document, Error *err)
{
    Signing *s = context;
    Buffer *prepared = document->result;
    size_t bands = s->terms.bands * sizeof(uint64_t);
    int status = 0;
    if (prepared->length > 0) {
        XXH64_update(&s->checksum, prepared->data, bands);
        s->terms.count += (prepared->length - bands) / sizeof(uint64_t);
        status = spool_append(s->keys, prepared->data, bands, err);
        if (status == 0)
            status = writer_write(s->out, prepared->data + bands, prepared->length - bands, err);
    }
    buffer_free(prepared);
    s->terms.documents++;
    s->terms.name_bytes += document->id.length;
    if (status < 0 || spool_append(s->set_ends, &s->terms.count, sizeof s->terms.count, err) < 0 ||
        spool_append(s->name_ends, &s->terms.name_bytes, sizeof s->terms.name_bytes, err) < 0)
        return -1;
    return spool_append(s->names, document->id.data, document->id.length, err);
}

static int copy_spool(Writer *out, Spool *from, Error *err)
{
    char piece[COPY_BYTES];
    for (uint64_t at = 0, n; at < spool_size(from); at += n) {
        n = spool_size(from) - at < sizeof piece ? spool_size(from) - at : sizeof piece;
        if (spool_read(from, piece, n, at, err) < 0 || writer_write(out, piece, n, err) < 0)
            return -1;
    }
    return 0;
}

static int sign_open(Signing *s, const Dedup *d, Error *err)
{
    s->terms = (Terms){.threshold = 1, .method = s->method, .bands = 1, .rows = 1};
    XXH64_reset(&s->checksum, 0);
    if (s->method == METHOD_FUZZY) {
        s->fuzzy = fuzzy_open(d->threshold, (int)d->ngram, (int)d->bands, (int)d->rows, 0, NULL, err);
        if (!s->fuzzy)
            return -1;
        s->terms = (Terms){.threshold = d->threshold, .method = s->method, .ngram = (uint32_t)d->ngram, .bands = (uint32_t)fuzzy_bands(s->fuzzy),
                           .rows = (uint32_t)fuzzy_rows(s->fuzzy)};
    }
    XXH64_update(&s->checksum, &s->terms, sizeof s->terms);
    Spool **spools[] = {&s->keys, &s->set_ends, &s->name_ends, &s->names};
    for (size_t i = 0; i < sizeof spools / sizeof *spools; i++)
        if (!(*spools[i] = spool_open(d->common.tmp, err)))
            return -1;
    s->out = writer_open(d->common.output, err);
    return s->out ? 0 : -1;
}

static int sign_run(Signing *s, const Dedup *d, const char *const *files, Error *err)
{
    static const char *const fields[] = {"url", NULL};
    DocumentReader r = {.common = &d->common, .files = files, .fields = fields, .result_size = sizeof(Buffer), .work = sign_work, .emit = sign_emit, .context = s};
    int status = document_run(&r, err);
    document_report(&r);
    if (status < 0)
        return -1;
    s->terms.checksum = XXH64_digest(&s->checksum);
    if (copy_spool(s->out, s->keys, err) < 0 || copy_spool(s->out, s->set_ends, err) < 0 || copy_spool(s->out, s->name_ends, err) < 0 ||
        copy_spool(s->out, s->names, err) < 0 || terms_write(s->out, s->terms, FILE_SIGNATURES, err) < 0)
        return -1;
    status = writer_close(s->out, err);
    s->out = NULL;
    return status;
}

int sign_main(int argc, char **argv)
{
    OptionSet set = {.tool = "dedup sign", .synopsis = "dedup sign --fuzzy|--exact|--url [OPTION]… -o FILE [DOCUMENTS]…",
                     .summary = "Sign a part of a corpus, for dedup's other steps.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Signing s = {.method = METHODS};
    for (Method m = 0; m < METHODS; m++)
        if (wanted[m]) {
            if (s.method != METHODS)
                return message_usage("one method at a time: --url, --exact or --fuzzy");
            s.method = m;
        }
    if (s.method == METHODS)
        return message_usage("which method: --url, --exact or --fuzzy?");
    if ((self.bands == 0) != (self.rows == 0))
        return message_usage("--bands and --rows go together");
    if (!self.common.output)
        return message_usage("-o FILE is missing");
    common_settle(&self.common);
    s.scratch = memory_zalloc((size_t)self.common.threads, sizeof *s.scratch);
    Error err;
    status = sign_open(&s, &self, &err) < 0 || sign_run(&s, &self, (const char *const *)set.operands, &err) < 0 ? message_failed(&err) : 0;
    writer_abandon(s.out);
    fuzzy_close(s.fuzzy);
    spool_close(s.keys);
    spool_close(s.set_ends);
    spool_close(s.name_ends);
    spool_close(s.names);
    for (int64_t i = 0; i < self.common.threads; i++)
        shingles_free(&s.scratch[i]);
    free(s.scratch);
    option_free(&set);
    return status;
}
