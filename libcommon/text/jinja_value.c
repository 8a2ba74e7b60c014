/* Values of a template: strings that know where their bytes came from, lists, mappings. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "text/jinja_internal.h"
#include "text/unicode.h"
#include "text/utf8.h"

Value value_bool(bool b)
{
    return (Value){.type = VALUE_BOOL, .integer = b};
}

Value value_integer(int64_t i)
{
    return (Value){.type = VALUE_INTEGER, .integer = i};
}

Value value_text(const char *text)
{
    return (Value){.type = VALUE_STRING, .data = text, .count = strlen(text)};
}

Value value_string(Render *r, const Buffer *text, const Buffer *origins)
{
    Value v = {.type = VALUE_STRING, .count = text->length, .data = ""};
    if (text->length == 0)
        return v;
    v.data = arena_copy(&r->arena, text->data, text->length);
    v.origins = (const uint8_t *)arena_copy(&r->arena, origins->data, text->length);
    return v;
}

Value value_substring(const Value *s, size_t begin, size_t end)
{
    return (Value){.type = VALUE_STRING, .data = s->data + begin, .origins = s->origins ? s->origins + begin : NULL, .count = end - begin};
}

Value value_points(Render *r, const Value *v)
{
    if (v->type != VALUE_STRING)
        return *v;
    Value list = {.type = VALUE_LIST, .items = arena_alloc(&r->arena, v->count + 1, sizeof(Value))};
    for (size_t begin = 0, end; begin < v->count; begin = end) {
        for (end = begin + 1; end < v->count && ((unsigned char)v->data[end] & 0xc0) == 0x80; end++)
            ;
        list.items[list.count++] = value_substring(v, begin, end);
    }
    return list;
}

void value_append(Buffer *text, Buffer *origins, const char *data, const uint8_t *from, size_t n)
{
    buffer_append(text, data, n);
    buffer_reserve(origins, n);
    if (n && from)
        memcpy(origins->data + origins->length, from, n);
    else if (n)
        memset(origins->data + origins->length, 0, n);
    origins->length += n;
}

static void append_filled(Buffer *text, Buffer *origins, const char *data, size_t n, uint8_t origin)
{
    value_append(text, origins, data, NULL, n);
    if (n)
        memset(origins->data + origins->length - n, origin, n);
}

Value value_from_json(Render *r, const JsonValue *j, uint8_t origin, const uint8_t *item_origins)
{
    Value v = {.type = VALUE_NONE, .origin = origin};
    if (!j || j->type == JSON_NULL || j->type == JSON_ABSENT)
        return v;
    switch (j->type) {
    case JSON_BOOL:
    case JSON_INTEGER:
        v.type = j->type == JSON_BOOL ? VALUE_BOOL : VALUE_INTEGER;
        v.integer = j->type == JSON_BOOL ? j->boolean : j->integer;
        return v;
    case JSON_NUMBER:
        v.type = VALUE_FLOAT;
        v.number = j->number;
        return v;
    case JSON_STRING:
        v = (Value){.type = VALUE_STRING, .origin = origin, .data = j->string.data ? j->string.data : "", .count = j->string.length};
        if (origin && v.count)
            v.origins = memset(arena_alloc(&r->arena, v.count, 1), origin, v.count);
        return v;
    default:
        v = (Value){.type = j->type == JSON_ARRAY ? VALUE_LIST : VALUE_MAP, .origin = origin, .count = j->count, .keys = j->keys};
        v.items = arena_alloc(&r->arena, j->count + 1, sizeof *v.items);
        for (size_t i = 0; i < j->count; i++)
            v.items[i] = value_from_json(r, &j->items[i], item_origins ? item_origins[i] : origin, NULL);
        return v;
    }
}

bool value_true(const Value *v)
{
    switch (v->type) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
    case VALUE_INTEGER:
        return v->integer != 0;
    case VALUE_FLOAT:
        return v->number != 0;
    case VALUE_MAP:
        return v->map || v->count > 0;
    case VALUE_MACRO:
        return true;
    default:
        return v->count > 0;
    }
}

bool value_is_number(const Value *v)
{
    return v->type == VALUE_INTEGER || v->type == VALUE_FLOAT || v->type == VALUE_BOOL;
}

bool value_equal(const Value *a, const Value *b)
{
    if (value_is_number(a) && value_is_number(b))
        return (a->type == VALUE_FLOAT ? a->number : (double)a->integer) == (b->type == VALUE_FLOAT ? b->number : (double)b->integer);
    if (a->type != b->type)
        return false;
    if (a->type == VALUE_UNDEFINED || a->type == VALUE_NONE)
        return true;
    if (a->count != b->count)
        return false;
    if (a->type == VALUE_STRING)
        return memcmp(a->data, b->data, a->count) == 0;
    for (size_t i = 0; i < a->count; i++) {
        const Value *other = &b->items[i], found = a->type == VALUE_MAP ? value_member(b, a->keys[i]) : (Value){0};
        if (!value_equal(&a->items[i], a->type == VALUE_MAP ? &found : other))
            return false;
    }
    return a->type == VALUE_LIST || a->type == VALUE_MAP;
}

bool span_equal(Span a, Span b)
{
    return a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
}

Value value_member(const Value *object, Span key)
{
    if (object->type != VALUE_MAP)
        return (Value){0};
    const Span *keys = object->map ? object->map->keys : object->keys;
    const Value *values = object->map ? object->map->values : object->items;
    for (size_t i = 0, n = object->map ? object->map->count : object->count; i < n; i++)
        if (span_equal(keys[i], key))
            return values[i];
    return (Value){0};
}

void map_set(Render *r, Map *m, Span key, Value v)
{
    for (size_t i = 0; i < m->count; i++)
        if (span_equal(m->keys[i], key)) {
            m->values[i] = v;
            return;
        }
    if (m->count == m->capacity) {
        size_t more = m->capacity * 2 + 8;
        Span *keys = arena_alloc(&r->arena, more, sizeof *keys);
        Value *values = arena_alloc(&r->arena, more, sizeof *values);
        if (m->count) {
            memcpy(keys, m->keys, m->count * sizeof *keys);
            memcpy(values, m->values, m->count * sizeof *values);
        }
        *m = (Map){keys, values, m->count, more};
    }
    m->keys[m->count] = key;
    m->values[m->count++] = v;
}

void value_print_float(Buffer *b, double x)
{
    size_t begin = b->length;
    if (fabs(x) >= 1e15 && fabs(x) < 1e16)
        buffer_format(b, "%.1f", x);
    else
        json_write_number(b, x);
    if (!memchr(b->data + begin, '.', b->length - begin) && !memchr(b->data + begin, 'e', b->length - begin))
        buffer_string(b, ".0");
}

/* Python's repr of a string (unicode_repr): what is not printable is escaped. */
static void repr_string(Buffer *b, const char *s, size_t n)
{
    char quote = memchr(s, '\'', n) && !memchr(s, '"', n) ? '"' : '\'';
    buffer_byte(b, quote);
    for (size_t i = 0, length; i < n; i += length) {
        uint32_t c = utf8_decode(s + i, &length);
        bool printable = c == ' ' || (unicode_class(c) & (UNICODE_L | UNICODE_N | UNICODE_M | UNICODE_P | UNICODE_S));
        if (c == '\\' || c == (uint32_t)quote)
            buffer_format(b, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            buffer_format(b, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (printable)
            buffer_append(b, s + i, length);
        else
            buffer_format(b, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    buffer_byte(b, quote);
}

static int repr(Render *r, const Value *v, Buffer *b)
{
    if (v->type == VALUE_STRING) {
        repr_string(b, v->data, v->count);
        return 0;
    }
    if ((v->type != VALUE_LIST && v->type != VALUE_MAP) || v->map) {
        Buffer origins = {0};
        int status = v->type == VALUE_UNDEFINED ? render_fail(r, "a list holds what is undefined") : v->type >= VALUE_MAP ? render_fail(r, "a namespace or a macro is printed") :
                     value_print(r, v, b, &origins);
        buffer_free(&origins);
        return status;
    }
    buffer_byte(b, v->type == VALUE_MAP ? '{' : '[');
    int status = 0;
    for (size_t i = 0; i < v->count && status == 0; i++) {
        buffer_string(b, i ? ", " : "");
        if (v->type == VALUE_MAP) {
            repr_string(b, v->keys[i].data, v->keys[i].length);
            buffer_string(b, ": ");
        }
        status = repr(r, &v->items[i], b);
    }
    buffer_byte(b, v->type == VALUE_MAP ? '}' : ']');
    return status;
}

int value_print(Render *r, const Value *v, Buffer *text, Buffer *origins)
{
    Buffer number = {0};
    switch (v->type) {
    case VALUE_UNDEFINED:
        return 0;
    case VALUE_NONE:
        append_filled(text, origins, "None", 4, v->origin);
        return 0;
    case VALUE_BOOL:
        append_filled(text, origins, v->integer ? "True" : "False", v->integer ? 4 : 5, v->origin);
        return 0;
    case VALUE_STRING:
        value_append(text, origins, v->data, v->origins, v->count);
        return 0;
    case VALUE_INTEGER:
    case VALUE_FLOAT:
        if (v->type == VALUE_INTEGER)
            buffer_format(&number, "%" PRId64, v->integer);
        else
            value_print_float(&number, v->number);
        append_filled(text, origins, number.data, number.length, v->origin);
        buffer_free(&number);
        return 0;
    default: {
        int status = repr(r, v, &number);
        append_filled(text, origins, number.data, number.length, value_greatest_origin(v));
        buffer_free(&number);
        return status;
    }
    }
}

const Value *argument(const Arguments *a, size_t at, const char *keyword)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->keywords[i].data ? span_is(a->keywords[i], keyword) : i == at)
            return &a->values[i];
    return NULL;
}
