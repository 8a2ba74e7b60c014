/* doc_to_text, doc_to_target, doc_to_choice: from a document to text, answer and choices (ConfigurableTask in lm_eval/api/task.py). */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "io/yaml.h"
#include "task.h"

int field_set(Field *f, const char *name, const JsonValue *value, Error *err)
{
    *f = (Field){.name = name, .value = value && value->type != JSON_NULL ? value : NULL, .function = json_get(value, YAML_FUNCTION) != NULL};
    if (f->value && f->value->type != JSON_STRING && f->value->type != JSON_INTEGER && f->value->type != JSON_ARRAY && f->value->type != JSON_OBJECT)
        return error_set(err, "'%s' is neither a text nor a list", name);
    return 0;
}

int field_bind(Field *f, const Split *s, Error *err)
{
    if (!f->value || (f->value->type != JSON_STRING && !f->function))
        return 0;
    Span text = f->function ? (Span){f->name, strlen(f->name)} : f->value->string;
    f->column = false;
    for (size_t i = 0; i < s->column_count; i++)
        f->column |= s->columns[i].length == text.length && memcmp(s->columns[i].data, text.data, text.length) == 0;
    if (f->function && !f->column && s->count)
        return error_set(err, "Python's: the rows need its values as a column '%s'", f->name);
    if (f->column || f->template || f->function)
        return 0;
    f->template = jinja_compile(text, JINJA_TASK, err);
    return f->template ? 0 : error_prefix(err, "'%s'", f->name);
}

static int render(const Field *f, const Doc *d, Arena *arena, Span *out, Error *err)
{
    JinjaOutput text = {0};
    int status = jinja_render(f->template, d->variables, d->split->column_count, &text, err);
    if (status == 0)
        *out = (Span){arena_copy(arena, text.text.data ? text.text.data : "", text.text.length), text.text.length};
    else
        error_prefix(err, "'%s'", f->name);
    jinja_output_free(&text);
    return status;
}

static const char *column_name(const Field *f)
{
    return f->function ? f->name : f->value->string.data;
}

static const JsonValue *column(const Field *f, const Doc *d)
{
    for (size_t i = 0; i < d->split->column_count; i++)
        if (strcmp(d->variables[i].name, column_name(f)) == 0)
            return d->variables[i].value;
    return NULL;
}

/* A column's value, a template's text or the definition's own value. */
static int field_value(const Field *f, const Doc *d, Arena *arena, JsonValue *out, Error *err)
{
    if (f->value->type != JSON_STRING && !f->function) {
        *out = *f->value;
        return 0;
    }
    if (f->column) {
        const JsonValue *v = column(f, d);
        if (!v)
            return error_set(err, "no '%s'", column_name(f));
        *out = *v;
        return 0;
    }
    *out = (JsonValue){.type = JSON_STRING};
    return render(f, d, arena, &out->string, err);
}

/* What str.isdigit takes, of ASCII. */
static bool to_integer(JsonValue *v)
{
    if (v->type == JSON_BOOL) {
        *v = (JsonValue){.type = JSON_INTEGER, .integer = v->boolean, .number = v->boolean};
        return true;
    }
    if (v->type != JSON_STRING || v->string.length == 0 || v->string.length > 18)
        return false;
    for (size_t i = 0; i < v->string.length; i++)
        if (v->string.data[i] < '0' || v->string.data[i] > '9')
            return false;
    int64_t n = strtoll(v->string.data, NULL, 10);
    *v = (JsonValue){.type = JSON_INTEGER, .integer = n, .number = (double)n};
    return true;
}

int field_text(const Task *t, const Field *f, const Doc *d, Arena *arena, JsonValue *out, Error *err)
{
    if (!f->value)
        return error_set(err, "the task has no 'doc_to_text'");
    if (field_value(f, d, arena, out, err) < 0)
        return -1;
    if (f->template && t->choice.value)
        to_integer(out);
    if (out->type != JSON_STRING && out->type != JSON_INTEGER)
        return error_set(err, "'%s' gives no text", f->name);
    return 0;
}

int field_target(const Task *t, const Field *f, const Doc *d, Arena *arena, JsonValue *out, Error *err)
{
    if (!f->value)
        return error_set(err, "the task has no 'doc_to_target'");
    if (field_value(f, d, arena, out, err) < 0)
        return -1;
    if (out->type == JSON_BOOL || (f->template && t->choice.value && to_integer(out)))
        to_integer(out);
    else if (f->template && out->string.length >= 2 && out->string.data[0] == '[' && out->string.data[out->string.length - 1] == ']') {
        Error no_list;
        JsonValue list;
        if (literal_eval(out->string, arena, &list, &no_list) == 0)
            *out = list;
    }
    if (out->type == JSON_NULL || (out->type == JSON_STRING && out->string.length == 0 && t->kind != TASK_ROLLING))
        return error_set(err, "no answer ('%s' is empty)", f->name);
    return 0;
}

int field_choice(const Field *f, const Doc *d, Arena *arena, JsonValue *out, Error *err)
{
    if (!f->value)
        return error_set(err, "the task has no 'doc_to_choice'");
    if (field_value(f, d, arena, out, err) < 0)
        return -1;
    if (f->template) {
        Span text = out->string;
        if (literal_eval(text, arena, out, err) < 0)
            return error_prefix(err, "'%s'", f->name);
    }
    if (out->type == JSON_OBJECT && f->value->type == JSON_OBJECT && !f->function)
        out->type = JSON_ARRAY;
    if (out->type != JSON_ARRAY || out->count < 1)
        return error_set(err, "'%s' gives no list of choices", f->name);
    for (size_t i = 0; i < out->count; i++) {
        if (out->items[i].type != JSON_STRING)
            return error_set(err, "choices must be strings");
        if (out->items[i].string.length == 0)
            return error_set(err, "choice %zu is empty", i);
        for (size_t k = 0; k < i; k++)
            if (json_equal(&out->items[i], &out->items[k]))
                return error_set(err, "choices %zu and %zu are equal", k, i);
    }
    return 0;
}

int value_string_of(const JsonValue *v, Arena *arena, Span *out, Error *err)
{
    if (v->type == JSON_STRING) {
        *out = v->string;
        return 0;
    }
    static const char text[] = "{{x}}";
    Field f = {.name = "a value", .template = jinja_compile((Span){text, 5}, JINJA_TASK, err)};
    JinjaVariable x = {.name = "x", .value = v};
    Split one = {.column_count = 1};
    int status = f.template ? render(&f, &(Doc){.split = &one, .variables = &x}, arena, out, err) : -1;
    jinja_free(f.template);
    return status;
}
