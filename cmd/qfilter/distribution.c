#include "distribution.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/message.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/thread.h"
#include "data/document.h"
#include "io/stats.h"

/* Tells one vocabulary from another: all tokens' bytes in their order. */
static uint64_t tokenizer_hash(const Tokenizer *t)
{
    uint64_t hash = 0;
    for (int64_t id = 0; id < tokenizer_size(t); id++) {
        Span bytes = tokenizer_bytes(t, (int32_t)id);
        hash = XXH3_64bits_withSeed(bytes.data ? bytes.data : "", bytes.length, hash + 1);
    }
    return hash;
}

static void logs_set(Distribution *d, const uint64_t *counts, uint64_t tokens)
{
    d->logs = memory_alloc((size_t)d->size, sizeof *d->logs);
    for (int64_t i = 0; i < d->size; i++)
        d->logs[i] = log(((double)counts[i] + 1) / ((double)tokens + (double)d->size));
}

static int counts_read(Distribution *d, const JsonValue *root, Error *err)
{
    const JsonValue *counts = json_get(root, "counts"), *quantiles = json_get(root, "divergence_quantiles"), *name = json_get(root, "tokenizer");
    char hash[20];
    snprintf(hash, sizeof hash, "%016" PRIx64, tokenizer_hash(d->tokenizer));
    if (!json_is(name, JSON_STRING) || !json_is(counts, JSON_ARRAY) || !json_is(quantiles, JSON_ARRAY) || quantiles->count != DISTRIBUTION_QUANTILES)
        return error_set(err, "not a file of qfilter distribution");
    if (name->string.length != 16 || memcmp(name->string.data, hash, 16) != 0 || (int64_t)counts->count != d->size)
        return error_set(err, "was counted with another tokenizer");
    for (size_t i = 0; i < DISTRIBUTION_QUANTILES; i++) {
        if (!json_is(&quantiles->items[i], JSON_NUMBER) || (i && quantiles->items[i].number < d->quantiles[i - 1]))
            return error_set(err, "divergence_quantiles do not rise");
        d->quantiles[i] = quantiles->items[i].number;
    }
    uint64_t *all = memory_alloc((size_t)d->size, sizeof *all), tokens = 0;
    int status = 0;
    for (int64_t i = 0; i < d->size && status == 0; i++) {
        const JsonValue *v = &counts->items[i];
        if (v->type != JSON_INTEGER || v->integer < 0 || v->integer > INT64_MAX / 2 - (int64_t)tokens)
            status = error_set(err, "counts[%" PRId64 "] is no count", i);
        else
            tokens += all[i] = (uint64_t)v->integer;
    }
    if (status == 0)
        logs_set(d, all, tokens);
    free(all);
    return status;
}

int distribution_read(Distribution *d, const char *path, const char *tokenizer, Error *err)
{
    JsonTree tree = {0};
    *d = (Distribution){.tokenizer = tokenizer_open(tokenizer, err)};
    if (!d->tokenizer)
        return -1;
    d->size = tokenizer_size(d->tokenizer);
    if (json_parse_file(&tree, path, err) < 0)
        return -1;
    int status = counts_read(d, tree.root, err);
    json_free(&tree);
    return status < 0 ? error_prefix(err, "%s", path) : 0;
}

void distribution_free(Distribution *d)
{
    free(d->logs);
    tokenizer_close(d->tokenizer);
    *d = (Distribution){0};
}

/* What a share (0 … 1) of n rising numbers does not exceed, linear between two. */
static double quantile(const double *rising, size_t n, double share)
{
    double at = share * (double)(n - 1), low = floor(at);
    size_t i = (size_t)low, next = i + 1 < n ? i + 1 : i;
    return rising[i] + (at - low) * (rising[next] - rising[i]);
}

double distribution_quantile(const Distribution *d, double percent)
{
    return quantile(d->quantiles, DISTRIBUTION_QUANTILES, fmin(fmax(percent, 0), 100) / 100);
}

static double divergence_of_ids(const Distribution *d, uint32_t *counts, const int32_t *ids, size_t n)
{
    double kl = 0;
    for (size_t i = 0; i < n; i++)
        counts[ids[i]]++;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = counts[ids[i]];
        counts[ids[i]] = 0; /* an id's first place stands for all */
        if (c)
            kl += c * (log((double)c / (double)n) - d->logs[ids[i]]);
    }
    return n ? kl / (double)n : 0;
}

/* The text's ids, in s->ids. */
static int encode(const Distribution *d, Divergence *s, Span text, Error *err)
{
    if (!s->encoder)
        s->encoder = encoder_new(d->tokenizer);
    s->ids.count = 0;
    return encoder_encode(s->encoder, text, &(ParseSpecial){0}, &s->ids, err);
}

int divergence_of(const Distribution *d, Divergence *s, Span text, double *kl, Error *err)
{
    if (encode(d, s, text, err) < 0)
        return -1;
    if (!s->counts)
        s->counts = memory_zalloc((size_t)d->size, sizeof *s->counts);
    *kl = divergence_of_ids(d, s->counts, s->ids.data, s->ids.count);
    return 0;
}

void divergence_free(Divergence *s)
{
    encoder_free(s->encoder);
    ids_free(&s->ids);
    free(s->counts);
}

/* qfilter distribution */
static struct {
    Common common;
    const char *tokenizer;
    int64_t sample;
    Distribution d;
    Divergence *scratch; /* one a thread */
    uint64_t *counts, tokens;
    Buffer *samples;    /* ids of documents, each as likely as any other (algorithm R) */
    size_t sample_count, seen;
} c = {.common = COMMON_DEFAULT, .sample = 10000};

static const Option count_options[] = {
    {"tokenizer", 0, OPTION_STRING, &c.tokenizer, "PATH", "tokenizer of the counts", 0, 0, 0},
    {"output", 'o', OPTION_STRING, &c.common.output, "FILE", "the counts, one JSON object", 0, 0, 0},
    {"sample", 0, OPTION_INTEGER, &c.sample, "N", "documents whose divergence is measured (default 10000)", 0, 1, 1e7},
    OPTION_COMMON_TEXT(&c.common),
    OPTION_COMMON_SEED(&c.common),
    OPTION_COMMON_ON_ERROR(&c.common),
    OPTION_COMMON_THREADS(&c.common),
    OPTION_COMMON_END(&c.common),
};

static int count_work(void *context, Document *d, int thread, Error *err)
{
    (void)context;
    const Ids *ids = &c.scratch[thread].ids;
    if (encode(&c.d, &c.scratch[thread], d->text, err) < 0)
        return -1;
    buffer_append(&d->out, ids->data, ids->count * sizeof *ids->data);
    return 0;
}

static int count_emit(void *context, Document *d, Error *err)
{
    (void)context;
    (void)err;
    const int32_t *ids = (const int32_t *)(const void *)d->out.data;
    size_t n = d->out.length / sizeof *ids;
    for (size_t i = 0; i < n; i++)
        c.counts[ids[i]]++;
    c.tokens += n;
    size_t place = c.seen < (size_t)c.sample ? c.seen : (size_t)random_below((uint64_t)c.common.seed, RANDOM_SAMPLE, c.seen, c.seen + 1);
    c.seen++;
    if (place < (size_t)c.sample) {
        c.sample_count = c.seen < (size_t)c.sample ? c.seen : (size_t)c.sample;
        c.samples[place].length = 0;
        buffer_append(&c.samples[place], d->out.data, d->out.length);
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void quantiles_set(void)
{
    double *kl = memory_zalloc(c.sample_count, sizeof *kl);
    uint32_t *scratch = memory_zalloc((size_t)c.d.size, sizeof *scratch);
    for (size_t i = 0; i < c.sample_count; i++)
        kl[i] = divergence_of_ids(&c.d, scratch, (const int32_t *)(const void *)c.samples[i].data, c.samples[i].length / sizeof(int32_t));
    qsort(kl, c.sample_count, sizeof *kl, by_value);
    for (size_t i = 0; i < DISTRIBUTION_QUANTILES; i++)
        c.d.quantiles[i] = quantile(kl, c.sample_count, (double)i / (DISTRIBUTION_QUANTILES - 1));
    free(scratch);
    free(kl);
}

static int counts_write(uint64_t documents, Error *err)
{
    Buffer b = {0};
    buffer_format(&b, "{\"documents\":%" PRIu64 ",\"tokens\":%" PRIu64 ",\"tokenizer\":\"%016" PRIx64 "\",\"divergence_quantiles\":[", documents, c.tokens, tokenizer_hash(c.d.tokenizer));
    for (size_t i = 0; i < DISTRIBUTION_QUANTILES; i++) {
        buffer_string(&b, i ? "," : "");
        json_write_number(&b, c.d.quantiles[i]);
    }
    buffer_string(&b, "],\"counts\":[");
    for (int64_t i = 0; i < c.d.size; i++)
        buffer_format(&b, "%s%" PRIu64, i ? "," : "", c.counts[i]);
    buffer_string(&b, "]}\n");
    int status = file_write(c.common.output, b.data, b.length, err);
    buffer_free(&b);
    return status;
}

static int count_run(OptionSet *set, Error *err)
{
    c.d.tokenizer = tokenizer_open(c.tokenizer, err);
    if (!c.d.tokenizer)
        return -1;
    c.d.size = tokenizer_size(c.d.tokenizer);
    c.common.threads = c.common.threads > 0 ? c.common.threads : thread_default_count();
    c.scratch = memory_zalloc((size_t)c.common.threads, sizeof *c.scratch);
    c.counts = memory_zalloc((size_t)c.d.size, sizeof *c.counts);
    c.samples = memory_zalloc((size_t)c.sample, sizeof *c.samples);
    double begin = clock_seconds();
    DocumentReader r = {.common = &c.common, .files = set->operands, .work = count_work, .emit = count_emit};
    int status = document_run(&r, err);
    document_report(&r);
    if (status == 0 && c.tokens == 0)
        status = error_set(err, "no tokens: %" PRIu64 " documents", r.documents);
    if (status == 0) {
        logs_set(&c.d, c.counts, c.tokens);
        quantiles_set();
        status = counts_write(r.documents, err);
    }
    if (status == 0)
        message("%" PRIu64 " documents, %" PRIu64 " tokens; 50, 90, 99, 100 %% of documents diverge by at most %.3f, %.3f, %.3f, %.3f nats", r.documents, c.tokens,
                c.d.quantiles[500], c.d.quantiles[900], c.d.quantiles[990], c.d.quantiles[1000]);
    StatsItem items[] = {{"documents", (double)r.documents}, {"tokens", (double)c.tokens}, {"skipped", (double)r.skipped}};
    return status == 0 ? stats_write(c.common.stats, items, sizeof items / sizeof *items, begin, err) : status;
}

int distribution_main(int argc, char **argv)
{
    OptionSet set = {.tool = "qfilter", .synopsis = "qfilter distribution --tokenizer PATH -o FILE [OPTION]… [FILE]…",
                     .summary = "Count a corpus's tokens, for --rules llama3.", .options = count_options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    if (!c.tokenizer || !c.common.output)
        return message_usage("--tokenizer PATH and -o FILE are needed");
    Error err;
    status = count_run(&set, &err) < 0 ? message_failed(&err) : 0;
    for (int64_t i = 0; i < c.common.threads && c.scratch; i++)
        divergence_free(&c.scratch[i]);
    for (int64_t i = 0; i < c.sample && c.samples; i++)
        buffer_free(&c.samples[i]);
    free(c.scratch);
    free(c.counts);
    free(c.samples);
    distribution_free(&c.d);
    option_free(&set);
    return status;
}
