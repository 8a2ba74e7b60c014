/* Opening a tokenizer, what tokenizer_config.json says of it, and decoding. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/stream.h"
#include "text/tokenizer_internal.h"

/* A token in tokenizer_config.json: a string, {"content": …}, or null. */
static char *config_token(const JsonValue *root, const char *key)
{
    const JsonValue *v = json_get(root, key);
    if (json_is(v, JSON_OBJECT))
        v = json_get(v, "content");
    return json_is(v, JSON_STRING) ? memory_copy(v->string.data, v->string.length) : NULL;
}

static int read_config(Tokenizer *t, const char *folder, Error *err)
{
    char *path = memory_format("%s/tokenizer_config.json", folder), *jinja = memory_format("%s/chat_template.jinja", folder);
    int status = 0;
    if (access(path, F_OK) == 0) {
        JsonTree tree = {0};
        status = json_parse_file(&tree, path, err);
        if (status == 0 && !json_is(tree.root, JSON_OBJECT))
            status = error_set(err, "%s: not a JSON object", path);
        if (status == 0) {
            char *eos = config_token(tree.root, "eos_token"), *pad = config_token(tree.root, "pad_token");
            t->bos_text = config_token(tree.root, "bos_token");
            t->eos = eos ? tokenizer_id(t, eos) : -1;
            t->pad = pad ? tokenizer_id(t, pad) : -1;
            t->bos = t->bos_text ? tokenizer_id(t, t->bos_text) : -1;
            free(eos);
            free(pad);
            t->chat_template = config_token(tree.root, "chat_template");
            const JsonValue *named = json_get(tree.root, "chat_template"); /* or a list of them, by name */
            for (size_t i = 0; json_is(named, JSON_ARRAY) && i < named->count && !t->chat_template; i++) {
                const JsonValue *name = json_get(&named->items[i], "name");
                if (json_is(name, JSON_STRING) && strcmp(name->string.data, "default") == 0)
                    t->chat_template = config_token(&named->items[i], "template");
            }
        }
        json_free(&tree);
    }
    if (status == 0 && access(jinja, F_OK) == 0) {
        Buffer text = {0};
        status = file_read(jinja, &text, 1 << 24, err);
        if (status == 0 && !json_utf8_valid((Span){text.data, text.length}))
            status = error_set(err, "%s: invalid UTF-8", jinja);
        if (status == 0) {
            free(t->chat_template);
            t->chat_template = memory_copy(text.data, text.length);
        }
        buffer_free(&text);
    }
    free(path);
    free(jinja);
    return status;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

Tokenizer *tokenizer_open(const char *path, Error *err)
{
    Tokenizer *t = memory_zalloc(1, sizeof *t);
    t->eos = t->bos = t->pad = t->begins_with = -1;
    int status;
    if (is_folder(path)) {
        char *file = memory_format("%s/tokenizer.json", path), *packed = memory_format("%s/tokenizer.json.gz", path);
        if (access(file, F_OK) != 0 && access(packed, F_OK) == 0) {
            free(file);
            file = memory_string(packed);
        }
        free(packed);
        t->folder = memory_string(path);
        status = tokenizer_read_json(t, file, err);
        free(file);
        if (status == 0)
            status = read_config(t, path, err);
    } else if (strstr(path, ".tiktoken")) {
        status = tokenizer_read_tiktoken(t, path, err);
    } else {
        status = tokenizer_read_json(t, path, err);
    }
    if (status < 0) {
        tokenizer_close(t);
        return NULL;
    }
    return t;
}

void tokenizer_close(Tokenizer *t)
{
    if (!t)
        return;
    vocabulary_free(&t->vocabulary);
    for (int i = 0; i < t->split_count; i++)
        splitter_close(&t->splits[i]);
    for (size_t i = 0; i < t->added_count; i++)
        free(t->added[i].content);
    free(t->added);
    free(t->bos_text);
    free(t->chat_template);
    free(t->folder);
    free(t);
}

int64_t tokenizer_size(const Tokenizer *t)
{
    return t->vocabulary.size;
}

int32_t tokenizer_id(const Tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    for (size_t i = 0; i < t->added_count; i++)
        if (t->added[i].length == n && memcmp(t->added[i].content, token, n) == 0)
            return t->added[i].id;
    return -1;
}

Span tokenizer_bytes(const Tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->vocabulary.size || t->vocabulary.tokens[id].length == 0)
        return (Span){0};
    return (Span){t->vocabulary.bytes.data + t->vocabulary.tokens[id].offset, t->vocabulary.tokens[id].length};
}

bool tokenizer_is_special(const Tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->added_count; i++)
        if (t->added[i].id == id)
            return t->added[i].special;
    return false;
}

int32_t tokenizer_eos(const Tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_bos(const Tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_begins(const Tokenizer *t)
{
    return t->begins_with;
}

int32_t tokenizer_pad(const Tokenizer *t)
{
    return t->pad;
}

const char *tokenizer_chat_template(const Tokenizer *t)
{
    return t->chat_template;
}

const char *tokenizer_folder(const Tokenizer *t)
{
    return t->folder;
}

int tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t count, bool skip_special, Buffer *out, Error *err)
{
    size_t begin = out->length;
    for (size_t i = 0; i < count; i++) {
        Span bytes = tokenizer_bytes(t, ids[i]);
        if (!bytes.data)
            return error_set(err, "id %d is not in the vocabulary", ids[i]);
        if (!skip_special || !tokenizer_is_special(t, ids[i]))
            buffer_append(out, bytes.data, bytes.length);
    }
    if (t->sentencepiece.strip && out->length > begin && out->data[begin] == ' ')
        memmove(out->data + begin, out->data + begin + 1, --out->length - begin);
    return 0;
}
