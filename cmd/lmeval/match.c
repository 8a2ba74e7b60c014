/* Exact match of greedily generated answers: they end before an --until, white space at both ends is stripped, nothing else.
 * Records may carry `task`, by which scores are given too. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "data/document.h"
#include "lmeval.h"
#include "train/answers.h"

typedef struct Tally {
    char *name;
    int64_t n, right;
} Tally;

typedef struct Match {
    Eval *e;
    char *name; /* of the task */
    Answerer answerer;
    Tally *tallies; /* [0]: all */
    size_t tally_count;
    Writer *out;
    int64_t read;
    /* Records wait until a batch is full. */
    struct Waiting {
        int32_t *ids;
        int64_t length;
        char *target, *task;
        Buffer record;
    } *waiting;
    int64_t count, room;
    uint64_t done;
} Match;

static Span stripped(const char *s, size_t n)
{
    while (n > 0 && strchr(" \t\r\n", s[n - 1]))
        n--;
    while (n > 0 && strchr(" \t\r\n", *s)) {
        s++;
        n--;
    }
    return (Span){s, n};
}

static void tally(Match *m, const char *name, bool right)
{
    size_t i = 0;
    while (i < m->tally_count && strcmp(m->tallies[i].name, name) != 0)
        i++;
    if (i == m->tally_count) {
        m->tallies = memory_realloc(m->tallies, ++m->tally_count, sizeof *m->tallies);
        m->tallies[i] = (Tally){.name = memory_string(name)};
    }
    m->tallies[i].n++;
    m->tallies[i].right += right;
}

static int judge(Match *m, struct Waiting *w, const Answer *answer, Error *err)
{
    Buffer text = {0};
    if (answerer_text(&m->answerer, answer, &text, err) < 0)
        return -1;
    for (size_t i = 0; i < m->e->until.count && text.length; i++) {
        const char *end = memmem(text.data, text.length, m->e->until.values[i], strlen(m->e->until.values[i]));
        text.length = end ? (size_t)(end - text.data) : text.length;
    }
    Span got = stripped(text.data ? text.data : "", text.length), want = stripped(w->target, strlen(w->target));
    bool right = got.length == want.length && memcmp(got.data, want.data, got.length) == 0;
    tally(m, m->name, right);
    if (w->task)
        tally(m, w->task, right);
    int status = 0;
    if (m->out) {
        Buffer value = {0}, first = {0}, line = {0};
        JsonField absent = {0};
        json_write_string(&value, got);
        json_record_set(&first, (Span){w->record.data, w->record.length}, &absent, "response", (Span){value.data, value.length});
        json_record_set(&line, (Span){first.data, first.length}, &absent, "correct", right ? (Span){"true", 4} : (Span){"false", 5});
        buffer_byte(&line, '\n');
        status = writer_write(m->out, line.data, line.length, err);
        buffer_free(&value);
        buffer_free(&first);
        buffer_free(&line);
    }
    buffer_free(&text);
    return status;
}

static int answer_waiting(Match *m, Error *err)
{
    const int32_t **ids = memory_alloc((size_t)m->count, sizeof *ids);
    int64_t *lengths = memory_alloc((size_t)m->count, sizeof *lengths);
    Answer *answers = memory_zalloc((size_t)m->count, sizeof *answers);
    for (int64_t i = 0; i < m->count; i++) {
        ids[i] = m->waiting[i].ids;
        lengths[i] = m->waiting[i].length;
    }
    int status = generator_run(&m->answerer.generator, ids, lengths, m->count, m->done, answers, NULL, NULL, err);
    for (int64_t i = 0; i < m->count; i++) {
        if (status == 0)
            status = judge(m, &m->waiting[i], &answers[i], err);
        free(answers[i].tokens);
        free(m->waiting[i].ids);
        free(m->waiting[i].target);
        free(m->waiting[i].task);
        buffer_free(&m->waiting[i].record);
    }
    m->done += (uint64_t)m->count;
    m->count = 0;
    free(ids);
    free(lengths);
    free(answers);
    return status;
}

static int take_record(void *context, Document *d, Error *err)
{
    Match *m = context;
    if (m->e->limit && m->read >= m->e->limit)
        return 0;
    JsonField whole = {.type = JSON_OBJECT, .raw = d->raw};
    const JsonValue *record = json_field_tree(d->parser, &whole, err), *text = record ? json_get(record, "context") : NULL;
    const JsonValue *target = record ? json_get(record, "target") : NULL, *task = record ? json_get(record, "task") : NULL;
    int status = 0;
    if (!json_is(text, JSON_STRING) || !json_is(target, JSON_STRING))
        status = error_set(err, "needs 'context' and 'target'");
    else if ((status = answerer_prompt(&m->answerer, text, err)) == 0 && (int64_t)m->answerer.ids.count > m->e->sample_length)
        status = error_set(err, "a context of %zu tokens (--max-length %" PRId64 ")", m->answerer.ids.count, m->e->sample_length);
    if (status < 0)
        return DOCUMENT_MALFORMED;
    struct Waiting *w = &m->waiting[m->count++];
    *w = (struct Waiting){.ids = (int32_t *)memory_copy((char *)m->answerer.ids.data, m->answerer.ids.count * sizeof(int32_t)),
                          .length = (int64_t)m->answerer.ids.count, .target = memory_copy(target->string.data, target->string.length),
                          .task = json_is(task, JSON_STRING) ? memory_copy(task->string.data, task->string.length) : NULL};
    buffer_append(&w->record, d->raw.data, d->raw.length);
    m->read++;
    return m->count == m->room ? answer_waiting(m, err) : 0;
}

int eval_match(Eval *e, const char *path, Error *err)
{
    Match m = {.e = e, .name = task_name(path), .room = 32};
    AnswerOptions o = {.temperature = 0, .top_p = 1, .repetition_penalty = 1, .max_tokens = e->max_tokens, .samples = 1, .batch = m.room, .max_prompt = e->sample_length};
    const char *files[] = {path, NULL};
    int status = answerer_open(&m.answerer, e->folder, &o, !e->coder, 0, dtype_of_option(e->common.dtype), e->device, err);
    if (status == 0 && e->answers)
        status = (m.out = writer_open(e->answers, err)) ? 0 : -1;
    m.waiting = memory_zalloc((size_t)m.room, sizeof *m.waiting);
    Common plain = e->common;
    plain.threads = 1;
    DocumentReader r = {.common = &plain, .files = files, .text_optional = true, .emit = take_record, .context = &m};
    if (status == 0)
        status = document_run(&r, err);
    if (status == 0 && m.count > 0)
        status = answer_waiting(&m, err);
    document_report(&r);
    if (status == 0 && m.tally_count == 0)
        status = error_set(err, "%s: no records", path);
    if (status < 0)
        writer_abandon(m.out);
    else
        status = writer_close(m.out, err);
    for (size_t i = 0; i < m.tally_count; i++) {
        Tally *t = &m.tallies[i];
        double p = (double)t->right / (double)t->n;
        char *label = i ? memory_format("%s/%s", m.name, t->name) : memory_string(m.name);
        if (status == 0)
            result_print(e, label, "exact_match", p, t->n > 1 ? sqrt(p * (1 - p) / (double)(t->n - 1)) : NAN, t->n);
        free(label);
        free(t->name);
    }
    free(m.tallies);
    free(m.waiting);
    if (m.answerer.tokenizer)
        answerer_close(&m.answerer);
    free(m.name);
    return status;
}
