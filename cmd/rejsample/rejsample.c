/* rejsample: draws K answers a prompt, scores them with a reward model, and keeps the best as SFT documents, or the best and
 * the worst as preference documents. It also takes candidates that somebody else has scored (prompt, responses, scores). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "data/document.h"
#include "io/stats.h"
#include "train/answers.h"
#include "train/scoring.h"

/* Candidate answers of one prompt: different ones, finished ones. */
typedef struct Candidates {
    char **texts;
    size_t *lengths;
    float *scores;
    size_t count;
} Candidates;

/* A record whose answers are still to be drawn, or that follows such a one. */
typedef struct Waiting {
    JsonTree tree;     /* of the whole record */
    int32_t *ids;      /* of the prompt; NULL: scored already */
    int64_t length;
    Candidates candidates;
} Waiting;

typedef struct Rejsample {
    Common common;
    AnswerOptions answer;
    const char *model, *reward;
    bool best, pairs;
    double min_margin;
    Answerer answerer;
    Scorer scorer;
    Writer *out;
    Waiting *waiting; /* [room] prompts are drawn together */
    int64_t count, room;
    uint64_t read, drawn, written, same;
    Progress *progress;
} Rejsample;

static Rejsample self = {.common = COMMON_DEFAULT, .answer = ANSWER_DEFAULT};

static const Option options[] = {
    {"model", 0, OPTION_STRING, &self.model, "DIR", "model that answers (not needed for scored candidates)", 0, 0, 0},
    {"reward", 0, OPTION_STRING, &self.reward, "DIR", "reward model (not needed for scored candidates)", 0, 0, 0},
    {"best", 0, OPTION_FLAG, &self.best, 0, "write the best answer as a chat document", 0, 0, 0},
    {"pairs", 0, OPTION_FLAG, &self.pairs, 0, "write best and worst as a preference document", 0, 0, 0},
    {"min-margin", 0, OPTION_NUMBER, &self.min_margin, "X", "leave out prompts whose best and worst scores are closer (default 0)", 0, 0, 1e9},
    ANSWER_OPTIONS(&self.answer, "8"),
    OPTION_COMMON_OUTPUT(&self.common),
    OPTION_MORE_HEADING("everywhere:"),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_DEVICE(&self.common),
    OPTION_COMMON_END(&self.common),
};

static void candidates_add(Candidates *c, Span text, float score)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->lengths[i] == text.length && memcmp(c->texts[i], text.data, text.length) == 0)
            return;
    c->texts = memory_realloc(c->texts, c->count + 1, sizeof *c->texts);
    c->lengths = memory_realloc(c->lengths, c->count + 1, sizeof *c->lengths);
    c->scores = memory_realloc(c->scores, c->count + 1, sizeof *c->scores);
    c->texts[c->count] = memory_copy(text.data, text.length);
    c->lengths[c->count] = text.length;
    c->scores[c->count++] = score;
}

static void candidates_free(Candidates *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->texts[i]);
    free(c->texts);
    free(c->lengths);
    free(c->scores);
}

/* Answers to every prompt that waits, in one batch. */
static int draw(Rejsample *j, Error *err)
{
    int64_t k = j->answer.samples, n = 0;
    const int32_t **ids = memory_alloc((size_t)j->count, sizeof *ids);
    int64_t *lengths = memory_alloc((size_t)j->count, sizeof *lengths);
    Candidates **owners = memory_alloc((size_t)j->count, sizeof *owners);
    for (int64_t i = 0; i < j->count; i++)
        if (j->waiting[i].ids) {
            ids[n] = j->waiting[i].ids;
            lengths[n] = j->waiting[i].length;
            owners[n++] = &j->waiting[i].candidates;
        }
    Answer *answers = memory_zalloc((size_t)(n * k), sizeof *answers);
    int status = generator_run(&j->answerer.generator, ids, lengths, n, j->drawn, answers, NULL, NULL, err);
    Buffer text = {0};
    for (int64_t i = 0; i < n * k; i++) {
        text.length = 0;
        /* An answer that was cut off or is empty teaches nothing. */
        if (status == 0 && answers[i].stopped && answers[i].count > 0 && (status = answerer_text(&j->answerer, &answers[i], &text, err)) == 0 && text.length > 0)
            candidates_add(owners[i / k], (Span){text.data, text.length}, 0);
        free(answers[i].tokens);
    }
    j->drawn += (uint64_t)n;
    buffer_free(&text);
    free(answers);
    free(owners);
    free(lengths);
    free(ids);
    return status;
}

/* And their scores. */
static int score(Rejsample *j, Error *err)
{
    int status = 0;
    for (int64_t i = 0; i < j->count && status == 0; i++) {
        Candidates *c = &j->waiting[i].candidates;
        for (size_t k = 0; k < c->count && j->waiting[i].ids && status == 0; k++) {
            JsonValue answer = {.type = JSON_STRING, .string = {c->texts[k], c->lengths[k]}};
            status = scorer_add(&j->scorer, &(ChatInput){.messages = json_get(j->waiting[i].tree.root, "prompt"), .answer = &answer}, err);
        }
    }
    if (status == 0)
        status = scorer_run(&j->scorer, err);
    size_t at = 0;
    for (int64_t i = 0; i < j->count && status == 0; i++)
        for (size_t k = 0; k < j->waiting[i].candidates.count && j->waiting[i].ids; k++)
            j->waiting[i].candidates.scores[k] = j->scorer.scores[at++];
    scorer_clear(&j->scorer);
    return status;
}

/* Somebody else's candidates; those that generate says were cut off are left out, as in a draw of our own. */
static int take_scored(const JsonValue *record, Candidates *c, Error *err)
{
    const JsonValue *responses = json_get(record, "responses"), *scores = json_get(record, "scores"), *reasons = json_get(record, "finish_reasons");
    if (!json_is(responses, JSON_ARRAY) || !json_is(scores, JSON_ARRAY) || responses->count != scores->count)
        return error_set(err, "'responses' and 'scores' must be lists of the same length");
    for (size_t i = 0; i < scores->count; i++) {
        if (!json_is(&responses->items[i], JSON_STRING) || !json_is(&scores->items[i], JSON_NUMBER))
            return error_set(err, "'responses' must hold strings and 'scores' numbers");
        const JsonValue *reason = json_is(reasons, JSON_ARRAY) && i < reasons->count ? &reasons->items[i] : NULL;
        bool cut = json_is(reason, JSON_STRING) && strcmp(reason->string.data, "length") == 0;
        if (responses->items[i].string.length > 0 && !cut)
            candidates_add(c, responses->items[i].string, (float)scores->items[i].number);
    }
    return 0;
}

static void put_messages(Buffer *b, const JsonValue *prompt)
{
    if (json_is(prompt, JSON_STRING)) {
        buffer_string(b, "[{\"role\":\"user\",\"content\":");
        json_write_string(b, prompt->string);
        buffer_string(b, "}");
    } else {
        json_write_value(b, prompt, -1);
        b->length--; /* the closing bracket */
    }
}

static int write_choice(Rejsample *j, const JsonValue *record, const Candidates *c, Error *err)
{
    const JsonValue *prompt = json_get(record, "prompt"), *id = json_get(record, "id");
    size_t best = 0, worst = 0;
    for (size_t i = 1; i < c->count; i++) {
        best = c->scores[i] > c->scores[best] ? i : best;
        worst = c->scores[i] < c->scores[worst] ? i : worst;
    }
    bool apart = c->count > 0 && (double)c->scores[best] - (double)c->scores[worst] >= self.min_margin;
    if (c->count == 0 || (j->pairs && (best == worst || !apart)) || (j->best && self.min_margin > 0 && !apart)) {
        j->same++;
        return 0;
    }
    Buffer line = {0}, *b = &line;
    buffer_byte(b, '{');
    if (json_is(id, JSON_STRING) || json_is(id, JSON_INTEGER)) {
        buffer_string(b, "\"id\":");
        json_write_value(b, id, -1);
        buffer_byte(b, ',');
    }
    if (j->pairs) {
        buffer_string(b, "\"prompt\":");
        put_messages(b, prompt);
        buffer_string(b, "],\"chosen\":[{\"role\":\"assistant\",\"content\":");
        json_write_string(b, (Span){c->texts[best], c->lengths[best]});
        buffer_string(b, "}],\"rejected\":[{\"role\":\"assistant\",\"content\":");
        json_write_string(b, (Span){c->texts[worst], c->lengths[worst]});
        buffer_string(b, "}],\"scores\":[");
        json_write_number(b, (double)c->scores[best]);
        buffer_byte(b, ',');
        json_write_number(b, (double)c->scores[worst]);
        buffer_string(b, "]}\n");
    } else {
        buffer_string(b, "\"messages\":");
        put_messages(b, prompt);
        buffer_string(b, ",{\"role\":\"assistant\",\"content\":");
        json_write_string(b, (Span){c->texts[best], c->lengths[best]});
        buffer_string(b, "}],\"score\":");
        json_write_number(b, (double)c->scores[best]);
        buffer_string(b, "}\n");
    }
    j->written++;
    int status = writer_write(j->out, b->data, b->length, err);
    buffer_free(b);
    return status;
}

/* Draws for what waits, scores it and writes it. */
static int finish_waiting(Rejsample *j, Error *err)
{
    bool own = err && j->model && j->count > 0; /* without err only the memory goes */
    int status = own ? draw(j, err) : 0;
    if (status == 0 && own)
        status = score(j, err);
    for (int64_t i = 0; i < j->count; i++) {
        Waiting *w = &j->waiting[i];
        if (status == 0 && err)
            status = write_choice(j, w->tree.root, &w->candidates, err);
        candidates_free(&w->candidates);
        json_free(&w->tree);
        free(w->ids);
    }
    j->count = 0;
    progress_set(j->progress, j->read);
    return status;
}

static int take_prompt(Rejsample *j, const JsonValue *prompt, Waiting *w, Error *err)
{
    if (!j->model)
        return error_set(err, "no 'scores' beside this prompt, and no --model and --reward to make them");
    if (answerer_prompt(&j->answerer, prompt, err) < 0)
        return -1;
    w->length = (int64_t)j->answerer.ids.count;
    if (w->length > j->answer.max_prompt)
        return error_set(err, "a prompt of %" PRId64 " tokens (--max-prompt %" PRId64 ")", w->length, j->answer.max_prompt);
    w->ids = (int32_t *)memory_copy((char *)j->answerer.ids.data, (size_t)w->length * sizeof *w->ids);
    return 0;
}

static int take_record(void *context, Document *d, Error *err)
{
    Rejsample *j = context;
    Waiting w = {0};
    Buffer line = {0};
    buffer_append(&line, d->raw.data, d->raw.length);
    buffer_reserve(&line, READER_PADDING);
    memset(line.data + line.length, 0, READER_PADDING);
    int status = json_parse(&w.tree, "record", (Span){line.data, line.length}, err);
    buffer_free(&line);
    const JsonValue *prompt = status == 0 ? json_get(w.tree.root, "prompt") : NULL;
    if (status == 0 && !prompt)
        status = error_set(err, "no field 'prompt'");
    if (status == 0)
        status = json_get(w.tree.root, "scores") ? take_scored(w.tree.root, &w.candidates, err) : take_prompt(j, prompt, &w, err);
    if (status < 0) {
        candidates_free(&w.candidates);
        json_free(&w.tree);
        return DOCUMENT_MALFORMED;
    }
    j->waiting[j->count++] = w;
    j->read++;
    return j->count == j->room ? finish_waiting(j, err) : 0;
}

int main(int argc, char **argv)
{
    thread_spin_briefly(argv);
    OptionSet set = {.tool = "rejsample", .synopsis = "rejsample --model DIR --reward DIR --samples K {--best | --pairs}\n[OPTION]… [FILE]…",
                     .summary = "Draw K answers a prompt and keep what a reward model likes best.", .options = options};
    self.answer.samples = 8;
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    if (self.best == self.pairs)
        return message_usage("one of --best and --pairs is needed");
    if (!self.model != !self.reward)
        return message_usage("--model and --reward go together");
    Error err;
    double begin = clock_seconds();
    Device *d = device_open(self.common.device, (int)self.common.threads, &err);
    status = d ? 0 : -1;
    if (status == 0 && self.model) {
        Dtype type = dtype_of_option(self.common.dtype);
        status = answerer_open(&self.answerer, self.model, &self.answer, false, (uint64_t)self.common.seed, type, d, &err);
        if (status == 0)
            status = scorer_open(&self.scorer, self.reward, self.answer.max_prompt + self.answer.max_tokens, type, d, &err);
    }
    self.out = status == 0 ? writer_open(self.common.output, &err) : NULL;
    if (self.out) {
        Common plain = self.common;
        plain.threads = 1;
        plain.progress = "never";
        self.progress = progress_begin(&self.common, "prompts", 0);
        DocumentReader r = {.common = &plain, .files = set.operands, .text_optional = true, .emit = take_record, .context = &self};
        self.room = self.answer.batch / self.answer.samples < 1 ? 1 : self.answer.batch / self.answer.samples;
        self.waiting = memory_alloc((size_t)self.room, sizeof *self.waiting);
        status = document_run(&r, &err);
        if (finish_waiting(&self, status == 0 ? &err : NULL) < 0)
            status = -1;
        free(self.waiting);
        progress_end(self.progress);
        document_report(&r);
        if (status < 0)
            writer_abandon(self.out);
        else
            status = writer_close(self.out, &err);
        if (status == 0)
            message("%" PRIu64 " of %" PRIu64 " prompts kept, %" PRIu64 " without a choice", self.written, self.read, self.same);
        const StatsItem items[] = {{"prompts", (double)self.read}, {"kept", (double)self.written}, {"without_choice", (double)self.same}};
        if (status == 0)
            status = stats_write(self.common.stats, items, 3, begin, &err);
    } else {
        status = -1;
    }
    if (status < 0)
        message_failed(&err);
    if (self.model && self.answerer.tokenizer)
        answerer_close(&self.answerer);
    if (self.model && self.scorer.coder.tokenizer)
        scorer_close(&self.scorer);
    device_close(d);
    option_free(&set);
    return status < 0 ? 1 : 0;
}
