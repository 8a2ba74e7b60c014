#include "io/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/stream.h"

int json_parse_file(JsonTree *out, const char *path, Error *err)
{
    Buffer text = {0};
    int status = file_read(path, &text, 0, err);
    size_t skip = status == 0 && text.length >= 3 && memcmp(text.data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    if (status == 0)
        status = json_parse(out, path, (Span){text.data + skip, text.length - skip}, err);
    buffer_free(&text);
    return status;
}

void json_free(JsonTree *tree)
{
    arena_free(&tree->arena);
    tree->root = NULL;
}

const JsonValue *json_get(const JsonValue *object, const char *key)
{
    if (!json_is(object, JSON_OBJECT))
        return NULL;
    size_t n = strlen(key);
    for (size_t i = 0; i < object->count; i++)
        if (object->keys[i].length == n && memcmp(object->keys[i].data, key, n) == 0)
            return &object->items[i];
    return NULL;
}

bool json_is(const JsonValue *v, JsonType type)
{
    return v && (v->type == type || (type == JSON_NUMBER && v->type == JSON_INTEGER));
}

const JsonValue *json_list(const JsonValue *v, size_t *count)
{
    bool list = json_is(v, JSON_ARRAY);
    *count = list ? v->count : v != NULL;
    return list ? v->items : v;
}

void json_record_set(Buffer *out, Span line, const JsonField *field, const char *name, Span value)
{
    /* A record may come back from the program that adds a field: it must not stand there twice. */
    Span old = field->raw;
    if (field->type != JSON_ABSENT || json_record_find(line, name, &old)) {
        size_t before = (size_t)(old.data - line.data);
        buffer_append(out, line.data, before);
        buffer_append(out, value.data, value.length);
        buffer_append(out, old.data + old.length, line.length - before - old.length);
        return;
    }
    size_t close = line.length;
    while (close > 0 && line.data[close - 1] != '}')
        close--;
    size_t last = close ? close - 1 : 0; /* of the closing brace */
    while (last > 0 && strchr(" \t\r\n", line.data[last - 1]))
        last--;
    buffer_append(out, line.data, last);
    /* An object with members gets a comma in its own style: with a blank behind where the line has one. */
    bool empty = last > 0 && line.data[last - 1] == '{';
    const char *colon = memchr(line.data, ':', last);
    bool spaced = colon && colon + 1 < line.data + last && colon[1] == ' ';
    buffer_string(out, empty ? "" : spaced ? ", " : ",");
    json_write_string(out, (Span){name, strlen(name)});
    buffer_string(out, spaced ? ": " : ":");
    buffer_append(out, value.data, value.length);
    buffer_append(out, line.data + last, line.length - last);
}

static void write_escape(Buffer *b, unsigned char c)
{
    static const char *const short_forms[] = {['"'] = "\\\"", ['\\'] = "\\\\", ['\b'] = "\\b", ['\f'] = "\\f",
                                              ['\n'] = "\\n", ['\r'] = "\\r",  ['\t'] = "\\t"};
    if (c < sizeof short_forms / sizeof *short_forms && short_forms[c])
        buffer_append(b, short_forms[c], 2);
    else
        buffer_format(b, "\\u%04x", c);
}

void json_write_string(Buffer *b, Span s)
{
    buffer_byte(b, '"');
    size_t begin = 0;
    for (size_t i = 0; i < s.length; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buffer_append(b, s.data + begin, i - begin);
        write_escape(b, c);
        begin = i + 1;
    }
    buffer_append(b, s.data + begin, s.length - begin);
    buffer_byte(b, '"');
}

void json_write_number(Buffer *b, double x)
{
    if (!isfinite(x)) {
        buffer_string(b, "null");
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    buffer_string(b, text);
}

static void new_line(Buffer *b, int indent, int depth)
{
    if (indent < 0)
        return;
    buffer_byte(b, '\n');
    for (int i = 0; i < indent * depth; i++)
        buffer_byte(b, ' ');
}

static void write_value(Buffer *b, const JsonValue *v, int indent, int depth)
{
    bool object = v->type == JSON_OBJECT;
    switch (v->type) {
    case JSON_ABSENT:
    case JSON_NULL:
        buffer_string(b, "null");
        return;
    case JSON_BOOL:
        buffer_string(b, v->boolean ? "true" : "false");
        return;
    case JSON_INTEGER:
        buffer_format(b, "%" PRId64, v->integer);
        return;
    case JSON_NUMBER:
        json_write_number(b, v->number);
        return;
    case JSON_STRING:
        json_write_string(b, v->string);
        return;
    default:
        break;
    }
    buffer_byte(b, object ? '{' : '[');
    for (size_t i = 0; i < v->count; i++) {
        if (i)
            buffer_string(b, indent < 0 ? ", " : ",");
        new_line(b, indent, depth + 1);
        if (object) {
            json_write_string(b, v->keys[i]);
            buffer_string(b, ": ");
        }
        write_value(b, &v->items[i], indent, depth + 1);
    }
    if (v->count)
        new_line(b, indent, depth);
    buffer_byte(b, object ? '}' : ']');
}

void json_write_value(Buffer *b, const JsonValue *v, int indent)
{
    write_value(b, v, indent, 0);
}
