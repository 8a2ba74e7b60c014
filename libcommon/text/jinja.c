/* Renders a parsed template: its statements. */
#include "text/jinja.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "text/jinja_internal.h"

enum { MAX_OUTPUT = 1 << 30 };

int render_fail(Render *r, const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return error_set(r->err, "%s, line %d: %s", jinja_kind_name(r->kind), r->line, text);
}

const char *jinja_kind_name(JinjaKind kind)
{
    return kind == JINJA_CHAT ? "chat template" : "template";
}

static int run(Render *r, const Statement *s);

/* A loop's or a macro's own names hide those outside and go with it. */
static void name_set(Render *r, Span name, Value v)
{
    Scope *s = scope_find(r, name, r->frame);
    if (s)
        s->value = v;
    else
        scope_push(r, name, v);
}

int jinja_capture(Render *r, const Statement *body, Value *out)
{
    Buffer text = {0}, origins = {0}, *outer_text = r->text, *outer_origins = r->origins;
    r->text = &text;
    r->origins = &origins;
    int status = run(r, body);
    r->text = outer_text;
    r->origins = outer_origins;
    *out = value_string(r, &text, &origins);
    buffer_free(&text);
    buffer_free(&origins);
    return status;
}

/* `loop`, made anew for each turn. */
static Value loop_value(Render *r, const Value *list, size_t i)
{
    static const char *const names[] = {"index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem"};
    enum { N = sizeof names / sizeof *names };
    size_t n = list->count;
    Value v = {.type = VALUE_MAP, .count = N, .keys = arena_alloc(&r->arena, N, sizeof *v.keys), .items = arena_alloc(&r->arena, N, sizeof *v.items)};
    Value values[N] = {value_integer((int64_t)i + 1), value_integer((int64_t)i), value_bool(i == 0), value_bool(i + 1 == n), value_integer((int64_t)n),
                       value_integer((int64_t)(n - i)), value_integer((int64_t)(n - i) - 1), i > 0 ? list->items[i - 1] : (Value){0},
                       i + 1 < n ? list->items[i + 1] : (Value){0}};
    for (int k = 0; k < N; k++) {
        v.keys[k] = (Span){names[k], strlen(names[k])};
        v.items[k] = values[k];
    }
    return v;
}

static int bind_target(Render *r, const Statement *s, const Value *item)
{
    if (!s->name2.data) {
        name_set(r, s->name, *item);
        return 0;
    }
    if (item->type != VALUE_LIST || item->count != 2)
        return render_fail(r, "two names for what is no pair");
    name_set(r, s->name, item->items[0]);
    name_set(r, s->name2, item->items[1]);
    return 0;
}

static int run_for(Render *r, const Statement *s)
{
    Value list;
    if (jinja_evaluate(r, s->expr, &list) < 0)
        return -1;
    r->line = s->line;
    list = value_points(r, &list);
    if (list.type == VALUE_MAP) { /* over its keys */
        Value keys = {.type = VALUE_LIST, .items = arena_alloc(&r->arena, list.count + 1, sizeof(Value))};
        for (size_t i = 0; i < list.count; i++)
            keys.items[keys.count++] = value_key(r, &list, i);
        list = keys;
    }
    if (list.type != VALUE_LIST && list.type != VALUE_UNDEFINED)
        return render_fail(r, "a loop over what is no list");
    size_t top = r->scope_count, frame = r->frame;
    r->frame = top;
    int status = 0;
    if (s->filter) {
        Value kept = {.type = VALUE_LIST, .items = arena_alloc(&r->arena, list.count + 1, sizeof(Value))}, yes;
        for (size_t i = 0; i < list.count && status == 0; i++) {
            status = bind_target(r, s, &list.items[i]);
            if (status == 0)
                status = jinja_evaluate(r, s->filter, &yes);
            if (status == 0 && value_true(&yes))
                kept.items[kept.count++] = list.items[i];
        }
        list = kept;
    }
    for (size_t i = 0; i < list.count && status == 0; i++) {
        r->scope_count = top; /* what the turn before has set is gone */
        scope_push(r, (Span){"loop", 4}, loop_value(r, &list, i));
        status = bind_target(r, s, &list.items[i]);
        if (status == 0)
            status = run(r, s->body);
        int jump = r->jump;
        r->jump = 0;
        if (jump == 1)
            break;
    }
    r->scope_count = top;
    r->frame = frame;
    return status == 0 && list.count == 0 ? run(r, s->otherwise) : status;
}

static int run_set(Render *r, const Statement *s)
{
    Value v;
    if (s->kind == STATEMENT_SET_BLOCK ? jinja_capture(r, s->body, &v) < 0 : jinja_evaluate(r, s->expr, &v) < 0)
        return -1;
    r->line = s->line;
    if (!s->name2.data) {
        name_set(r, s->name, v);
        return 0;
    }
    Scope *object = scope_find(r, s->name, 0);
    if (!object || object->value.type != VALUE_MAP || !object->value.map)
        return render_fail(r, "'%.*s' is no namespace", (int)s->name.length, s->name.data);
    map_set(r, object->value.map, s->name2, v);
    return 0;
}

static int run_one(Render *r, const Statement *s)
{
    Value v;
    switch (s->kind) {
    case STATEMENT_TEXT:
        buffer_append(r->text, s->text.data, s->text.length);
        buffer_reserve(r->origins, s->text.length);
        memset(r->origins->data + r->origins->length, 0, s->text.length);
        r->origins->length += s->text.length;
        return 0;
    case STATEMENT_PRINT:
        return jinja_evaluate(r, s->expr, &v) < 0 || value_print(r, &v, r->text, r->origins) < 0 ? -1 : 0;
    case STATEMENT_IF:
        if (jinja_evaluate(r, s->expr, &v) < 0)
            return -1;
        return run(r, value_true(&v) ? s->body : s->otherwise);
    case STATEMENT_FOR:
        return run_for(r, s);
    case STATEMENT_SET:
    case STATEMENT_SET_BLOCK:
        return run_set(r, s);
    case STATEMENT_MACRO:
        name_set(r, s->name, (Value){.type = VALUE_MACRO, .macro = s});
        return 0;
    case STATEMENT_BREAK:
    case STATEMENT_CONTINUE:
        r->jump = s->kind == STATEMENT_BREAK ? 1 : 2;
        return 0;
    }
    return 0;
}

static int run(Render *r, const Statement *s)
{
    for (; s && !r->jump; s = s->next) {
        r->line = s->line;
        if (run_one(r, s) < 0)
            return -1;
        if (r->text->length > MAX_OUTPUT)
            return render_fail(r, "the text grows without end");
    }
    return 0;
}

Jinja *jinja_compile(Span text, JinjaKind kind, Error *err)
{
    Jinja *j = memory_zalloc(1, sizeof *j);
    j->kind = kind;
    /* As Jinja does: one kind of line end, and none at the end of a chat template. */
    j->source = memory_alloc(text.length + 1, 1);
    size_t n = 0;
    for (size_t i = 0; i < text.length; i++)
        if (text.data[i] != '\r')
            j->source[n++] = text.data[i];
        else if (i + 1 == text.length || text.data[i + 1] != '\n')
            j->source[n++] = '\n';
    n -= n && kind == JINJA_CHAT && j->source[n - 1] == '\n';
    if (jinja_parse(j, (Span){j->source, n}, err) == 0)
        return j;
    jinja_free(j);
    return NULL;
}

void jinja_free(Jinja *j)
{
    if (!j)
        return;
    arena_free(&j->arena);
    free(j->source);
    free(j);
}

int jinja_render(const Jinja *j, const JinjaVariable *variables, size_t count, JinjaOutput *out, Error *err)
{
    Render r = {.kind = j->kind, .text = &out->text, .origins = &out->origins, .err = err};
    out->text.length = out->origins.length = 0;
    for (size_t i = 0; i < count; i++)
        scope_push(&r, (Span){variables[i].name, strlen(variables[i].name)},
                  value_from_json(&r, variables[i].value, variables[i].origin, variables[i].item_origins));
    r.frame = 0;
    int status = run(&r, j->body);
    arena_free(&r.arena);
    free(r.scopes);
    return status;
}

void jinja_output_free(JinjaOutput *out)
{
    buffer_free(&out->text);
    buffer_free(&out->origins);
}
