/* From a document to what the model reads: description, few-shot examples, question, as plain text or as a chat
 * (ConfigurableTask.fewshot_context in lm_eval/api/task.py, ContextSampler in api/samplers.py, _encode_pair in api/model.py). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "task.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT };

typedef struct Message {
    int role;
    Span content;
    const char *delimiter; /* behind it in plain text */
} Message;

typedef struct Messages {
    Message *items;
    size_t count, capacity;
} Messages;

static void message_add(Messages *m, int role, Span content, const char *delimiter)
{
    m->items = memory_grow(m->items, &m->capacity, m->count + 1, sizeof *m->items);
    m->items[m->count++] = (Message){role, content, delimiter};
}

/* Bytes of the blank that ends the text; 0: none. */
static size_t blank_at_end(Span s)
{
    size_t n = 1, length;
    if (s.length == 0)
        return 0;
    while (n < s.length && ((unsigned char)s.data[s.length - n] & 0xc0) == 0x80)
        n++;
    return unicode_is_blank(utf8_decode(s.data + s.length - n, &length)) ? n : 0;
}

static bool blank_at_begin(Span s)
{
    size_t n;
    return s.length > 0 && unicode_is_blank(utf8_decode(s.data, &n));
}

static bool needs_delimiter(Span before, Span after)
{
    return before.length > 0 && after.length > 0 && !blank_at_end(before) && !blank_at_begin(after);
}

static Span joined(Arena *arena, Span a, const char *between, Span b)
{
    size_t n = strlen(between);
    char *text = arena_alloc(arena, a.length + n + b.length + 1, 1);
    memcpy(text, a.length ? a.data : "", a.length);
    memcpy(text + a.length, between, n);
    memcpy(text + a.length + n, b.length ? b.data : "", b.length);
    text[a.length + n + b.length] = 0;
    return (Span){text, a.length + n + b.length};
}

/* maybe_delimit: the delimiter stands only where neither side has a blank there. */
static Span delimited(Arena *arena, Span a, Span b, const char *delimiter)
{
    return a.length == 0 ? b : b.length == 0 ? a : joined(arena, a, needs_delimiter(a, b) ? delimiter : "", b);
}

static Span span_of(const char *text)
{
    return (Span){text, text ? strlen(text) : 0};
}

static int plain_field(const Task *t, const Field *f, const Doc *d, Arena *arena, Span *out, Error *err)
{
    *out = (Span){"", 0};
    JsonValue v;
    if (!f->value)
        return 0;
    Task unchosen = *t;
    unchosen.choice.value = NULL;
    if (field_text(&unchosen, f, d, arena, &v, err) < 0)
        return -1;
    return value_string_of(&v, arena, out, err);
}

int task_prefix(const Task *t, const Doc *d, Arena *arena, Span *out, Error *err)
{
    return plain_field(t, &t->prefix, d, arena, out, err);
}

/* A question, and its answer where there is one. */
static void turn_add(Messages *m, Arena *arena, Span question, Span answer, Span prefix, const char *target_delimiter, const char *few_delimiter)
{
    bool asks = answer.length > 0 ? prefix.length == 0 || needs_delimiter(question, prefix) : prefix.length > 0 && needs_delimiter(question, prefix);
    message_add(m, ROLE_USER, question, asks ? target_delimiter : "");
    if (answer.length > 0)
        message_add(m, ROLE_ASSISTANT, delimited(arena, prefix, answer, " "), few_delimiter);
    else if (prefix.length > 0)
        message_add(m, ROLE_ASSISTANT, prefix, "");
}

/* The document stands in the pool more than once, and too few are left: draw among the others. */
static int draw_others(Task *t, const Doc *evaluated, uint64_t *places, uint64_t *out, size_t *found, Error *err)
{
    size_t wanted = (size_t)t->num_fewshot, others = 0;
    for (size_t i = 0; i < t->pool.count; i++) {
        Doc d;
        if (split_doc(&t->pool, i, &d, err) < 0)
            return -1;
        if (!json_equal(d.root, evaluated->root))
            places[others++] = i;
        free(d.variables);
    }
    if (others < wanted)
        return 0;
    mersenne_sample(&t->random, others, wanted, out);
    for (size_t i = 0; i < wanted; i++)
        out[i] = places[out[i]];
    *found = wanted;
    return 0;
}

/* Which documents of the pool are shown. */
static int draw(Task *t, const Doc *evaluated, uint64_t *out, Error *err)
{
    size_t wanted = (size_t)t->num_fewshot, n = t->pool.count, found = 0;
    const char *a = t->fewshot, *b = t->test;
    bool excluded = (!a && !b) || (a && b && strcmp(a, b) == 0);
    size_t drawn = t->shots.first_n ? n : wanted + excluded;
    if (drawn > n || wanted > n)
        return error_set(err, "%zu few-shot examples of %zu", drawn, n);
    uint64_t *places = memory_alloc(n + drawn + 1, sizeof *places);
    if (t->shots.first_n)
        for (size_t i = 0; i < n; i++)
            places[i] = i;
    else
        mersenne_sample(&t->random, n, drawn, places);
    int status = 0;
    for (size_t i = 0; i < drawn && found < wanted && status == 0; i++) {
        Doc d = {0};
        status = excluded ? split_doc(&t->pool, (size_t)places[i], &d, err) : 0;
        if (status == 0 && !(excluded && json_equal(d.root, evaluated->root)))
            out[found++] = places[i];
        free(d.variables);
    }
    if (status == 0 && found < wanted && !t->shots.first_n)
        status = draw_others(t, evaluated, places, out, &found, err);
    free(places);
    return status < 0 ? -1 : found == wanted ? 0 : error_set(err, "%zu few-shot examples of %zu", wanted, n);
}

/* A few-shot example's answer as text. */
static int shot_answer(const JsonValue *answer, const JsonValue *choices, Span *out, Error *err)
{
    const JsonValue *a = answer;
    if (a->type == JSON_INTEGER && choices) {
        if (a->integer < -(int64_t)choices->count || a->integer >= (int64_t)choices->count)
            return error_set(err, "a few-shot example's answer %" PRId64 " is none of its %zu choices", a->integer, choices->count);
        a = &choices->items[a->integer < 0 ? a->integer + (int64_t)choices->count : a->integer];
    } else if (a->type == JSON_ARRAY && a->count) {
        a = &a->items[0];
    }
    if (a->type != JSON_STRING)
        return error_set(err, "a few-shot example's answer is no text");
    *out = a->string;
    return 0;
}

static int shot_add(Task *t, size_t at, Messages *m, Arena *arena, Error *err)
{
    const Shots *s = &t->shots;
    Doc d;
    JsonValue question, choices = {0}, answer;
    Span prefix, text;
    int status = split_doc(&t->pool, at, &d, err);
    if (status == 0)
        status = field_text(t, &s->text, &d, arena, &question, err) < 0 || (s->choice.value && field_choice(&s->choice, &d, arena, &choices, err) < 0) ||
                 field_target(t, &s->target, &d, arena, &answer, err) < 0 || plain_field(t, &s->prefix, &d, arena, &prefix, err) < 0 ? -1 : 0;
    const JsonValue *list = s->choice.value ? &choices : NULL;
    if (status == 0 && t->multiple_input) {
        if (!list || question.type != JSON_INTEGER || question.integer < 0 || question.integer >= (int64_t)list->count)
            status = error_set(err, "a few-shot example's question is none of its choices");
        else
            question = list->items[question.integer];
        list = NULL;
    }
    if (status == 0 && question.type != JSON_STRING)
        status = error_set(err, "a few-shot example's question is no text");
    if (status == 0)
        status = shot_answer(&answer, list, &text, err);
    if (status == 0) {
        /* The pool's next document takes this one's place. */
        question.string.data = arena_copy(arena, question.string.data, question.string.length);
        text.data = arena_copy(arena, text.data, text.length);
        prefix.data = arena_copy(arena, prefix.data, prefix.length);
        turn_add(m, arena, question.string, text, prefix, s->target_delimiter, s->delimiter);
    } else if (t->pool.count) {
        error_prefix(err, "%s:%" PRId64, t->pool.lines[at].file, t->pool.lines[at].line);
    }
    free(d.variables);
    return status;
}

static void plain_write(const Message *m, size_t count, bool last_delimiter, Buffer *out)
{
    for (size_t i = 0; i < count; i++) {
        buffer_append(out, m[i].content.data, m[i].content.length);
        buffer_string(out, i + 1 < count || last_delimiter ? m[i].delimiter : "");
    }
}

static Span last_content(const JsonValue *messages, size_t count)
{
    return json_get(&messages[count - 1], "content")->string;
}

/* Where transformers' continue_final_message cuts the text. */
static size_t final_end(const Buffer *text, Span content)
{
    size_t n;
    while (content.length && (n = blank_at_end(content)))
        content.length -= n;
    while (content.length && blank_at_begin(content)) {
        utf8_decode(content.data, &n);
        content.data += n;
        content.length -= n;
    }
    for (size_t at = text->length >= content.length ? text->length - content.length + 1 : 0; at-- > 0;)
        if (memcmp(text->data + at, content.data, content.length) == 0)
            return at + content.length;
    return text->length;
}

static int chat_write(Eval *e, const Messages *m, bool continued, Context *out, Error *err)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    static const Span names[2] = {{"role", 4}, {"content", 7}};
    JsonValue *list = memory_zalloc(m->count + 1, sizeof *list), *members = memory_zalloc(2 * m->count + 2, sizeof *members);
    Buffer single = {0};
    size_t n = 0, first = m->count && m->items[0].role == ROLE_SYSTEM;
    for (size_t i = 0; i < m->count; i++) {
        Span content = m->items[i].content;
        int role = m->items[i].role;
        if (e->one_turn && i >= first && i + (continued ? 1 : 0) < m->count) { /* all of them are one user's turn */
            size_t count = m->count - first - (continued ? 1 : 0);
            plain_write(m->items + first, count, false, &single);
            content = (Span){single.data, single.length};
            role = ROLE_USER;
            i = first + count - 1;
        }
        members[2 * n] = (JsonValue){.type = JSON_STRING, .string = span_of(roles[role])};
        members[2 * n + 1] = (JsonValue){.type = JSON_STRING, .string = {content.length ? content.data : "", content.length}};
        list[n] = (JsonValue){.type = JSON_OBJECT, .count = 2, .items = &members[2 * n], .keys = (Span *)(uintptr_t)names};
        n++;
    }
    ChatText *text = &e->coder->text;
    JsonValue messages = {.type = JSON_ARRAY, .count = n, .items = list};
    int status = chat_render(e->coder->renderer, &(ChatInput){.messages = &messages, .generation = !continued}, text, err);
    if (status < 0 && first) { /* a template without a system's turn */
        messages = (JsonValue){.type = JSON_ARRAY, .count = n - 1, .items = list + 1};
        status = chat_render(e->coder->renderer, &(ChatInput){.messages = &messages, .generation = !continued}, text, err);
    }
    if (status == 0) {
        size_t end = continued ? final_end(&text->text, last_content(messages.items, messages.count)) : text->text.length;
        buffer_append(&out->text, text->text.data, end);
        for (size_t i = 0; i < text->count; i++)
            if (text->pieces[i].id >= 0 && text->pieces[i].end <= end) {
                out->pieces = memory_grow(out->pieces, &out->capacity, out->count + 1, sizeof *out->pieces);
                out->pieces[out->count++] = text->pieces[i];
            }
    }
    buffer_free(&single);
    free(list);
    free(members);
    return status;
}

static int context_write(Eval *e, const Messages *m, bool continued, Context *out, Error *err)
{
    if (e->coder)
        return chat_write(e, m, continued, out, err);
    plain_write(m->items, m->count, true, &out->text);
    return 0;
}

static int contexts_make(Task *t, Eval *e, const Doc *d, Messages *m, Arena *arena, Context **out, size_t *count, Error *err)
{
    JsonValue question, choices = {0};
    Span description, prefix;
    if (plain_field(t, &t->description, d, arena, &description, err) < 0 || task_prefix(t, d, arena, &prefix, err) < 0)
        return -1;
    Span system = delimited(arena, span_of(e->system), description, t->delimiter);
    if (system.length)
        message_add(m, ROLE_SYSTEM, system, "");
    if (t->num_fewshot > 0) {
        uint64_t *places = memory_alloc((size_t)t->num_fewshot, sizeof *places);
        int status = draw(t, d, places, err);
        for (int64_t i = 0; i < t->num_fewshot && status == 0; i++)
            status = shot_add(t, (size_t)places[i], m, arena, err);
        free(places);
        if (status < 0)
            return -1;
    }
    if (field_text(t, &t->text, d, arena, &question, err) < 0)
        return -1;
    if (!t->multiple_input && question.type != JSON_STRING)
        return error_set(err, "'doc_to_text' gives no text");
    if (t->multiple_input && field_choice(&t->choice, d, arena, &choices, err) < 0)
        return -1;
    size_t n = t->multiple_input ? choices.count : 1, before = m->count;
    *out = memory_zalloc(n, sizeof **out);
    *count = n;
    for (size_t i = 0; i < n; i++) {
        m->count = before;
        turn_add(m, arena, t->multiple_input ? choices.items[i].string : question.string, (Span){0}, prefix, t->multiple_input ? "" : t->target_delimiter, "");
        if (context_write(e, m, prefix.length > 0, &(*out)[i], err) < 0)
            return -1;
    }
    return 0;
}

int task_contexts(Task *t, Eval *e, const Doc *d, Arena *arena, Context **out, size_t *count, Error *err)
{
    Messages m = {0};
    *out = NULL;
    *count = 0;
    int status = contexts_make(t, e, d, &m, arena, out, count, err);
    free(m.items);
    if (status < 0) {
        contexts_free(*out, *count);
        *out = NULL;
    }
    return status;
}

void contexts_free(Context *c, size_t count)
{
    for (size_t i = 0; c && i < count; i++) {
        buffer_free(&c[i].text);
        free(c[i].pieces);
    }
    free(c);
}

const char *task_choice_delimiter(const Task *t, const Eval *e, Span prefix)
{
    return e->coder && !(prefix.length && !blank_at_end(prefix)) ? "" : t->target_delimiter;
}

/* The context's first `end` bytes with `tail` behind them: control tokens by id, all else as ordinary text, whatever it says. */
static int stretch_encode(Eval *e, const Context *c, size_t end, Span tail, bool begin, Ids *ids, Error *err)
{
    bool own = c->count && c->pieces[0].begin == 0 && c->pieces[0].id == tokenizer_bos(e->tokenizer);
    if (begin && !own && tokenizer_begins(e->tokenizer) >= 0)
        ids_add(ids, tokenizer_begins(e->tokenizer));
    size_t at = 0;
    int status = 0;
    for (size_t i = 0; i < c->count && c->pieces[i].end <= end && status == 0; i++) {
        const ChatPiece *p = &c->pieces[i];
        status = encoder_encode(e->encoder, (Span){c->text.data + at, p->begin - at}, NULL, ids, err);
        ids_add(ids, p->id);
        at = p->end;
    }
    if (status < 0)
        return -1;
    Buffer last = {0};
    buffer_append(&last, c->text.data + at, end - at);
    buffer_append(&last, tail.data, tail.length);
    status = encoder_encode(e->encoder, (Span){last.data ? last.data : "", last.length}, NULL, ids, err);
    buffer_free(&last);
    return status;
}

int context_encode(Eval *e, const Context *c, Ids *ids, Error *err)
{
    return stretch_encode(e, c, c->text.length, (Span){0}, true, ids, err);
}

int pair_encode(Eval *e, const Context *c, Span continuation, Ids *ids, int64_t *context_count, Error *err)
{
    /* Blanks that end the context begin the continuation. */
    size_t end = c->text.length, least = c->count ? c->pieces[c->count - 1].end : 0, n;
    while (end > least && (n = blank_at_end((Span){c->text.data, end})))
        end -= n;
    ids->count = 0;
    bool empty = end == 0;
    int32_t prefix = -1;
    if (empty && eval_prefix(e, &prefix, err) < 0)
        return -1;
    if (empty)
        ids_add(ids, prefix);
    else if (stretch_encode(e, c, end, (Span){0}, true, ids, err) < 0)
        return -1;
    *context_count = (int64_t)ids->count;
    ids->count = empty;
    if (stretch_encode(e, c, c->text.length, continuation, !empty, ids, err) < 0)
        return -1;
    if ((int64_t)ids->count <= *context_count)
        return error_set(err, "an empty continuation");
    return (int64_t)ids->count - *context_count <= e->max_length ? 0 : error_set(err, "a continuation of %" PRId64 " tokens (--max-length %" PRId64 ")", (int64_t)ids->count - *context_count, e->max_length);
}
