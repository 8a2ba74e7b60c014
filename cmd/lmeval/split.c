/* A task's documents: the lines of JSON Lines files, held as they are and parsed one by one. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "io/stream.h"
#include "task.h"

static void column_add(Split *s, Span name)
{
    for (size_t i = 0; i < s->column_count; i++)
        if (s->columns[i].length == name.length && memcmp(s->columns[i].data, name.data, name.length) == 0)
            return;
    s->columns = memory_grow(s->columns, &s->column_capacity, s->column_count + 1, sizeof *s->columns);
    s->columns[s->column_count++] = (Span){arena_copy(&s->arena, name.data, name.length), name.length};
}

static const JsonValue *line_parse(Split *s, const struct SplitLine *line, Error *err)
{
    JsonField whole = {.type = JSON_OBJECT, .raw = {line->text, line->length}};
    if (!s->parser)
        s->parser = json_parser_new();
    return json_field_tree(s->parser, &whole, err);
}

static int line_add(Split *s, const char *file, int64_t number, Span text, Error *err)
{
    s->lines = memory_grow(s->lines, &s->capacity, s->count + 1, sizeof *s->lines);
    struct SplitLine *line = &s->lines[s->count];
    *line = (struct SplitLine){.text = memory_zalloc(text.length + READER_PADDING, 1), .length = text.length, .file = file, .line = number};
    memcpy(line->text, text.data, text.length);
    const JsonValue *root = line_parse(s, line, err);
    if (!root || root->type != JSON_OBJECT) {
        if (root)
            error_set(err, "not an object");
        free(line->text);
        error_prefix(err, "%s:%" PRId64, file, number);
        if (!s->skip)
            return -1;
        if (s->skipped++ == 0)
            s->first_skip = *err;
        return 0;
    }
    s->count++;
    for (size_t i = 0; i < root->count; i++)
        column_add(s, root->keys[i]);
    return 0;
}

int split_read(Split *s, const char *file, Error *err)
{
    Reader *r = reader_open(file, err);
    if (!r)
        return -1;
    s->files = memory_realloc(s->files, s->file_count + 1, sizeof *s->files);
    const char *name = s->files[s->file_count++] = memory_string(file);
    Span text;
    int more;
    while ((more = reader_line(r, &text, err)) > 0)
        if (text.length > 0 && line_add(s, name, reader_line_number(r), text, err) < 0) {
            more = -1;
            break;
        }
    reader_close(r);
    return more;
}

void split_add_value(Split *s, const JsonValue *v)
{
    Buffer text = {0};
    Error err;
    json_write_value(&text, v, -1);
    line_add(s, "fewshot_config", (int64_t)s->count + 1, (Span){text.data, text.length}, &err);
    buffer_free(&text);
}

void split_free(Split *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->lines[i].text);
    for (size_t i = 0; i < s->file_count; i++)
        free(s->files[i]);
    free(s->files);
    free(s->lines);
    free(s->columns);
    free(s->name);
    if (s->parser)
        json_parser_free(s->parser);
    arena_free(&s->arena);
    *s = (Split){0};
}

/* As the columns of a table: what a record lacks is null there. */
int split_doc(Split *s, size_t at, Doc *out, Error *err)
{
    static const JsonValue none = {.type = JSON_NULL};
    *out = (Doc){.root = line_parse(s, &s->lines[at], err), .split = s};
    if (!out->root)
        return error_prefix(err, "%s:%" PRId64, s->lines[at].file, s->lines[at].line);
    out->variables = memory_alloc(s->column_count + 1, sizeof *out->variables);
    for (size_t i = 0; i < s->column_count; i++) {
        const JsonValue *v = json_get(out->root, s->columns[i].data);
        out->variables[i] = (JinjaVariable){.name = s->columns[i].data, .value = v ? v : &none};
    }
    return 0;
}

bool json_equal(const JsonValue *a, const JsonValue *b)
{
    bool numbers = (a->type == JSON_INTEGER || a->type == JSON_NUMBER) && (b->type == JSON_INTEGER || b->type == JSON_NUMBER);
    if (numbers)
        return a->type == b->type && a->type == JSON_INTEGER ? a->integer == b->integer : a->number == b->number;
    if (a->type != b->type)
        return false;
    if (a->type == JSON_BOOL)
        return a->boolean == b->boolean;
    if (a->type == JSON_STRING)
        return a->string.length == b->string.length && memcmp(a->string.data, b->string.data, a->string.length) == 0;
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const JsonValue *other = a->type == JSON_OBJECT ? json_get(b, a->keys[i].data) : &b->items[i];
        if (!other || !json_equal(&a->items[i], other))
            return false;
    }
    return true;
}
