/* Documents that ask for an answer: it is written greedily, passes the filters and is counted. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "run.h"
#include "text/utf8.h"
#include "train/answers.h"

enum { ANSWERS_AT_ONCE = 32 };

static int take_wanted(TaskRun *r, const Doc *d, Question *q, Error *err)
{
    Task *t = r->t;
    JsonValue target, choices;
    if (field_target(t, &t->target, d, &r->arena, &target, err) < 0)
        return -1;
    if (t->choice.value) {
        if (field_choice(&t->choice, d, &r->arena, &choices, err) < 0)
            return -1;
        if (target.type != JSON_INTEGER || target.integer < 0 || target.integer >= (int64_t)choices.count)
            return error_set(err, "the answer is none of the %zu choices", choices.count);
        target = choices.items[target.integer];
    }
    bool several = t->multiple_target && target.type == JSON_ARRAY;
    if (several && target.count == 0)
        return error_set(err, "no answer (an empty list)");
    q->wanted_count = several ? target.count : 1;
    q->wanted = arena_alloc(&r->kept, q->wanted_count, sizeof *q->wanted);
    for (size_t i = 0; i < q->wanted_count; i++) {
        Span text;
        if (value_string_of(several ? &target.items[i] : &target, &r->arena, &text, err) < 0)
            return -1;
        q->wanted[i] = (Span){arena_copy(&r->kept, text.data, text.length), text.length};
    }
    return 0;
}

static void take_column(TaskRun *r, const Doc *d, Question *q)
{
    const JsonValue *v = NULL;
    for (size_t i = 0; i < r->t->pipeline_count; i++)
        for (size_t k = 0; k < r->t->pipelines[i].count; k++)
            if (r->t->pipelines[i].filters[k].kind == FILTER_CHOICE)
                v = json_get(d->root, "choices");
    if (!json_is(v, JSON_ARRAY))
        return;
    q->choices = arena_alloc(&r->kept, v->count + 1, sizeof *q->choices);
    for (size_t i = 0; i < v->count && v->items[i].type == JSON_STRING; i++)
        q->choices[q->choice_count++] = (Span){arena_copy(&r->kept, v->items[i].string.data, v->items[i].string.length), v->items[i].string.length};
    q->choice_count = q->choice_count == v->count ? v->count : 0;
}

static void question_add(TaskRun *r, Question q)
{
    r->questions = memory_grow(r->questions, &r->question_capacity, r->question_count + 1, sizeof *r->questions);
    r->questions[r->question_count++] = q;
}

int question_take(TaskRun *r, const Doc *d, const Context *context, size_t at, Error *err)
{
    Question q = {.at = at};
    if (r->e->responses) {
        if (take_wanted(r, d, &q, err) < 0)
            return -1;
        take_column(r, d, &q);
        question_add(r, q);
        return 0;
    }
    r->ids.count = 0;
    int64_t room = r->e->max_length - r->t->max_tokens;
    if (room < 1)
        return error_set(err, "an answer of %" PRId64 " tokens leaves no room for a prompt (--max-length %" PRId64 ")", r->t->max_tokens, r->e->max_length);
    if (take_wanted(r, d, &q, err) < 0 || context_encode(r->e, context, &r->ids, err) < 0)
        return -1;
    take_column(r, d, &q);
    int32_t prefix;
    if (r->ids.count == 0 && eval_prefix(r->e, &prefix, err) < 0)
        return -1;
    if (r->ids.count == 0)
        ids_add(&r->ids, prefix);
    int64_t n = (int64_t)r->ids.count, drop = n > room ? n - room : 0; /* from the left */
    q.length = n - drop;
    q.ids = (int32_t *)(void *)arena_copy(&r->kept, (const char *)(r->ids.data + drop), (size_t)q.length * sizeof *q.ids);
    question_add(r, q);
    return 0;
}

static int judge(TaskRun *r, const Question *q, Span answer, Error *err)
{
    Task *t = r->t;
    Buffer b = {0};
    if (r->e->samples) {
        run_log_begin(r, q->at, &b);
        buffer_string(&b, ",\"response\":");
        json_write_string(&b, answer);
        buffer_string(&b, ",\"target\":");
        json_write_string(&b, q->wanted[0]);
    }
    int status = 0;
    for (size_t i = 0; i < t->pipeline_count && status == 0; i++) {
        Pipeline *p = &t->pipelines[i];
        Span filtered;
        status = filters_apply(p, answer, q->choices, q->choice_count, &r->arena, &filtered, err);
        for (size_t k = 0; k < t->metric_count && status == 0; k++) {
            Metric *m = &p->metrics[k];
            status = metric_add_answer(m, filtered, q->wanted, q->wanted_count, err);
            if (r->e->samples && status == 0 && k == 0) {
                buffer_string(&b, ",");
                json_write_string(&b, (Span){p->name, strlen(p->name)});
                buffer_string(&b, ":{\"answer\":");
                json_write_string(&b, filtered);
                if (m->kind == METRIC_EXACT_MATCH)
                    buffer_format(&b, ",\"exact_match\":%d", m->items[m->count - 1] == 1);
                buffer_byte(&b, '}');
            }
        }
    }
    if (status < 0) {
        buffer_free(&b);
        return error_prefix(err, "%s:%" PRId64, run_line(r, q->at)->file, run_line(r, q->at)->line);
    }
    return r->e->samples ? run_log_end(r, &b, err) : 0;
}

static void cut_at(Buffer *text, const char *stop, size_t length)
{
    const char *found = length && text->length ? memmem(text->data, text->length, stop, length) : NULL;
    text->length = found ? (size_t)(found - text->data) : text->length;
}

static int answer_text(TaskRun *r, const Answer *a, Buffer *text, Error *err)
{
    text->length = 0;
    if (answer_decode(r->e->tokenizer, a, text, err) < 0)
        return -1;
    utf8_repair(text);
    for (size_t i = 0; i < r->t->until_count; i++)
        cut_at(text, r->t->until[i], strlen(r->t->until[i]));
    if (tokenizer_eos(r->e->tokenizer) >= 0) {
        Span eos = tokenizer_bytes(r->e->tokenizer, tokenizer_eos(r->e->tokenizer));
        cut_at(text, eos.data, eos.length);
    }
    return 0;
}

/* Answers of --responses, one a document in their order; records that name another task are not this one's. */
static int judge_given(TaskRun *r, Error *err)
{
    Split given = {0};
    int status = split_read(&given, r->e->responses, err);
    size_t next = 0, documents = 0;
    for (size_t at = 0; at < given.count && next < r->question_count && status == 0; at++) {
        Doc d = {0};
        arena_reset(&r->arena);
        if ((status = split_doc(&given, at, &d, err)) < 0)
            break;
        const JsonValue *task = json_get(d.root, "task"), *response = json_get(d.root, "response");
        if (json_is(task, JSON_STRING) && strcmp(task->string.data, r->t->name) != 0) {
            free(d.variables);
            continue;
        }
        if (!json_is(response, JSON_STRING))
            status = error_set(err, "%s:%" PRId64 ": needs 'response', a text", given.lines[at].file, given.lines[at].line);
        else if (documents++ == r->questions[next].at) /* one that was left out has an answer too */
            status = judge(r, &r->questions[next++], response->string, err);
        free(d.variables);
    }
    if (status == 0 && next < r->question_count)
        status = error_set(err, "%s: %zu answers for %s, whose last document is number %zu", r->e->responses, documents, r->t->name, r->questions[r->question_count - 1].at + 1);
    split_free(&given);
    return status;
}

int questions_answer(TaskRun *r, Error *err)
{
    Eval *e = r->e;
    if (e->responses)
        return judge_given(r, err);
    GenerateOptions o = {.sample = {.temperature = 0, .top_p = 1, .repetition_penalty = 1}, .max_tokens = r->t->max_tokens, .samples = 1, .batch = ANSWERS_AT_ONCE};
    if (tokenizer_eos(e->tokenizer) >= 0)
        o.stops[o.stop_count++] = tokenizer_eos(e->tokenizer);
    Answerer stops = {.tokenizer = e->tokenizer, .stops = {.values = r->t->until, .count = r->t->until_count}};
    for (size_t i = 0; i < r->t->until_count; i++)
        stops.longest_stop = strlen(r->t->until[i]) > stops.longest_stop ? strlen(r->t->until[i]) : stops.longest_stop;
    if (stops.longest_stop) {
        o.ends = answerer_ended;
        o.ends_context = &stops;
    }
    for (int i = 0; i < e->model.config.eos_count && o.stop_count < GENERATE_MAX_STOPS; i++)
        o.stops[o.stop_count++] = e->model.config.eos_token_id[i];
    int64_t longest = 1;
    for (size_t i = 0; i < r->question_count; i++)
        longest = r->questions[i].length > longest ? r->questions[i].length : longest;
    Generator g;
    if (generator_open(&g, &e->model, &o, longest, err) < 0)
        return -1;
    Buffer text = {0};
    int status = 0;
    for (size_t first = 0; first < r->question_count && status == 0; first += ANSWERS_AT_ONCE) {
        const int32_t *ids[ANSWERS_AT_ONCE];
        int64_t lengths[ANSWERS_AT_ONCE], n = 0;
        Answer answers[ANSWERS_AT_ONCE] = {0};
        for (; n < ANSWERS_AT_ONCE && first + (size_t)n < r->question_count; n++) {
            ids[n] = r->questions[first + (size_t)n].ids;
            lengths[n] = r->questions[first + (size_t)n].length;
        }
        status = generator_run(&g, ids, lengths, n, first, answers, NULL, NULL, err);
        for (int64_t i = 0; i < n; i++) {
            arena_reset(&r->arena);
            if (status == 0)
                status = answer_text(r, &answers[i], &text, err);
            if (status == 0)
                status = judge(r, &r->questions[first + (size_t)i], (Span){text.data ? text.data : "", text.length}, err);
            free(answers[i].tokens);
        }
    }
    buffer_free(&text);
    buffer_free(&stops.tail);
    generator_close(&g);
    return status;
}
