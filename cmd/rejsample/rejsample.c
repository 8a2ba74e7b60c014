/* rejsample: draws K answers a prompt, scores them with reward models, and keeps the best as SFT documents, or the best and the worst
 * as preference documents. It also takes candidates that are there already (prompt, responses), or that somebody else has scored
 * (scores). With --annotate people rank the candidates (annotate.c). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "annotate.h"
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "curve.h"
#include "data/document.h"
#include "fields.h"
#include "io/stats.h"
#include "pool.h"
#include "train/answers.h"
#include "train/scoring.h"

/* A record on its way: its answers are drawn, then scored, then written in the order of the input. */
typedef struct Item {
    Buffer line;
    JsonTree tree; /* of the whole record */
    Pool pool;
    enum { ITEM_DRAWING, ITEM_SCORING, ITEM_DONE } state;
    struct Item *next;
} Item;

typedef struct Rejsample {
    Common common;
    AnswerOptions answer;
    const char *model, *choose, *reference, *curve_path;
    OptionList rewards;
    bool best, pairs, margins;
    double min_margin;
    Annotate annotate;
    Answerer answerer;
    Scorer *scorers; /* [rewards.count] */
    Writer *out;
    Item *first, *last;
    Curve curve;
    Dropped dropped;
    uint64_t read, drawn, written, same, reference_best;
    Progress *progress;
} Rejsample;

static Rejsample self = {.common = COMMON_DEFAULT, .answer = ANSWER_DEFAULT, .choose = "vote"};

static const Option options[] = {
    {"model", 0, OPTION_STRING, &self.model, "DIR", "model that answers (not for candidates that are there)", 0, 0, 0},
    {"reward", 0, OPTION_LIST, &self.rewards, "DIR", "reward model, again for several (not for scored candidates)", 0, 0, 0},
    {"best", 0, OPTION_FLAG, &self.best, 0, "write the best answer as a chat document", 0, 0, 0},
    {"pairs", 0, OPTION_FLAG, &self.pairs, 0, "write best and worst as a preference document", 0, 0, 0},
    {"annotate", 0, OPTION_STRING, &self.annotate.path, "FILE", "rank candidates by hand; rankings are added to FILE", 0, 0, 0},
    {"agreement", 0, OPTION_FLAG, &self.annotate.report, 0, "report how far annotators agree in such FILEs", 0, 0, 0},
    OPTION_MORE_HEADING("choice:"),
    {"choose", 0, OPTION_CHOICE, &self.choose, "vote|mean", "of several reward models: by votes or by mean score (default vote)", "vote|mean", 0, 0},
    {"min-margin", 0, OPTION_NUMBER, &self.min_margin, "X", "leave out prompts whose best and worst scores are closer (default 0)", 0, 0, 1e9},
    {"margins", 0, OPTION_FLAG, &self.margins, 0, "with --pairs: write the scores' difference as the field margin", 0, 0, 0},
    {"reference", 0, OPTION_STRING, &self.reference, "FIELD", "the record's own answer in this field joins the candidates", 0, 0, 0},
    {"curve", 0, OPTION_STRING, &self.curve_path, "FILE", "reward of the best of 1 to K: a table, or .svg, .png", 0, 0, 0},
    {"annotator", 0, OPTION_STRING, &self.annotate.annotator, "NAME", "who ranks (default: $USER)", 0, 0, 0},
    OPTION_MORE_HEADING("answers:"),
    ANSWER_OPTIONS(&self.answer, "8"),
    OPTION_COMMON_OUTPUT(&self.common),
    OPTION_MORE_HEADING("everywhere:"),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_DEVICE(&self.common),
    OPTION_COMMON_END(&self.common),
};

static void item_free(Item *i)
{
    pool_free(&i->pool);
    json_free(&i->tree);
    buffer_free(&i->line);
    free(i);
}

/* The prompt as messages, without the closing bracket; `more`: others follow. */
static void put_messages(Buffer *b, const Item *item, bool more)
{
    const JsonValue *prompt = json_get(item->tree.root, "prompt");
    if (json_is(prompt, JSON_STRING)) {
        buffer_string(b, "[{\"role\":\"user\",\"content\":");
        json_write_string(b, prompt->string);
        buffer_string(b, "}");
    } else {
        field_value(b, (Span){item->line.data, item->line.length}, item->tree.root, "prompt");
        b->length--;
        more &= prompt->count > 0;
    }
    buffer_string(b, more ? "," : "");
}

static void put_answer(Buffer *b, const char *name, const Candidate *c)
{
    buffer_format(b, "%s{\"role\":\"assistant\",\"content\":", name);
    json_write_string(b, (Span){c->text, c->length});
    buffer_string(b, "}]");
}

/* Numbers of the best and, for pairs, the worst: one, or a list of both. */
static void put_numbers(Buffer *b, const char *name, bool both, double best, double worst)
{
    buffer_format(b, ",\"%s\":%s", name, both ? "[" : "");
    json_write_number(b, best);
    if (both) {
        buffer_byte(b, ',');
        json_write_number(b, worst);
        buffer_byte(b, ']');
    }
}

static int write_choice(Rejsample *j, const Item *item, Error *err)
{
    static const char *const own[] = {"prompt", "responses", "scores", "finish_reasons", "messages", "chosen", "rejected", "score", "margin", "votes", NULL};
    const JsonValue *record = item->tree.root;
    const Pool *p = &item->pool;
    bool by_mean = strcmp(j->choose, "mean") == 0;
    int64_t votes_best = 0, votes_worst = 0;
    size_t best = p->count ? pool_best(p, false, by_mean, &votes_best) : 0, worst = p->count ? pool_best(p, true, by_mean, &votes_worst) : 0;
    double high = p->count ? candidate_mean(p, best) : 0, low = p->count ? candidate_mean(p, worst) : 0;
    if (p->count == 0 || (j->pairs && (best == worst || high <= low)) || ((j->pairs || j->min_margin > 0) && high - low < j->min_margin)) {
        j->same++;
        return 0;
    }
    Buffer line = {0}, *b = &line;
    buffer_byte(b, '{');
    fields_pass(b, (Span){item->line.data, item->line.length}, record, own);
    buffer_string(b, j->pairs ? "\"prompt\":" : "\"messages\":");
    put_messages(b, item, !j->pairs);
    if (j->pairs) {
        put_answer(b, "],\"chosen\":[", &p->items[best]);
        put_answer(b, ",\"rejected\":[", &p->items[worst]);
        if (j->margins)
            put_numbers(b, "margin", false, high - low, 0);
    } else {
        put_answer(b, "", &p->items[best]);
    }
    put_numbers(b, j->pairs ? "scores" : "score", j->pairs, high, low);
    if (p->models > 1)
        put_numbers(b, "votes", j->pairs, (double)votes_best, (double)votes_worst);
    buffer_string(b, "}\n");
    j->written++;
    j->reference_best += p->items[best].reference && p->items[best].times == 0;
    int status = writer_write(j->out, b->data, b->length, err);
    buffer_free(b);
    return status;
}

/* The drawn answers' rewards go into the curve, as often as each was drawn. */
static void count_rewards(Rejsample *j, const Pool *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++)
        n += (size_t)p->items[i].times;
    double *rewards = memory_alloc(n + 1, sizeof *rewards);
    n = 0;
    for (size_t i = 0; i < p->count; i++)
        for (int64_t k = 0; k < p->items[i].times; k++)
            rewards[n++] = candidate_mean(p, i);
    curve_add(&j->curve, rewards, n);
    free(rewards);
}

/* Writes what is done, in order. */
static int flush(Rejsample *j, Error *err)
{
    int status = 0;
    while (j->first && j->first->state == ITEM_DONE && status == 0) {
        Item *i = j->first;
        count_rewards(j, &i->pool);
        status = write_choice(j, i, err);
        j->first = i->next;
        item_free(i);
        progress_set(j->progress, j->written + j->same);
    }
    return status;
}

/* Scores whatever waits for it. Items got in line in their own order. */
static int score(Rejsample *j, Error *err)
{
    for (size_t m = 0; m < j->rewards.count; m++) {
        if (scorer_run(&j->scorers[m], err) < 0)
            return -1;
        size_t at = 0;
        for (Item *i = j->first; i; i = i->next)
            for (size_t k = 0; i->state == ITEM_SCORING && k < i->pool.count; k++)
                i->pool.items[k].scores[m] = (double)j->scorers[m].scores[at++];
        scorer_clear(&j->scorers[m]);
    }
    for (Item *i = j->first; i; i = i->next)
        i->state = i->state == ITEM_SCORING ? ITEM_DONE : i->state;
    return flush(j, err);
}

static int line_up(Rejsample *j, Item *i, Error *err)
{
    bool full = false;
    i->state = ITEM_SCORING;
    for (size_t k = 0; k < i->pool.count; k++) {
        JsonValue answer = {.type = JSON_STRING, .string = {i->pool.items[k].text, i->pool.items[k].length}};
        for (size_t m = 0; m < j->rewards.count; m++) {
            if (scorer_add(&j->scorers[m], &(ChatInput){.messages = json_get(i->tree.root, "prompt"), .answer = &answer, .tools = json_get(i->tree.root, "tools")}, err) < 0)
                return -1;
            full |= scorer_full(&j->scorers[m]);
        }
    }
    return full ? score(j, err) : 0;
}

/* An answer that was cut off or is empty teaches nothing. */
static void keep(Rejsample *j, Pool *p, Span text, const double *scores, bool cut)
{
    if (cut)
        j->dropped.cut++;
    else if (text.length == 0)
        j->dropped.empty++;
    else
        pool_add(p, text, scores, false, &j->dropped.twice);
}

/* The answers of an item are drawn. */
static int take_answers(void *context, void *tag, Answer *answers, Error *err)
{
    Rejsample *j = context;
    Item *i = tag;
    Buffer text = {0};
    int status = 0;
    for (int64_t k = 0; answers && k < j->answer.samples; k++) {
        text.length = 0;
        if (status == 0 && (status = answerer_text(&j->answerer, &answers[k], &text, err)) == 0)
            keep(j, &i->pool, (Span){text.data ? text.data : "", text.length}, NULL, !answers[k].stopped);
        free(answers[k].tokens);
    }
    buffer_free(&text);
    return answers && status == 0 ? line_up(j, i, err) : status;
}

/* Scores of one answer: a number, or a list with one for each reward model. */
static int read_scores(const JsonValue *v, double *scores, size_t models, Error *err)
{
    for (size_t m = 0; m < models; m++) {
        const JsonValue *one = json_is(v, JSON_ARRAY) ? (v->count == models ? &v->items[m] : NULL) : models == 1 ? v : NULL;
        if (!json_is(one, JSON_NUMBER) && !json_is(one, JSON_INTEGER))
            return error_set(err, "'scores' must hold numbers, or a list of as many for each response");
        scores[m] = one->number;
    }
    return 0;
}

/* Candidates that are there; those that generate says were cut off are left out, as in a draw of our own. */
static int take_responses(Rejsample *j, const JsonValue *record, Pool *p, Error *err)
{
    const JsonValue *responses = json_get(record, "responses"), *scores = json_get(record, "scores"), *reasons = json_get(record, "finish_reasons");
    if (!json_is(responses, JSON_ARRAY) || (scores && (!json_is(scores, JSON_ARRAY) || responses->count != scores->count)))
        return error_set(err, "'responses' and 'scores' must be lists of the same length");
    if (scores)
        p->models = scores->count && json_is(&scores->items[0], JSON_ARRAY) && scores->items[0].count ? scores->items[0].count : 1;
    double *own = memory_zalloc(p->models, sizeof *own);
    int status = 0;
    for (size_t i = 0; i < responses->count && status == 0; i++) {
        const JsonValue *reason = json_is(reasons, JSON_ARRAY) && i < reasons->count ? &reasons->items[i] : NULL;
        bool cut = json_is(reason, JSON_STRING) && strcmp(reason->string.data, "length") == 0;
        if (!json_is(&responses->items[i], JSON_STRING))
            status = error_set(err, "'responses' must hold strings");
        else if (!scores || (status = read_scores(&scores->items[i], own, p->models, err)) == 0)
            keep(j, p, responses->items[i].string, own, cut);
    }
    free(own);
    return status;
}

/* The record's own answer, a string or a list whose last message it is. */
static int take_reference(const Rejsample *j, const JsonValue *record, Pool *p, Error *err)
{
    const JsonValue *v = json_get(record, j->reference);
    if (json_is(v, JSON_ARRAY) && v->count)
        v = json_get(&v->items[v->count - 1], "content");
    if (!json_is(v, JSON_STRING) || v->string.length == 0)
        return error_set(err, "no answer in '%s' (--reference)", j->reference);
    pool_add(p, v->string, NULL, true, NULL);
    return 0;
}

/* Is the prompt one that the choice can be written behind, and that each reward model's template takes? */
static int check_prompt(Rejsample *j, const JsonValue *prompt, const JsonValue *tools, bool scored, Error *err)
{
    if (!prompt)
        return error_set(err, "no field 'prompt'");
    bool fine = json_is(prompt, JSON_STRING) || json_is(prompt, JSON_ARRAY);
    for (size_t i = 0; fine && prompt->type == JSON_ARRAY && i < prompt->count; i++)
        fine = json_is(&prompt->items[i], JSON_OBJECT);
    if (!fine)
        return error_set(err, "'prompt' must be a string or a list of messages");
    JsonValue none = {.type = JSON_STRING, .string = {"", 0}};
    for (size_t m = 0; m < j->rewards.count && !scored; m++)
        if (scorer_check(&j->scorers[m], &(ChatInput){.messages = prompt, .answer = &none, .tools = tools}, err) < 0)
            return -1;
    return 0;
}

static int take_prompt(Rejsample *j, const JsonValue *prompt, const JsonValue *tools, Error *err)
{
    if (!j->model)
        return error_set(err, "no 'scores' beside this prompt, and no --model and --reward to make them");
    if (answerer_prompt(&j->answerer, prompt, tools, err) < 0)
        return -1;
    int64_t length = (int64_t)j->answerer.ids.count;
    return length > j->answer.max_prompt ? error_set(err, "a prompt of %" PRId64 " tokens (--max-prompt %" PRId64 ")", length, j->answer.max_prompt) : 0;
}

static int take_record(void *context, Document *d, Error *err)
{
    Rejsample *j = context;
    Item *i = memory_zalloc(1, sizeof *i);
    buffer_append(&i->line, d->raw.data, d->raw.length);
    buffer_reserve(&i->line, READER_PADDING);
    memset(i->line.data + i->line.length, 0, READER_PADDING);
    int status = json_parse(&i->tree, "record", (Span){i->line.data, i->line.length}, err);
    const JsonValue *record = i->tree.root, *prompt = status == 0 ? json_get(record, "prompt") : NULL;
    bool scored = status == 0 && json_get(record, "scores"), there = scored || (status == 0 && !j->model && j->rewards.count && json_get(record, "responses"));
    i->pool.models = j->rewards.count ? j->rewards.count : 1;
    if (status == 0)
        status = check_prompt(j, prompt, json_get(record, "tools"), scored, err);
    if (status == 0)
        status = there ? take_responses(j, record, &i->pool, err) : take_prompt(j, prompt, json_get(record, "tools"), err);
    if (status == 0 && j->reference && !scored)
        status = take_reference(j, record, &i->pool, err);
    if (status < 0) {
        item_free(i);
        return DOCUMENT_MALFORMED;
    }
    if (j->first)
        j->last->next = i;
    else
        j->first = i;
    j->last = i;
    j->read++;
    if (scored) {
        i->state = ITEM_DONE;
        return flush(j, err);
    }
    return there ? line_up(j, i, err)
                 : generator_add(&j->answerer.generator, j->answerer.ids.data, (int64_t)j->answerer.ids.count, j->drawn++, i, err);
}

static int models_open(Rejsample *j, Device *d, Error *err)
{
    Dtype type = dtype_of_option(j->common.dtype);
    if (j->model && answerer_open(&j->answerer, j->model, &j->answer, false, (uint64_t)j->common.seed, type, d, err) < 0)
        return -1;
    j->answerer.generator.emit = take_answers;
    j->answerer.generator.context = j;
    j->scorers = memory_zalloc(j->rewards.count + 1, sizeof *j->scorers);
    for (size_t m = 0; m < j->rewards.count; m++)
        if (scorer_open(&j->scorers[m], j->rewards.values[m], NULL, j->answer.max_prompt + j->answer.max_tokens, type, d, err) < 0)
            return -1;
    return 0;
}

static int choose_all(Rejsample *j, OptionSet *set, Error *err)
{
    j->out = writer_open(j->common.output, err);
    if (!j->out)
        return -1;
    Common plain = j->common;
    plain.threads = 1;
    plain.progress = "never";
    j->progress = progress_begin(&j->common, "prompts", 0);
    DocumentReader r = {.common = &plain, .files = set->operands, .text_optional = true, .emit = take_record, .context = j};
    int status = document_run(&r, err);
    Error *late = status == 0 ? err : NULL; /* the input's is told */
    if ((status == 0 || r.input_failed) && ((j->model && generator_finish(&j->answerer.generator, late) < 0) || score(j, late) < 0))
        status = -1;
    progress_end(j->progress);
    document_report(&r);
    if (status < 0)
        writer_abandon(j->out);
    else
        status = writer_close(j->out, err);
    return status;
}

static int report(Rejsample *j, double begin, Error *err)
{
    message("%" PRIu64 " of %" PRIu64 " prompts kept, %" PRIu64 " without a choice", j->written, j->read, j->same);
    message("left out: %" PRIu64 " empty answers, %" PRIu64 " cut off, %" PRIu64 " there twice", j->dropped.empty, j->dropped.cut, j->dropped.twice);
    for (size_t m = 0; m < j->rewards.count; m++)
        if (j->scorers[m].truncated)
            message("%s: %" PRIu64 " texts were cut at %" PRId64 " tokens", j->rewards.values[m], j->scorers[m].truncated, j->scorers[m].max_length);
    if (j->reference)
        message("the reference answer was the best of %" PRIu64 " prompts", j->reference_best);
    curve_report(&j->curve);
    StatsItem items[7 + ANSWER_STATS] = {{"prompts", (double)j->read}, {"kept", (double)j->written}, {"without_choice", (double)j->same},
                                         {"dropped_empty", (double)j->dropped.empty}, {"dropped_cut", (double)j->dropped.cut},
                                         {"dropped_twice", (double)j->dropped.twice}};
    size_t count = 6;
    if (j->model) {
        answerer_stats(&j->answerer, items + count);
        items[count].key = "prompts_drawn";
        count += ANSWER_STATS;
    }
    if (j->curve_path && curve_write(&j->curve, j->curve_path, err) < 0)
        return -1;
    return stats_write(j->common.stats, items, count, begin, err);
}

static int usage(void)
{
    if (self.annotate.path || self.annotate.report) {
        if (self.best || self.pairs || self.model || self.rewards.count)
            return message_usage("--annotate and --agreement go with candidates that are there, without --best and --pairs");
        return -1;
    }
    if (self.best == self.pairs)
        return message_usage("one of --best and --pairs is needed");
    if (self.model && !self.rewards.count)
        return message_usage("--model and --reward go together");
    if (self.margins && !self.pairs)
        return message_usage("--margins goes with --pairs");
    return -1;
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "rejsample", .synopsis = "rejsample --model DIR --reward DIR --samples K {--best | --pairs}\n[OPTION]… [FILE]…",
                     .summary = "Draw K answers a prompt and keep what a reward model likes best.", .options = options};
    self.answer.samples = 8;
    int status = option_main(&set, argc, argv);
    if (status >= 0 || (status = usage()) >= 0)
        return status;
    Error err;
    if (self.annotate.path && set.operand_count == 0)
        return message_usage("--annotate needs files of candidates: standard input is for the keys");
    if (self.annotate.path || self.annotate.report) {
        self.annotate.seed = (uint64_t)self.common.seed;
        status = annotate_run(&self.annotate, set.operands, &err);
        option_free(&set);
        return status < 0 ? message_failed(&err) : 0;
    }
    double begin = clock_seconds();
    Device *d = device_open(self.common.device, (int)self.common.threads, &err);
    status = d ? models_open(&self, d, &err) : -1;
    if (status == 0)
        status = choose_all(&self, &set, &err);
    if (status == 0)
        status = report(&self, begin, &err);
    if (status < 0)
        message_failed(&err);
    if (self.model && self.answerer.tokenizer)
        answerer_close(&self.answerer);
    for (size_t m = 0; self.scorers && m < self.rewards.count; m++)
        if (self.scorers[m].coder.tokenizer)
            scorer_close(&self.scorers[m]);
    free(self.scorers);
    for (Item *i = self.first, *next; i; i = next) {
        next = i->next;
        item_free(i);
    }
    curve_free(&self.curve);
    device_close(d);
    option_free(&set);
    return status < 0 ? 1 : 0;
}
