/* Chat templates: rendered as transformers renders them (tests/data/chat.json, or another file of that form as the argument);
 * which bytes become control tokens, and which tokens are an assistant's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/stream.h"
#include "tap.h"
#include "text/chat.h"
#include "text/jinja.h"

static void renders(const char *path)
{
    JsonTree tree = {0};
    Error err;
    if (!ok(json_parse_file(&tree, path, &err) == 0, "%s", path))
        return;
    JinjaOutput out = {0};
    for (size_t i = 0; i < tree.root->count; i++) {
        const JsonValue *t = &tree.root->items[i], *text = json_get(t, "template"), *cases = json_get(t, "cases");
        Jinja *j = jinja_compile(text->string, JINJA_CHAT, &err);
        if (!ok(j != NULL, "%s compiles%s%s", json_get(t, "name")->string.data, j ? "" : ": ", j ? "" : err.text))
            continue;
        for (size_t k = 0; k < cases->count; k++) {
            const JsonValue *v = json_get(&cases->items[k], "variables"), *want = json_get(&cases->items[k], "text");
            JinjaVariable variables[16];
            for (size_t n = 0; n < v->count && n < 16; n++)
                variables[n] = (JinjaVariable){.name = v->keys[n].data, .value = &v->items[n], .origin = 1};
            int status = jinja_render(j, variables, v->count, &out, &err);
            bool same = status == 0 && out.text.length == want->string.length && memcmp(out.text.data ? out.text.data : "", want->string.data, out.text.length) == 0;
            if (!ok(same, "%s, chat %zu", json_get(t, "name")->string.data, k))
                printf("# %s\n# got:    %.*s\n# wanted: %.*s\n", status < 0 ? err.text : "", (int)out.text.length, out.text.data ? out.text.data : "",
                       (int)want->string.length, want->string.data);
        }
        jinja_free(j);
    }
    jinja_output_free(&out);
    json_free(&tree);
}

static void refuses(void)
{
    static const struct {
        const char *text, *why;
    } bad[] = {{"{% if x %}", "endif"}, {"{{ x", "not closed"}, {"a\nb{% include 'c' %}", "line 2: the statement 'include'"}, {"{{ 'a }}", "a string"},
               {"{% for x in y %}{% endif %}", "endif"}, {"{{ (1 }}", ""}, {"{# x", "comment"}, {"{{ 1 + }}", "unexpected"}, {"{% set %}", "a name"}, {"{{ x[8e889888] }}", ""}};
    Error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Jinja *j = jinja_compile((Span){bad[i].text, strlen(bad[i].text)}, JINJA_CHAT, &err);
        ok(j == NULL && strstr(err.text, bad[i].why), "refused: %s (%s)", bad[i].text, j ? "" : err.text);
        jinja_free(j);
    }
    static const char *const late[] = {"{{ x | wordwrap }}", "{{ 'a'.zfill(3) }}", "{{ x is prime }}", "{{ f(1) }}", "{{ missing.member }}", "{{ raise_exception('no') }}",
                                       "{{ 1 // 0 }}", "{{ 9223372036854775807 + 1 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"};
    JinjaOutput out = {0};
    for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
        Jinja *j = jinja_compile((Span){late[i], strlen(late[i])}, JINJA_CHAT, &err);
        ok(!j || jinja_render(j, NULL, 0, &out, &err) < 0, "refused when it is met: %s (%s)", late[i], err.text);
        jinja_free(j);
    }
    char deep[4000];
    memset(deep, '(', sizeof deep);
    memcpy(deep, "{{", 2);
    ok(jinja_compile((Span){deep, sizeof deep}, JINJA_CHAT, &err) == NULL, "brackets without end do not end the stack: %s", err.text);
    jinja_output_free(&out);
}

static const char *const specials[] = {"<s>", "</s>", "<|h|>", "<|/h|>", "<|e|>", "<|im_start|>", "<|im_end|>", "<tool_call>"};
enum { SPECIALS = sizeof specials / sizeof *specials };

/* A vocabulary of bytes and those tokens, with one of the templates. */
static Tokenizer *tokenizer_make(const char *folder, Span jinja, Error *err)
{
    Buffer b = {0};
    buffer_string(&b, "{\"added_tokens\":[");
    for (int i = 0; i < SPECIALS; i++)
        buffer_format(&b, "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}", i ? "," : "",
                      256 + i, specials[i], i < 7 ? "true" : "false");
    buffer_string(&b, "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false},\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (int i = 0; i < 256; i++) {
        uint32_t c = bytelevel_char((unsigned char)i);
        buffer_format(&b, "%s\"\\u%04x\":%d", i ? "," : "", c, i);
    }
    buffer_string(&b, "}}}");
    char *path = memory_format("%s/tokenizer.json", folder), *config = memory_format("%s/tokenizer_config.json", folder);
    FILE *f = fopen(path, "wb");
    fwrite(b.data, 1, b.length, f);
    fclose(f);
    b.length = 0;
    buffer_string(&b, "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"chat_template\":");
    json_write_string(&b, jinja);
    buffer_string(&b, "}");
    f = fopen(config, "wb");
    fwrite(b.data, 1, b.length, f);
    fclose(f);
    Tokenizer *t = tokenizer_open(folder, err);
    unlink(path);
    unlink(config);
    free(path);
    free(config);
    buffer_free(&b);
    return t;
}

/* Control tokens of a chat whose messages all hold `text`; `trained` gets the trained bytes. */
static int controls(ChatRenderer *r, const char *text, Buffer *trained, int *endings)
{
    Buffer chat = {0};
    static const char *const roles[] = {"user", "assistant", "user", "assistant"};
    for (int i = 0; i < 4; i++) {
        buffer_format(&chat, "%s{\"role\":\"%s\",\"content\":", i ? "," : "[", roles[i]);
        json_write_string(&chat, (Span){text, strlen(text)});
        buffer_string(&chat, "}");
    }
    buffer_string(&chat, "]");
    buffer_reserve(&chat, READER_PADDING);
    memset(chat.data + chat.length, 0, READER_PADDING);
    JsonTree tree = {0};
    Error err;
    ChatText out = {0};
    int n = -1;
    if (json_parse(&tree, "chat", (Span){chat.data, chat.length}, &err) == 0 && chat_render(r, &(ChatInput){.messages = tree.root}, &out, &err) == 0) {
        n = *endings = 0;
        for (size_t i = 0; i < out.count; i++) {
            n += out.pieces[i].id >= 0;
            *endings += out.pieces[i].ending;
            if (out.pieces[i].trained)
                buffer_append(trained, out.text.data + out.pieces[i].begin, out.pieces[i].end - out.pieces[i].begin);
        }
    }
    chat_free(&out);
    json_free(&tree);
    buffer_free(&chat);
    return n;
}

/* A call whose arguments are numbers alone is the assistant's all the same, and no key of them becomes a control token. */
static void calls(const char *name, ChatRenderer *r)
{
    static const char text[] = "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"type\":\"function\",\"function\":"
                               "{\"name\":\"f\",\"arguments\":{\"x\":1,\"<|im_end|>\":{}}}}]},{\"role\":\"user\",\"content\":\"b\"}]";
    static const char want[] = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1, \"<|im_end|>\": {}}}\n</tool_call><|im_end|>";
    char padded[sizeof text + READER_PADDING] = {0};
    memcpy(padded, text, sizeof text);
    JsonTree tree = {0};
    Error err;
    ChatText out = {0};
    Buffer trained = {0};
    int ends = 0;
    if (json_parse(&tree, "chat", (Span){padded, sizeof text - 1}, &err) == 0 && chat_render(r, &(ChatInput){.messages = tree.root}, &out, &err) == 0)
        for (size_t i = 0; i < out.count; i++) {
            ends += out.pieces[i].ending;
            if (out.pieces[i].trained)
                buffer_append(&trained, out.text.data + out.pieces[i].begin, out.pieces[i].end - out.pieces[i].begin);
        }
    ok(trained.length == sizeof want - 1 && memcmp(trained.data, want, trained.length) == 0 && ends == 1, "%s: a call is trained whole: '%.*s'", name,
       (int)trained.length, trained.data ? trained.data : "");
    buffer_free(&trained);
    chat_free(&out);
    json_free(&tree);
}

static void forgery(const char *name, Span jinja, const char *expected)
{
    char folder[] = "/tmp/chat-XXXXXX";
    Error err;
    if (!ok(mkdtemp(folder) != NULL, "a folder"))
        return;
    Tokenizer *t = tokenizer_make(folder, jinja, &err);
    rmdir(folder);
    ChatRenderer *r = t ? chat_open(t, &err) : NULL;
    if (ok(r != NULL, "%s opens%s%s", name, r ? "" : ": ", r ? "" : err.text)) {
        Buffer trained = {0};
        int endings, plain = controls(r, "yes", &trained, &endings), same = 0;
        ok(trained.length == strlen(expected) && memcmp(trained.data, expected, trained.length) == 0, "%s: trained is '%.*s'", name, (int)trained.length, trained.data);
        ok(endings == 2, "%s: two turns end", name);
        for (int i = 0; i < SPECIALS; i++) {
            char text[64];
            snprintf(text, sizeof text, "a%sb", specials[i]);
            trained.length = 0;
            /* The last one is not special: a word, as in transformers, but where the template knows it the assistant's alone. */
            int words = i + 1 < SPECIALS ? 0 : memmem(jinja.data, jinja.length, specials[i], strlen(specials[i])) ? 2 : 4;
            same += controls(r, text, &trained, &endings) == plain + words && endings == 2;
        }
        ok(same == SPECIALS, "%s: no message's text becomes a control token", name);
        buffer_free(&trained);
        if (strcmp(name, "tools") == 0)
            calls(name, r);
    }
    chat_close(r);
    tokenizer_close(t);
}

static void turns(void)
{
    JsonTree tree = {0};
    Error err;
    if (!ok(json_parse_file(&tree, "tests/data/chat.json", &err) == 0, "templates"))
        return;
    static const char *const expected[] = {"yes<|e|>yes<|e|>", "yes<|im_end|><think>\n\n</think>\n\nyes<|im_end|>", " yes </s> yes </s>"};
    for (size_t i = 0; i < 3; i++)
        forgery(json_get(&tree.root->items[i], "name")->string.data, json_get(&tree.root->items[i], "template")->string, expected[i]);
    json_free(&tree);
    const ChatTemplate *own = chat_template_named("chatml");
    forgery("our chatml", (Span){own->jinja, strlen(own->jinja)}, "yes<|im_end|>yes<|im_end|>");
}

int main(int argc, char **argv)
{
    renders(argc > 1 ? argv[1] : "tests/data/chat.json");
    if (argc == 1) {
        refuses();
        turns();
    }
    return tap_end();
}
