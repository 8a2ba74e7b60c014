#include "classify.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "data/document.h"
#include "io/stats.h"

static struct {
    Common common;
    int64_t dim, epoch, word_ngrams, minn, maxn, min_count, bucket;
    double lr;
} t = {.common = COMMON_DEFAULT, .dim = 16, .epoch = 5, .word_ngrams = 2, .min_count = 1, .bucket = 200000, .lr = 0.5};

static const Option train_options[] = {
    {"output", 'o', OPTION_STRING, &t.common.output, "FILE", "the model, fastText's .bin", 0, 0, 0},
    {"dim", 0, OPTION_INTEGER, &t.dim, "N", "numbers a word (default 16)", 0, 1, 4096},
    {"epoch", 0, OPTION_INTEGER, &t.epoch, "N", "times through the lines (default 5)", 0, 1, 10000},
    {"lr", 0, OPTION_NUMBER, &t.lr, "X", "learning rate (default 0.5)", 0, 0, 100},
    {"word-ngrams", 0, OPTION_INTEGER, &t.word_ngrams, "N", "longest word n-gram (default 2)", 0, 1, 10},
    {"minn", 0, OPTION_INTEGER, &t.minn, "N", "shortest letter n-gram (default 0)", 0, 0, 20},
    {"maxn", 0, OPTION_INTEGER, &t.maxn, "N", "longest letter n-gram, 0: none (default 0)", 0, 0, 20},
    {"min-count", 0, OPTION_INTEGER, &t.min_count, "N", "rarest word that is kept (default 1)", 0, 1, 1e9},
    {"bucket", 0, OPTION_INTEGER, &t.bucket, "N", "rows for n-grams (default 200000)", 0, 1, 1e9},
    OPTION_COMMON_SEED(&t.common),
    {"threads", 'j', OPTION_INTEGER, &t.common.threads, "N", "as everywhere; one does the work", 0, 0, 4096},
    OPTION_COMMON_END(&t.common),
};

int train_main(int argc, char **argv)
{
    OptionSet set = {.tool = "qfilter", .synopsis = "qfilter train -o MODEL.bin [OPTION]… [FILE]…",
                     .summary = "Train a linear classifier on lines \"__label__x text\".", .options = train_options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    if (!t.common.output)
        return message_usage("-o FILE is needed");
    static const char *standard[] = {"-", NULL};
    Error err;
    Buffer all = {0}, one = {0};
    for (const char **f = set.operand_count ? set.operands : standard; *f && status != 1; f++) {
        status = file_read(*f, &one, (size_t)1 << 36, &err) < 0 ? message_failed(&err) : -1;
        buffer_append(&all, one.data, status == 1 ? 0 : one.length);
        if (all.length && all.data[all.length - 1] != '\n')
            buffer_byte(&all, '\n');
    }
    FastTextOptions o = {(int)t.dim, (int)t.epoch, (int)t.word_ngrams, (int)t.minn, (int)t.maxn, (int)t.min_count, (int)t.bucket, t.lr, (uint64_t)t.common.seed};
    Writer *out = status != 1 ? writer_open(t.common.output, &err) : NULL; /* before the work */
    if (out) {
        FastText *f = fasttext_train(&o, (Span){all.data ? all.data : "", all.length}, &err);
        if (!f)
            writer_abandon(out);
        status = f && fasttext_save(f, out, &err) == 0 ? 0 : message_failed(&err);
        if (status == 0)
            message("%d labels", fasttext_labels(f));
        fasttext_free(f);
    } else if (status != 1) {
        status = message_failed(&err);
    }
    buffer_free(&all);
    buffer_free(&one);
    option_free(&set);
    return status;
}

static struct {
    Common common;
    const char *model;
    FastText *fasttext;
    FastTextScratch *scratch;
    Writer *out;
} c = {.common = COMMON_DEFAULT};

static const Option classify_options[] = {
    {"model", 0, OPTION_STRING, &c.model, "FILE", "fastText .bin model", 0, 0, 0},
    OPTION_COMMON_OUTPUT(&c.common),
    OPTION_COMMON_ON_ERROR(&c.common),
    OPTION_COMMON_THREADS(&c.common),
    OPTION_COMMON_END(&c.common),
};

static int classify_work(void *context, Document *d, int thread, Error *err)
{
    (void)context;
    (void)err;
    int labels = fasttext_labels(c.fasttext), best = 0;
    float *p = memory_alloc((size_t)labels, sizeof *p);
    int known = fasttext_predict(c.fasttext, &c.scratch[thread], d->text, p);
    for (int i = 1; i < labels && known == 0; i++)
        best = p[i] > p[best] ? i : best;
    Buffer name = {0}, score = {0}, line = {0};
    const char *label = known == 0 ? fasttext_label(c.fasttext, best) : "";
    json_write_string(&name, (Span){label, strlen(label)});
    buffer_format(&score, "%.6f", known == 0 ? (double)(p[best] > 1 ? 1 : p[best]) : 0.0);
    JsonField absent = {0}, *class = &d->fields[2];
    json_record_set(&line, d->raw, class, "class", (Span){name.data, name.length});
    json_record_set(&d->out, (Span){line.data, line.length}, &absent, "class_score", (Span){score.data, score.length});
    buffer_byte(&d->out, '\n');
    buffer_free(&name);
    buffer_free(&score);
    buffer_free(&line);
    free(p);
    return 0;
}

static int classify_emit(void *context, Document *d, Error *err)
{
    (void)context;
    return writer_write(c.out, d->out.data, d->out.length, err);
}

int classify_main(int argc, char **argv)
{
    static const char *const fields[] = {"class", NULL};
    OptionSet set = {.tool = "qfilter", .synopsis = "qfilter classify --model MODEL.bin [OPTION]… [FILE]…",
                     .summary = "Add class and class_score to documents.", .options = classify_options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    if (!c.model)
        return message_usage("--model FILE is needed");
    Error err;
    c.common.threads = c.common.threads > 0 ? c.common.threads : thread_default_count();
    c.fasttext = fasttext_load(c.model, &err);
    if (!c.fasttext || !(c.out = writer_open(c.common.output, &err))) {
        fasttext_free(c.fasttext);
        return message_failed(&err);
    }
    double begin = clock_seconds();
    c.scratch = memory_zalloc((size_t)c.common.threads, sizeof *c.scratch);
    DocumentReader r = {.common = &c.common, .files = set.operands, .fields = fields, .work = classify_work, .emit = classify_emit};
    status = document_run(&r, &err);
    document_report(&r);
    if (status < 0)
        writer_abandon(c.out);
    else
        status = writer_close(c.out, &err);
    StatsItem items[] = {{"documents", (double)r.documents}, {"bytes", (double)r.text_bytes}, {"skipped", (double)r.skipped}};
    if (status == 0)
        status = stats_write(c.common.stats, items, sizeof items / sizeof *items, begin, &err);
    for (int64_t i = 0; i < c.common.threads; i++)
        fasttext_scratch_free(&c.scratch[i]);
    free(c.scratch);
    fasttext_free(c.fasttext);
    option_free(&set);
    return status < 0 ? message_failed(&err) : 0;
}
