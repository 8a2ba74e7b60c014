#include "text/sentencepiece.h"

#include <string.h>

static const char mark[] = "\xe2\x96\x81";
enum { MARK_BYTES = 3 };

static bool string_is(const JsonValue *v, const char *wanted)
{
    return json_is(v, JSON_STRING) && v->string.length == strlen(wanted) && memcmp(v->string.data, wanted, v->string.length) == 0;
}

static bool type_is(const JsonValue *v, const char *wanted)
{
    return string_is(json_get(v, "type"), wanted);
}

static const char *type_of(const JsonValue *v)
{
    const JsonValue *type = json_get(v, "type");
    return json_is(type, JSON_STRING) ? type->string.data : "";
}

static int read_normalizer(SentencePiece *s, const JsonValue *v, bool *replaced, const char *path, Error *err)
{
    if (!v || v->type == JSON_NULL)
        return 0;
    if (type_is(v, "Prepend") && string_is(json_get(v, "prepend"), mark)) {
        s->prefix = PREFIX_ALWAYS;
        return 0;
    }
    if (type_is(v, "Replace") && string_is(json_get(json_get(v, "pattern"), "String"), " ") && string_is(json_get(v, "content"), mark)) {
        *replaced = true;
        return 0;
    }
    const JsonValue *list = type_is(v, "Sequence") ? json_get(v, "normalizers") : NULL;
    if (!json_is(list, JSON_ARRAY))
        return error_set(err, "%s: the normalizer %s is not supported with byte_fallback", path, type_of(v));
    for (size_t i = 0; i < list->count; i++)
        if (read_normalizer(s, &list->items[i], replaced, path, err) < 0)
            return -1;
    return 0;
}

/* Metaspace: like Prepend and Replace, but no prefix where there is a blank already. */
static int read_pretokenizer(SentencePiece *s, const JsonValue *v, bool *replaced, const char *path, Error *err)
{
    if (!v || v->type == JSON_NULL)
        return 0;
    if (!type_is(v, "Metaspace") || !string_is(json_get(v, "replacement"), mark) || s->prefix != PREFIX_NONE)
        return error_set(err, "%s: the pre-tokenizer %s is not supported with byte_fallback", path, type_of(v));
    const JsonValue *scheme = json_get(v, "prepend_scheme"), *old = json_get(v, "add_prefix_space"), *split = json_get(v, "split");
    bool never = scheme ? string_is(scheme, "never") : json_is(old, JSON_BOOL) && !old->boolean;
    s->prefix = never ? PREFIX_NONE : PREFIX_UNLESS_BLANK;
    s->first_only = string_is(scheme, "first");
    s->split_all = !json_is(split, JSON_BOOL) || split->boolean;
    *replaced = true;
    return 0;
}

static bool decoder_strips(const JsonValue *v)
{
    if (type_is(v, "Strip")) {
        const JsonValue *start = json_get(v, "start");
        return string_is(json_get(v, "content"), " ") && json_is(start, JSON_INTEGER) && start->integer == 1;
    }
    if (type_is(v, "Metaspace"))
        return !string_is(json_get(v, "prepend_scheme"), "never");
    const JsonValue *list = type_is(v, "Sequence") ? json_get(v, "decoders") : NULL;
    for (size_t i = 0; json_is(list, JSON_ARRAY) && i < list->count; i++)
        if (decoder_strips(&list->items[i]))
            return true;
    return false;
}

int sentencepiece_read(SentencePiece *s, const JsonValue *root, const char *path, Error *err)
{
    bool replaced = false;
    *s = (SentencePiece){.on = true};
    memset(s->byte_id, 0xff, sizeof s->byte_id);
    if (read_normalizer(s, json_get(root, "normalizer"), &replaced, path, err) < 0 ||
        read_pretokenizer(s, json_get(root, "pre_tokenizer"), &replaced, path, err) < 0)
        return -1;
    if (!replaced)
        return error_set(err, "%s: byte_fallback without ▁ for blanks is not supported", path);
    s->strip = decoder_strips(json_get(root, "decoder"));
    return 0;
}

static void append_blanks(Span text, Buffer *out)
{
    buffer_reserve(out, text.length);
    for (const char *p = text.data, *end = text.data + text.length; p < end;) {
        const char *m = memmem(p, (size_t)(end - p), mark, MARK_BYTES);
        buffer_append(out, p, (size_t)((m ? m : end) - p));
        if (m)
            buffer_byte(out, ' ');
        p = m ? m + MARK_BYTES : end;
    }
}

void sentencepiece_bytes(Span token, Buffer *out)
{
    out->length = 0;
    append_blanks(token, out);
}

int sentencepiece_byte(Span token)
{
    static const char digits[] = "0123456789ABCDEF";
    if (token.length != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>')
        return -1;
    const char *high = memchr(digits, token.data[3], 16), *low = memchr(digits, token.data[4], 16);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

void sentencepiece_normal(const SentencePiece *s, Span text, bool first, Buffer *out)
{
    out->length = 0;
    bool blank = text.length > 0 && (*text.data == ' ' || (text.length >= MARK_BYTES && memcmp(text.data, mark, MARK_BYTES) == 0));
    bool wanted = s->prefix == PREFIX_ALWAYS || (s->prefix == PREFIX_UNLESS_BLANK && !blank);
    if (wanted && text.length > 0 && (first || !s->first_only))
        buffer_byte(out, ' ');
    append_blanks(text, out);
}

size_t sentencepiece_next(const SentencePiece *s, Span text, size_t at)
{
    if (!s->split_all && !s->split_words)
        return text.length;
    while (at + 1 < text.length) {
        at++;
        if (text.data[at] == ' ' && (s->split_all || text.data[at - 1] != ' '))
            return at;
    }
    return text.length;
}
