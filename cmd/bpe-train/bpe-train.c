/* bpe-train: a byte-level BPE vocabulary from documents or lines. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "data/document.h"
#include "io/stats.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"
#include "converter.h"
#include "write.h"

enum { SAMPLE_BYTES = 4 << 20 };

typedef struct Train {
    Common common;
    int64_t vocab_size, min_frequency;
    const char *pattern, *alphabet, *chat_template;
    double holdout;
    bool keep_newlines;
    OptionList special;
    Splitter splitter;
    PieceCounts *counts; /* one a thread */
    void **scratch;
    Buffer *lines;       /* a line with its newline, one a thread */
    Buffer sample;       /* text to measure bytes per token on */
    size_t *sample_ends, sample_count, sample_capacity;
} Train;

static Train self = {.common = COMMON_DEFAULT, .vocab_size = 32000, .pattern = "llama3", .alphabet = "all"};

static const Option options[] = {
    {"vocab-size", 0, OPTION_INTEGER, &self.vocab_size, "N", "tokens in all: bytes, merges and specials (default 32000)", 0, 1, 1 << 28},
    {"pattern", 0, OPTION_STRING, &self.pattern, "NAME", "gpt2, cl100k, o200k, llama3, qwen2, none or a regular expression (default llama3)", 0, 0, 0},
    {"special", 0, OPTION_LIST, &self.special, "TOKEN", "special tokens in the order of their ids, or none (default <|end_of_text|>)", 0, 0, 0},
    {"chat-template", 0, OPTION_OPTIONAL, &self.chat_template, "NAME", "add a chat template and its tokens: llama3 or chatml", "llama3", 0, 0},
    {"min-frequency", 0, OPTION_INTEGER, &self.min_frequency, "N", "least count of a pair that is merged (default 0)", 0, 0, 9e18},
    {"alphabet", 0, OPTION_CHOICE, &self.alphabet, "WHICH", "all 256 bytes or those seen (default all)", "all|seen", 0, 0},
    {"holdout", 0, OPTION_NUMBER, &self.holdout, "SHARE", "of the documents kept out of training, to measure on (default 0)", 0, 0, 0.9},
    OPTION_COMMON_TEXT(&self.common),
    {"keep-newlines", 0, OPTION_FLAG, &self.keep_newlines, 0, "with --text: a line ends with its newline", 0, 0, 0},
    {"output", 'o', OPTION_STRING, &self.common.output, "DIR", "folder for tokenizer.json and its companions", 0, 0, 0},
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_END(&self.common),
};

static int count_piece(void *context, Span piece)
{
    pieces_add(context, piece, 1);
    return 0;
}

static bool is_held_out(const Train *t, const Document *d)
{
    return t->holdout > 0 && (double)(XXH64(d->id.data, d->id.length, 0) >> 11) * 0x1p-53 < t->holdout;
}

static int work(void *context, Document *d, int thread, Error *err)
{
    Train *t = context;
    if (is_held_out(t, d))
        return 0;
    Span text = d->text;
    if (t->keep_newlines && d->line_ended) {
        Buffer *b = &t->lines[thread];
        b->length = 0;
        buffer_append(b, text.data, text.length);
        buffer_byte(b, '\n');
        text = (Span){b->data, b->length};
    }
    return splitter_run(&t->splitter, t->scratch[thread], text, count_piece, &t->counts[thread], err);
}

/* The sample: held-out documents, or with --holdout 0 the first ones. */
static int emit(void *context, Document *d, Error *err)
{
    Train *t = context;
    (void)err;
    if (t->sample.length < SAMPLE_BYTES && d->text.length > 0 && (t->holdout == 0 || is_held_out(t, d))) {
        buffer_append(&t->sample, d->text.data, d->text.length);
        t->sample_ends = memory_grow(t->sample_ends, &t->sample_capacity, t->sample_count + 1, sizeof *t->sample_ends);
        t->sample_ends[t->sample_count++] = t->sample.length;
    }
    return 0;
}

/* The specials' list: the template's tokens, then what --special says or the default. */
static const char **specials_make(const Train *t, const ChatTemplate *chat, size_t *count)
{
    const char **list = memory_zalloc(t->special.count + 16, sizeof *list);
    size_t n = 0;
    for (int i = 0; chat && chat->tokens[i]; i++)
        list[n++] = chat->tokens[i];
    bool none = t->special.count == 1 && strcmp(t->special.values[0], "none") == 0;
    for (size_t i = 0; i < t->special.count && !none; i++) {
        size_t k = 0;
        while (k < n && strcmp(list[k], t->special.values[i]) != 0)
            k++;
        if (k == n)
            list[n++] = t->special.values[i];
    }
    if (t->special.count == 0)
        list[n++] = "<|end_of_text|>";
    *count = n;
    return list;
}

static const char *pick(const char *const *list, size_t count, const char *const *wanted)
{
    for (; *wanted; wanted++)
        for (size_t i = 0; i < count; i++)
            if (strcmp(list[i], *wanted) == 0)
                return list[i];
    return NULL;
}

static int report(const Train *t, const char *folder, Error *err)
{
    Tokenizer *tokenizer = tokenizer_open(folder, err);
    if (!tokenizer)
        return -1;
    Encoder *e = encoder_new(tokenizer);
    Ids ids = {0};
    int status = 0;
    for (size_t i = 0, at = 0; i < t->sample_count && status == 0; at = t->sample_ends[i++])
        status = encoder_encode(e, (Span){t->sample.data + at, t->sample_ends[i] - at}, NULL, &ids, err);
    if (status == 0 && ids.count > 0)
        message("%.4f bytes per token on %zu bytes of %s documents", (double)t->sample.length / (double)ids.count, t->sample.length,
                t->holdout > 0 ? "held-out" : "training");
    if (status == 0 && strcmp(t->alphabet, "all") == 0) /* others can't cut any text */
        status = converter_report(tokenizer, t->pattern, err);
    ids_free(&ids);
    encoder_free(e);
    tokenizer_close(tokenizer);
    return status;
}

static int train(Train *t, const ChatTemplate *chat, OptionSet *set, Error *err)
{
    int threads = t->common.threads > 0 ? (int)t->common.threads : thread_default_count();
    t->common.threads = threads;
    t->counts = memory_alloc((size_t)threads, sizeof *t->counts);
    t->scratch = memory_alloc((size_t)threads, sizeof *t->scratch);
    t->lines = memory_zalloc((size_t)threads, sizeof *t->lines);
    for (int i = 0; i < threads; i++) {
        pieces_new(&t->counts[i]);
        t->scratch[i] = splitter_scratch(&t->splitter);
    }
    DocumentReader r = {.common = &t->common, .files = set->operands, .work = work, .emit = emit, .context = t};
    double begin = clock_seconds();
    int64_t made = 0;
    int status = document_run(&r, err);
    document_report(&r);
    size_t special_count;
    const char **specials = specials_make(t, chat, &special_count);
    static const char *const bos[] = {"<|begin_of_text|>", "<s>", NULL}, *const eos[] = {"<|end_of_text|>", "<|endoftext|>", "</s>", NULL};
    if (status == 0) {
        for (int i = 1; i < threads; i++)
            pieces_merge(&t->counts[0], &t->counts[i]);
        BpeResult result;
        int64_t size = t->vocab_size - (int64_t)special_count;
        bool whole = strcmp(t->alphabet, "all") == 0;
        if (size < (whole ? 256 : 1)) {
            status = error_set(err, "--vocab-size %" PRId64 " has no room for %zu special tokens and the bytes", t->vocab_size, special_count);
        } else {
            bpe_train(&t->counts[0], size, (uint64_t)t->min_frequency, whole, &result);
            made = result.alphabet_size + (int64_t)result.merge_count + (int64_t)special_count;
            VocabularyFiles files = {&result, t->splitter.regex, specials, special_count, pick(specials, special_count, bos),
                                     pick(specials, special_count, eos), chat ? chat->jinja : NULL};
            status = vocabulary_write(&files, t->common.output, err);
            if (status == 0)
                message("%" PRId64 " tokens: %d bytes, %zu merges, %zu specials; %zu different pieces in %" PRIu64 " documents", made,
                        result.alphabet_size, result.merge_count, special_count, t->counts[0].used, r.documents);
            if (status == 0 && made < t->vocab_size)
                message("the text has no more pairs: %" PRId64 " tokens instead of %" PRId64, made, t->vocab_size);
            bpe_result_free(&result);
        }
    }
    if (status == 0)
        status = report(t, t->common.output, err);
    StatsItem items[] = {{"documents", (double)r.documents}, {"bytes", (double)r.text_bytes}, {"skipped", (double)r.skipped}, {"tokens", (double)made}};
    if (status == 0)
        status = stats_write(t->common.stats, items, sizeof items / sizeof *items, begin, err);
    for (int i = 0; i < threads; i++) {
        pieces_free(&t->counts[i]);
        splitter_scratch_free(t->scratch[i]);
        buffer_free(&t->lines[i]);
    }
    free(specials);
    free(t->counts);
    free(t->scratch);
    free(t->lines);
    free(t->sample_ends);
    buffer_free(&t->sample);
    return status;
}

int main(int argc, char **argv)
{
    OptionSet set = {.tool = "bpe-train", .synopsis = "bpe-train --vocab-size N [OPTION]… -o DIR [FILE]…",
                     .summary = "Train a byte-level BPE vocabulary: the merges that Hugging Face's trainer finds.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Error err;
    if (!self.common.output)
        return message_usage("-o DIR is needed");
    if (self.keep_newlines && !self.common.text)
        return message_usage("--keep-newlines goes with --text");
    const ChatTemplate *chat = self.chat_template ? chat_template_named(self.chat_template) : NULL;
    if (self.chat_template && !chat)
        return message_usage("no chat template is named '%s' (llama3, chatml)", self.chat_template);
    for (size_t i = 0; i < self.special.count; i++)
        if (self.special.values[i][0] == 0)
            return message_usage("--special is empty (none gives no special token)");
    if (splitter_open(&self.splitter, self.pattern, &err) < 0)
        return message_usage("%s", err.text);
    bool made;
    status = vocabulary_begin(self.common.output, &made, &err) < 0 || train(&self, chat, &set, &err) < 0 ? message_failed(&err) : 0;
    if (status != 0 && made)
        rmdir(self.common.output); /* where nothing stands in it */
    splitter_close(&self.splitter);
    option_free(&set);
    return status;
}
