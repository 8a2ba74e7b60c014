#include "io/yaml.h"

#include <string.h>

#ifdef HAVE_YAML
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <yaml.h>
#include "io/stream.h"

enum { MAX_DEPTH = 64, MAX_NODES = 1 << 20 };

typedef struct Loader {
    yaml_document_t *document;
    Arena *arena;
    const char *path;
    size_t nodes; /* aliases of aliases must not grow without end */
    int64_t *lines; /* of the root's members */
    Error *err;
} Loader;

static bool is_any(Span s, const char *const *words)
{
    for (; *words; words++)
        if (s.length == strlen(*words) && memcmp(s.data, *words, s.length) == 0)
            return true;
    return false;
}

/* [-+]?(0b[01_]+|0[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*) */
static bool read_integer(const char *text, int64_t *value)
{
    char digits[80];
    size_t n = 0;
    const char *p = text + (*text == '-' || *text == '+');
    int base = 10;
    if (p[0] == '0' && (p[1] == 'b' || p[1] == 'x')) {
        base = p[1] == 'b' ? 2 : 16;
        p += 2;
    } else if (p[0] == '0' && p[1]) {
        base = 8;
        p++;
    } else if (*p < '0' || *p > '9') {
        return false;
    }
    for (; *p && n + 1 < sizeof digits; p++)
        if (*p != '_')
            digits[n++] = *p;
    digits[n] = 0;
    char *end;
    errno = 0;
    *value = strtoll(digits, &end, base);
    if (n == 0 || *end || *p || errno || digits[0] == '-' || digits[0] == '+' || digits[0] == ' ')
        return false;
    *value = *text == '-' ? -*value : *value;
    return true;
}

/* What has a point, as PyYAML wants it: an exponent needs its sign and the point. */
static bool read_number(const char *text, double *value)
{
    const char *p = text + (*text == '-' || *text == '+');
    bool digits = false, point = false;
    for (; (*p >= '0' && *p <= '9') || *p == '_' || (*p == '.' && !point); p++) {
        point |= *p == '.';
        digits |= *p >= '0' && *p <= '9';
    }
    if (!digits || !point || strchr(text, '_'))
        return false;
    if (*p == 'e' || *p == 'E') {
        if (p[1] != '-' && p[1] != '+')
            return false;
        for (p += 2; *p >= '0' && *p <= '9'; p++)
            ;
    }
    if (*p)
        return false;
    *value = strtod(text, NULL);
    return true;
}

static JsonValue scalar(Loader *l, const yaml_node_t *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", NULL};
    static const char *const no[] = {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", NULL};
    Span s = {(const char *)node->data.scalar.value, node->data.scalar.length};
    JsonValue v = {.type = JSON_STRING, .string = {arena_copy(l->arena, s.data, s.length), s.length}};
    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return v;
    if (is_any(s, nulls))
        return (JsonValue){.type = JSON_NULL};
    if (is_any(s, yes) || is_any(s, no))
        return (JsonValue){.type = JSON_BOOL, .boolean = is_any(s, yes)};
    int64_t integer;
    double number;
    if (read_integer(v.string.data, &integer))
        return (JsonValue){.type = JSON_INTEGER, .integer = integer, .number = (double)integer};
    if (read_number(v.string.data, &number))
        return (JsonValue){.type = JSON_NUMBER, .number = number};
    return v;
}

static int64_t line_of(const yaml_node_t *node)
{
    return (int64_t)node->start_mark.line + 1;
}

static int convert(Loader *l, int index, int depth, const char *field, JsonValue *out);

/* Of a key that stands twice the last value counts, as in PyYAML. */
static int convert_mapping(Loader *l, const yaml_node_t *node, int depth, JsonValue *out)
{
    size_t n = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    *out = (JsonValue){.type = JSON_OBJECT, .items = arena_alloc(l->arena, n + 1, sizeof *out->items), .keys = arena_alloc(l->arena, n + 1, sizeof *out->keys)};
    if (depth == 0)
        l->lines = arena_alloc(l->arena, n + 1, sizeof *l->lines);
    for (size_t i = 0; i < n; i++) {
        const yaml_node_t *key = yaml_document_get_node(l->document, node->data.mapping.pairs.start[i].key);
        if (key->type != YAML_SCALAR_NODE || strcmp((const char *)key->data.scalar.value, "<<") == 0)
            return error_set(l->err, "%s:%" PRId64 ": a key that is no plain word", l->path, line_of(key));
        Span name = {arena_copy(l->arena, (const char *)key->data.scalar.value, key->data.scalar.length), key->data.scalar.length};
        size_t at = 0;
        while (at < out->count && (out->keys[at].length != name.length || memcmp(out->keys[at].data, name.data, name.length) != 0))
            at++;
        out->count += at == out->count;
        out->keys[at] = name;
        if (depth == 0)
            l->lines[at] = line_of(key);
        if (convert(l, node->data.mapping.pairs.start[i].value, depth + 1, name.data, &out->items[at]) < 0)
            return -1;
    }
    return 0;
}

static int convert(Loader *l, int index, int depth, const char *field, JsonValue *out)
{
    const yaml_node_t *node = yaml_document_get_node(l->document, index);
    if (depth > MAX_DEPTH || ++l->nodes > MAX_NODES)
        return error_set(l->err, "%s:%" PRId64 ": too deep or too large", l->path, line_of(node));
    const char *tag = (const char *)node->tag;
    if (tag && strcmp(tag, "!function") == 0 && node->type == YAML_SCALAR_NODE) {
        static const Span key = {YAML_FUNCTION, sizeof YAML_FUNCTION - 1};
        *out = (JsonValue){.type = JSON_OBJECT, .count = 1, .items = arena_alloc(l->arena, 1, sizeof *out->items), .keys = (Span *)(uintptr_t)&key};
        *out->items = (JsonValue){.type = JSON_STRING, .string = {arena_copy(l->arena, (const char *)node->data.scalar.value, node->data.scalar.length), node->data.scalar.length}};
        return 0;
    }
    if (tag && strncmp(tag, "tag:yaml.org,2002:", 18) != 0)
        return error_set(l->err, "%s:%" PRId64 ": '%s' has the tag %s, which is not known here", l->path, line_of(node), field, tag);
    if (node->type == YAML_SCALAR_NODE) {
        *out = scalar(l, node);
        return 0;
    }
    if (node->type == YAML_SEQUENCE_NODE) {
        size_t n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
        *out = (JsonValue){.type = JSON_ARRAY, .count = n, .items = arena_alloc(l->arena, n + 1, sizeof *out->items)};
        for (size_t i = 0; i < n; i++)
            if (convert(l, node->data.sequence.items.start[i], depth + 1, field, &out->items[i]) < 0)
                return -1;
        return 0;
    }
    return convert_mapping(l, node, depth, out);
}

static int load(YamlTree *out, const char *path, Span text, Error *err)
{
    yaml_parser_t parser;
    yaml_document_t document;
    yaml_parser_initialize(&parser);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.data, text.length);
    int status = 0;
    if (!yaml_parser_load(&parser, &document)) {
        status = error_set(err, "%s:%zu: %s", path, parser.problem_mark.line + 1, parser.problem ? parser.problem : "no YAML");
        yaml_parser_delete(&parser);
        return status;
    }
    Loader l = {.document = &document, .arena = &out->tree.arena, .path = path, .err = err};
    yaml_node_t *root = yaml_document_get_root_node(&document);
    JsonValue *value = arena_alloc(&out->tree.arena, 1, sizeof *value);
    *value = (JsonValue){.type = JSON_NULL};
    if (root)
        status = convert(&l, 1, 0, "the document", value);
    out->tree.root = value;
    out->lines = l.lines;
    yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    return status;
}

int yaml_parse_file(YamlTree *out, const char *path, Error *err)
{
    *out = (YamlTree){0};
    Buffer text = {0};
    int status = file_read(path, &text, 1 << 26, err);
    if (status == 0 && !json_utf8_valid((Span){text.data, text.length}))
        status = error_set(err, "%s: not UTF-8", path);
    if (status == 0)
        status = load(out, path, (Span){text.data, text.length}, err);
    buffer_free(&text);
    if (status < 0)
        json_free(&out->tree);
    return status;
}

#else

int yaml_parse_file(YamlTree *out, const char *path, Error *err)
{
    *out = (YamlTree){0};
    if (json_parse_file(&out->tree, path, err) < 0)
        return error_prefix(err, "this build reads no YAML but JSON (libyaml was not there)");
    if (json_is(out->tree.root, JSON_OBJECT))
        out->lines = memset(arena_alloc(&out->tree.arena, out->tree.root->count + 1, sizeof *out->lines), 0, out->tree.root->count * sizeof *out->lines);
    return 0;
}

#endif
