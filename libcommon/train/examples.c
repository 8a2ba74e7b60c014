#include "train/examples.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "data/document.h"

int chat_coder_open(ChatCoder *c, const char *folder, Error *err)
{
    memset(c, 0, sizeof *c);
    c->tokenizer = tokenizer_open(folder, err);
    if (!c->tokenizer)
        return -1;
    const char *jinja = tokenizer_chat_template(c->tokenizer);
    if (jinja)
        c->template = chat_template_recognise((Span){jinja, strlen(jinja)}, err);
    else
        error_set(err, "the tokenizer has no chat template");
    if (!c->template) {
        error_prefix(err, "%s", folder);
        chat_coder_close(c);
        return -1;
    }
    for (int i = 0; c->template->tokens[i]; i++)
        if (tokenizer_id(c->tokenizer, c->template->tokens[i]) < 0) {
            error_set(err, "%s: the chat template needs the token %s, which the vocabulary lacks", folder, c->template->tokens[i]);
            chat_coder_close(c);
            return -1;
        }
    c->end_of_turn = tokenizer_id(c->tokenizer, c->template->end_of_turn);
    c->encoder = encoder_new(c->tokenizer);
    return 0;
}

void chat_coder_close(ChatCoder *c)
{
    encoder_free(c->encoder);
    tokenizer_close(c->tokenizer);
    chat_free(&c->text);
    memset(c, 0, sizeof *c);
}

/* Ordinary pieces side by side are one text to the tokenizer; a token belongs to the piece in which it begins. */
static int encode_run(ChatCoder *c, const ChatText *text, size_t first, size_t last, Ids *ids, Buffer *flags, Error *err)
{
    size_t begin = text->pieces[first].begin, end = text->pieces[last].end, before = ids->count, piece = first, at = begin;
    if (encoder_encode(c->encoder, (Span){text->text.data + begin, end - begin}, NULL, ids, err) < 0)
        return -1;
    for (size_t i = before; i < ids->count; i++) {
        while (piece < last && at >= text->pieces[piece].end)
            piece++;
        buffer_byte(flags, text->pieces[piece].trained ? TOKEN_TRAINED : 0);
        at += tokenizer_bytes(c->tokenizer, ids->data[i]).length;
    }
    return 0;
}

void chat_encode(ChatCoder *c, const ChatText *text, Ids *ids, Buffer *flags, Error *err, int *status)
{
    for (size_t i = 0; i < text->count && *status == 0;) {
        const ChatPiece *p = &text->pieces[i];
        if (p->control) {
            char *token = memory_copy(text->text.data + p->begin, p->end - p->begin);
            int32_t id = tokenizer_id(c->tokenizer, token);
            free(token);
            if (id >= 0) { /* a tokenizer without a beginning-of-text token renders none */
                ids_add(ids, id);
                buffer_byte(flags, (char)((p->trained ? TOKEN_TRAINED : 0) | (p->ending ? TOKEN_ENDING : 0)));
            }
            i++;
            continue;
        }
        size_t last = i;
        while (last + 1 < text->count && !text->pieces[last + 1].control)
            last++;
        *status = encode_run(c, text, i, last, ids, flags, err);
        i = last + 1;
    }
}

/* An answer: a string, or a list with one assistant message. */
static int answer_text(const JsonValue *v, Span *out, Error *err)
{
    if (json_is(v, JSON_ARRAY) && v->count == 1) {
        const JsonValue *role = json_get(&v->items[0], "role");
        if (!json_is(role, JSON_STRING) || strcmp(role->string.data, "assistant") != 0)
            return error_set(err, "an answer must be one assistant message");
        v = json_get(&v->items[0], "content");
    }
    if (!json_is(v, JSON_STRING))
        return error_set(err, "an answer must be a string or one assistant message");
    *out = v->string;
    return 0;
}

int chat_tokens(ChatCoder *c, const JsonValue *messages, const JsonValue *answer, bool generation, Ids *ids, Buffer *flags, Error *err)
{
    ids->count = 0;
    flags->length = 0;
    if (chat_render(c->template, messages, tokenizer_bos_text(c->tokenizer), generation || answer, &c->text, err) < 0)
        return -1;
    if (answer) {
        Span text;
        if (answer_text(answer, &text, err) < 0)
            return -1;
        /* What the prompt holds is never trained on: earlier turns of the assistant are context here. */
        for (size_t i = 0; i < c->text.count; i++)
            c->text.pieces[i].trained = c->text.pieces[i].ending = false;
        chat_render_answer(c->template, text, &c->text);
    }
    int status = 0;
    chat_encode(c, &c->text, ids, flags, err, &status);
    return status;
}

typedef struct Reading {
    Examples *e;
    ChatCoder *coder;
    ExampleKind kind;
    int64_t max_length;
    Ids ids;
    Buffer flags;
    uint64_t records;
} Reading;

static void example_add(Reading *r, int32_t rank, double margin)
{
    Examples *e = r->e;
    int64_t n = (int64_t)r->ids.count, trained = 0;
    if (n > r->max_length) {
        n = r->max_length;
        e->truncated++;
    }
    for (int64_t i = 0; i < n; i++)
        trained += (r->flags.data[i] & TOKEN_TRAINED) != 0;
    e->items = memory_grow(e->items, &e->capacity, e->count + 1, sizeof *e->items);
    Example *x = &e->items[e->count++];
    *x = (Example){.tokens = memory_alloc((size_t)n, sizeof *x->tokens), .flags = (unsigned char *)memory_copy(r->flags.data, (size_t)n),
                   .count = n, .trained = trained, .source = (int64_t)r->records, .rank = rank, .margin = margin};
    memcpy(x->tokens, r->ids.data, (size_t)n * sizeof *x->tokens);
}

static void group_begin(Examples *e)
{
    e->group_first = memory_grow(e->group_first, &e->group_capacity, e->groups + 2, sizeof *e->group_first);
    e->group_first[e->groups] = e->count;
}

/* Keeps the record if each of its examples has something to learn from. */
static void group_end(Reading *r)
{
    Examples *e = r->e;
    size_t first = e->group_first[e->groups];
    bool fine = e->count > first;
    for (size_t i = first; i < e->count; i++)
        fine &= e->items[i].trained > 0 || r->kind == EXAMPLES_RANKING;
    if (fine) {
        e->group_first[++e->groups] = e->count;
    } else {
        while (e->count > first) {
            free(e->items[--e->count].tokens);
            free(e->items[e->count].flags);
        }
        e->dropped++;
    }
    r->records++;
}

static const JsonValue *wanted(const JsonValue *record, const char *key, Error *err)
{
    const JsonValue *v = json_get(record, key);
    if (!v)
        error_set(err, "no field '%s'", key);
    return v;
}

static int read_answers(Reading *r, const JsonValue *record, const JsonValue *const *answers, size_t count, double margin, Error *err)
{
    const JsonValue *prompt = wanted(record, "prompt", err);
    if (!prompt)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (chat_tokens(r->coder, prompt, answers[i], false, &r->ids, &r->flags, err) < 0)
            return -1;
        example_add(r, (int32_t)i, margin);
    }
    return 0;
}

static int read_record(Reading *r, const JsonValue *record, Error *err)
{
    if (r->kind == EXAMPLES_CHAT) {
        const JsonValue *messages = wanted(record, "messages", err);
        if (!messages || chat_tokens(r->coder, messages, NULL, false, &r->ids, &r->flags, err) < 0)
            return -1;
        example_add(r, 0, 0);
        return 0;
    }
    const JsonValue *responses = json_get(record, "responses");
    if (r->kind == EXAMPLES_RANKING && responses) {
        if (!json_is(responses, JSON_ARRAY) || responses->count < 2)
            return error_set(err, "'responses' must be a list of at least two answers");
        const JsonValue **list = memory_alloc(responses->count, sizeof *list);
        for (size_t i = 0; i < responses->count; i++)
            list[i] = &responses->items[i];
        int status = read_answers(r, record, list, responses->count, 0, err);
        free(list);
        return status;
    }
    const JsonValue *pair[2] = {wanted(record, "chosen", err), wanted(record, "rejected", err)}, *margin = json_get(record, "margin");
    if (!pair[0] || !pair[1])
        return error_set(err, "no fields 'chosen' and 'rejected'");
    return read_answers(r, record, pair, 2, json_is(margin, JSON_NUMBER) ? margin->number : 0, err);
}

static int emit(void *context, Document *d, Error *err)
{
    Reading *r = context;
    JsonField whole = {.type = JSON_OBJECT, .raw = d->raw};
    const JsonValue *record = json_field_tree(d->parser, &whole, err);
    group_begin(r->e);
    int status = record ? read_record(r, record, err) : -1;
    if (status < 0)
        return error_prefix(err, "%s:%" PRId64, d->file, d->line);
    group_end(r);
    return 0;
}

int examples_read(Examples *e, ChatCoder *c, ExampleKind kind, const Common *common, const char *const *files, int64_t max_length, Error *err)
{
    memset(e, 0, sizeof *e);
    Reading reading = {.e = e, .coder = c, .kind = kind, .max_length = max_length};
    Common plain = *common;
    plain.threads = 1;
    plain.progress = "never";
    DocumentReader r = {.common = &plain, .files = files, .text_optional = true, .emit = emit, .context = &reading};
    int status = document_run(&r, err);
    document_report(&r);
    ids_free(&reading.ids);
    buffer_free(&reading.flags);
    if (status == 0 && e->groups == 0)
        status = error_set(err, "no records to learn from");
    if (status == 0 && (e->truncated || e->dropped))
        message("%" PRIu64 " examples cut at %" PRId64 " tokens, %" PRIu64 " records left out because nothing of an answer remained", e->truncated,
                max_length, e->dropped);
    return status;
}

void examples_free(Examples *e)
{
    for (size_t i = 0; i < e->count; i++) {
        free(e->items[i].tokens);
        free(e->items[i].flags);
    }
    free(e->items);
    free(e->group_first);
    memset(e, 0, sizeof *e);
}
