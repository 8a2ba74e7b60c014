#include "text/chat.h"

#include <stdlib.h>
#include <string.h>

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
enum { LLAMA3, CHATML, TEMPLATES };

const ChatTemplate *chat_template_named(const char *name)
{
    for (int i = 0; i < TEMPLATES; i++)
        if (strcmp(templates[i].name, name) == 0)
            return &templates[i];
    return NULL;
}

const ChatTemplate *chat_template_recognise(Span jinja, Error *err)
{
    for (int i = 0; i < TEMPLATES; i++)
        if (strlen(templates[i].jinja) == jinja.length && memcmp(templates[i].jinja, jinja.data, jinja.length) == 0)
            return &templates[i];
    error_set(err, "chat template not recognised (known are llama3 and chatml as bpe-train --chat-template writes them)");
    return NULL;
}

/* Neighbouring stretches of ordinary text stay separate pieces but are encoded as one text: a token may span them. */
static void piece_add(ChatText *out, const char *data, size_t length, bool control, bool trained, bool ending)
{
    if (length == 0)
        return;
    out->pieces = memory_grow(out->pieces, &out->capacity, out->count + 1, sizeof *out->pieces);
    out->pieces[out->count++] = (ChatPiece){out->text.length, out->text.length + length, control, trained, ending};
    buffer_append(&out->text, data, length);
}

static void control_add(ChatText *out, const char *token, bool trained)
{
    piece_add(out, token, strlen(token), true, trained, trained);
}

static void header_add(const ChatTemplate *t, const char *role, size_t length, ChatText *out)
{
    bool llama3 = t == &templates[LLAMA3];
    control_add(out, llama3 ? "<|start_header_id|>" : "<|im_start|>", false);
    piece_add(out, role, length, false, false, false);
    if (llama3)
        control_add(out, "<|end_header_id|>", false);
    piece_add(out, "\n\n", llama3 ? 2 : 1, false, false, false);
}

/* What Jinja's trim (Python's str.strip) takes off, for ASCII and the common Unicode blanks. */
static size_t blank_at(const char *s, size_t length)
{
    static const char *const wide[] = {"\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82",
                                       "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87",
                                       "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8", "\xe2\x80\xa9",
                                       "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    unsigned char c = (unsigned char)*s;
    if (c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f))
        return 1;
    for (size_t i = 0; c >= 0x80 && i < sizeof wide / sizeof *wide; i++) {
        size_t n = strlen(wide[i]);
        if (n <= length && memcmp(s, wide[i], n) == 0)
            return n;
    }
    return 0;
}

static Span trimmed(Span s)
{
    size_t n;
    while (s.length && (n = blank_at(s.data, s.length))) {
        s.data += n;
        s.length -= n;
    }
    while (s.length) {
        size_t back = 1;
        while (back < s.length && back < 3 && ((unsigned char)s.data[s.length - back] & 0xc0) == 0x80)
            back++;
        if (blank_at(s.data + s.length - back, back) != back)
            break;
        s.length -= back;
    }
    return s;
}

static void content_add(const ChatTemplate *t, Span content, bool assistant, ChatText *out)
{
    if (t == &templates[LLAMA3])
        content = trimmed(content);
    piece_add(out, content.data, content.length, false, assistant, false);
    control_add(out, t->end_of_turn, assistant);
    if (t == &templates[CHATML])
        piece_add(out, "\n", 1, false, false, false);
}

void chat_render_answer(const ChatTemplate *t, Span answer, ChatText *out)
{
    content_add(t, answer, true, out);
}

static bool role_is_known(Span role)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    for (int i = 0; i < 4; i++)
        if (strlen(roles[i]) == role.length && memcmp(roles[i], role.data, role.length) == 0)
            return true;
    return false;
}

int chat_render(const ChatTemplate *t, const JsonValue *messages, const char *bos, bool generation, ChatText *out, Error *err)
{
    out->text.length = 0;
    out->count = 0;
    if (t == &templates[LLAMA3] && bos)
        control_add(out, bos, false);
    if (json_is(messages, JSON_STRING)) {
        header_add(t, "user", 4, out);
        content_add(t, messages->string, false, out);
    } else if (json_is(messages, JSON_ARRAY)) {
        for (size_t i = 0; i < messages->count; i++) {
            const JsonValue *role = json_get(&messages->items[i], "role"), *content = json_get(&messages->items[i], "content");
            if (!json_is(role, JSON_STRING) || !json_is(content, JSON_STRING))
                return error_set(err, "message %zu needs a 'role' and a 'content' that are strings", i + 1);
            if (!role_is_known(role->string))
                return error_set(err, "message %zu has the unknown role '%.*s'", i + 1, (int)role->string.length, role->string.data);
            if (json_get(&messages->items[i], "tool_calls"))
                return error_set(err, "message %zu has tool_calls, which the template %s does not render", i + 1, t->name);
            header_add(t, role->string.data, role->string.length, out);
            content_add(t, content->string, role->string.length == 9, out);
        }
    } else {
        return error_set(err, "messages must be a string or a list");
    }
    if (generation)
        header_add(t, "assistant", 9, out);
    return 0;
}

void chat_free(ChatText *text)
{
    buffer_free(&text->text);
    free(text->pieces);
    *text = (ChatText){0};
}
