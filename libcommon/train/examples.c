#include "train/examples.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/message.h"
#include "data/document.h"

int chat_coder_open(ChatCoder *c, const char *folder, Error *err)
{
    memset(c, 0, sizeof *c);
    c->tokenizer = tokenizer_open(folder, err);
    if (!c->tokenizer)
        return -1;
    c->renderer = chat_open(c->tokenizer, err);
    if (!c->renderer) {
        error_prefix(err, "%s", folder);
        chat_coder_close(c);
        return -1;
    }
    c->end_of_turn = chat_end_of_turn(c->renderer);
    c->encoder = encoder_new(c->tokenizer);
    return 0;
}

void chat_coder_close(ChatCoder *c)
{
    encoder_free(c->encoder);
    chat_close(c->renderer);
    tokenizer_close(c->tokenizer);
    chat_free(&c->text);
    memset(c, 0, sizeof *c);
}

/* Ordinary pieces side by side are one text to the tokenizer. A token over two of them, as of a header's last newline and an answer's
 * first, is trained in a chat (transformers' assistant masks), but belongs to the prompt of an answer alone (TRL counts the prompt's tokens). */
static int encode_run(ChatCoder *c, const ChatText *text, size_t first, size_t last, bool chat, Ids *ids, Buffer *flags, Error *err)
{
    size_t begin = text->pieces[first].begin, end = text->pieces[last].end, before = ids->count, piece = first, at = begin;
    if (encoder_encode(c->encoder, (Span){text->text.data + begin, end - begin}, NULL, ids, err) < 0)
        return -1;
    for (size_t i = before; i < ids->count; i++) {
        while (piece < last && at >= text->pieces[piece].end)
            piece++;
        at += tokenizer_bytes(c->tokenizer, ids->data[i]).length;
        bool reaches = chat && piece < last && at > text->pieces[piece].end && text->pieces[piece + 1].trained;
        buffer_byte(flags, text->pieces[piece].trained || reaches ? TOKEN_TRAINED : 0);
    }
    return 0;
}

int chat_tokens(ChatCoder *c, const ChatInput *in, Ids *ids, Buffer *flags, Error *err)
{
    const ChatText *text = &c->text;
    ids->count = 0;
    flags->length = 0;
    int status = chat_render(c->renderer, in, &c->text, err);
    for (size_t i = 0; i < text->count && status == 0;) {
        const ChatPiece *p = &text->pieces[i];
        if (p->id >= 0) {
            ids_add(ids, p->id);
            buffer_byte(flags, (char)((p->trained ? TOKEN_TRAINED : 0) | (p->ending ? TOKEN_ENDING : 0)));
            i++;
            continue;
        }
        size_t last = i;
        while (last + 1 < text->count && text->pieces[last + 1].id < 0)
            last++;
        status = encode_run(c, text, i, last, !in->answer, ids, flags, err);
        i = last + 1;
    }
    return status;
}

typedef struct Reading {
    Examples *e;
    ChatCoder *coder;
    const ExampleOptions *options;
    Ids ids;
    Buffer flags;
    uint64_t records;
    const Document *document;          /* that is being read */
    char *first_cut, *first_long, *first_split, *first_dropped, *first_equal; /* FILE:LINE */
    uint64_t equal;
} Reading;

static void remember(const Reading *r, char **place)
{
    if (!*place)
        *place = memory_format("%s:%" PRId64, r->document->file, r->document->line);
}

/* Tokens first … first+n-1 of what was rendered. */
static void example_store(Reading *r, int64_t first, int64_t n, int32_t rank, double margin)
{
    Examples *e = r->e;
    e->items = memory_grow(e->items, &e->capacity, e->count + 1, sizeof *e->items);
    Example *x = &e->items[e->count++];
    *x = (Example){.tokens = memory_alloc((size_t)n, sizeof *x->tokens), .flags = (unsigned char *)memory_copy(r->flags.data + first, (size_t)n),
                   .count = n, .source = (int64_t)r->records, .rank = rank, .margin = margin};
    memcpy(x->tokens, r->ids.data + first, (size_t)n * sizeof *x->tokens);
    x->answer = n;
    for (int64_t i = n - 1; i > 0; i--)
        if (x->flags[i] & TOKEN_TRAINED) {
            x->trained++;
            x->answer = i;
        }
}

static void example_add(Reading *r, int32_t rank, double margin)
{
    Examples *e = r->e;
    int64_t n = (int64_t)r->ids.count, most = r->options->max_length;
    if (n > most) {
        n = most;
        e->truncated++;
        remember(r, &r->first_cut);
    }
    example_store(r, 0, n, rank, margin);
}

/* A chat as pieces of max_length; one from which nothing can be learned is left out, as long as another is there. */
static void pieces_add(Reading *r)
{
    Examples *e = r->e;
    int64_t n = (int64_t)r->ids.count, most = r->options->max_length;
    size_t before = e->count;
    e->split++;
    remember(r, &r->first_split);
    for (int64_t first = 0; first < n; first += most) {
        example_store(r, first, n - first < most ? n - first : most, (int32_t)(first / most), 0);
        Example *x = &e->items[e->count - 1];
        if (x->trained > 0) {
            e->pieces++;
            continue;
        }
        free(x->tokens);
        free(x->flags);
        e->count--;
        e->silent++;
    }
    if (e->count == before)
        e->split--;
}

static void group_begin(Examples *e)
{
    e->group_first = memory_grow(e->group_first, &e->group_capacity, e->groups + 2, sizeof *e->group_first);
    e->group_first[e->groups] = e->count;
}

static void group_undo(Examples *e)
{
    while (e->count > e->group_first[e->groups]) {
        free(e->items[--e->count].tokens);
        free(e->items[e->count].flags);
    }
}

/* Keeps the record if each of its examples has something to learn from. */
static void group_end(Reading *r)
{
    Examples *e = r->e;
    size_t first = e->group_first[e->groups];
    bool fine = e->count > first;
    for (size_t i = first; i < e->count; i++)
        fine &= e->items[i].trained > 0;
    fine = fine && (r->options->kind != EXAMPLES_RANKING || e->items[first].level < e->items[e->count - 1].level);
    if (fine) {
        e->group_first[++e->groups] = e->count;
    } else {
        group_undo(e);
        e->dropped++;
        remember(r, &r->first_dropped);
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

/* An assistant's message (or its text alone) that neither says nor calls anything. Blanks are an answer: models sample them. */
static bool is_empty(const JsonValue *answer)
{
    const JsonValue *message = json_is(answer, JSON_ARRAY) && answer->count == 1 ? &answer->items[0] : answer, *calls = json_get(message, "tool_calls");
    const JsonValue *text = json_is(message, JSON_STRING) ? message : json_get(message, "content");
    return (!text || text->type == JSON_NULL || (json_is(text, JSON_STRING) && text->string.length == 0)) && !(json_is(calls, JSON_ARRAY) && calls->count);
}

static int check_chat(const JsonValue *messages, Error *err)
{
    if (!json_is(messages, JSON_ARRAY) || messages->count == 0)
        return error_set(err, "'messages' must be a list of at least one message");
    for (size_t i = 0; i < messages->count; i++) {
        const JsonValue *role = json_get(&messages->items[i], "role"), *content = json_get(&messages->items[i], "content");
        bool assistant = json_is(role, JSON_STRING) && strcmp(role->string.data, "assistant") == 0;
        if (assistant && json_is(content, JSON_STRING) && is_empty(&messages->items[i]))
            return error_set(err, "message %zu, the assistant's, is empty", i + 1);
    }
    return 0;
}

/* An answer that says nothing is at fault; two that say the same, though one is called better, are told: real data has them. */
static int check_answers(Reading *r, const JsonValue *const *answers, size_t count, const JsonValue *ranks, Error *err)
{
    bool same = false;
    for (size_t i = 0; i < count; i++) {
        if (!json_is(answers[i], JSON_STRING) && !json_is(answers[i], JSON_ARRAY) && answers[i]->type != JSON_NULL)
            return error_set(err, "answer %zu must be a string or a list with one message", i + 1);
        if (json_is(answers[i], JSON_ARRAY) && answers[i]->count > 1)
            return error_set(err, "answer %zu is a list of %zu messages: it must be one, what comes before belongs to 'prompt'", i + 1, answers[i]->count);
        if (is_empty(answers[i]))
            return error_set(err, "answer %zu is empty", i + 1);
        for (size_t k = 0; k < i && !same; k++) {
            Buffer a = {0}, b = {0};
            json_write_value(&a, answers[k], -1);
            json_write_value(&b, answers[i], -1);
            same = a.length == b.length && memcmp(a.data, b.data, a.length) == 0 && !(ranks && ranks->items[i].number == ranks->items[k].number);
            buffer_free(&a);
            buffer_free(&b);
        }
    }
    if (same) {
        r->equal++;
        remember(r, &r->first_equal);
    }
    return 0;
}

/* ranks: of answers that stand best first, equal where they are tied; NULL: none are. */
static int check_ranks(const JsonValue *ranks, size_t count, Error *err)
{
    if (!json_is(ranks, JSON_ARRAY) || ranks->count != count)
        return error_set(err, "'ranks' must hold a number for each response");
    for (size_t i = 0; i < count; i++)
        if (!json_is(&ranks->items[i], JSON_NUMBER) || (i > 0 && ranks->items[i].number < ranks->items[i - 1].number))
            return error_set(err, "'ranks' must hold numbers that do not fall: the best response stands first");
    return 0;
}

static int read_answers(Reading *r, const JsonValue *record, const JsonValue *const *answers, size_t count, const JsonValue *ranks, double margin, Error *err)
{
    const JsonValue *prompt = wanted(record, "prompt", err);
    if (prompt && json_is(prompt, JSON_ARRAY) && prompt->count == 0)
        return error_set(err, "'prompt' holds no message");
    if (!prompt || check_answers(r, answers, count, ranks, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        ChatInput in = {.messages = prompt, .answer = answers[i], .tools = json_get(record, "tools")};
        if (chat_tokens(r->coder, &in, &r->ids, &r->flags, err) < 0)
            return -1;
        if (r->options->kind == EXAMPLES_RANKING && (int64_t)r->ids.count > r->options->max_length) {
            r->e->too_long++;
            remember(r, &r->first_long);
            continue;
        }
        example_add(r, (int32_t)(r->e->count - r->e->group_first[r->e->groups]), margin);
        r->e->items[r->e->count - 1].level = ranks ? ranks->items[i].number : (double)i;
    }
    return 0;
}

static int read_record(Reading *r, const JsonValue *record, Error *err)
{
    if (r->options->kind == EXAMPLES_CHAT) {
        ChatInput in = {.messages = wanted(record, "messages", err), .tools = json_get(record, "tools")};
        if (!in.messages || check_chat(in.messages, err) < 0 || chat_tokens(r->coder, &in, &r->ids, &r->flags, err) < 0)
            return -1;
        if (r->options->split && (int64_t)r->ids.count > r->options->max_length)
            pieces_add(r);
        else
            example_add(r, 0, 0);
        return 0;
    }
    const JsonValue *responses = json_get(record, "responses");
    if (r->options->kind == EXAMPLES_RANKING && responses) {
        if (!json_is(responses, JSON_ARRAY) || responses->count < 2)
            return error_set(err, "'responses' must be a list of at least two answers");
        const JsonValue **list, *ranks = json_get(record, "ranks");
        if (ranks && check_ranks(ranks, responses->count, err) < 0)
            return -1;
        list = memory_alloc(responses->count, sizeof *list);
        for (size_t i = 0; i < responses->count; i++)
            list[i] = &responses->items[i];
        int status = read_answers(r, record, list, responses->count, ranks, 0, err);
        free(list);
        return status;
    }
    const JsonValue *pair[2] = {wanted(record, "chosen", err), wanted(record, "rejected", err)}, *margin = json_get(record, "margin");
    if (!pair[0] || !pair[1])
        return error_set(err, "no fields 'chosen' and 'rejected'");
    if (margin && margin->type != JSON_NULL && !json_is(margin, JSON_NUMBER))
        return error_set(err, "'margin' is not a number");
    if (json_is(margin, JSON_NUMBER) && !(fabs(margin->number) <= 1e6))
        return error_set(err, "'margin' must lie within -1e6 and 1e6");
    return read_answers(r, record, pair, 2, NULL, json_is(margin, JSON_NUMBER) ? margin->number : 0, err);
}

/* One thread, so in order. */
static int work(void *context, Document *d, int thread, Error *err)
{
    (void)thread;
    Reading *r = context;
    r->document = d;
    JsonField whole = {.type = JSON_OBJECT, .raw = d->raw};
    const JsonValue *record = json_field_tree(d->parser, &whole, err);
    group_begin(r->e);
    if (!record || read_record(r, record, err) < 0) {
        group_undo(r->e);
        return -1;
    }
    group_end(r);
    return 0;
}

int examples_read(Examples *e, ChatCoder *c, const ExampleOptions *o, const Common *common, const char *const *files, Error *err)
{
    memset(e, 0, sizeof *e);
    Reading reading = {.e = e, .coder = c, .options = o};
    Common plain = *common;
    plain.threads = 1;
    plain.progress = "never";
    DocumentReader r = {.common = &plain, .files = files, .text_optional = true, .work = work, .context = &reading};
    int status = document_run(&r, err);
    document_report(&r);
    ids_free(&reading.ids);
    buffer_free(&reading.flags);
    if (status == 0 && e->truncated)
        message("%" PRIu64 " examples cut at %" PRId64 " tokens (--max-length), the first: %s", e->truncated, o->max_length, reading.first_cut);
    if (status == 0 && e->too_long)
        message("%" PRIu64 " answers longer than %" PRId64 " tokens (--max-length) left out, the first: %s", e->too_long, o->max_length, reading.first_long);
    if (status == 0 && e->split)
        message("%" PRIu64 " chats longer than %" PRId64 " tokens (--max-length) split into %" PRIu64 " pieces, %" PRIu64 " more without an answer left out; the first: %s",
                e->split, o->max_length, e->pieces, e->silent, reading.first_split);
    if (status == 0 && e->dropped)
        message("%" PRIu64 " records left out: no answer within --max-length, or all of them tied; the first: %s", e->dropped, reading.first_dropped);
    if (status == 0 && reading.equal)
        message("%" PRIu64 " records have equal answers of which one is preferred, the first: %s", reading.equal, reading.first_equal);
    if (status == 0 && e->groups == 0)
        status = reading.first_dropped ? error_set(err, "%s: no records to learn from: no answer within --max-length, or all of them tied", reading.first_dropped) :
                                         error_set(err, "no records to learn from");
    free(reading.first_cut);
    free(reading.first_long);
    free(reading.first_split);
    free(reading.first_dropped);
    free(reading.first_equal);
    return status;
}

size_t examples_group(const Examples *e, size_t example)
{
    size_t low = 0, high = e->groups;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (e->group_first[middle] <= example)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int64_t examples_row(const Examples *e, size_t group)
{
    const Example *one = &e->items[e->group_first[group]];
    int64_t tokens = one->answer;
    for (size_t i = e->group_first[group]; i < e->group_first[group + 1]; i++) {
        const Example *x = &e->items[i];
        if (x->answer != one->answer || memcmp(x->tokens, one->tokens, (size_t)one->answer * sizeof *one->tokens) != 0)
            return 0;
        tokens += x->count - x->answer;
    }
    return tokens;
}

uint64_t examples_number(const Examples *e)
{
    uint64_t number = e->groups;
    for (size_t i = 0; i < e->count; i++) {
        const Example *x = &e->items[i];
        const int64_t what[] = {x->count, x->answer, x->source, x->rank};
        const double levels[] = {x->level, x->margin};
        number = XXH3_64bits_withSeed(what, sizeof what, number);
        number = XXH3_64bits_withSeed(levels, sizeof levels, number);
        number = XXH3_64bits_withSeed(x->tokens, (size_t)x->count * sizeof *x->tokens, number);
        number = XXH3_64bits_withSeed(x->flags, (size_t)x->count, number);
    }
    return number;
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
