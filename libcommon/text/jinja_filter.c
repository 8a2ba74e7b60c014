/* What a template can do to a value: Jinja's filters and tests, and Python's methods of strings and mappings. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "text/jinja_internal.h"
#include "text/python_re.h"
#include "text/unicode.h"
#include "text/utf8.h"

uint8_t value_greatest_origin(const Value *v)
{
    uint8_t most = v->origin;
    if (v->type == VALUE_STRING)
        for (size_t i = 0; v->origins && i < v->count; i++)
            most = v->origins[i] > most ? v->origins[i] : most;
    else if (v->type == VALUE_LIST || v->type == VALUE_MAP)
        for (size_t i = 0; i < v->count; i++) {
            uint8_t origin = value_greatest_origin(&v->items[i]);
            most = origin > most ? origin : most;
        }
    return most;
}

static void new_line(Buffer *b, int indent, int depth)
{
    if (indent < 0)
        return;
    buffer_byte(b, '\n');
    for (int i = 0; i < indent * depth; i++)
        buffer_byte(b, ' ');
}

/* Python's json.dumps(ensure_ascii=False). */
static void write_json(const Value *v, int indent, int depth, Buffer *b)
{
    bool map = v->type == VALUE_MAP;
    switch (v->type) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
    case VALUE_MACRO:
        buffer_string(b, "null");
        return;
    case VALUE_BOOL:
        buffer_string(b, v->integer ? "true" : "false");
        return;
    case VALUE_INTEGER:
        buffer_format(b, "%" PRId64, v->integer);
        return;
    case VALUE_FLOAT:
        value_print_float(b, v->number);
        return;
    case VALUE_STRING:
        json_write_string(b, (Span){v->data, v->count});
        return;
    default:
        break;
    }
    buffer_byte(b, map ? '{' : '[');
    for (size_t i = 0; i < v->count; i++) {
        buffer_string(b, i ? indent < 0 ? ", " : "," : "");
        new_line(b, indent, depth + 1);
        if (map) {
            json_write_string(b, v->keys[i]);
            buffer_string(b, ": ");
        }
        write_json(&v->items[i], indent, depth + 1, b);
    }
    if (v->count)
        new_line(b, indent, depth);
    buffer_byte(b, map ? '}' : ']');
}

static Value to_json(Render *r, const Value *v, const Arguments *a)
{
    const Value *indent = argument(a, 0, "indent");
    Buffer text = {0}, origins = {0};
    write_json(v, indent && indent->type == VALUE_INTEGER && indent->integer < 100 ? (int)indent->integer : -1, 0, &text);
    buffer_reserve(&origins, text.length);
    memset(origins.data, value_greatest_origin(v), text.length);
    Value out = value_string(r, &text, &origins);
    buffer_free(&text);
    buffer_free(&origins);
    return out;
}

/* Is the code point at s among `characters`, or blank where those are NULL (str.strip)? */
static bool stripped_char(const char *s, const Value *characters)
{
    size_t n;
    uint32_t c = utf8_decode(s, &n);
    if (!characters)
        return (unicode_class(c) & UNICODE_SPACE) || (c >= 0x1c && c <= 0x1f);
    for (size_t at = 0, m; at < characters->count; at += m)
        if (utf8_decode(characters->data + at, &m) == c)
            return true;
    return false;
}

static Value strip(const Value *s, const Value *characters, bool left, bool right)
{
    size_t begin = 0, end = s->count;
    while (left && begin < end && stripped_char(s->data + begin, characters))
        for (begin++; begin < end && ((unsigned char)s->data[begin] & 0xc0) == 0x80; begin++)
            ;
    while (right && end > begin) {
        size_t last = end - 1;
        while (last > begin && ((unsigned char)s->data[last] & 0xc0) == 0x80)
            last--;
        if (!stripped_char(s->data + last, characters))
            break;
        end = last;
    }
    return value_substring(s, begin, end);
}

static void list_add(Render *r, Value *list, size_t *capacity, Value v)
{
    if (list->count == *capacity) {
        Value *items = arena_alloc(&r->arena, *capacity * 2 + 8, sizeof *items);
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        *capacity = *capacity * 2 + 8;
    }
    list->items[list->count++] = v;
}

static int split(Render *r, const Value *s, const Arguments *a, Value *out)
{
    const Value *by = argument(a, 0, "sep"), *most = argument(a, 1, "maxsplit");
    int64_t left = most && most->type == VALUE_INTEGER && most->integer >= 0 ? most->integer : INT64_MAX;
    size_t capacity = 0, begin = 0;
    *out = (Value){.type = VALUE_LIST};
    if (!by || by->type == VALUE_NONE) { /* at blanks */
        Value rest = strip(s, NULL, true, true);
        for (size_t i = 0; i <= rest.count; i++)
            if (i == rest.count || stripped_char(rest.data + i, NULL)) {
                if (i > begin)
                    list_add(r, out, &capacity, value_substring(&rest, begin, i));
                begin = i + 1;
            }
        return left == INT64_MAX ? 0 : render_fail(r, "split() at blanks with a limit is not known here");
    }
    if (by->type != VALUE_STRING || by->count == 0)
        return render_fail(r, "split() needs a separator");
    for (size_t i = 0; i + by->count <= s->count && left > 0;) {
        if (memcmp(s->data + i, by->data, by->count) != 0) {
            i++;
            continue;
        }
        list_add(r, out, &capacity, value_substring(s, begin, i));
        begin = i += by->count;
        left--;
    }
    list_add(r, out, &capacity, value_substring(s, begin, s->count));
    return 0;
}

static int replace(Render *r, const Value *s, const Arguments *a, Value *out)
{
    const Value *from = argument(a, 0, "old"), *to = argument(a, 1, "new");
    if (!from || !to || from->type != VALUE_STRING || to->type != VALUE_STRING || from->count == 0)
        return render_fail(r, "replace() needs two strings");
    Buffer text = {0}, origins = {0};
    for (size_t i = 0; i < s->count;)
        if (i + from->count <= s->count && memcmp(s->data + i, from->data, from->count) == 0) {
            value_append(&text, &origins, to->data, to->origins, to->count);
            i += from->count;
        } else {
            value_append(&text, &origins, s->data + i, s->origins ? s->origins + i : NULL, 1);
            i++;
        }
    *out = value_string(r, &text, &origins);
    buffer_free(&text);
    buffer_free(&origins);
    return 0;
}

static int join(Render *r, const Value *list, const Value *by, Value *out)
{
    if (list->type != VALUE_LIST)
        return render_fail(r, "join of what is no list");
    Buffer text = {0}, origins = {0};
    int status = 0;
    for (size_t i = 0; i < list->count && status == 0; i++) {
        if (i && by)
            status = value_print(r, by, &text, &origins);
        if (status == 0)
            status = value_print(r, &list->items[i], &text, &origins);
    }
    *out = value_string(r, &text, &origins);
    buffer_free(&text);
    buffer_free(&origins);
    return status;
}

static int regex_replace(Render *r, const Value *s, const Arguments *a, Value *out)
{
    const Value *pattern = argument(a, 0, "pattern"), *by = argument(a, 1, "repl"), *count = argument(a, 2, "count");
    if (s->type != VALUE_STRING || !pattern || !by || pattern->type != VALUE_STRING || by->type != VALUE_STRING)
        return render_fail(r, "regex_replace needs a pattern and a replacement");
    Error reason;
    PythonRe *re = python_re_compile((Span){pattern->data, pattern->count}, &reason);
    Buffer text = {0}, origins = {0};
    int status = re ? python_re_sub(re, (Span){by->data, by->count}, (Span){s->data, s->count}, count ? count->integer : 0, &text, &reason) : -1;
    buffer_reserve(&origins, text.length + 1);
    memset(origins.data, value_greatest_origin(s), text.length);
    *out = value_string(r, &text, &origins);
    buffer_free(&text);
    buffer_free(&origins);
    python_re_free(re);
    return status < 0 ? render_fail(r, "%s", reason.text) : 0;
}

/* str.find, index and count, list.index and count. */
static int search(Render *r, Span name, const Value *v, const Value *item, Value *out)
{
    bool counts = span_is(name, "count"), list = v->type == VALUE_LIST;
    if (!item || (!list && item->type != VALUE_STRING))
        return render_fail(r, "%.*s() needs what to look for", (int)name.length, name.data);
    int64_t first = -1, n = 0, point = 0;
    for (size_t i = 0; i < v->count; i++) {
        bool here = list ? value_equal(&v->items[i], item) : item->count <= v->count - i && memcmp(v->data + i, item->data, item->count) == 0;
        if (here && first < 0)
            first = list ? (int64_t)i : point;
        n += here;
        point += list || ((unsigned char)v->data[i] & 0xc0) != 0x80;
        if (here && !list && counts && item->count)
            i += item->count - 1;
    }
    if (!counts && first < 0 && span_is(name, "index"))
        return render_fail(r, "index() does not find '%.*s'", item->type == VALUE_STRING ? (int)item->count : 0, item->type == VALUE_STRING ? item->data : "");
    *out = value_integer(counts ? n : first);
    return 0;
}

typedef enum LetterCase { CASE_UPPER, CASE_LOWER, CASE_CAPITAL, CASE_TITLE } LetterCase;

/* str.lower of what is not ASCII. */
static int lower_case(Render *r, const Value *s, Value *out)
{
    Buffer text = {0}, origins = {0};
    for (size_t i = 0, n; i < s->count; i += n) {
        uint32_t lower[2], c = utf8_decode(s->data + i, &n);
        char bytes[8];
        size_t length = 0;
        int count = unicode_to_lower(c, lower);
        if (c == UNICODE_SIGMA)
            lower[0] = unicode_lower_sigma((Span){s->data, s->count}, i);
        for (int k = 0; k < count; k++)
            length += utf8_encode(lower[k], bytes + length);
        value_append(&text, &origins, bytes, NULL, length);
        if (s->origins)
            memset(origins.data + origins.length - length, s->origins[i], length);
    }
    *out = value_string(r, &text, &origins);
    buffer_free(&text);
    buffer_free(&origins);
    return 0;
}

/* Upper case of ASCII letters alone: there is no table of the others. */
static int change_case(Render *r, const Value *s, LetterCase wanted, Value *out)
{
    bool plain = true;
    for (size_t i = 0; i < s->count; i++)
        plain &= (unsigned char)s->data[i] < 0x80;
    if (!plain && wanted == CASE_LOWER)
        return lower_case(r, s, out);
    char *data = arena_copy(&r->arena, s->data, s->count);
    bool begin = true;
    for (size_t i = 0; i < s->count; i++) {
        char c = data[i];
        bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';
        if ((unsigned char)c >= 0x80)
            return render_fail(r, "upper case beyond ASCII is not known here");
        bool upper = wanted == CASE_UPPER || (wanted != CASE_LOWER && begin);
        if (letter)
            data[i] = (char)(upper ? c & ~32 : c | 32);
        begin = wanted == CASE_TITLE ? !letter : false;
    }
    *out = *s;
    out->data = data;
    return 0;
}

/* Keys are data as their mapping is. */
Value value_key(Render *r, const Value *map, size_t i)
{
    size_t n = map->keys[i].length;
    return (Value){.type = VALUE_STRING, .origin = map->origin, .data = map->keys[i].data, .count = n,
                   .origins = memset(arena_alloc(&r->arena, n + 1, 1), map->origin, n)};
}

static int as_items(Render *r, const Value *v, Value *out)
{
    if (v->type != VALUE_MAP)
        return render_fail(r, "items of what is no mapping");
    *out = (Value){.type = VALUE_LIST, .count = v->count, .items = arena_alloc(&r->arena, v->count + 1, sizeof(Value))};
    for (size_t i = 0; i < v->count; i++) {
        Value *pair = arena_alloc(&r->arena, 2, sizeof *pair);
        pair[0] = value_key(r, v, i);
        pair[1] = v->items[i];
        out->items[i] = (Value){.type = VALUE_LIST, .count = 2, .items = pair};
    }
    return 0;
}

static int compare_pairs(const void *a, const void *b)
{
    const Value *x = &((const Value *)a)->items[0], *y = &((const Value *)b)->items[0];
    int order = memcmp(x->data, y->data, x->count < y->count ? x->count : y->count);
    return order ? order : x->count < y->count ? -1 : x->count > y->count;
}

/* select, reject, selectattr, rejectattr, map(attribute=…). */
static int pick(Render *r, Span name, const Value *of, const Arguments *a, Value *out)
{
    const Value points = value_points(r, of), *v = &points;
    bool by_member = name.length > 6, map = span_is(name, "map"), wanted = name.data[0] == 's';
    const Value *attribute = map ? argument(a, SIZE_MAX, "attribute") : by_member ? argument(a, 0, "attribute") : NULL;
    if (v->type != VALUE_LIST || ((map || by_member) && (!attribute || attribute->type != VALUE_STRING)))
        return render_fail(r, "the filter '%.*s' with these arguments is not known here", (int)name.length, name.data);
    size_t skip = by_member, capacity = 0;
    *out = (Value){.type = VALUE_LIST};
    for (size_t i = 0; i < v->count; i++) {
        Value item = attribute ? value_member(&v->items[i], (Span){attribute->data, attribute->count}) : v->items[i];
        if (map) {
            list_add(r, out, &capacity, item);
            continue;
        }
        bool yes = value_true(&item);
        if (a->count > skip) {
            const Value *test = &a->values[skip];
            Arguments rest = {a->values + skip + 1, a->keywords + skip + 1, a->count - skip - 1};
            if (test->type != VALUE_STRING || value_test(r, (Span){test->data, test->count}, &item, &rest, &yes) < 0)
                return test->type != VALUE_STRING ? render_fail(r, "a test's name must be a string") : -1;
        }
        if (yes == wanted)
            list_add(r, out, &capacity, v->items[i]);
    }
    return 0;
}

static int64_t length_of(const Value *v)
{
    return v->type == VALUE_STRING ? (int64_t)utf8_count((Span){v->data, v->count}) : (int64_t)v->count;
}

static int filter_list(Render *r, Span name, const Value *v, const Arguments *a, Value *out)
{
    if (span_is(name, "first") || span_is(name, "last")) {
        *out = v->type == VALUE_LIST && v->count ? v->items[name.data[0] == 'f' ? 0 : v->count - 1] : (Value){0};
        return 0;
    }
    if (span_is(name, "list") && (v->type == VALUE_LIST || v->type == VALUE_STRING)) {
        *out = value_points(r, v);
        return 0;
    }
    if (span_is(name, "items"))
        return as_items(r, v, out);
    if (span_is(name, "dictsort")) {
        if (as_items(r, v, out) < 0)
            return -1;
        qsort(out->items, out->count, sizeof *out->items, compare_pairs);
        return 0;
    }
    if (span_is(name, "select") || span_is(name, "reject") || span_is(name, "selectattr") || span_is(name, "rejectattr") || span_is(name, "map"))
        return pick(r, name, v, a, out);
    return render_fail(r, "the filter '%.*s' is not known here", (int)name.length, name.data);
}

int value_filter(Render *r, Span name, const Value *v, const Arguments *a, Value *out)
{
    if (span_is(name, "regex_replace") && r->kind == JINJA_TASK)
        return regex_replace(r, v, a, out);
    if (span_is(name, "tojson") && r->kind == JINJA_CHAT) {
        *out = to_json(r, v, a);
        return 0;
    }
    if (span_is(name, "default") || span_is(name, "d")) {
        const Value *other = argument(a, 0, "default_value"), *falsy = argument(a, 1, "boolean");
        bool absent = v->type == VALUE_UNDEFINED || (falsy && value_true(falsy) && !value_true(v));
        *out = absent ? other ? *other : value_text("") : *v;
        return 0;
    }
    if (span_is(name, "length") || span_is(name, "count")) {
        *out = value_integer(length_of(v));
        return 0;
    }
    if (span_is(name, "join"))
        return join(r, v, argument(a, 0, "d"), out);
    if (span_is(name, "safe") || (span_is(name, "string") && v->type == VALUE_STRING)) {
        *out = *v;
        return 0;
    }
    static const char *const of_text[] = {"trim", "upper", "lower", "capitalize", "title", "replace", "string", "int"};
    bool textual = false;
    for (int i = 0; i < 8; i++)
        textual |= span_is(name, of_text[i]);
    if (!textual)
        return filter_list(r, name, v, a, out);
    Buffer text = {0}, origins = {0};
    int status = value_print(r, v, &text, &origins); /* as Jinja does: str() first */
    Value s = value_string(r, &text, &origins);
    buffer_free(&text);
    buffer_free(&origins);
    if (status < 0)
        return -1;
    if (span_is(name, "trim")) {
        *out = strip(&s, argument(a, 0, "chars"), true, true);
        return 0;
    }
    if (span_is(name, "string")) {
        *out = s;
        return 0;
    }
    if (span_is(name, "int")) {
        *out = value_integer(strtoll(s.count ? s.data : "0", NULL, 10));
        return 0;
    }
    if (span_is(name, "replace"))
        return replace(r, &s, a, out);
    return change_case(r, &s, name.data[0] == 'u' ? CASE_UPPER : name.data[0] == 'l' ? CASE_LOWER : name.data[0] == 'c' ? CASE_CAPITAL : CASE_TITLE, out);
}

int value_contains(Render *r, const Value *container, const Value *item, bool *out)
{
    *out = false;
    if (container->type == VALUE_STRING && item->type == VALUE_STRING) {
        *out = item->count == 0 || memmem(container->data, container->count, item->data, item->count) != NULL;
    } else if (container->type == VALUE_LIST) {
        for (size_t i = 0; i < container->count; i++)
            *out |= value_equal(&container->items[i], item);
    } else if (container->type == VALUE_MAP && item->type == VALUE_STRING) {
        const Span *keys = container->map ? container->map->keys : container->keys;
        for (size_t i = 0, n = container->map ? container->map->count : container->count; i < n; i++)
            *out |= span_equal(keys[i], (Span){item->data, item->count});
    } else if (container->type != VALUE_UNDEFINED && container->type != VALUE_MAP) {
        return render_fail(r, "'in' something that holds nothing");
    }
    return 0;
}

int value_test(Render *r, Span name, const Value *v, const Arguments *a, bool *out)
{
    const Value *other = argument(a, 0, "other");
    static const struct {
        const char *name;
        unsigned types;
    } kinds[] = {{"undefined", 1 << VALUE_UNDEFINED}, {"none", 1 << VALUE_NONE}, {"boolean", 1 << VALUE_BOOL}, {"integer", 1 << VALUE_INTEGER},
                 {"float", 1 << VALUE_FLOAT}, {"number", 1 << VALUE_INTEGER | 1 << VALUE_FLOAT | 1 << VALUE_BOOL}, {"string", 1 << VALUE_STRING},
                 {"mapping", 1 << VALUE_MAP}, {"sequence", 1 << VALUE_STRING | 1 << VALUE_LIST | 1 << VALUE_MAP},
                 {"iterable", 1 << VALUE_STRING | 1 << VALUE_LIST | 1 << VALUE_MAP | 1 << VALUE_UNDEFINED}, {"callable", 1 << VALUE_MACRO}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (span_is(name, kinds[i].name)) {
            *out = kinds[i].types >> v->type & 1;
            return 0;
        }
    if (span_is(name, "defined")) {
        *out = v->type != VALUE_UNDEFINED;
    } else if (span_is(name, "true") || span_is(name, "false")) {
        *out = v->type == VALUE_BOOL && v->integer == (name.length == 4);
    } else if (span_is(name, "odd") || span_is(name, "even")) {
        *out = v->type == VALUE_INTEGER && (v->integer & 1) == (name.length == 3);
    } else if (span_is(name, "divisibleby") && other && other->type == VALUE_INTEGER && other->integer) {
        *out = v->type == VALUE_INTEGER && v->integer % other->integer == 0;
    } else if (other && (span_is(name, "equalto") || span_is(name, "eq") || span_is(name, "==") || span_is(name, "sameas"))) {
        *out = value_equal(v, other);
    } else if (other && (span_is(name, "ne") || span_is(name, "!="))) {
        *out = !value_equal(v, other);
    } else if (other && span_is(name, "in")) {
        return value_contains(r, other, v, out);
    } else {
        return render_fail(r, "the test '%.*s' is not known here", (int)name.length, name.data);
    }
    return 0;
}

/* str.startswith and endswith, of one string or any of several. */
static bool affix(const Value *s, const Value *part, bool end)
{
    if (part->type == VALUE_LIST) {
        for (size_t i = 0; i < part->count; i++)
            if (affix(s, &part->items[i], end))
                return true;
        return false;
    }
    return part->type == VALUE_STRING && part->count <= s->count && memcmp(s->data + (end ? s->count - part->count : 0), part->data, part->count) == 0;
}

static int string_method(Render *r, Span name, const Value *s, const Arguments *a, Value *out)
{
    const Value *first = argument(a, 0, "chars");
    if (first && first->type == VALUE_NONE)
        first = NULL;
    bool left = span_is(name, "lstrip"), right = span_is(name, "rstrip");
    if (left || right || span_is(name, "strip")) {
        if (first && first->type != VALUE_STRING)
            return render_fail(r, "strip() takes a string");
        *out = strip(s, first, !right, !left);
        return 0;
    }
    if (first && (span_is(name, "startswith") || span_is(name, "endswith"))) {
        *out = value_bool(affix(s, first, name.data[0] == 'e'));
        return 0;
    }
    if (span_is(name, "split"))
        return split(r, s, a, out);
    if (span_is(name, "replace"))
        return replace(r, s, a, out);
    if (first && span_is(name, "join"))
        return join(r, first, s, out);
    if (span_is(name, "find") || span_is(name, "index") || span_is(name, "count"))
        return search(r, name, s, first, out);
    if (span_is(name, "isdigit")) {
        bool yes = s->count > 0;
        for (size_t i = 0; i < s->count; i++)
            yes &= s->data[i] >= '0' && s->data[i] <= '9';
        *out = value_bool(yes);
        return 0;
    }
    static const char *const cases[] = {"upper", "lower", "capitalize", "title"};
    for (int i = 0; i < 4; i++)
        if (span_is(name, cases[i]))
            return change_case(r, s, (LetterCase)i, out);
    return render_fail(r, "the method '%.*s' of a string is not known here", (int)name.length, name.data);
}

int value_method(Render *r, Span name, const Value *v, const Arguments *a, Value *out)
{
    *out = (Value){0};
    if (v->type == VALUE_STRING)
        return string_method(r, name, v, a, out);
    if (v->type == VALUE_LIST && (span_is(name, "index") || span_is(name, "count")))
        return search(r, name, v, argument(a, 0, "value"), out);
    if (v->type == VALUE_MAP && span_is(name, "get")) {
        const Value *key = argument(a, 0, "key"), *other = argument(a, 1, "default");
        if (!key || key->type != VALUE_STRING)
            return render_fail(r, "get() needs a key");
        *out = value_member(v, (Span){key->data, key->count});
        if (out->type == VALUE_UNDEFINED)
            *out = other ? *other : (Value){.type = VALUE_NONE};
        return 0;
    }
    if (v->type == VALUE_MAP && (span_is(name, "items") || span_is(name, "keys") || span_is(name, "values"))) {
        if (as_items(r, v, out) < 0)
            return -1;
        for (size_t i = 0; i < out->count && name.data[0] != 'i'; i++)
            out->items[i] = out->items[i].items[name.data[0] == 'v'];
        return 0;
    }
    return render_fail(r, "the method '%.*s' is not known here", (int)name.length, name.data);
}
