/* Runs a task: documents to requests, log-probabilities or answers to items, items to numbers (ConfigurableTask.process_results in
 * lm_eval/api/task.py). */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "run.h"
#include "text/utf8.h"

static bool wants(const Task *t, MetricKind kind)
{
    for (size_t i = 0; i < t->metric_count; i++)
        if (t->pipelines->metrics[i].kind == kind)
            return true;
    return false;
}

const struct SplitLine *run_line(const TaskRun *r, size_t at)
{
    return &r->t->docs.lines[at];
}

/* ---- What is logged of each document ---- */

void run_log_begin(const TaskRun *r, size_t at, Buffer *b)
{
    const struct SplitLine *line = run_line(r, at);
    buffer_string(b, "{\"task\":");
    json_write_string(b, (Span){r->t->name, strlen(r->t->name)});
    buffer_string(b, ",\"file\":");
    json_write_string(b, (Span){line->file, strlen(line->file)});
    buffer_format(b, ",\"line\":%" PRId64, line->line);
}

int run_log_end(const TaskRun *r, Buffer *b, Error *err)
{
    buffer_string(b, "}\n");
    int status = writer_write(r->e->samples, b->data, b->length, err);
    buffer_free(b);
    return status;
}

static void log_numbers(const TaskRun *r, const char *name, size_t first, size_t count, Buffer *b)
{
    buffer_format(b, ",\"%s\":[", name);
    for (size_t i = 0; i < count; i++) {
        buffer_string(b, i ? "," : "");
        json_write_number(b, r->requests.items[first + i].logprob);
    }
    buffer_byte(b, ']');
}

static int log_item(const TaskRun *r, const Item *item, Error *err)
{
    if (!r->e->samples)
        return 0;
    Buffer b = {0};
    run_log_begin(r, item->at, &b);
    log_numbers(r, "loglikelihoods", item->first, item->count, &b);
    if (wants(r->t, METRIC_ACC_MUTUAL_INFO))
        log_numbers(r, "unconditional", item->first + item->count, item->count, &b);
    buffer_string(&b, ",\"greedy\":[");
    for (size_t i = 0; i < item->count; i++)
        buffer_format(&b, "%s%s", i ? "," : "", r->requests.items[item->first + i].greedy ? "true" : "false");
    buffer_byte(&b, ']');
    if (item->gold) {
        buffer_string(&b, ",\"target\":[");
        for (size_t i = 0; i < item->gold_count; i++)
            buffer_format(&b, "%s%" PRId64, i ? "," : "", item->gold[i]);
        buffer_byte(&b, ']');
    }
    return run_log_end(r, &b, err);
}

/* ---- Multiple choice, continuations and texts ---- */

/* The first of the greatest, as NumPy's argmax. */
static size_t best_of(const double *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static bool is_gold(const Item *item, size_t choice)
{
    for (size_t i = 0; i < item->gold_count; i++)
        if (item->gold[i] == (int64_t)choice)
            return true;
    return false;
}

static double brier(const Item *item, const double *lls)
{
    double most = lls[best_of(lls, item->count)], sum = 0, score = 0;
    for (size_t i = 0; i < item->count; i++)
        sum += exp(lls[i] - most);
    for (size_t i = 0; i < item->count; i++) {
        double p = exp(lls[i] - most) / sum - (item->gold[0] == (int64_t)i);
        score += p * p;
    }
    return score;
}

static void count_choices(TaskRun *r, const Item *item)
{
    size_t n = item->count;
    const Request *q = r->requests.items + item->first;
    double *lls = memory_alloc(4 * n, sizeof *lls), *by_char = lls + n, *by_byte = lls + 2 * n, *mutual = lls + 3 * n;
    bool unconditional = wants(r->t, METRIC_ACC_MUTUAL_INFO);
    for (size_t i = 0; i < n; i++) {
        lls[i] = q[i].logprob;
        by_char[i] = lls[i] / item->chars[i];
        by_byte[i] = lls[i] / item->bytes[i];
        mutual[i] = unconditional ? lls[i] - q[n + i].logprob : 0;
    }
    bool exact = false;
    for (size_t i = 0; i < item->gold_count; i++)
        exact |= q[item->gold[i]].greedy;
    size_t guess = best_of(lls, n);
    for (size_t i = 0; i < r->t->metric_count; i++) {
        Metric *m = &r->t->pipelines->metrics[i];
        double value = 0;
        switch (m->kind) {
        case METRIC_ACC:
            value = is_gold(item, guess);
            break;
        case METRIC_ACC_NORM:
            value = is_gold(item, best_of(by_char, n));
            break;
        case METRIC_ACC_BYTES:
            value = is_gold(item, best_of(by_byte, n));
            break;
        case METRIC_ACC_MUTUAL_INFO:
            value = !item->several_golds && is_gold(item, best_of(mutual, n));
            break;
        case METRIC_EXACT_MATCH:
            value = exact;
            break;
        case METRIC_BRIER:
            value = brier(item, lls);
            break;
        default:
            value = (double)guess;
        }
        metric_add(m, value, item->gold_count ? (double)item->gold[0] : 0);
    }
    free(lls);
}

static void count_texts(TaskRun *r, const Item *item)
{
    const Request *q = r->requests.items + item->first;
    double ll = 0;
    for (size_t i = 0; i < item->count; i++)
        ll += q[i].logprob;
    for (size_t i = 0; i < r->t->metric_count; i++) {
        Metric *m = &r->t->pipelines->metrics[i];
        if (r->t->kind == TASK_LIKELIHOOD)
            metric_add(m, m->kind == METRIC_ACC ? q->greedy : ll, 1);
        else
            metric_add(m, ll, m->kind == METRIC_WORD_PERPLEXITY ? *item->chars : *item->bytes);
    }
}

static void items_cut(TaskRun *r)
{
    for (size_t i = 0; i < r->item_count; i++) {
        free(r->items[i].chars);
        free(r->items[i].bytes);
        free(r->items[i].gold);
    }
    r->item_count = 0;
    requests_cut(&r->requests, 0);
}

static int count_items(TaskRun *r, Error *err)
{
    int status = requests_score(&r->requests, r->e, err);
    for (size_t i = 0; i < r->item_count && status == 0; i++) {
        if (r->t->kind == TASK_CHOICE)
            count_choices(r, &r->items[i]);
        else
            count_texts(r, &r->items[i]);
        status = log_item(r, &r->items[i], err);
    }
    items_cut(r);
    return status;
}

static int gold_add(Item *item, const JsonValue *v, const JsonValue *choices, Error *err)
{
    int64_t gold = -1;
    if (v->type == JSON_INTEGER)
        gold = v->integer;
    for (size_t i = 0; v->type == JSON_STRING && i < choices->count && gold < 0; i++)
        if (json_equal(v, &choices->items[i]))
            gold = (int64_t)i;
    if (gold < 0 || gold >= (int64_t)choices->count) {
        if (v->type == JSON_INTEGER)
            return error_set(err, "the answer %" PRId64 " is none of the %zu choices", gold, choices->count);
        return error_set(err, "the answer%s%.*s is none of the %zu choices", v->type == JSON_STRING ? " " : "", v->type == JSON_STRING ? (int)(v->string.length < 60 ? v->string.length : 60) : 0,
                         v->type == JSON_STRING ? v->string.data : "", choices->count);
    }
    item->gold = memory_realloc(item->gold, item->gold_count + 1, sizeof *item->gold);
    item->gold[item->gold_count++] = gold;
    return 0;
}

static int find_gold(TaskRun *r, Item *item, const JsonValue *target, const JsonValue *text, const JsonValue *choices, Error *err)
{
    const JsonValue *gold = r->t->multiple_input ? text : target;
    item->several_golds = r->t->multiple_target;
    if (!r->t->multiple_target)
        return gold_add(item, gold, choices, err);
    if (gold->type != JSON_ARRAY || gold->count == 0)
        return error_set(err, "'doc_to_target' gives no list of answers, as the first document's does");
    for (size_t i = 0; i < gold->count; i++)
        if (gold_add(item, &gold->items[i], choices, err) < 0)
            return -1;
    return 0;
}

static int request_pair(TaskRun *r, const Context *context, const char *delimiter, Span text, Error *err)
{
    int64_t context_count = 0;
    Buffer continuation = {0};
    buffer_string(&continuation, delimiter);
    buffer_append(&continuation, text.data, text.length);
    int status = pair_encode(r->e, context, (Span){continuation.data ? continuation.data : "", continuation.length}, &r->ids, &context_count, err);
    buffer_free(&continuation);
    if (status == 0)
        requests_add(&r->requests, r->e, r->ids.data, (int64_t)r->ids.count, context_count);
    return status;
}

static int take_choices(TaskRun *r, const Doc *d, const Context *contexts, Item *item, Error *err)
{
    Task *t = r->t;
    JsonValue choices, target, text = {0};
    Span prefix;
    if (field_choice(&t->choice, d, &r->arena, &choices, err) < 0 || field_target(t, &t->target, d, &r->arena, &target, err) < 0 || task_prefix(t, d, &r->arena, &prefix, err) < 0 ||
        (t->multiple_input && field_text(t, &t->text, d, &r->arena, &text, err) < 0) || find_gold(r, item, &target, &text, &choices, err) < 0)
        return -1;
    const char *delimiter = task_choice_delimiter(t, r->e, prefix);
    item->count = choices.count;
    item->chars = memory_alloc(choices.count, sizeof *item->chars);
    item->bytes = memory_alloc(choices.count, sizeof *item->bytes);
    Span continuation;
    if (t->multiple_input && value_string_of(&target, &r->arena, &continuation, err) < 0)
        return -1;
    requests_group(&r->requests);
    for (size_t i = 0; i < choices.count; i++) {
        Span choice = choices.items[i].string;
        item->chars[i] = (double)utf8_count(choice);
        item->bytes[i] = (double)choice.length;
        if (request_pair(r, &contexts[t->multiple_input ? i : 0], delimiter, t->multiple_input ? continuation : choice, err) < 0)
            return -1;
    }
    Context none = {0};
    for (size_t i = 0; i < choices.count && wants(t, METRIC_ACC_MUTUAL_INFO); i++)
        if (request_pair(r, &none, delimiter, choices.items[i].string, err) < 0)
            return -1;
    return 0;
}

static int take_text(TaskRun *r, const Doc *d, const Context *context, Item *item, Error *err)
{
    JsonValue target;
    Span text;
    if (field_target(r->t, &r->t->target, d, &r->arena, &target, err) < 0 || value_string_of(&target, &r->arena, &text, err) < 0)
        return -1;
    requests_group(&r->requests);
    if (r->t->kind == TASK_LIKELIHOOD) {
        item->count = 1;
        return request_pair(r, context, "", text, err);
    }
    item->chars = memory_alloc(1, sizeof *item->chars);
    item->bytes = memory_alloc(1, sizeof *item->bytes);
    *item->chars = (double)text_words(text);
    *item->bytes = (double)text.length;
    if (requests_add_rolling(&r->requests, r->e, &r->ids, text, err) < 0)
        return -1;
    item->count = r->requests.count - item->first;
    return 0;
}

/* ---- The whole ---- */

static int take_doc(TaskRun *r, size_t at, const Doc *d, Error *err)
{
    Task *t = r->t;
    Context *contexts = NULL;
    size_t count = 0, requests = r->requests.count;
    int status = t->kind == TASK_ROLLING || r->e->responses ? 0 : task_contexts(t, r->e, d, &r->arena, &contexts, &count, err);
    if (status == 0 && t->kind == TASK_GENERATE) {
        status = question_take(r, d, contexts, at, err);
    } else if (status == 0) {
        Item item = {.at = at, .first = requests};
        status = t->kind == TASK_CHOICE ? take_choices(r, d, contexts, &item, err) : take_text(r, d, contexts, &item, err);
        r->items = memory_grow(r->items, &r->item_capacity, r->item_count + 1, sizeof *r->items);
        r->items[r->item_count++] = item;
        if (status < 0) {
            requests_cut(&r->requests, requests);
            Item *last = &r->items[--r->item_count];
            free(last->chars);
            free(last->bytes);
            free(last->gold);
        }
    }
    contexts_free(contexts, count);
    return status;
}

static int run_docs(TaskRun *r, Error *err)
{
    bool skip = strcmp(r->e->common.on_error, "skip") == 0;
    size_t n = r->t->docs.count;
    if (r->e->limit && (int64_t)n > r->e->limit)
        n = (size_t)r->e->limit;
    for (size_t at = 0; at < n; at++) {
        Doc d = {0};
        arena_reset(&r->arena);
        int status = split_doc(&r->t->docs, at, &d, err);
        if (status == 0 && (status = take_doc(r, at, &d, err)) < 0)
            error_prefix(err, "%s:%" PRId64, run_line(r, at)->file, run_line(r, at)->line);
        free(d.variables);
        if (status < 0 && skip && r->skipped++ == 0)
            r->first_skip = *err;
        if (status < 0 && !skip)
            return -1;
        if (requests_full(&r->requests, r->e) && count_items(r, err) < 0)
            return -1;
    }
    if (count_items(r, err) < 0)
        return -1;
    return r->question_count ? questions_answer(r, err) : 0;
}

static int print_results(TaskRun *r, Error *err)
{
    Task *t = r->t;
    if (r->skipped + t->docs.skipped)
        message_warning("%" PRIu64 " malformed records skipped, the first: %s", r->skipped + t->docs.skipped, (t->docs.skipped ? t->docs.first_skip : r->first_skip).text);
    for (size_t i = 0; i < t->pipeline_count; i++)
        for (size_t k = 0; k < t->metric_count; k++) {
            const Metric *m = &t->pipelines[i].metrics[k];
            double value, stderror;
            if (m->count == 0)
                return error_set(err, "%s: no records", t->docs.files ? t->docs.files[0] : t->path);
            if (metric_value(m, r->e->bootstraps, &value, &stderror, err) < 0)
                return error_prefix(err, "%s", t->path);
            result_print_filtered(r->e, t->name, metric_names[m->kind], t->pipelines[i].name, value, stderror, (int64_t)m->count);
        }
    return 0;
}

int task_run(Eval *e, Task *t, Error *err)
{
    TaskRun r = {.e = e, .t = t};
    int status = e->responses && t->kind != TASK_GENERATE ? error_set(err, "%s: --responses is for output_type generate_until", t->path) : run_docs(&r, err);
    if (status == 0)
        status = print_results(&r, err);
    items_cut(&r);
    requests_free(&r.requests);
    free(r.items);
    free(r.questions);
    ids_free(&r.ids);
    arena_free(&r.arena);
    arena_free(&r.kept);
    return status;
}

int eval_choices(Eval *e, const char *path, Error *err)
{
    Task t;
    int status = task_open_choices(&t, path, e, err);
    if (status == 0)
        status = task_run(e, &t, err);
    task_close(&t);
    return status;
}
