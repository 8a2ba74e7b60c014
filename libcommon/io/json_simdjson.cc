/* The only C++ file: simdjson behind io/json.h. Its DOM parser chooses the instruction set at run time (the on-demand one
 * only at compile time) and checks a line wholly before any of it is used. */
#include <simdjson.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_set>

extern "C" {
#include "io/json.h"
#include "io/stream.h"
}

using namespace simdjson;

static const size_t MAX_DEPTH = 256;

struct JsonParser {
    dom::parser records, trees;
    std::string wide;
    JsonTree tree;
};

extern "C" JsonParser *json_parser_new(void)
{
    JsonParser *p = new JsonParser;
    p->tree = JsonTree();
    return p;
}

extern "C" void json_parser_free(JsonParser *p)
{
    if (!p)
        return;
    json_free(&p->tree);
    delete p;
}

static size_t count_digits(const char *p, const char *end)
{
    const char *q = p;
    while (q < end && *q >= '0' && *q <= '9')
        q++;
    return (size_t)(q - p);
}

/* The length of the JSON number at p, 0: none. `whole`: it has neither a fraction nor an exponent. */
static size_t number_length(const char *p, const char *end, bool *whole)
{
    const char *q = p + (*p == '-');
    size_t n = count_digits(q, end);
    *whole = true;
    if (n == 0 || (*q == '0' && n > 1))
        return 0;
    q += n;
    if (q < end && *q == '.') {
        *whole = false;
        if ((n = count_digits(q + 1, end)) == 0)
            return 0;
        q += 1 + n;
    }
    if (q < end && (*q == 'e' || *q == 'E')) {
        *whole = false;
        const char *digits = q + 1 + (q + 1 < end && (q[1] == '+' || q[1] == '-'));
        if ((n = count_digits(digits, end)) == 0)
            return 0;
        q = digits + n;
    }
    return (size_t)(q - p);
}

/* simdjson takes neither whole numbers of more than 64 bits, which Python writes (tokenizer_config.json says model_max_length
 * 1000000000000000019884624838656), nor those past a double's range, which RFC 8259 allows. In a copy the first read "…e0" and
 * are taken as doubles. The others can't be read: a record (`lenient`) may hold them in fields that nobody reads, so there the
 * copy has "{}", which no reader of a number takes. */
static void widen_numbers(Span text, bool lenient, std::string &out)
{
    const char *p = text.data, *end = p + text.length;
    out.clear();
    out.reserve(text.length + 64);
    while (p < end) {
        bool whole;
        if (*p == '"') {
            const char *begin = p++;
            while (p < end && *p != '"')
                p += *p == '\\' && p + 1 < end ? 2 : 1;
            p += p < end;
            out.append(begin, (size_t)(p - begin));
            continue;
        }
        size_t n = *p == '-' || (*p >= '0' && *p <= '9') ? number_length(p, end, &whole) : 0;
        if (n == 0) {
            out += *p++;
            continue;
        }
        std::string number(p, n);
        p += n;
        double x = strtod(number.c_str(), NULL);
        if (x - x != 0) {
            out += lenient ? "{}" : number;
        } else {
            out += number;
            errno = 0;
            if (whole && n >= 19 && (number[0] == '-' ? (void)strtoll(number.c_str(), NULL, 10) : (void)strtoull(number.c_str(), NULL, 10), errno == ERANGE))
                out += "e0";
        }
    }
    out.append(READER_PADDING, '\0');
}

static error_code parse_text(dom::parser &parser, Span text, bool lenient, std::string &wide, dom::element &root)
{
    error_code code = parser.parse(text.data, text.length, false).get(root);
    if (code == NUMBER_ERROR) {
        widen_numbers(text, lenient, wide);
        size_t n = wide.size() - READER_PADDING;
        if (parser.capacity() < n)
            code = parser.allocate(n, MAX_DEPTH);
        code = parser.parse(wide.data(), n, false).get(root);
    }
    return code;
}

static const char *reason_of(error_code code)
{
    switch (code) {
    case UTF8_ERROR:
        return "invalid UTF-8";
    case UNESCAPED_CHARS:
        return "raw control character in a string";
    case UNCLOSED_STRING:
        return "unclosed string";
    case STRING_ERROR:
        return "bad escape or lone surrogate in a string";
    case NUMBER_ERROR:
        return "bad number, or one out of range";
    case DEPTH_ERROR:
        return "nested too deeply";
    case EMPTY:
        return "no JSON";
    case INCORRECT_TYPE:
        return "not a JSON object";
    case MEMALLOC:
    case CAPACITY:
        return "too large";
    default:
        return "malformed JSON";
    }
}

static void read_scalar(dom::element e, JsonField *f)
{
    switch (e.type()) {
    case dom::element_type::OBJECT:
        f->type = JSON_OBJECT;
        break;
    case dom::element_type::ARRAY:
        f->type = JSON_ARRAY;
        break;
    case dom::element_type::STRING: {
        std::string_view s(e);
        f->type = JSON_STRING;
        f->string = Span{s.data(), s.size()};
        break;
    }
    case dom::element_type::INT64:
        f->type = JSON_INTEGER;
        f->integer = int64_t(e);
        f->number = (double)f->integer;
        break;
    case dom::element_type::UINT64:
        f->type = JSON_NUMBER;
        f->number = (double)uint64_t(e);
        break;
    case dom::element_type::DOUBLE:
        f->type = JSON_NUMBER;
        f->number = double(e);
        break;
    case dom::element_type::BOOL:
        f->type = JSON_BOOL;
        f->boolean = bool(e);
        break;
    case dom::element_type::NULL_VALUE:
        f->type = JSON_NULL;
        break;
    }
}

/* The DOM does not say where a value stood, so the members are walked once more; the text is known to be valid by then. */
static const char *skip_blank(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')
        p++;
    return p;
}

static const char *skip_string(const char *p, const char *end)
{
    for (p++;; p++) {
        p = (const char *)memchr(p, '"', (size_t)(end - p));
        const char *q = p;
        while (q[-1] == '\\')
            q--;
        if ((p - q) % 2 == 0)
            return p + 1;
    }
}

static const char *skip_value(const char *p, const char *end)
{
    if (*p == '"')
        return skip_string(p, end);
    if (*p != '{' && *p != '[')
        return p + strcspn(p, ",}] \t\r\n");
    for (int depth = 0;;) {
        if (*p == '"') {
            p = skip_string(p, end);
            continue;
        }
        depth += *p == '{' || *p == '[';
        depth -= *p == '}' || *p == ']';
        p++;
        if (depth == 0)
            return p;
    }
}

static error_code read_record(JsonParser *p, Span line, const char *const *names, size_t count, JsonField *fields,
                              const char **duplicate)
{
    if (p->records.max_depth() != MAX_DEPTH || p->records.capacity() < line.length)
        SIMDJSON_TRY(p->records.allocate(line.length < 4096 ? 4096 : line.length + line.length / 2, MAX_DEPTH));
    dom::element root;
    SIMDJSON_TRY(parse_text(p->records, line, true, p->wide, root));
    dom::object object;
    SIMDJSON_TRY(root.get_object().get(object));
    const char *end = line.data + line.length, *at = skip_blank(line.data);
    if (*at++ != '{') /* a number past a double's range, see widen_numbers */
        return INCORRECT_TYPE;
    for (auto member : object) {
        const char *key = at = skip_blank(at);
        at = skip_blank(skip_blank(skip_string(at, end)) + 1);
        const char *value = at;
        at = skip_value(at, end);
        size_t i = 0;
        while (i < count && member.key != names[i])
            i++;
        if (i < count) {
            if (fields[i].type != JSON_ABSENT) {
                *duplicate = names[i];
                return SUCCESS;
            }
            read_scalar(member.value, &fields[i]);
            if (fields[i].type == JSON_OBJECT && *value != '{')
                return NUMBER_ERROR; /* past a double's range, see widen_numbers */
            fields[i].raw = Span{value, (size_t)(at - value)};
            fields[i].key_begin = (size_t)(key - line.data);
        }
        at = skip_blank(at) + 1; /* the comma */
    }
    return SUCCESS;
}

/* The member's key and value, and the comma before it (NULL: it is the first). */
static bool find_member(Span line, const char *name, const char **comma, Span *key, Span *value)
{
    const char *end = line.data + line.length, *at = skip_blank(line.data);
    size_t n = strlen(name);
    *comma = NULL;
    if (at >= end || *at++ != '{')
        return false;
    while (*(at = skip_blank(at)) == '"') {
        const char *begin = at, *key_end = skip_string(at, end), *content = skip_blank(skip_blank(key_end) + 1);
        at = skip_value(content, end);
        if ((size_t)(key_end - begin) == n + 2 && memcmp(begin + 1, name, n) == 0) {
            *key = Span{begin, n + 2};
            *value = Span{content, (size_t)(at - content)};
            return true;
        }
        at = skip_blank(at);
        *comma = at;
        if (*at++ != ',')
            break;
    }
    return false;
}

extern "C" bool json_record_find(Span line, const char *name, Span *value)
{
    const char *comma;
    Span key;
    return find_member(line, name, &comma, &key, value);
}

extern "C" void json_record_remove(Buffer *out, Span line, const char *name)
{
    const char *comma, *end = line.data + line.length;
    Span key, value;
    if (!find_member(line, name, &comma, &key, &value)) {
        buffer_append(out, line.data, line.length);
        return;
    }
    const char *begin = comma ? comma : key.data, *behind = value.data + value.length;
    if (!comma && *(behind = skip_blank(behind)) == ',') /* the first member takes the comma behind it */
        behind = skip_blank(behind + 1);
    buffer_append(out, line.data, (size_t)(begin - line.data));
    buffer_append(out, behind, (size_t)(end - behind));
}

extern "C" int json_record(JsonParser *p, Span line, const char *const *names, size_t count, JsonField *fields, Error *err)
{
    for (size_t i = 0; i < count; i++)
        fields[i] = JsonField();
    const char *duplicate = NULL;
    error_code code = read_record(p, line, names, count, fields, &duplicate);
    if (duplicate)
        return error_set(err, "field '%s' stands twice", duplicate);
    return code ? error_set(err, "%s", reason_of(code)) : 0;
}

/* ---- trees ---- */

static error_code build(dom::element e, JsonValue *v, Arena *a, std::string_view *duplicate);

static Span copy_string(std::string_view s, Arena *a)
{
    return Span{arena_copy(a, s.data(), s.size()), s.size()};
}

static error_code build_object(dom::object object, JsonValue *v, Arena *a, std::string_view *duplicate)
{
    size_t n = 0;
    for (auto member : object) {
        (void)member;
        n++;
    }
    v->count = n;
    v->items = (JsonValue *)arena_alloc(a, n, sizeof *v->items);
    v->keys = (Span *)arena_alloc(a, n, sizeof *v->keys);
    std::unordered_set<std::string_view> seen;
    seen.reserve(n);
    n = 0;
    for (auto member : object) {
        if (!seen.insert(member.key).second) {
            *duplicate = member.key;
            return TAPE_ERROR;
        }
        v->keys[n] = copy_string(member.key, a);
        error_code code = build(member.value, &v->items[n++], a, duplicate);
        if (code)
            return code;
    }
    return SUCCESS;
}

static error_code build(dom::element e, JsonValue *v, Arena *a, std::string_view *duplicate)
{
    *v = JsonValue();
    switch (e.type()) {
    case dom::element_type::OBJECT:
        v->type = JSON_OBJECT;
        return build_object(dom::object(e), v, a, duplicate);
    case dom::element_type::ARRAY: {
        v->type = JSON_ARRAY;
        dom::array array = dom::array(e);
        for (auto item : array) {
            (void)item;
            v->count++;
        }
        v->items = (JsonValue *)arena_alloc(a, v->count, sizeof *v->items);
        size_t n = 0;
        for (auto item : array) {
            error_code code = build(item, &v->items[n++], a, duplicate);
            if (code)
                return code;
        }
        return SUCCESS;
    }
    case dom::element_type::STRING:
        v->type = JSON_STRING;
        v->string = copy_string(std::string_view(e), a);
        return SUCCESS;
    case dom::element_type::INT64:
        v->type = JSON_INTEGER;
        v->integer = int64_t(e);
        v->number = (double)v->integer;
        return SUCCESS;
    case dom::element_type::UINT64:
        v->type = JSON_NUMBER;
        v->number = (double)uint64_t(e);
        return SUCCESS;
    case dom::element_type::DOUBLE:
        v->type = JSON_NUMBER;
        v->number = double(e);
        return SUCCESS;
    case dom::element_type::BOOL:
        v->type = JSON_BOOL;
        v->boolean = bool(e);
        return SUCCESS;
    case dom::element_type::NULL_VALUE:
        v->type = JSON_NULL;
        return SUCCESS;
    }
    return TAPE_ERROR;
}

static int tree_build(JsonTree *out, dom::parser &parser, Span text, Error *err)
{
    arena_reset(&out->arena);
    out->root = NULL;
    dom::element root;
    std::string_view duplicate;
    error_code code = parser.allocate(text.length ? text.length : 1, MAX_DEPTH);
    std::string wide;
    if (!code)
        code = parse_text(parser, Span{text.data ? text.data : "", text.length}, false, wide, root);
    if (!code) {
        out->root = (JsonValue *)arena_alloc(&out->arena, 1, sizeof *out->root);
        code = build(root, out->root, &out->arena, &duplicate);
    }
    if (!code)
        return 0;
    out->root = NULL;
    if (duplicate.data())
        return error_set(err, "key '%.*s' stands twice", (int)(duplicate.size() < 80 ? duplicate.size() : 80), duplicate.data());
    return error_set(err, "%s", reason_of(code));
}

extern "C" int json_parse(JsonTree *out, const char *name, Span text, Error *err)
{
    dom::parser parser;
    if (tree_build(out, parser, text, err) == 0)
        return 0;
    json_free(out);
    return error_prefix(err, "%s", name);
}

extern "C" const JsonValue *json_field_tree(JsonParser *p, const JsonField *field, Error *err)
{
    if (field->type == JSON_ABSENT) {
        error_set(err, "field is absent");
        return NULL;
    }
    return tree_build(&p->tree, p->trees, field->raw, err) < 0 ? NULL : p->tree.root;
}

extern "C" bool json_utf8_valid(Span text)
{
    return validate_utf8(text.data, text.length);
}
