/* Multiple choice: acc takes the choice with the highest log-probability, acc_norm divides by its characters, acc_bytes by its
 * bytes (lm-evaluation-harness, api/task.py). The continuation is a blank and the choice. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "data/document.h"
#include "lmeval.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum { ACC, ACC_NORM, ACC_BYTES, METRICS };
static const char *const metric_names[METRICS] = {"acc", "acc_norm", "acc_bytes"};

/* A record whose choices wait to be scored. */
typedef struct Item {
    size_t first, count, answer;
    double *lengths[METRICS]; /* what each choice's log-probability is divided by */
} Item;

typedef struct Counts {
    Eval *e;
    int64_t n, right[METRICS];
    Requests requests;
    Item *items;
    size_t count, capacity;
    Ids ids;
    Buffer text, flags;
} Counts;

/* Is the last character of the text blank for Python's rstrip? *n gets its bytes. */
static bool blank_ends(Span s, size_t *n)
{
    for (*n = 1; *n < s.length && ((unsigned char)s.data[s.length - *n] & 0xc0) == 0x80; ++*n)
        ;
    size_t length;
    return unicode_is_blank(utf8_decode(s.data + s.length - *n, &length));
}

/* Ids of context and continuation; *context_count tokens belong to the context. */
static int encode_pair(Counts *c, const JsonValue *context, Span choice, int64_t *context_count, Error *err)
{
    Eval *e = c->e;
    if (e->coder) {
        JsonValue answer = {.type = JSON_STRING, .string = choice};
        if (chat_tokens(e->coder, &(ChatInput){.messages = context, .generation = true}, &c->ids, &c->flags, err) < 0)
            return -1;
        *context_count = (int64_t)c->ids.count;
        return chat_tokens(e->coder, &(ChatInput){.messages = context, .answer = &answer}, &c->ids, &c->flags, err);
    }
    /* Blanks that end the context begin the continuation. */
    size_t end = context->string.length, n;
    while (end > 0 && blank_ends((Span){context->string.data, end}, &n))
        end -= n;
    c->ids.count = 0;
    if (end == 0) {
        int32_t prefix;
        if (eval_prefix(e, &prefix, err) < 0)
            return -1;
        ids_add(&c->ids, prefix);
    } else if (eval_encode(e, (Span){context->string.data, end}, &c->ids, err) < 0) {
        return -1;
    }
    *context_count = (int64_t)c->ids.count;
    c->text.length = 0;
    buffer_append(&c->text, context->string.data, context->string.length);
    buffer_byte(&c->text, ' ');
    buffer_append(&c->text, choice.data, choice.length);
    Span both = {c->text.data, c->text.length};
    if (end == 0)
        return encoder_encode(e->encoder, both, NULL, &c->ids, err);
    c->ids.count = 0;
    return eval_encode(e, both, &c->ids, err);
}

/* The records whose choices have been collected. */
static int count_items(Counts *c, Error *err)
{
    int status = requests_score(&c->requests, c->e, err);
    for (size_t i = 0; i < c->count; i++) {
        Item *item = &c->items[i];
        for (int metric = 0; metric < METRICS; metric++) {
            size_t best = 0;
            double most = -INFINITY;
            for (size_t k = 0; k < item->count; k++) {
                double score = c->requests.items[item->first + k].logprob / item->lengths[metric][k];
                if (score > most) {
                    most = score;
                    best = k;
                }
            }
            c->right[metric] += best == item->answer;
            free(item->lengths[metric]);
        }
    }
    c->count = 0;
    requests_cut(&c->requests, 0);
    return status;
}

static int take_record(void *context, Document *d, Error *err)
{
    Counts *c = context;
    if (c->e->limit && c->n >= c->e->limit)
        return 0;
    JsonField whole = {.type = JSON_OBJECT, .raw = d->raw};
    const JsonValue *record = json_field_tree(d->parser, &whole, err), *text = record ? json_get(record, "context") : NULL;
    const JsonValue *choices = record ? json_get(record, "choices") : NULL, *answer = record ? json_get(record, "answer") : NULL;
    if (!json_is(text, JSON_STRING) || !json_is(choices, JSON_ARRAY) || !answer || answer->type != JSON_INTEGER || answer->integer < 0 ||
        (size_t)answer->integer >= choices->count) {
        error_set(err, "needs 'context', 'choices' and an 'answer' among them");
        return DOCUMENT_MALFORMED;
    }
    for (size_t i = 0; i < choices->count; i++)
        if (!json_is(&choices->items[i], JSON_STRING)) {
            error_set(err, "choices must be strings");
            return DOCUMENT_MALFORMED;
        }
    c->items = memory_grow(c->items, &c->capacity, c->count + 1, sizeof *c->items);
    Item *item = &c->items[c->count++];
    *item = (Item){.first = c->requests.count, .count = choices->count, .answer = (size_t)answer->integer};
    for (int metric = 0; metric < METRICS; metric++)
        item->lengths[metric] = memory_alloc(choices->count, sizeof **item->lengths);
    for (size_t i = 0; i < choices->count; i++) {
        Span choice = choices->items[i].string;
        int64_t context_count = 0;
        if (encode_pair(c, text, choice, &context_count, err) < 0) {
            requests_cut(&c->requests, item->first);
            for (int metric = 0; metric < METRICS; metric++)
                free(item->lengths[metric]);
            c->count--;
            return DOCUMENT_MALFORMED;
        }
        requests_add(&c->requests, c->e, c->ids.data, (int64_t)c->ids.count, context_count);
        item->lengths[ACC][i] = 1;
        item->lengths[ACC_NORM][i] = (double)utf8_count(choice);
        item->lengths[ACC_BYTES][i] = (double)choice.length;
    }
    c->n++;
    return requests_full(&c->requests, c->e) ? count_items(c, err) : 0;
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
    DocumentReader r = {.common = &plain, .files = files, .text_optional = true, .emit = take_record, .context = &c};
    int status = document_run(&r, err);
    document_report(&r);
    if (status < 0)
        requests_cut(&c.requests, 0);
    if (count_items(&c, status == 0 ? err : NULL) < 0)
        status = -1;
    if (status == 0 && c.n == 0)
        status = error_set(err, "%s: no records", path);
    if (status == 0) {
        char *name = task_name(path);
        for (int metric = 0; metric < METRICS; metric++)
            print_share(e, name, metric_names[metric], c.right[metric], c.n);
        free(name);
    }
    requests_free(&c.requests);
    free(c.items);
    ids_free(&c.ids);
    buffer_free(&c.text);
    buffer_free(&c.flags);
    return status;
}
