/* --given: no answers are written; those that the records have get their log-probabilities. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "data/document.h"
#include "generate.h"
#include "model/head.h"

/* The answers of a record as tokens: those of answer k are offsets[k] … offsets[k+1]. */
typedef struct Given {
    Generate *g;
    Ids tokens, ids;
    Buffer flags, chat_flags; /* of each token: does it count? */
    int64_t *offsets;
    double *sums;
    int64_t *counts;
    size_t count, capacity;
} Given;

/* A prompt and an answer behind it; the token that ends the answer's turn counts too. With --raw the texts stand as they are. */
static int add_answer(Given *v, const JsonValue *prompt, const JsonValue *tools, const JsonValue *answer, Error *err)
{
    Answerer *a = &v->g->answerer;
    v->ids.count = v->chat_flags.length = 0;
    if (!json_is(answer, JSON_STRING))
        return error_set(err, "an answer must be a string");
    if (!a->raw) {
        ChatInput in = {.messages = prompt, .answer = answer, .tools = tools};
        if (chat_tokens(&a->coder, &in, &v->ids, &v->chat_flags, err) < 0)
            return -1;
    } else {
        if (answerer_prompt(a, prompt, tools, err) < 0)
            return -1;
        for (size_t i = 0; i < a->ids.count; i++)
            ids_add(&v->ids, a->ids.data[i]);
        size_t begin = v->ids.count;
        if (encoder_encode(a->encoder, answer->string, NULL, &v->ids, err) < 0)
            return -1;
        for (size_t i = 0; i < v->ids.count; i++)
            buffer_byte(&v->chat_flags, i >= begin ? TOKEN_TRAINED : 0);
    }
    int64_t room = a->generator.slot.rows;
    if ((int64_t)v->ids.count > room)
        return error_set(err, "prompt and answer have %zu tokens (--max-prompt %" PRId64 ")", v->ids.count, room);
    v->offsets = memory_grow(v->offsets, &v->capacity, v->count + 2, sizeof *v->offsets);
    v->offsets[v->count++] = (int64_t)v->tokens.count;
    for (size_t i = 0; i < v->ids.count; i++)
        ids_add(&v->tokens, v->ids.data[i]);
    buffer_append(&v->flags, v->chat_flags.data, v->chat_flags.length);
    v->offsets[v->count] = (int64_t)v->tokens.count;
    return 0;
}

/* Answers first … first+n-1 in one pass. */
static int pass(Given *v, size_t first, size_t n, Error *err)
{
    Generator *g = &v->g->answerer.generator;
    int64_t at = v->offsets[first], rows = v->offsets[first + n] - at;
    int32_t *labels = memory_alloc((size_t)rows, sizeof *labels);
    float *logprob = memory_alloc((size_t)rows, sizeof *logprob);
    Batch b;
    batch_new(&b, 1, rows);
    for (size_t k = first; k < first + n; k++) {
        int64_t begin = v->offsets[k], end = v->offsets[k + 1];
        for (int64_t i = begin; i < end; i++)
            labels[i - at] = i + 1 < end && (v->flags.data[i + 1] & TOKEN_TRAINED) ? v->tokens.data[i + 1] : -1;
        batch_place(&b, begin - at, v->tokens.data + begin, labels + begin - at, NULL, end - begin, -1, 0, (int64_t)k);
    }
    int status = slot_load(&g->slot, &b, err);
    if (status == 0) {
        model_forward(g->model, &g->slot);
        head_logprobs(g->model, &g->slot, labels, logprob, NULL, NULL);
    }
    for (size_t k = first; k < first + n && status == 0; k++) {
        v->sums[k] = 0;
        v->counts[k] = 0;
        for (int64_t i = v->offsets[k] - at; i < v->offsets[k + 1] - at; i++)
            if (labels[i] >= 0) {
                v->sums[k] += (double)logprob[i];
                v->counts[k]++;
            }
    }
    batch_free(&b);
    free(labels);
    free(logprob);
    return status;
}

static int write_given(Given *v, Span record, bool list, Error *err)
{
    Buffer sums = {0}, counts = {0}, first = {0}, line = {0};
    JsonField absent = {0};
    buffer_string(&sums, list ? "[" : "");
    buffer_string(&counts, list ? "[" : "");
    for (size_t k = 0; k < v->count; k++) {
        buffer_string(&sums, k ? "," : "");
        json_write_number(&sums, v->sums[k]);
        buffer_format(&counts, "%s%" PRId64, k ? "," : "", v->counts[k]);
    }
    buffer_string(&sums, list ? "]" : "");
    buffer_string(&counts, list ? "]" : "");
    json_record_set(&first, record, &absent, list ? "logprobs" : "logprob", (Span){sums.data, sums.length});
    json_record_set(&line, (Span){first.data, first.length}, &absent, "answer_tokens", (Span){counts.data, counts.length});
    buffer_byte(&line, '\n');
    int status = writer_write(v->g->out, line.data, line.length, err);
    buffer_free(&sums);
    buffer_free(&counts);
    buffer_free(&first);
    buffer_free(&line);
    return status;
}

static int take_given(void *context, Document *d, Error *err)
{
    Given *v = context;
    JsonField whole = {.type = JSON_OBJECT, .raw = d->raw};
    const JsonValue *record = json_field_tree(d->parser, &whole, err), *prompt = record ? json_get(record, "prompt") : NULL;
    const JsonValue *list = record ? json_get(record, "responses") : NULL, *one = record ? json_get(record, "response") : NULL;
    int status = record ? 0 : -1;
    v->count = v->tokens.count = v->flags.length = 0;
    if (status == 0 && (!prompt || (list ? !json_is(list, JSON_ARRAY) : !one)))
        status = error_set(err, "needs 'prompt' and 'response' or 'responses'");
    for (size_t k = 0; status == 0 && k < (list ? list->count : 1); k++)
        status = add_answer(v, prompt, json_get(record, "tools"), list ? &list->items[k] : one, err);
    if (status < 0)
        return DOCUMENT_MALFORMED;
    v->sums = memory_realloc(v->sums, v->count + 1, sizeof *v->sums);
    v->counts = memory_realloc(v->counts, v->count + 1, sizeof *v->counts);
    for (size_t first = 0, n; first < v->count; first += n) {
        for (n = 1; first + n < v->count && v->offsets[first + n + 1] - v->offsets[first] <= v->g->answerer.generator.slot.rows; n++)
            ;
        if (pass(v, first, n, err) < 0)
            return -1;
    }
    progress_set(v->g->progress, ++v->g->done);
    return write_given(v, d->raw, list != NULL, err);
}

int generate_given(Generate *g, const char *const *files, Error *err)
{
    Given v = {.g = g};
    DocumentReader r = {.files = files, .text_optional = true, .emit = take_given, .context = &v};
    int status = generate_documents(g, &r, "records", err);
    ids_free(&v.tokens);
    ids_free(&v.ids);
    buffer_free(&v.flags);
    buffer_free(&v.chat_flags);
    free(v.offsets);
    free(v.sums);
    free(v.counts);
    return status;
}
