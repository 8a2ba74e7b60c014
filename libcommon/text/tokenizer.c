/* Reading tokenizer.json, tokenizer_config.json and .tiktoken files. Whatever would change ids and is not known is refused
 * by name. */
#include "text/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/stream.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

/* Byte-level characters back to bytes; -1 if one stands for no byte. */
static int bytes_of(Span text, Buffer *out)
{
    out->length = 0;
    size_t n;
    for (size_t i = 0; i < text.length; i += n) {
        int b = bytelevel_byte(utf8_decode(text.data + i, &n));
        if (b < 0)
            return -1;
        buffer_byte(out, (char)b);
    }
    return 0;
}

/* A token of the file as bytes; -1 if it has a character that stands for none. */
static int token_bytes(const Tokenizer *t, Span text, Buffer *out)
{
    if (!t->sentencepiece.on)
        return bytes_of(text, out);
    sentencepiece_bytes(text, out);
    return 0;
}

static const char *type_of(const JsonValue *v)
{
    const JsonValue *type = json_get(v, "type");
    return json_is(type, JSON_STRING) ? type->string.data : "";
}

static bool flag_of(const JsonValue *v, const char *key)
{
    const JsonValue *f = json_get(v, key);
    return f && f->type == JSON_BOOL && f->boolean;
}

/* The id of an added token that the vocabulary spells like that, or -1. Spellings are compared, not bytes: "the " is not the
 * token theĠ. `plain` lists the tokens whose spelling is no byte-level one. */
static int32_t added_known(const Tokenizer *t, Span content, const Ids *plain)
{
    Buffer bytes = {0};
    bool spelled = token_bytes(t, content, &bytes) == 0 && !(t->sentencepiece.on && memchr(content.data, ' ', content.length));
    int32_t id = spelled ? vocabulary_find(&t->vocabulary, bytes.data, bytes.length) : vocabulary_find(&t->vocabulary, content.data, content.length);
    buffer_free(&bytes);
    bool listed = false;
    for (size_t i = 0; i < plain->count && !listed; i++)
        listed = plain->data[i] == id;
    return spelled != listed ? id : -1;
}

/* Ids as Hugging Face gives them: a token that the model's vocabulary has keeps that id; the others are numbered on behind
 * the vocabulary in the order of the list, whatever ids the file says (added_vocabulary.rs). */
static int read_added(Tokenizer *t, const JsonValue *list, int64_t vocabulary, const Ids *plain, const char *path, Error *err)
{
    int64_t next = vocabulary;
    size_t n = json_is(list, JSON_ARRAY) ? list->count : 0;
    t->added = memory_zalloc(n, sizeof *t->added);
    for (size_t i = 0; i < n; i++) {
        const JsonValue *v = &list->items[i], *content = json_get(v, "content"), *id = json_get(v, "id");
        if (!json_is(content, JSON_STRING) || !json_is(id, JSON_INTEGER) || id->integer < 0 || id->integer > INT32_MAX / 2 || content->string.length == 0)
            return error_set(err, "%s: added token %zu lacks its content or id", path, i);
        int32_t known = added_known(t, content->string, plain);
        AddedToken a = {.content = memory_copy(content->string.data, content->string.length), .length = content->string.length,
                        .id = known >= 0 ? known : (int32_t)next, .special = flag_of(v, "special"), .lstrip = flag_of(v, "lstrip"),
                        .rstrip = flag_of(v, "rstrip"), .single_word = flag_of(v, "single_word")};
        next = a.id >= next ? a.id + 1 : next;
        /* Longest first, so that the first that fits is the longest. */
        size_t at = t->added_count++;
        while (at > 0 && t->added[at - 1].length < a.length) {
            t->added[at] = t->added[at - 1];
            at--;
        }
        t->added[at] = a;
        t->begins[(unsigned char)a.content[0]] = 1;
    }
    return 0;
}

static int read_split(Tokenizer *t, const JsonValue *v, const char *path, Error *err)
{
    const JsonValue *pattern = json_get(json_get(v, "pattern"), "Regex"), *behavior = json_get(v, "behavior");
    if (!json_is(pattern, JSON_STRING) || !json_is(behavior, JSON_STRING) || strcmp(behavior->string.data, "Isolated") != 0 || flag_of(v, "invert"))
        return error_set(err, "%s: a Split that is not an isolated regular expression is not supported", path);
    if (t->split_count == MAX_SPLITS)
        return error_set(err, "%s: more than %d splits", path, MAX_SPLITS);
    return splitter_open(&t->splits[t->split_count++], pattern->string.data, err);
}

static int read_pretokenizer(Tokenizer *t, const JsonValue *v, const char *path, Error *err)
{
    if (!v || v->type == JSON_NULL)
        return error_set(err, "%s: no pre-tokenizer: only byte-level BPE is supported", path);
    const char *type = type_of(v);
    if (strcmp(type, "Sequence") == 0) {
        const JsonValue *list = json_get(v, "pretokenizers");
        for (size_t i = 0; json_is(list, JSON_ARRAY) && i < list->count; i++)
            if (read_pretokenizer(t, &list->items[i], path, err) < 0)
                return -1;
        return 0;
    }
    if (strcmp(type, "Split") == 0)
        return read_split(t, v, path, err);
    if (strcmp(type, "ByteLevel") == 0) {
        const JsonValue *use_regex = json_get(v, "use_regex");
        if (flag_of(v, "add_prefix_space"))
            return error_set(err, "%s: add_prefix_space is not supported", path);
        if (!use_regex || use_regex->boolean) {
            if (t->split_count == MAX_SPLITS)
                return error_set(err, "%s: more than %d splits", path, MAX_SPLITS);
            return splitter_open(&t->splits[t->split_count++], "gpt2", err);
        }
        return 0;
    }
    return error_set(err, "%s: the pre-tokenizer %s is not supported", path, type);
}

static int read_vocabulary(Tokenizer *t, const JsonValue *model, const JsonValue *added, const char *path, Error *err)
{
    const JsonValue *vocab = json_get(model, "vocab");
    if (!json_is(vocab, JSON_OBJECT))
        return error_set(err, "%s: the model has no vocab", path);
    SentencePiece *s = &t->sentencepiece;
    Buffer bytes = {0};
    Ids plain = {0};
    for (size_t i = 0; i < vocab->count; i++) {
        const JsonValue *id = &vocab->items[i];
        /* Holes are legal; an id far past the number of tokens would only fill memory. */
        if (id->type != JSON_INTEGER || id->integer < 0 || id->integer > (int64_t)vocab->count + (1 << 20) || id->integer > 1 << 28) {
            buffer_free(&bytes);
            ids_free(&plain);
            return error_set(err, "%s: the id of token '%.40s' is no id", path, vocab->keys[i].data);
        }
        int byte = s->on ? sentencepiece_byte(vocab->keys[i]) : -1;
        if (byte >= 0) {
            s->byte_id[byte] = (int32_t)id->integer;
            continue;
        }
        /* A special token may stand in the vocabulary in plain letters. */
        if (token_bytes(t, vocab->keys[i], &bytes) < 0) {
            bytes.length = 0;
            buffer_append(&bytes, vocab->keys[i].data, vocab->keys[i].length);
            ids_add(&plain, (int32_t)id->integer);
        }
        if (id->integer < t->vocabulary.size && t->vocabulary.tokens[id->integer].length > 0) {
            buffer_free(&bytes);
            return error_set(err, "%s: two tokens have the id %" PRId64 ", one is '%.40s'", path, id->integer, vocab->keys[i].data);
        }
        vocabulary_add(&t->vocabulary, (int32_t)id->integer, bytes.data, bytes.length);
    }
    buffer_free(&bytes);
    vocabulary_index(&t->vocabulary);
    int status = read_added(t, added, (int64_t)vocab->count, &plain, path, err);
    ids_free(&plain);
    if (status < 0)
        return -1;
    for (size_t i = 0; i < t->added_count; i++)
        vocabulary_add(&t->vocabulary, t->added[i].id, t->added[i].content, t->added[i].length);
    vocabulary_index(&t->vocabulary);
    /* Behind the index: the token of a character comes before those of its bytes. */
    for (int b = 0; b < 256 && s->on; b++) {
        char byte = (char)b;
        if (s->byte_id[b] < 0)
            return error_set(err, "%s: byte_fallback without a token <0x%02X>", path, b);
        vocabulary_add(&t->vocabulary, s->byte_id[b], &byte, 1);
    }
    return 0;
}

/* The two parts of a merge: ["a", "b"], or "a b" as older files write. */
static int merge_parts(const JsonValue *v, Span parts[2])
{
    if (json_is(v, JSON_ARRAY) && v->count == 2 && json_is(&v->items[0], JSON_STRING) && json_is(&v->items[1], JSON_STRING)) {
        parts[0] = v->items[0].string;
        parts[1] = v->items[1].string;
        return 0;
    }
    const char *blank = json_is(v, JSON_STRING) ? strchr(v->string.data, ' ') : NULL;
    if (!blank)
        return -1;
    parts[0] = (Span){v->string.data, (size_t)(blank - v->string.data)};
    parts[1] = (Span){blank + 1, v->string.length - parts[0].length - 1};
    return 0;
}

static int read_merges(Tokenizer *t, const JsonValue *model, const char *path, Error *err)
{
    const JsonValue *merges = json_get(model, "merges");
    if (!json_is(merges, JSON_ARRAY))
        return error_set(err, "%s: the model has no merges", path);
    vocabulary_merges(&t->vocabulary, merges->count);
    t->sentencepiece.split_words = true; /* until a merge has a blank behind something else */
    Buffer part = {0}, whole = {0};
    int status = 0;
    for (size_t i = 0; i < merges->count && status == 0; i++) {
        Span parts[2];
        int32_t ids[3] = {-1, -1, -1};
        whole.length = 0;
        bool fine = merge_parts(&merges->items[i], parts) == 0;
        for (int k = 0; k < 2 && fine; k++) {
            fine = token_bytes(t, parts[k], &part) == 0;
            ids[k] = fine ? vocabulary_find(&t->vocabulary, part.data, part.length) : -1;
            buffer_append(&whole, part.data, part.length);
        }
        if (fine)
            ids[2] = vocabulary_find(&t->vocabulary, whole.data, whole.length);
        if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0)
            status = error_set(err, "%s: merge %zu names a token that the vocabulary lacks", path, i);
        else
            vocabulary_merge_add(&t->vocabulary, ids[0], ids[1], (int32_t)i, ids[2]);
        for (size_t k = 1; k < whole.length; k++)
            t->sentencepiece.split_words &= whole.data[k] != ' ' || whole.data[k - 1] == ' ';
    }
    buffer_free(&part);
    buffer_free(&whole);
    return status;
}

static int read_normalizer(Tokenizer *t, const JsonValue *v, const char *path, Error *err)
{
    if (!v || v->type == JSON_NULL)
        return 0;
    if (strcmp(type_of(v), "NFC") == 0) {
        t->nfc = true;
        return 0;
    }
    if (strcmp(type_of(v), "Sequence") == 0 && json_is(json_get(v, "normalizers"), JSON_ARRAY)) {
        const JsonValue *list = json_get(v, "normalizers");
        for (size_t i = 0; i < list->count; i++)
            if (read_normalizer(t, &list->items[i], path, err) < 0)
                return -1;
        return 0;
    }
    return error_set(err, "%s: the normalizer %s is not supported", path, type_of(v));
}

/* A template whose single text has a special token first: encoding with specials puts that before every text. */
static void read_postprocessor(Tokenizer *t, const JsonValue *v)
{
    const JsonValue *parts = json_get(v, "processors"), *single = json_get(v, "single");
    for (size_t i = 0; json_is(parts, JSON_ARRAY) && i < parts->count; i++)
        read_postprocessor(t, &parts->items[i]);
    if (strcmp(type_of(v), "TemplateProcessing") != 0 || !json_is(single, JSON_ARRAY) || single->count < 2)
        return;
    const JsonValue *id = json_get(json_get(&single->items[0], "SpecialToken"), "id");
    if (json_is(id, JSON_STRING))
        t->begins_with = tokenizer_id(t, id->string.data);
}

static int read_json(Tokenizer *t, const char *path, Error *err)
{
    JsonTree tree = {0};
    int status = json_parse_file(&tree, path, err);
    const JsonValue *model = status == 0 ? json_get(tree.root, "model") : NULL;
    if (status == 0 && strcmp(type_of(model), "BPE") != 0)
        status = error_set(err, "%s: the model '%s' is not BPE", path, type_of(model));
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2 && status == 0; i++) {
        const JsonValue *v = json_get(model, affixes[i]);
        if (json_is(v, JSON_STRING) && v->string.length > 0)
            status = error_set(err, "%s: %s is not supported", path, affixes[i]);
    }
    if (status == 0 && flag_of(model, "byte_fallback"))
        status = sentencepiece_read(&t->sentencepiece, tree.root, path, err);
    if (status == 0 && !t->sentencepiece.on)
        status = read_normalizer(t, json_get(tree.root, "normalizer"), path, err);
    if (status == 0 && !t->sentencepiece.on)
        status = read_pretokenizer(t, json_get(tree.root, "pre_tokenizer"), path, err);
    if (status == 0)
        status = read_vocabulary(t, model, json_get(tree.root, "added_tokens"), path, err);
    if (status == 0)
        status = read_merges(t, model, path, err);
    t->ignore_merges = status == 0 && flag_of(model, "ignore_merges");
    t->sentencepiece.split_words &= !t->ignore_merges; /* the whole text is one piece, and could be one token */
    if (status == 0)
        read_postprocessor(t, json_get(tree.root, "post_processor"));
    json_free(&tree);
    return status;
}

static int base64_digit(int c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int tiktoken_line(Tokenizer *t, Span line, Buffer *bytes)
{
    unsigned bits = 0;
    int held = 0;
    size_t i = 0;
    bytes->length = 0;
    for (; i < line.length && line.data[i] != ' ' && line.data[i] != '='; i++) {
        int d = base64_digit(line.data[i]);
        if (d < 0)
            return -1;
        bits = bits << 6 | (unsigned)d;
        if ((held += 6) >= 8)
            buffer_byte(bytes, (char)(bits >> (held -= 8) & 0xff));
    }
    while (i < line.length && (line.data[i] == '=' || line.data[i] == ' '))
        i++;
    int64_t rank = 0;
    if (i == line.length || bytes->length == 0)
        return -1;
    for (; i < line.length; i++) {
        if (line.data[i] < '0' || line.data[i] > '9' || rank > 1 << 28)
            return -1;
        rank = rank * 10 + line.data[i] - '0';
    }
    vocabulary_add(&t->vocabulary, (int32_t)rank, bytes->data, bytes->length);
    return 0;
}

/* tiktoken merges the pair whose joined bytes have the lowest rank: every split of every token into two tokens is a merge. */
static int read_tiktoken(Tokenizer *t, const char *path, Error *err)
{
    Reader *r = reader_open(path, err);
    if (!r)
        return -1;
    Span line;
    Buffer bytes = {0};
    int got;
    while ((got = reader_line(r, &line, err)) > 0)
        if (line.length > 0 && tiktoken_line(t, line, &bytes) < 0) {
            got = error_set(err, "%s:%" PRId64 ": not a line of a .tiktoken file", path, reader_line_number(r));
            break;
        }
    reader_close(r);
    buffer_free(&bytes);
    if (got < 0)
        return -1;
    Vocabulary *v = &t->vocabulary;
    if (v->size == 0)
        return error_set(err, "%s: no tokens", path);
    vocabulary_index(v);
    size_t splits = 0;
    for (int64_t id = 0; id < v->size; id++)
        splits += v->tokens[id].length;
    vocabulary_merges(v, splits);
    for (int64_t id = 0; id < v->size; id++) {
        const char *p = v->bytes.data + v->tokens[id].offset;
        for (uint32_t k = 1; k < v->tokens[id].length; k++) {
            int32_t a = vocabulary_find(v, p, k), b = vocabulary_find(v, p + k, v->tokens[id].length - k);
            if (a >= 0 && b >= 0)
                vocabulary_merge_add(v, a, b, (int32_t)id, (int32_t)id);
        }
    }
    t->ignore_merges = true;
    t->split_count = 1;
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    return splitter_open(&t->splits[0], strncmp(name, "o200k", 5) == 0 ? "o200k" : strncmp(name, "r50k", 4) == 0 || strncmp(name, "gpt2", 4) == 0 ? "gpt2" : "cl100k", err);
}

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
        char *file = memory_format("%s/tokenizer.json", path);
        if (access(file, F_OK) != 0) {
            free(file);
            file = memory_format("%s/tokenizer.json.gz", path);
        }
        t->folder = memory_string(path);
        status = read_json(t, file, err);
        free(file);
        if (status == 0)
            status = read_config(t, path, err);
    } else if (strstr(path, ".tiktoken")) {
        status = read_tiktoken(t, path, err);
    } else {
        status = read_json(t, path, err);
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
