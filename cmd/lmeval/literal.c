/* Python's literals, as ast.literal_eval reads what a template has printed. */
#include <stdlib.h>
#include <string.h>
#include "task.h"
#include "text/utf8.h"

enum { MAX_DEPTH = 64 };

typedef struct Literal {
    const char *at, *end;
    Arena *arena;
    Error *err;
} Literal;

static int fail(const Literal *l, const char *reason)
{
    return error_set(l->err, "no Python literal: %s at '%.*s'", reason, (int)(l->end - l->at < 20 ? l->end - l->at : 20), l->at);
}

static void skip_blanks(Literal *l)
{
    while (l->at < l->end && strchr(" \t\r\n\f", *l->at))
        l->at++;
}

static bool take(Literal *l, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(l->end - l->at) < n || memcmp(l->at, word, n) != 0)
        return false;
    l->at += n;
    return true;
}

static int read_escape(Literal *l, Buffer *b)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = *l->at++;
    const char *simple = strchr(from, c);
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (c == '\n')
        return 0;
    if (c && simple) {
        buffer_byte(b, to[simple - from]);
        return 0;
    }
    uint32_t code = 0;
    if (c >= '0' && c <= '7') {
        l->at--;
        for (int i = 0; i < 3 && l->at < l->end && *l->at >= '0' && *l->at <= '7'; i++)
            code = code * 8 + (uint32_t)(*l->at++ - '0');
    } else if (digits) {
        for (int i = 0; i < digits; i++, l->at++) {
            const char *hex = l->at < l->end && *l->at ? strchr("0123456789abcdefABCDEF", *l->at) : NULL;
            if (!hex)
                return fail(l, "a broken escape");
            code = code * 16 + (*l->at <= '9' ? (uint32_t)(*l->at - '0') : (uint32_t)((*l->at | 32) - 'a' + 10));
        }
    } else if (c == 'N') {
        return fail(l, "a named character");
    } else {
        buffer_byte(b, '\\');
        buffer_byte(b, c);
        return 0;
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return fail(l, "half a character");
    char bytes[4];
    buffer_append(b, bytes, utf8_encode(code, bytes));
    return 0;
}

static int read_string(Literal *l, Buffer *b)
{
    bool raw = take(l, "r") || take(l, "R");
    if (!raw && (take(l, "u") || take(l, "b")) && l->at[-1] == 'b')
        return fail(l, "bytes");
    char quote = *l->at++;
    bool triple = l->end - l->at >= 2 && l->at[0] == quote && l->at[1] == quote;
    l->at += triple ? 2 : 0;
    for (;;) {
        if (l->at >= l->end || (!triple && *l->at == '\n'))
            return fail(l, "a string without end");
        if (*l->at == quote && (!triple || (l->end - l->at >= 3 && l->at[1] == quote && l->at[2] == quote))) {
            l->at += triple ? 3 : 1;
            return 0;
        }
        if (*l->at != '\\') {
            buffer_byte(b, *l->at++);
        } else if (++l->at >= l->end) {
            return fail(l, "a string without end");
        } else if (raw) {
            buffer_byte(b, '\\');
            buffer_byte(b, *l->at++);
        } else if (read_escape(l, b) < 0) {
            return -1;
        }
    }
}

static bool string_begins(const Literal *l)
{
    const char *p = l->at;
    p += p < l->end && strchr("rRub", *p) && *p;
    return p < l->end && (*p == '\'' || *p == '"');
}

static int read_value(Literal *l, int depth, JsonValue *out);

static int read_number(Literal *l, JsonValue *out)
{
    char text[64];
    size_t n = 0;
    bool whole = true;
    for (; l->at < l->end && n + 1 < sizeof text && *l->at && strchr("+-0123456789.eE_", *l->at); l->at++) {
        whole &= !strchr(".eE", *l->at);
        if (*l->at != '_')
            text[n++] = *l->at;
    }
    text[n] = 0;
    char *end;
    *out = (JsonValue){.type = whole ? JSON_INTEGER : JSON_NUMBER, .number = strtod(text, &end)};
    out->integer = whole ? strtoll(text, NULL, 10) : 0;
    return n == 0 || *end ? fail(l, "something unknown") : 0;
}

/* Items up to the closing bracket; of mappings their keys too. */
static int read_items(Literal *l, char close, int depth, JsonValue *out)
{
    JsonValue *items = NULL;
    Span *keys = NULL;
    size_t item_capacity = 0, key_capacity = 0;
    int status = 0;
    bool map = close == '}';
    *out = (JsonValue){.type = map ? JSON_OBJECT : JSON_ARRAY};
    for (;;) {
        skip_blanks(l);
        if (l->at < l->end && *l->at == close) {
            l->at++;
            break;
        }
        items = memory_grow(items, &item_capacity, out->count + 1, sizeof *items);
        JsonValue key = {.type = JSON_STRING};
        if (map && ((status = read_value(l, depth + 1, &key)) < 0 || key.type != JSON_STRING || (skip_blanks(l), !take(l, ":")))) {
            status = status < 0 ? status : fail(l, "a mapping's key");
            break;
        }
        if ((status = read_value(l, depth + 1, &items[out->count])) < 0)
            break;
        keys = memory_grow(keys, &key_capacity, out->count + 1, sizeof *keys);
        keys[out->count++] = key.string;
        skip_blanks(l);
        if (take(l, ","))
            continue;
        if (l->at >= l->end || *l->at != close) {
            status = fail(l, "a missing bracket");
            break;
        }
    }
    if (status == 0 && out->count) {
        out->items = (JsonValue *)(void *)arena_copy(l->arena, (const char *)items, out->count * sizeof *items);
        out->keys = (Span *)(void *)arena_copy(l->arena, (const char *)keys, out->count * sizeof *keys);
    }
    free(items);
    free(keys);
    return status;
}

static int read_value(Literal *l, int depth, JsonValue *out)
{
    skip_blanks(l);
    if (depth > MAX_DEPTH || l->at >= l->end)
        return fail(l, depth > MAX_DEPTH ? "too deep" : "nothing");
    if (string_begins(l)) {
        Buffer b = {0};
        int status = 0;
        for (; status == 0 && string_begins(l); skip_blanks(l)) /* strings side by side are one */
            status = read_string(l, &b);
        *out = (JsonValue){.type = JSON_STRING, .string = {arena_copy(l->arena, b.data ? b.data : "", b.length), b.length}};
        buffer_free(&b);
        return status;
    }
    if (take(l, "["))
        return read_items(l, ']', depth, out);
    if (take(l, "{"))
        return read_items(l, '}', depth, out);
    if (take(l, "(")) {
        const char *begin = l->at;
        if (read_items(l, ')', depth, out) < 0)
            return -1;
        const char *last = l->at - 2;
        while (last > begin && strchr(" \t\r\n\f", *last))
            last--;
        if (out->count == 1 && *last != ',') /* brackets around one value */
            *out = out->items[0];
        return 0;
    }
    *out = (JsonValue){.type = JSON_NULL};
    if (take(l, "None"))
        return 0;
    if (take(l, "True") || take(l, "False")) {
        *out = (JsonValue){.type = JSON_BOOL, .boolean = l->at[-2] == 'u'};
        return 0;
    }
    return read_number(l, out);
}

int literal_eval(Span text, Arena *arena, JsonValue *out, Error *err)
{
    Literal l = {.at = text.data, .end = text.data + text.length, .arena = arena, .err = err};
    while (l.at < l.end && (*l.at == ' ' || *l.at == '\t'))
        l.at++;
    if (read_value(&l, 0, out) < 0)
        return -1;
    skip_blanks(&l);
    if (l.at < l.end && *l.at == ',') { /* a tuple without brackets */
        Buffer b = {0};
        buffer_byte(&b, '(');
        buffer_append(&b, text.data, text.length);
        buffer_byte(&b, ')');
        int status = literal_eval((Span){b.data, b.length}, arena, out, err);
        buffer_free(&b);
        return status;
    }
    return l.at < l.end ? fail(&l, "something more") : 0;
}
