/* Multiple choice: acc takes the choice with the highest log-probability, acc_norm divides by its characters
 * (lm-evaluation-harness, api/task.py). The continuation is a blank and the choice. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "data/document.h"
#include "lmeval.h"
#include "text/utf8.h"

typedef struct Counts {
    Eval *e;
    int64_t n, right, right_norm;
    Ids ids;
    Buffer text;
    Buffer flags;
} Counts;

/* Ids of context and continuation; *context_count tokens belong to the context. */
static int encode_pair(Counts *c, const JsonValue *context, Span choice, int64_t *context_count, Error *err)
{
    Eval *e = c->e;
    if (e->coder) {
        JsonValue answer = {.type = JSON_STRING, .string = choice};
        if (chat_tokens(e->coder, context, NULL, true, &c->ids, &c->flags, err) < 0)
            return -1;
        *context_count = (int64_t)c->ids.count;
        return chat_tokens(e->coder, context, &answer, false, &c->ids, &c->flags, err);
    }
    /* Blanks that end the context begin the continuation. */
    size_t end = context->string.length;
    while (end > 0 && strchr(" \t\n\r", context->string.data[end - 1]))
        end--;
    c->ids.count = 0;
    if (end == 0) {
        int32_t prefix = tokenizer_bos(e->tokenizer) >= 0 ? tokenizer_bos(e->tokenizer) : tokenizer_eos(e->tokenizer);
        if (prefix < 0)
            return error_set(err, "an empty context, and the tokenizer names no token that begins a text");
        ids_add(&c->ids, prefix);
    } else if (encoder_encode(e->encoder, (Span){context->string.data, end}, NULL, &c->ids, err) < 0) {
        return -1;
    }
    *context_count = (int64_t)c->ids.count;
    c->text.length = 0;
    buffer_append(&c->text, context->string.data, context->string.length);
    buffer_byte(&c->text, ' ');
    buffer_append(&c->text, choice.data, choice.length);
    if (end > 0)
        c->ids.count = 0;
    return encoder_encode(e->encoder, (Span){c->text.data, c->text.length}, NULL, &c->ids, err);
}

static int score_record(void *context, Document *d, Error *err)
{
    Counts *c = context;
    if (c->e->limit && c->n >= c->e->limit)
        return 0;
    JsonField whole = {.type = JSON_OBJECT, .raw = d->raw};
    const JsonValue *record = json_field_tree(d->parser, &whole, err), *text = record ? json_get(record, "context") : NULL;
    const JsonValue *choices = record ? json_get(record, "choices") : NULL, *answer = record ? json_get(record, "answer") : NULL;
    if (!json_is(text, JSON_STRING) || !json_is(choices, JSON_ARRAY) || !answer || answer->type != JSON_INTEGER || answer->integer < 0 ||
        (size_t)answer->integer >= choices->count)
        return error_set(err, "%s:%" PRId64 ": needs 'context', 'choices' and an 'answer' among them", d->file, d->line);
    size_t best = 0, best_norm = 0;
    double most = -INFINITY, most_norm = -INFINITY;
    for (size_t i = 0; i < choices->count; i++) {
        if (!json_is(&choices->items[i], JSON_STRING))
            return error_set(err, "%s:%" PRId64 ": choices must be strings", d->file, d->line);
        Span choice = choices->items[i].string;
        int64_t context_count = 0;
        double logprob;
        bool greedy;
        if (encode_pair(c, text, choice, &context_count, err) < 0 ||
            eval_continuation(c->e, c->ids.data, (int64_t)c->ids.count, context_count, &logprob, &greedy, err) < 0)
            return -1;
        double norm = logprob / (double)(utf8_count(choice) ? utf8_count(choice) : 1);
        if (logprob > most) {
            most = logprob;
            best = i;
        }
        if (norm > most_norm) {
            most_norm = norm;
            best_norm = i;
        }
    }
    c->n++;
    c->right += best == (size_t)answer->integer;
    c->right_norm += best_norm == (size_t)answer->integer;
    return 0;
}

static void print_share(Eval *e, const char *task, const char *metric, int64_t right, int64_t n)
{
    double p = (double)right / (double)n;
    result_print(e, task, metric, p, n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : NAN, n);
}

int eval_choices(Eval *e, const char *path, Error *err)
{
    Counts c = {.e = e};
    const char *files[] = {path, NULL};
    Common plain = e->common;
    plain.threads = 1;
    DocumentReader r = {.common = &plain, .files = files, .text_optional = true, .emit = score_record, .context = &c};
    int status = document_run(&r, err);
    document_report(&r);
    if (status == 0 && c.n == 0)
        status = error_set(err, "%s: no records", path);
    if (status == 0) {
        char *name = task_name(path);
        print_share(e, name, "acc", c.right, c.n);
        print_share(e, name, "acc_norm", c.right_norm, c.n);
        free(name);
    }
    ids_free(&c.ids);
    buffer_free(&c.text);
    buffer_free(&c.flags);
    return status;
}
