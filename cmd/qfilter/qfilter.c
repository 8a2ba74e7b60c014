/* qfilter: keeps documents that pass quality rules, and says of the others which rule they failed. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "classify.h"
#include "data/document.h"
#include "distribution.h"
#include "rules.h"

typedef enum Rule { RULE_DOMAINS, RULE_BAD_WORDS, RULE_QUALITY, RULE_REPETITION, RULE_C4, RULE_FINEWEB, RULE_LLAMA3, RULE_LANGUAGE, RULE_PII, RULE_MODEL, RULES } Rule;
static const char *const rule_names[] = {"block-domains", "bad-words", "gopher-quality", "gopher-repetition", "c4", "fineweb", "llama3", "lang", "pii", "model"};

static struct Filter {
    Common common;
    const char *rules, *words, *pii, *model, *label, *removed_path, *distribution_path, *tokenizer, *languages, *language_path;
    OptionList sets, domains, bad_words, dirty_words;
    double min_score, min_language_score;
    bool tag;
    Rule order[RULES];
    int count;
    WordKind kind;
    GopherQuality quality;
    GopherRepetition repetition;
    C4 c4;
    FineWeb fineweb;
    Llama3 llama3;
    List *domain_list, *word_list, *dirty_list;
    FastText *fasttext, *language_model;
    bool *languages_wanted, *label_wanted; /* of each label of the two models */
    Distribution distribution;
    Divergence *divergence; /* one a thread */
    Page *pages; /* one a thread */
    FastTextScratch *scratch;
    Writer *out, *removed;
    uint64_t documents_out, bytes_out, masked;
    char **reasons;       /* "rule/reason" */
    uint64_t *reason_documents, *reason_bytes;
    size_t reason_count;
} self = {.common = COMMON_DEFAULT, .words = "en", .min_score = 0.5, .min_language_score = 0.65};

static const Option options[] = {
    {"rules", 0, OPTION_STRING, &self.rules, "LIST", "gopher-quality, gopher-repetition, c4, fineweb, llama3 in the order wanted", 0, 0, 0},
    {"set", 0, OPTION_LIST, &self.sets, "RULE.NAME=X", "a threshold, such as gopher-quality.min-doc-words=20 (repeatable)", 0, 0, 0},
    {"words", 0, OPTION_CHOICE, &self.words, "KIND", "what a word is: en, uax29 or space (default en)", "en|uax29|space", 0, 0},
    {"block-domains", 0, OPTION_LIST, &self.domains, "FILE", "drop documents whose url is of a listed domain (repeatable)", 0, 0, 0},
    {"bad-words", 0, OPTION_LIST, &self.bad_words, "FILE", "drop documents with a listed word (repeatable)", 0, 0, 0},
    {"pii", 0, OPTION_CHOICE, &self.pii, "WHAT", "e-mail and IP addresses: drop, mask or tag", "drop|mask|tag", 0, 0},
    {"model", 0, OPTION_STRING, &self.model, "FILE", "fastText model; keep what scores --min-score for --label", 0, 0, 0},
    {"label", 0, OPTION_STRING, &self.label, "L", "", 0, 0, 0},
    {"min-score", 0, OPTION_NUMBER, &self.min_score, "X", "(default 0.5)", 0, 0, 1},
    {"tag", 0, OPTION_FLAG, &self.tag, 0, "keep all documents and add the verdict as a field `quality`", 0, 0, 0},
    {"removed", 0, OPTION_STRING, &self.removed_path, "FILE", "write removed documents there, with rule and reason", 0, 0, 0},
    {"lang", 0, OPTION_STRING, &self.languages, "LIST", "keep documents in one of these languages (en,de)", 0, 0, 0},
    OPTION_COMMON_OUTPUT(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_MORE_HEADING("Languages and llama3:"),
    {"lang-model", 0, OPTION_STRING, &self.language_path, "FILE", "fastText model that tells languages, such as lid.176.bin", 0, 0, 0},
    {"min-lang-score", 0, OPTION_NUMBER, &self.min_language_score, "X", "a language counts from that score on (default 0.65)", 0, 0, 1},
    {"dirty-words", 0, OPTION_LIST, &self.dirty_words, "FILE", "words that llama3 counts (repeatable)", 0, 0, 0},
    {"token-distribution", 0, OPTION_STRING, &self.distribution_path, "FILE", "what llama3 holds a document's tokens against, of qfilter distribution", 0, 0, 0},
    {"tokenizer", 0, OPTION_STRING, &self.tokenizer, "PATH", "tokenizer of the distribution", 0, 0, 0},
    OPTION_COMMON_END(&self.common),
};

static const struct Threshold {
    Rule rule;
    const char *name;
    double *value;
} thresholds[] = {
    {RULE_QUALITY, "min-doc-words", &self.quality.min_doc_words}, {RULE_QUALITY, "max-doc-words", &self.quality.max_doc_words},
    {RULE_QUALITY, "min-avg-word-length", &self.quality.min_avg_word_length}, {RULE_QUALITY, "max-avg-word-length", &self.quality.max_avg_word_length},
    {RULE_QUALITY, "max-symbol-word-ratio", &self.quality.max_symbol_word_ratio}, {RULE_QUALITY, "max-bullet-lines-ratio", &self.quality.max_bullet_lines_ratio},
    {RULE_QUALITY, "max-ellipsis-lines-ratio", &self.quality.max_ellipsis_lines_ratio}, {RULE_QUALITY, "max-non-alpha-words-ratio", &self.quality.max_non_alpha_words_ratio},
    {RULE_QUALITY, "min-stop-words", &self.quality.min_stop_words},
    {RULE_REPETITION, "dup-para-frac", &self.repetition.dup_para_frac}, {RULE_REPETITION, "dup-para-char-frac", &self.repetition.dup_para_char_frac},
    {RULE_REPETITION, "dup-line-frac", &self.repetition.dup_line_frac}, {RULE_REPETITION, "dup-line-char-frac", &self.repetition.dup_line_char_frac},
    {RULE_REPETITION, "top-2-gram", &self.repetition.top_n_grams[0]}, {RULE_REPETITION, "top-3-gram", &self.repetition.top_n_grams[1]},
    {RULE_REPETITION, "top-4-gram", &self.repetition.top_n_grams[2]}, {RULE_REPETITION, "dup-5-gram", &self.repetition.dup_n_grams[0]},
    {RULE_REPETITION, "dup-6-gram", &self.repetition.dup_n_grams[1]}, {RULE_REPETITION, "dup-7-gram", &self.repetition.dup_n_grams[2]},
    {RULE_REPETITION, "dup-8-gram", &self.repetition.dup_n_grams[3]}, {RULE_REPETITION, "dup-9-gram", &self.repetition.dup_n_grams[4]},
    {RULE_REPETITION, "dup-10-gram", &self.repetition.dup_n_grams[5]},
    {RULE_C4, "split-paragraph", &self.c4.split_paragraph}, {RULE_C4, "remove-citations", &self.c4.remove_citations}, {RULE_C4, "filter-no-terminal-punct", &self.c4.filter_no_terminal_punct},
    {RULE_C4, "min-num-sentences", &self.c4.min_num_sentences}, {RULE_C4, "min-words-per-line", &self.c4.min_words_per_line},
    {RULE_C4, "max-word-length", &self.c4.max_word_length}, {RULE_C4, "filter-lorem-ipsum", &self.c4.filter_lorem_ipsum},
    {RULE_C4, "filter-javascript", &self.c4.filter_javascript}, {RULE_C4, "filter-curly-bracket", &self.c4.filter_curly_bracket},
    {RULE_C4, "filter-policy", &self.c4.filter_policy},
    {RULE_FINEWEB, "line-punct-thr", &self.fineweb.line_punct_thr}, {RULE_FINEWEB, "line-punct-exclude-zero", &self.fineweb.line_punct_exclude_zero},
    {RULE_FINEWEB, "short-line-thr", &self.fineweb.short_line_thr}, {RULE_FINEWEB, "short-line-length", &self.fineweb.short_line_length},
    {RULE_FINEWEB, "char-duplicates-ratio", &self.fineweb.char_duplicates_ratio}, {RULE_FINEWEB, "new-line-ratio", &self.fineweb.new_line_ratio},
    {RULE_LLAMA3, "dup-5-gram", &self.llama3.dup_n_grams[0]}, {RULE_LLAMA3, "dup-6-gram", &self.llama3.dup_n_grams[1]},
    {RULE_LLAMA3, "dup-7-gram", &self.llama3.dup_n_grams[2]}, {RULE_LLAMA3, "dup-8-gram", &self.llama3.dup_n_grams[3]},
    {RULE_LLAMA3, "dup-9-gram", &self.llama3.dup_n_grams[4]}, {RULE_LLAMA3, "dup-10-gram", &self.llama3.dup_n_grams[5]},
    {RULE_LLAMA3, "max-dirty-words", &self.llama3.max_dirty_words}, {RULE_LLAMA3, "max-kl", &self.llama3.max_kl},
    {RULE_LLAMA3, "kl-percentile", &self.llama3.kl_percentile},
};

/* What a worker decided. */
typedef struct Verdict {
    const char *reason; /* NULL: keep */
    Rule rule;
    bool rewritten;
    size_t pii;
} Verdict;

static int run_llama3(Page *p, int thread, Verdict *v, Error *err)
{
    double kl = 0;
    v->reason = llama3(&self.llama3, p, self.dirty_list);
    if (v->reason || !self.distribution.tokenizer || self.llama3.max_kl <= 0)
        return 0;
    if (divergence_of(&self.distribution, &self.divergence[thread], p->text, &kl, err) < 0)
        return -1;
    v->reason = kl > self.llama3.max_kl ? "token_distribution" : NULL;
    return 0;
}

/* The greatest score of the labels wanted; -1: the text has nothing that the model knows. */
static double greatest_score(const FastText *model, const bool *wanted, FastTextScratch *scratch, Span text)
{
    int labels = fasttext_labels(model);
    float *scores = memory_zalloc((size_t)labels, sizeof *scores);
    int known = fasttext_predict(model, scratch, text, scores);
    double greatest = -1;
    for (int i = 0; i < labels && known == 0; i++)
        if (wanted[i])
            greatest = fmax(greatest, (double)scores[i]);
    free(scores);
    return greatest;
}

/* Of the rules that cannot fail. */
static const char *reason_of(Rule rule, Page *p, Document *d, Verdict *v, int thread)
{
    switch (rule) {
    case RULE_DOMAINS:
        return d->fields[2].type == JSON_STRING && list_has_domain(self.domain_list, d->fields[2].string) ? "domain" : NULL;
    case RULE_BAD_WORDS:
        return list_has_word(self.word_list, p->text) ? "document_removed_with_badwords" : NULL;
    case RULE_QUALITY:
        return gopher_quality(&self.quality, p);
    case RULE_REPETITION:
        return gopher_repetition(&self.repetition, p);
    case RULE_C4: {
        const char *reason = c4(&self.c4, p);
        if (!reason) { /* what follows sees the rewritten text */
            v->rewritten = true;
            Buffer kept = p->rewritten;
            p->rewritten = (Buffer){0};
            buffer_free(&d->out);
            d->out = kept;
            page_set(p, (Span){kept.data ? kept.data : "", kept.length}, self.kind);
        }
        return reason;
    }
    case RULE_FINEWEB:
        return fineweb(&self.fineweb, p);
    case RULE_LANGUAGE:
        /* As datatrove's LanguageFilter: one of the languages scores enough, be it the best or not. */
        return greatest_score(self.language_model, self.languages_wanted, &self.scratch[thread], p->text) > self.min_language_score ? NULL : "language";
    case RULE_PII: {
        Buffer masked = {0};
        v->pii = pii_mask(p->text, &masked);
        if (strcmp(self.pii, "mask") == 0 && v->pii) {
            v->rewritten = true;
            buffer_free(&d->out);
            d->out = masked;
            page_set(p, (Span){masked.data ? masked.data : "", masked.length}, self.kind);
        } else {
            buffer_free(&masked);
        }
        return strcmp(self.pii, "drop") == 0 && v->pii ? "pii" : NULL;
    }
    case RULE_MODEL:
        return greatest_score(self.fasttext, self.label_wanted, &self.scratch[thread], p->text) >= self.min_score ? NULL : "low_score";
    default:
        return NULL;
    }
}

static int filter_work(void *context, Document *d, int thread, Error *err)
{
    (void)context;
    Verdict *v = d->result;
    Page *p = &self.pages[thread];
    page_set(p, d->text, self.kind);
    for (int i = 0; i < self.count && !v->reason; i++) {
        v->rule = self.order[i];
        if (v->rule != RULE_LLAMA3)
            v->reason = reason_of(v->rule, p, d, v, thread);
        else if (run_llama3(p, thread, v, err) < 0)
            return -1;
    }
    return 0;
}

static void count_reason(const Verdict *v, size_t bytes)
{
    char *name = memory_format("%s/%s", rule_names[v->rule], v->reason);
    size_t i = 0;
    while (i < self.reason_count && strcmp(self.reasons[i], name) != 0)
        i++;
    if (i == self.reason_count) {
        self.reason_count++;
        self.reasons = memory_realloc(self.reasons, self.reason_count, sizeof *self.reasons);
        self.reason_documents = memory_realloc(self.reason_documents, self.reason_count, sizeof(uint64_t));
        self.reason_bytes = memory_realloc(self.reason_bytes, self.reason_count, sizeof(uint64_t));
        self.reasons[i] = name;
        self.reason_documents[i] = self.reason_bytes[i] = 0;
    } else {
        free(name);
    }
    self.reason_documents[i]++;
    self.reason_bytes[i] += bytes;
}

static int write_line(Writer *w, Buffer *line, Error *err)
{
    buffer_byte(line, '\n');
    return writer_write(w, line->data, line->length, err);
}

static int filter_emit(void *context, Document *d, Error *err)
{
    (void)context;
    const Verdict *v = d->result;
    JsonField absent = {0};
    Buffer line = {0}, value = {0}, text = {0};
    int status = 0;
    self.masked += v->pii;
    if (v->reason)
        count_reason(v, d->raw.length + 1);
    if (v->reason && !self.tag) {
        if (self.removed) {
            buffer_format(&value, "{\"rule\":\"%s\",\"reason\":\"%s\"}", rule_names[v->rule], v->reason);
            json_record_set(&line, d->raw, &absent, "removed", (Span){value.data, value.length});
            status = write_line(self.removed, &line, err);
        }
    } else {
        Span raw = d->raw;
        if (v->rewritten && !v->reason) {
            json_write_string(&value, (Span){d->out.data ? d->out.data : "", d->out.length});
            json_record_set(&text, d->raw, &d->fields[1], "text", (Span){value.data, value.length});
            raw = (Span){text.data, text.length};
            value.length = 0;
        }
        if (self.tag || (self.pii && strcmp(self.pii, "tag") == 0)) {
            buffer_string(&value, "{");
            if (self.tag && v->reason)
                buffer_format(&value, "\"keep\":false,\"rule\":\"%s\",\"reason\":\"%s\"", rule_names[v->rule], v->reason);
            else
                buffer_string(&value, "\"keep\":true");
            if (self.pii)
                buffer_format(&value, ",\"pii\":%zu", v->pii);
            buffer_byte(&value, '}');
            json_record_set(&line, raw, &absent, "quality", (Span){value.data, value.length});
        } else {
            buffer_append(&line, raw.data, raw.length);
        }
        status = write_line(self.out, &line, err);
        self.documents_out++;
        self.bytes_out += line.length;
    }
    buffer_free(&line);
    buffer_free(&value);
    buffer_free(&text);
    return status;
}

static int add_rule(Rule rule, Error *err)
{
    for (int i = 0; i < self.count; i++)
        if (self.order[i] == rule)
            return error_set(err, "the rule %s is named twice", rule_names[rule]);
    self.order[self.count++] = rule;
    return 0;
}

static int parse_rules(Error *err)
{
    if (self.domains.count && add_rule(RULE_DOMAINS, err) < 0)
        return -1;
    if (self.bad_words.count && add_rule(RULE_BAD_WORDS, err) < 0)
        return -1;
    if (self.languages && add_rule(RULE_LANGUAGE, err) < 0)
        return -1;
    for (const char *p = self.rules; p && *p;) {
        size_t n = strcspn(p, ",");
        int rule = RULE_QUALITY;
        while (rule <= RULE_LLAMA3 && !(strlen(rule_names[rule]) == n && memcmp(rule_names[rule], p, n) == 0))
            rule++;
        if (rule > RULE_LLAMA3)
            return error_set(err, "unknown rule '%.*s' (gopher-quality, gopher-repetition, c4, fineweb, llama3)", (int)n, p);
        if (add_rule((Rule)rule, err) < 0)
            return -1;
        p += n + (p[n] == ',');
    }
    if (self.model && add_rule(RULE_MODEL, err) < 0)
        return -1;
    if (self.pii && add_rule(RULE_PII, err) < 0)
        return -1;
    return self.count ? 0 : error_set(err, "nothing to filter by: --rules, --lang, --block-domains, --bad-words, --pii or --model");
}

static int parse_sets(Error *err)
{
    for (size_t i = 0; i < self.sets.count; i++) {
        const char *text = self.sets.values[i], *dot = strchr(text, '.'), *equals = strchr(text, '=');
        size_t k = 0, n = sizeof thresholds / sizeof *thresholds;
        for (; dot && equals && dot < equals && k < n; k++) {
            const char *rule = rule_names[thresholds[k].rule];
            if (strlen(rule) == (size_t)(dot - text) && memcmp(rule, text, strlen(rule)) == 0 && strlen(thresholds[k].name) == (size_t)(equals - dot - 1) &&
                memcmp(thresholds[k].name, dot + 1, strlen(thresholds[k].name)) == 0)
                break;
        }
        if (!dot || !equals || dot > equals || k == n)
            return error_set(err, "--set %s: no such threshold", text);
        char *end;
        double x = strtod(equals + 1, &end);
        if (end == equals + 1 || *end || !isfinite(x))
            return error_set(err, "--set %s: not a number", text);
        *thresholds[k].value = x;
    }
    return 0;
}

/* Marks the labels of that name, which may have fastText's prefix; false: the model has none. */
static bool label_want(const FastText *model, Span name, bool *wanted)
{
    static const char prefix[] = "__label__";
    size_t n = sizeof prefix - 1;
    if (name.length > n && memcmp(name.data, prefix, n) == 0)
        name = (Span){name.data + n, name.length - n};
    bool found = false;
    for (int i = 0; i < fasttext_labels(model); i++) {
        const char *label = fasttext_label(model, i);
        if (strlen(label) == name.length && memcmp(label, name.data, name.length) == 0)
            found = wanted[i] = true;
    }
    return found;
}

/* Which labels --lang names; one that the model does not have is an error. */
static int languages_read(Error *err)
{
    if (!(self.language_model = fasttext_load(self.language_path, err)))
        return -1;
    self.languages_wanted = memory_zalloc((size_t)fasttext_labels(self.language_model), sizeof *self.languages_wanted);
    for (const char *p = self.languages; *p;) {
        size_t n = strcspn(p, ",");
        if (!label_want(self.language_model, (Span){p, n}, self.languages_wanted))
            return error_set(err, "%s knows no language '%.*s'", self.language_path, (int)n, p);
        p += n + (p[n] == ',');
    }
    return 0;
}

static int model_read(Error *err)
{
    if (!(self.fasttext = fasttext_load(self.model, err)))
        return -1;
    self.label_wanted = memory_zalloc((size_t)fasttext_labels(self.fasttext), sizeof *self.label_wanted);
    if (!label_want(self.fasttext, (Span){self.label, strlen(self.label)}, self.label_wanted))
        return error_set(err, "%s knows no label '%s'", self.model, self.label);
    return 0;
}

static int distribution_open(size_t threads, Error *err)
{
    if (distribution_read(&self.distribution, self.distribution_path, self.tokenizer, err) < 0)
        return -1;
    self.divergence = memory_zalloc(threads, sizeof *self.divergence);
    if (self.llama3.max_kl <= 0 && self.llama3.kl_percentile > 0)
        self.llama3.max_kl = distribution_quantile(&self.distribution, self.llama3.kl_percentile);
    return 0;
}

static int write_stats(const DocumentReader *r, double seconds, Error *err)
{
    Buffer b = {0};
    buffer_format(&b, "{\"documents_in\":%" PRIu64 ",\"bytes_in\":%" PRIu64 ",\"documents_out\":%" PRIu64 ",\"bytes_out\":%" PRIu64 ",\"skipped\":%" PRIu64 ",\"pii\":%" PRIu64 ",\"removed\":{",
                  r->documents, r->bytes_in, self.documents_out, self.bytes_out, r->skipped, self.masked);
    for (size_t i = 0; i < self.reason_count; i++)
        buffer_format(&b, "%s\"%s\":{\"documents\":%" PRIu64 ",\"bytes\":%" PRIu64 "}", i ? "," : "", self.reasons[i], self.reason_documents[i], self.reason_bytes[i]);
    buffer_format(&b, "},\"seconds\":%.3f}\n", seconds);
    int status = file_write(self.common.stats, b.data, b.length, err);
    buffer_free(&b);
    return status;
}

static int run(OptionSet *set, Error *err)
{
    static const char *const fields[] = {"url", NULL};
    size_t threads = (size_t)self.common.threads;
    self.pages = memory_zalloc(threads, sizeof *self.pages);
    self.scratch = memory_zalloc(threads, sizeof *self.scratch);
    if (self.domains.count && !(self.domain_list = list_read(self.domains.values, self.domains.count, true, err)))
        return -1;
    if (self.bad_words.count && !(self.word_list = list_read(self.bad_words.values, self.bad_words.count, false, err)))
        return -1;
    if (self.dirty_words.count && !(self.dirty_list = list_read(self.dirty_words.values, self.dirty_words.count, false, err)))
        return -1;
    if (self.languages && languages_read(err) < 0)
        return -1;
    if (self.distribution_path && distribution_open(threads, err) < 0)
        return -1;
    if (self.model && model_read(err) < 0)
        return -1;
    if (self.removed_path && !(self.removed = writer_open(self.removed_path, err)))
        return -1;
    if (!(self.out = writer_open(self.common.output, err)))
        return -1;
    DocumentReader r = {.common = &self.common, .files = set->operands, .fields = fields, .result_size = sizeof(Verdict), .work = filter_work, .emit = filter_emit};
    double begin = clock_seconds();
    int status = document_run(&r, err);
    document_report(&r);
    if (status < 0)
        return -1;
    Writer *out = self.out, *removed = self.removed;
    self.out = self.removed = NULL;
    status = writer_close(out, err);
    if (status == 0)
        status = writer_close(removed, err);
    else
        writer_abandon(removed);
    if (status == 0 && self.common.stats)
        status = write_stats(&r, clock_seconds() - begin, err);
    message_verbose("%" PRIu64 " of %" PRIu64 " documents kept", self.documents_out, r.documents);
    return status;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "train") == 0)
        return train_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "classify") == 0)
        return classify_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "distribution") == 0)
        return distribution_main(argc - 1, argv + 1);
    OptionSet set = {.tool = "qfilter", .synopsis = "qfilter --rules LIST [OPTION]… [FILE]…\nqfilter train -o MODEL.bin [OPTION]… [FILE]…\nqfilter classify --model MODEL.bin [FILE]…\nqfilter distribution --tokenizer PATH -o FILE [FILE]…",
                     .summary = "Keep documents that pass quality rules.", .options = options};
    self.quality = gopher_quality_default;
    self.repetition = gopher_repetition_default;
    self.c4 = c4_default;
    self.fineweb = fineweb_default;
    self.llama3 = llama3_default;
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Error err;
    if (parse_rules(&err) < 0 || parse_sets(&err) < 0)
        return message_usage("%s", err.text);
    if (!self.model != !self.label)
        return message_usage("--model and --label go together");
    if (!self.languages != !self.language_path)
        return message_usage("--lang and --lang-model go together");
    if (!self.distribution_path != !self.tokenizer)
        return message_usage("--token-distribution and --tokenizer go together");
    bool asked = false;
    for (int i = 0; i < self.count; i++)
        asked |= self.order[i] == RULE_LLAMA3;
    if ((self.dirty_words.count || self.distribution_path) && !asked)
        return message_usage("--dirty-words and --token-distribution belong to --rules llama3");
    self.kind = strcmp(self.words, "space") == 0 ? WORDS_SPACE : strcmp(self.words, "uax29") == 0 ? WORDS_UAX29 : WORDS_EN;
    self.common.threads = self.common.threads > 0 ? self.common.threads : thread_default_count();
    status = run(&set, &err) < 0 ? message_failed(&err) : 0;
    writer_abandon(self.out);
    writer_abandon(self.removed);
    for (int64_t i = 0; i < self.common.threads && self.pages; i++) {
        page_free(&self.pages[i]);
        fasttext_scratch_free(&self.scratch[i]);
        if (self.divergence)
            divergence_free(&self.divergence[i]);
    }
    free(self.divergence);
    distribution_free(&self.distribution);
    fasttext_free(self.language_model);
    free(self.languages_wanted);
    free(self.label_wanted);
    list_free(self.dirty_list);
    free(self.pages);
    free(self.scratch);
    list_free(self.domain_list);
    list_free(self.word_list);
    fasttext_free(self.fasttext);
    for (size_t i = 0; i < self.reason_count; i++)
        free(self.reasons[i]);
    free(self.reasons);
    free(self.reason_documents);
    free(self.reason_bytes);
    option_free(&set);
    return status;
}
