#include "text/chat.h"

#include <stdlib.h>
#include <string.h>
#include "text/jinja.h"
#include "text/tokenizer_internal.h"

static const char *const llama3_tokens[] = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", NULL};
static const char *const chatml_tokens[] = {"<|im_start|>", "<|im_end|>", NULL};

static const ChatTemplate templates[] = {
    {"llama3",
     "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
     "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
     llama3_tokens, "<|eot_id|>"},
    {"chatml",
     "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
     chatml_tokens, "<|im_end|>"},
};
enum { TEMPLATES = sizeof templates / sizeof *templates };

const ChatTemplate *chat_template_named(const char *name)
{
    for (int i = 0; i < TEMPLATES; i++)
        if (strcmp(templates[i].name, name) == 0)
            return &templates[i];
    return NULL;
}

/* Where the bytes of a rendered text come from. */
enum { FROM_TEMPLATE, FROM_OTHERS, FROM_ASSISTANT };

struct ChatRenderer {
    const Tokenizer *tokenizer;
    Jinja *jinja;
    char *header;           /* of an assistant's turn; "" where the template writes none */
    int32_t end_of_turn, end_of_message; /* the second: Llama 3's <|eom_id|>, a turn that waits for a tool; -1: none */
    bool tools;             /* the template renders tool calls */
    bool *written;          /* of each added token: the template's text has it */
    bool *marks;            /* and a plain chat's turns have it */
    JinjaOutput out;
    JsonValue *messages;    /* scratch */
    uint8_t *origins;
    size_t capacity;
};

static JsonValue json_text(const char *text)
{
    return (JsonValue){.type = JSON_STRING, .string = {text, strlen(text)}};
}

static Span role_key = {"role", 4}, content_key = {"content", 7};

/* {"role": role, "content": content} in four cells of the caller's. */
static JsonValue message_make(const char *role, JsonValue content, JsonValue members[2], Span keys[2])
{
    keys[0] = role_key;
    keys[1] = content_key;
    members[0] = json_text(role);
    members[1] = content;
    return (JsonValue){.type = JSON_OBJECT, .count = 2, .items = members, .keys = keys};
}

static bool role_is(const JsonValue *message, const char *wanted)
{
    const JsonValue *role = json_get(message, "role");
    return json_is(role, JSON_STRING) && role->string.length == strlen(wanted) && memcmp(role->string.data, wanted, role->string.length) == 0;
}

/* A function's description or a call of one: {"function": {"name": …}} or {"name": …}. */
static bool has_function(const JsonValue *v)
{
    const JsonValue *function = json_get(v, "function");
    return json_is(v, JSON_OBJECT) && json_is(json_get(function ? function : v, "name"), JSON_STRING);
}

static int tools_check(const JsonValue *tools, Error *err)
{
    if (!tools || tools->type == JSON_NULL)
        return 0;
    if (!json_is(tools, JSON_ARRAY))
        return error_set(err, "'tools' must be a list");
    for (size_t i = 0; i < tools->count; i++)
        if (!has_function(&tools->items[i]))
            return error_set(err, "tool %zu needs a 'function' with a 'name' that is a string", i + 1);
    return 0;
}

static int calls_check(const JsonValue *calls, size_t number, Error *err)
{
    if (!json_is(calls, JSON_ARRAY))
        return error_set(err, "message %zu: 'tool_calls' must be a list", number);
    for (size_t i = 0; i < calls->count; i++) {
        const JsonValue *call = &calls->items[i], *function = json_get(call, "function"), *arguments = json_get(function ? function : call, "arguments");
        if (!has_function(call))
            return error_set(err, "message %zu: call %zu needs a 'function' with a 'name' that is a string", number, i + 1);
        if (arguments && !json_is(arguments, JSON_OBJECT) && !json_is(arguments, JSON_STRING) && arguments->type != JSON_NULL)
            return error_set(err, "message %zu: the 'arguments' of call %zu must be an object", number, i + 1);
    }
    return 0;
}

static int message_check(const ChatRenderer *r, const JsonValue *message, size_t number, Error *err)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    const JsonValue *role = json_get(message, "role"), *content = json_get(message, "content"), *calls = json_get(message, "tool_calls");
    bool called = calls && calls->type != JSON_NULL, silent = !content || content->type == JSON_NULL, known = false;
    if (!json_is(role, JSON_STRING) || !(json_is(content, JSON_STRING) || (called && silent)))
        return error_set(err, "message %zu needs a 'role' and a 'content' that are strings", number);
    for (int i = 0; i < 4; i++)
        known |= role_is(message, roles[i]);
    if (!known)
        return error_set(err, "message %zu has the unknown role '%.*s'", number, (int)role->string.length, role->string.data);
    if (called && !r->tools)
        return error_set(err, "message %zu has tool_calls, which the chat template does not render", number);
    return called ? calls_check(calls, number, err) : 0;
}

/* The template's names, as apply_chat_template sets them. */
static int template_run(ChatRenderer *r, const JsonValue *messages, size_t count, const JsonValue *tools, bool generation, Error *err)
{
    JsonValue list = {.type = JSON_ARRAY, .count = count, .items = (JsonValue *)(uintptr_t)messages}, none = {.type = JSON_NULL};
    JsonValue prompt = {.type = JSON_BOOL, .boolean = generation}, specials[3] = {{0}};
    if (count > r->capacity) {
        r->capacity = count * 2;
        r->origins = memory_realloc(r->origins, r->capacity, 1);
    }
    for (size_t i = 0; i < count; i++)
        r->origins[i] = role_is(&messages[i], "assistant") ? FROM_ASSISTANT : FROM_OTHERS;
    JinjaVariable variables[8] = {{.name = "messages", .value = &list, .origin = FROM_OTHERS, .item_origins = r->origins},
                                  {.name = "tools", .value = tools ? tools : &none, .origin = FROM_OTHERS},
                                  {.name = "documents", .value = &none},
                                  {.name = "add_generation_prompt", .value = &prompt}};
    size_t n = 4;
    if (r->tokenizer->bos_text) {
        specials[0] = json_text(r->tokenizer->bos_text);
        variables[n++] = (JinjaVariable){.name = "bos_token", .value = &specials[0]};
    }
    const int32_t ids[2] = {r->tokenizer->eos, r->tokenizer->pad};
    for (int i = 0; i < 2; i++)
        if (ids[i] >= 0) {
            specials[i + 1] = (JsonValue){.type = JSON_STRING, .string = tokenizer_bytes(r->tokenizer, ids[i])};
            variables[n++] = (JinjaVariable){.name = i ? "pad_token" : "eos_token", .value = &specials[i + 1]};
        }
    return jinja_render(r->jinja, variables, n, &r->out, err);
}

/* May a message's words hold this token? As in transformers those may that are not special, but none with which the template marks
 * turns; and others than the assistant, who alone writes it, none that the template knows at all (a tool's answer is a forgery). */
static bool is_word(const ChatRenderer *r, size_t added, char origin)
{
    const AddedToken *a = &r->tokenizer->added[added];
    bool plain = !a->special && !a->lstrip && !a->rstrip && !a->single_word && !tokenizer_is_special(r->tokenizer, a->id);
    return plain && r->marks && !r->marks[added] && (origin == FROM_ASSISTANT || !r->written[added]);
}

/* The added token that the template writes at that byte, or that a message may; NULL: none. */
static const AddedToken *control_at(const ChatRenderer *r, size_t at)
{
    const Buffer *text = &r->out.text;
    char origin = r->out.origins.data[at];
    if (!r->tokenizer->begins[(unsigned char)text->data[at]])
        return NULL;
    for (size_t i = 0; i < r->tokenizer->added_count; i++) {
        const AddedToken *a = &r->tokenizer->added[i];
        if (a->length > text->length - at || memcmp(text->data + at, a->content, a->length) != 0)
            continue;
        size_t n = 0;
        while (n < a->length && r->out.origins.data[at + n] == origin)
            n++;
        if (n == a->length && (origin == FROM_TEMPLATE || is_word(r, i, origin)))
            return a;
    }
    return NULL;
}

/* Which added tokens a text has. */
static bool *added_in(const Tokenizer *t, const char *text, size_t length)
{
    bool *has = memory_zalloc(t->added_count + 1, sizeof *has);
    for (size_t i = 0; i < t->added_count; i++)
        has[i] = memmem(text, length, t->added[i].content, t->added[i].length) != NULL;
    return has;
}

/* Learns from two short chats what begins and what ends an assistant's turn. */
static int turn_learn(ChatRenderer *r, Error *err)
{
    JsonValue members[2][2], messages[2];
    Span keys[2][2];
    messages[0] = message_make("user", json_text("x"), members[0], keys[0]);
    messages[1] = message_make("assistant", json_text("y"), members[1], keys[1]);
    if (template_run(r, messages, 1, NULL, false, err) < 0)
        return -1;
    char *before = memory_copy(r->out.text.length ? r->out.text.data : "", r->out.text.length);
    size_t length = r->out.text.length;
    int status = template_run(r, messages, 1, NULL, true, err);
    if (status == 0 && r->out.text.length > length && memcmp(before, r->out.text.data, length) == 0)
        r->header = memory_copy(r->out.text.data + length, r->out.text.length - length);
    else if (status == 0)
        r->header = memory_string("");
    free(before);
    if (status < 0 || template_run(r, messages, 2, NULL, false, err) < 0)
        return -1;
    size_t at = r->out.text.length;
    while (at > 0 && r->out.origins.data[at - 1] != FROM_ASSISTANT)
        at--;
    r->end_of_turn = -1;
    for (; at > 0 && at < r->out.text.length && r->end_of_turn < 0; at++) {
        const AddedToken *a = control_at(r, at);
        r->end_of_turn = a ? a->id : -1;
    }
    if (r->end_of_turn < 0)
        return error_set(err, "the chat template ends an answer with no token of the vocabulary");
    r->marks = added_in(r->tokenizer, r->out.text.data, r->out.text.length);
    return 0;
}

ChatRenderer *chat_open(const Tokenizer *t, Error *err)
{
    const char *jinja = tokenizer_chat_template(t);
    if (!jinja) {
        error_set(err, "the tokenizer has no chat template");
        return NULL;
    }
    ChatRenderer *r = memory_zalloc(1, sizeof *r);
    r->tokenizer = t;
    r->tools = strstr(jinja, "tool_calls") != NULL;
    r->end_of_message = tokenizer_id(t, "<|eom_id|>");
    r->written = added_in(t, jinja, strlen(jinja));
    r->jinja = jinja_compile((Span){jinja, strlen(jinja)}, JINJA_CHAT, err);
    if (r->jinja && turn_learn(r, err) == 0)
        return r;
    chat_close(r);
    return NULL;
}

void chat_close(ChatRenderer *r)
{
    if (!r)
        return;
    jinja_free(r->jinja);
    jinja_output_free(&r->out);
    free(r->header);
    free(r->written);
    free(r->marks);
    free(r->messages);
    free(r->origins);
    free(r);
}

int32_t chat_end_of_turn(const ChatRenderer *r)
{
    return r->end_of_turn;
}

static void piece_add(ChatText *out, size_t begin, size_t end, int32_t id, bool trained, bool ending)
{
    if (begin == end)
        return;
    out->pieces = memory_grow(out->pieces, &out->capacity, out->count + 1, sizeof *out->pieces);
    out->pieces[out->count++] = (ChatPiece){begin, end, id, trained, ending};
}

/* Does an assistant's turn begin at this byte? *start gets where its words do. */
static bool turn_begins(const ChatRenderer *r, size_t at, size_t *start)
{
    const Buffer *text = &r->out.text;
    const char *origins = r->out.origins.data;
    size_t n = strlen(r->header);
    if (n > 0) {
        *start = at + n;
        return origins[at] == FROM_TEMPLATE && n <= text->length - at && memcmp(text->data + at, r->header, n) == 0;
    }
    /* Blanks that the template puts before the words belong to their first token. */
    size_t word = at;
    while (word < text->length && origins[word] == FROM_TEMPLATE && text->data[word] == ' ')
        word++;
    *start = at;
    return word < text->length && origins[word] == FROM_ASSISTANT;
}

/* Cuts the rendered text into pieces. Only the turn that begins last is trained where `last_only`. */
static void pieces_cut(ChatRenderer *r, bool last_only, ChatText *out)
{
    const Buffer *text = &r->out.text;
    const char *origins = r->out.origins.data;
    size_t begin = 0, start = SIZE_MAX;
    bool trained = false;
    for (size_t at = 0; at < text->length;) {
        size_t found;
        if (!trained && start == SIZE_MAX && turn_begins(r, at, &found))
            start = found;
        if (at == start) {
            piece_add(out, begin, at, -1, false, false);
            begin = at;
            trained = true;
            start = SIZE_MAX;
            for (size_t i = 0; last_only && i < out->count; i++)
                out->pieces[i].trained = out->pieces[i].ending = false;
        }
        /* Somebody else's words: the turn is over, whatever the template forgot to write. */
        if (trained && origins[at] == FROM_OTHERS) {
            piece_add(out, begin, at, -1, true, false);
            begin = at;
            trained = false;
        }
        const AddedToken *a = control_at(r, at);
        if (!a) {
            at++;
            continue;
        }
        bool ending = trained && (a->id == r->end_of_turn || a->id == r->end_of_message);
        piece_add(out, begin, at, -1, trained, false);
        piece_add(out, at, at + a->length, a->id, trained, ending);
        begin = at += a->length;
        trained &= !ending;
    }
    piece_add(out, begin, text->length, -1, trained, false);
}

/* An answer as a message: a string, or a list with one assistant message. */
static int answer_message(const JsonValue *answer, JsonValue *out, JsonValue members[2], Span keys[2], Error *err)
{
    if (json_is(answer, JSON_STRING)) {
        *out = message_make("assistant", *answer, members, keys);
        return 0;
    }
    if (!json_is(answer, JSON_ARRAY) || answer->count != 1 || !role_is(&answer->items[0], "assistant"))
        return error_set(err, "an answer must be a string or one assistant message");
    *out = answer->items[0];
    return 0;
}

int chat_render(ChatRenderer *r, const ChatInput *in, ChatText *out, Error *err)
{
    JsonValue members[2][2];
    Span keys[2][2];
    const JsonValue *m = in->messages;
    if (!json_is(m, JSON_STRING) && !json_is(m, JSON_ARRAY))
        return error_set(err, "messages must be a string or a list");
    size_t count = m->type == JSON_STRING ? 1 : m->count;
    r->messages = memory_realloc(r->messages, count + 1, sizeof *r->messages);
    if (m->type == JSON_STRING)
        r->messages[0] = message_make("user", *m, members[0], keys[0]);
    else if (count)
        memcpy(r->messages, m->items, count * sizeof *r->messages);
    if (in->answer && answer_message(in->answer, &r->messages[count++], members[1], keys[1], err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (message_check(r, &r->messages[i], i + 1, err) < 0)
            return -1;
    if (tools_check(in->tools, err) < 0 || template_run(r, r->messages, count, in->tools, in->generation, err) < 0)
        return -1;
    out->text.length = 0;
    out->count = 0;
    buffer_append(&out->text, r->out.text.data, r->out.text.length);
    pieces_cut(r, in->answer != NULL, out);
    return 0;
}

void chat_free(ChatText *text)
{
    buffer_free(&text->text);
    free(text->pieces);
    *text = (ChatText){0};
}
