/* Reading tokenizer.json. Whatever would change ids and is not known is refused by name. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
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

static int add_split(Tokenizer *t, const char *regex, bool matches_only, const char *path, Error *err)
{
    if (t->split_count == MAX_SPLITS)
        return error_set(err, "%s: more than %d splits", path, MAX_SPLITS);
    Splitter *s = &t->splits[t->split_count++];
    Error reason;
    if (splitter_open(s, regex, &reason) < 0)
        return error_set(err, "%s: %s", path, reason.text);
    s->matches_only = matches_only;
    return 0;
}

/* A regular expression that matches this text alone, and is no pattern's name. */
static char *literal(Span text)
{
    Buffer b = {0};
    buffer_string(&b, "(?:");
    for (size_t i = 0; i < text.length; i++) {
        if (strchr("\\^$.[]|()?*+{}", text.data[i]))
            buffer_byte(&b, '\\');
        buffer_byte(&b, text.data[i]);
    }
    buffer_append(&b, ")", 2); /* and the zero */
    return b.data;
}

static int read_split(Tokenizer *t, const JsonValue *v, const char *path, Error *err)
{
    const JsonValue *regex = json_get(json_get(v, "pattern"), "Regex"), *text = json_get(json_get(v, "pattern"), "String");
    const JsonValue *pattern = regex ? regex : text, *behavior = json_get(v, "behavior");
    bool known = json_is(pattern, JSON_STRING) && json_is(behavior, JSON_STRING), isolated = known && strcmp(behavior->string.data, "Isolated") == 0;
    bool matches_only = known && strcmp(behavior->string.data, "Removed") == 0 && flag_of(v, "invert");
    if (!isolated && !matches_only)
        return error_set(err, "%s: a Split that is neither isolated nor removed and inverted is not supported", path);
    char *expression = regex ? memory_string(regex->string.data) : literal(text->string);
    int status = add_split(t, expression, matches_only, path, err);
    free(expression);
    return status;
}

/* *bytes: ByteLevel was there. What comes behind it would see its characters instead of the text's. */
static int read_pretokenizer(Tokenizer *t, const JsonValue *v, bool *bytes, const char *path, Error *err)
{
    if (!v || v->type == JSON_NULL)
        return error_set(err, "%s: no pre-tokenizer: only byte-level BPE is supported", path);
    const char *type = type_of(v);
    if (strcmp(type, "Sequence") == 0) {
        const JsonValue *list = json_get(v, "pretokenizers");
        for (size_t i = 0; json_is(list, JSON_ARRAY) && i < list->count; i++)
            if (read_pretokenizer(t, &list->items[i], bytes, path, err) < 0)
                return -1;
        return 0;
    }
    if (*bytes)
        return error_set(err, "%s: the pre-tokenizer %s behind ByteLevel is not supported", path, type);
    if (strcmp(type, "Split") == 0)
        return read_split(t, v, path, err);
    if (strcmp(type, "Digits") == 0)
        return add_split(t, flag_of(v, "individual_digits") ? "\\p{N}" : "\\p{N}+", false, path, err);
    if (strcmp(type, "ByteLevel") == 0) {
        const JsonValue *use_regex = json_get(v, "use_regex");
        *bytes = true;
        t->prefix_blank = flag_of(v, "add_prefix_space");
        if (!use_regex || use_regex->boolean)
            return add_split(t, "gpt2", false, path, err);
        return t->prefix_blank ? add_split(t, "none", false, path, err) : 0;
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
            ids_free(&plain);
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

/* Files of 2020, GPT-2's own among them, name no type; then it is what has merges. */
static bool is_bpe(const JsonValue *model)
{
    return json_get(model, "type") ? strcmp(type_of(model), "BPE") == 0 : json_is(json_get(model, "merges"), JSON_ARRAY);
}

int tokenizer_read_json(Tokenizer *t, const char *path, Error *err)
{
    JsonTree tree = {0};
    int status = json_parse_file(&tree, path, err);
    const JsonValue *model = status == 0 ? json_get(tree.root, "model") : NULL;
    if (status == 0 && !is_bpe(model))
        status = error_set(err, "%s: the model '%s' is not BPE", path, type_of(model));
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2 && status == 0; i++) {
        const JsonValue *v = json_get(model, affixes[i]);
        if (json_is(v, JSON_STRING) && v->string.length > 0)
            status = error_set(err, "%s: %s is not supported", path, affixes[i]);
    }
    bool bytes = false;
    if (status == 0 && flag_of(model, "byte_fallback"))
        status = sentencepiece_read(&t->sentencepiece, tree.root, path, err);
    if (status == 0 && !t->sentencepiece.on)
        status = read_normalizer(t, json_get(tree.root, "normalizer"), path, err);
    if (status == 0 && !t->sentencepiece.on)
        status = read_pretokenizer(t, json_get(tree.root, "pre_tokenizer"), &bytes, path, err);
    if (status == 0 && !bytes && !t->sentencepiece.on)
        status = error_set(err, "%s: no pre-tokenizer ByteLevel: only byte-level BPE is supported", path);
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
