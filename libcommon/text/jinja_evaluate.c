/* The values of a template's expressions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "text/jinja_internal.h"

enum { MAX_CALLS = 50, MAX_RANGE = 1 << 20 };

static int eval_any(Render *r, const Expr *e, Value *out); /* may be undefined */

void scope_push(Render *r, Span name, Value v)
{
    r->scopes = memory_grow(r->scopes, &r->scope_capacity, r->scope_count + 1, sizeof *r->scopes);
    r->scopes[r->scope_count++] = (Scope){name, v};
}

Scope *scope_find(Render *r, Span name, size_t from)
{
    for (size_t i = r->scope_count; i-- > from;)
        if (r->scopes[i].name.length == name.length && memcmp(r->scopes[i].name.data, name.data, name.length) == 0)
            return &r->scopes[i];
    return NULL;
}

static int eval_list(Render *r, Expr *const *items, size_t count, Value **out)
{
    *out = arena_alloc(&r->arena, count + 1, sizeof **out);
    for (size_t i = 0; i < count; i++)
        if (jinja_evaluate(r, items[i], &(*out)[i]) < 0)
            return -1;
    return 0;
}

static int call_macro(Render *r, const Statement *m, const Arguments *a, Value *out)
{
    if (++r->depth > MAX_CALLS)
        return render_fail(r, "macros call each other too deeply");
    size_t top = r->scope_count, frame = r->frame;
    r->frame = top;
    int status = 0;
    for (size_t i = 0; i < m->parameter_count && status == 0; i++) {
        char keyword[64];
        snprintf(keyword, sizeof keyword, "%.*s", (int)m->parameters[i].length, m->parameters[i].data);
        const Value *given = argument(a, i, keyword);
        Value v = given ? *given : (Value){0};
        if (!given && m->defaults[i])
            status = jinja_evaluate(r, m->defaults[i], &v);
        scope_push(r, m->parameters[i], v);
    }
    if (status == 0)
        status = jinja_capture(r, m->body, out);
    r->scope_count = top;
    r->frame = frame;
    r->depth--;
    return status;
}

static int call_range(Render *r, const Arguments *a, Value *out)
{
    int64_t from = 0, to, step = 1;
    for (size_t i = 0; i < a->count; i++)
        if (a->values[i].type != VALUE_INTEGER)
            return render_fail(r, "range() takes whole numbers");
    if (a->count < 1 || a->count > 3)
        return render_fail(r, "range() takes one to three numbers");
    to = a->values[a->count > 1].integer;
    if (a->count > 1)
        from = a->values[0].integer;
    if (a->count > 2)
        step = a->values[2].integer;
    if (step == 0 || (to - from) / step > MAX_RANGE)
        return render_fail(r, "range() of too many numbers");
    *out = (Value){.type = VALUE_LIST};
    int64_t n = step > 0 ? (to - from + step - 1) / step : (from - to - step - 1) / -step;
    n = n < 0 ? 0 : n;
    out->items = arena_alloc(&r->arena, (size_t)n + 1, sizeof *out->items);
    for (int64_t i = 0; i < n; i++)
        out->items[out->count++] = value_integer(from + i * step);
    return 0;
}

static int call_function(Render *r, Span name, const Arguments *a, Value *out)
{
    if (span_is(name, "raise_exception")) {
        const Value *v = argument(a, 0, "message");
        return render_fail(r, "%.*s", v && v->type == VALUE_STRING ? (int)v->count : 0, v ? v->data : "");
    }
    if (span_is(name, "range"))
        return call_range(r, a, out);
    if (span_is(name, "namespace") || span_is(name, "dict")) {
        Map *m = memset(arena_alloc(&r->arena, 1, sizeof *m), 0, sizeof *m);
        for (size_t i = 0; i < a->count; i++)
            map_set(r, m, a->keywords[i], a->values[i]);
        *out = (Value){.type = VALUE_MAP, .map = m};
        if (name.length == 4) /* dict: fixed */
            *out = (Value){.type = VALUE_MAP, .keys = m->keys, .items = m->values, .count = m->count};
        return 0;
    }
    if (span_is(name, "strftime_now")) {
        const Value *v = argument(a, 0, "format");
        char format[128], text[256];
        time_t now = time(NULL);
        struct tm parts;
        if (!v || v->type != VALUE_STRING || v->count >= sizeof format || !localtime_r(&now, &parts))
            return render_fail(r, "strftime_now() takes a short format");
        snprintf(format, sizeof format, "%.*s", (int)v->count, v->data);
        text[strftime(text, sizeof text, format, &parts)] = 0;
        *out = value_text(arena_copy(&r->arena, text, strlen(text)));
        return 0;
    }
    return render_fail(r, "the function '%.*s' is not known here", (int)name.length, name.data);
}

static int eval_call(Render *r, const Expr *e, Value *out)
{
    Arguments a = {.keywords = e->keywords, .count = e->count};
    if (eval_list(r, e->arguments, e->count, &a.values) < 0)
        return -1;
    r->line = e->line;
    const Expr *f = e->a;
    if (f->kind == EXPR_GET && f->name.data) {
        Value object;
        if (jinja_evaluate(r, f->a, &object) < 0)
            return -1;
        return value_method(r, f->name, &object, &a, out);
    }
    if (f->kind != EXPR_NAME)
        return render_fail(r, "only names can be called");
    const Scope *s = scope_find(r, f->name, 0);
    if (s && s->value.type == VALUE_MACRO)
        return call_macro(r, s->value.macro, &a, out);
    return call_function(r, f->name, &a, out);
}

static int eval_get(Render *r, const Expr *e, Value *out)
{
    Value object, key;
    if (jinja_evaluate(r, e->a, &object) < 0 || jinja_evaluate(r, e->b, &key) < 0)
        return -1;
    r->line = e->line;
    if (object.type == VALUE_UNDEFINED)
        return render_fail(r, "a member '%.*s' of something undefined", key.type == VALUE_STRING ? (int)key.count : 0, key.data ? key.data : "");
    if (key.type == VALUE_STRING) {
        *out = value_member(&object, (Span){key.data, key.count});
        return 0;
    }
    *out = (Value){0};
    if (key.type != VALUE_INTEGER)
        return 0;
    if (object.type == VALUE_LIST) {
        int64_t at = key.integer < 0 ? key.integer + (int64_t)object.count : key.integer;
        if (at >= 0 && at < (int64_t)object.count)
            *out = object.items[at];
    } else if (object.type == VALUE_STRING) {
        Expr bounds[2] = {{.kind = EXPR_LITERAL, .literal = key}, {.kind = EXPR_LITERAL, .literal = value_integer(key.integer + 1)}};
        Expr slice = {.kind = EXPR_SLICE, .line = e->line, .a = e->a, .b = &bounds[0], .c = key.integer == -1 ? NULL : &bounds[1]};
        return jinja_evaluate(r, &slice, out);
    }
    return 0;
}

/* Byte offset of code point n. */
static size_t point_offset(const Value *s, int64_t n)
{
    size_t at = 0;
    for (; at < s->count && n > 0; n--)
        for (at++; at < s->count && ((unsigned char)s->data[at] & 0xc0) == 0x80; at++)
            ;
    return at;
}

static int eval_slice(Render *r, const Expr *e, Value *out)
{
    Value object, bounds[3] = {{0}, {0}, {0}};
    const Expr *parts[3] = {e->b, e->c, e->d};
    if (jinja_evaluate(r, e->a, &object) < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (parts[i] && jinja_evaluate(r, parts[i], &bounds[i]) < 0)
            return -1;
    r->line = e->line;
    int64_t n = (int64_t)object.count, step = bounds[2].type == VALUE_INTEGER ? bounds[2].integer : 1;
    if (object.type == VALUE_STRING) {
        n = 0;
        for (size_t i = 0; i < object.count; i++)
            n += ((unsigned char)object.data[i] & 0xc0) != 0x80;
    } else if (object.type != VALUE_LIST) {
        return render_fail(r, "a slice of what is neither a list nor a string");
    }
    if (step != 1 && (step != -1 || object.type != VALUE_LIST || parts[0] || parts[1]))
        return render_fail(r, "a slice with this step is not known here");
    int64_t from = bounds[0].type == VALUE_INTEGER ? bounds[0].integer : 0, to = bounds[1].type == VALUE_INTEGER ? bounds[1].integer : n;
    from = from < 0 ? from + n : from;
    to = to < 0 ? to + n : to > n ? n : to;
    from = from < 0 ? 0 : from > n ? n : from;
    to = to < from ? from : to;
    if (object.type == VALUE_STRING) {
        *out = value_substring(&object, point_offset(&object, from), point_offset(&object, to));
        return 0;
    }
    *out = (Value){.type = VALUE_LIST, .count = (size_t)(to - from), .items = object.items + from};
    if (step == -1) {
        out->items = arena_alloc(&r->arena, (size_t)n + 1, sizeof *out->items);
        for (int64_t i = 0; i < n; i++)
            out->items[i] = object.items[n - 1 - i];
    }
    return 0;
}

static int concatenate(Render *r, const Value *a, const Value *b, Value *out)
{
    Buffer text = {0}, origins = {0};
    int status = value_print(r, a, &text, &origins);
    if (status == 0)
        status = value_print(r, b, &text, &origins);
    *out = value_string(r, &text, &origins);
    buffer_free(&text);
    buffer_free(&origins);
    return status;
}

static double number_of(const Value *v)
{
    return v->type == VALUE_FLOAT ? v->number : (double)v->integer;
}

static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
}

static int arithmetic(Render *r, char op, bool doubled, const Value *a, const Value *b, Value *out)
{
    if (!value_is_number(a) || !value_is_number(b))
        return render_fail(r, "the operator '%c' between these kinds of values", op);
    bool whole = a->type != VALUE_FLOAT && b->type != VALUE_FLOAT;
    if (strchr("/%", op) && number_of(b) == 0)
        return render_fail(r, "division by zero");
    if (whole && (op != '/' || doubled)) {
        int64_t x = a->integer, y = b->integer, z = 0;
        bool over = op == '+' ? __builtin_add_overflow(x, y, &z) : op == '-' ? __builtin_sub_overflow(x, y, &z) : op == '*' ? __builtin_mul_overflow(x, y, &z) : y == -1 && x == INT64_MIN;
        if (over)
            return render_fail(r, "a number is too large");
        *out = value_integer(op == '/' ? floor_divide(x, y) : op == '%' ? x - floor_divide(x, y) * y : z);
        return 0;
    }
    if (op == '%' || doubled)
        return render_fail(r, "whole division of broken numbers is not known here");
    double x = number_of(a), y = number_of(b);
    *out = (Value){.type = VALUE_FLOAT, .number = op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : x / y};
    return 0;
}

static int compare(Render *r, Span op, const Value *a, const Value *b, Value *out)
{
    int order;
    if (value_is_number(a) && value_is_number(b)) {
        order = number_of(a) < number_of(b) ? -1 : number_of(a) > number_of(b);
    } else if (a->type == VALUE_STRING && b->type == VALUE_STRING) {
        order = memcmp(a->data, b->data, a->count < b->count ? a->count : b->count);
        order = order ? order : a->count < b->count ? -1 : a->count > b->count;
    } else {
        return render_fail(r, "these kinds of values have no order");
    }
    bool equal = op.length == 2 && order == 0;
    *out = value_bool(equal || (op.data[0] == '<' ? order < 0 : order > 0));
    return 0;
}

static int eval_binary(Render *r, const Expr *e, Value *out)
{
    Value a, b;
    if (jinja_evaluate(r, e->a, &a) < 0 || jinja_evaluate(r, e->b, &b) < 0)
        return -1;
    r->line = e->line;
    if (span_is(e->name, "==") || span_is(e->name, "!=")) {
        *out = value_bool(value_equal(&a, &b) == (e->name.data[0] == '='));
        return 0;
    }
    if (span_is(e->name, "in")) {
        bool inside;
        if (value_contains(r, &b, &a, &inside) < 0)
            return -1;
        *out = value_bool(inside != e->negated);
        return 0;
    }
    if (strchr("<>", e->name.data[0]))
        return compare(r, e->name, &a, &b, out);
    if (span_is(e->name, "~") || (span_is(e->name, "+") && a.type == VALUE_STRING && b.type == VALUE_STRING))
        return concatenate(r, &a, &b, out);
    if (span_is(e->name, "+") && a.type == VALUE_LIST && b.type == VALUE_LIST) {
        *out = (Value){.type = VALUE_LIST, .count = a.count + b.count, .items = arena_alloc(&r->arena, a.count + b.count + 1, sizeof(Value))};
        for (size_t i = 0; i < out->count; i++)
            out->items[i] = i < a.count ? a.items[i] : b.items[i - a.count];
        return 0;
    }
    return arithmetic(r, e->name.data[0], e->name.length == 2, &a, &b, out);
}

static int eval_applied(Render *r, const Expr *e, Value *out)
{
    Value object;
    Arguments a = {.keywords = e->keywords, .count = e->count};
    bool asks = span_is(e->name, "defined") || span_is(e->name, "undefined") || span_is(e->name, "default") || span_is(e->name, "d");
    if ((asks ? eval_any(r, e->a, &object) : jinja_evaluate(r, e->a, &object)) < 0 || eval_list(r, e->arguments, e->count, &a.values) < 0)
        return -1;
    r->line = e->line;
    if (e->kind == EXPR_FILTER)
        return value_filter(r, e->name, &object, &a, out);
    bool yes;
    if (value_test(r, e->name, &object, &a, &yes) < 0)
        return -1;
    *out = value_bool(yes != e->negated);
    return 0;
}

static int eval_dict(Render *r, const Expr *e, Value *out)
{
    *out = (Value){.type = VALUE_MAP, .keys = e->keywords, .count = e->count};
    return eval_list(r, e->arguments, e->count, &out->items);
}

/* A task's names must be there, but where the template asks whether they are. */
int jinja_evaluate(Render *r, const Expr *e, Value *out)
{
    if (eval_any(r, e, out) < 0)
        return -1;
    if (r->kind != JINJA_TASK || out->type != VALUE_UNDEFINED || (e->kind != EXPR_NAME && e->kind != EXPR_GET))
        return 0;
    r->line = e->line;
    return e->name.data ? render_fail(r, "'%.*s' is undefined", (int)e->name.length, e->name.data) : render_fail(r, "an undefined element");
}

static int eval_any(Render *r, const Expr *e, Value *out)
{
    *out = (Value){0};
    Value test;
    switch (e->kind) {
    case EXPR_LITERAL:
        *out = e->literal;
        return 0;
    case EXPR_NAME: {
        const Scope *s = scope_find(r, e->name, 0);
        if (s)
            *out = s->value;
        else if (span_is(e->name, "strftime_now") || span_is(e->name, "raise_exception"))
            *out = value_bool(true); /* `is defined` */
        return 0;
    }
    case EXPR_LIST:
        *out = (Value){.type = VALUE_LIST, .count = e->count};
        return eval_list(r, e->arguments, e->count, &out->items);
    case EXPR_DICT:
        return eval_dict(r, e, out);
    case EXPR_GET:
        return eval_get(r, e, out);
    case EXPR_SLICE:
        return eval_slice(r, e, out);
    case EXPR_CALL:
        return eval_call(r, e, out);
    case EXPR_FILTER:
    case EXPR_TEST:
        return eval_applied(r, e, out);
    case EXPR_BINARY:
        return eval_binary(r, e, out);
    case EXPR_NOT:
        if (jinja_evaluate(r, e->a, &test) < 0)
            return -1;
        *out = value_bool(!value_true(&test));
        return 0;
    case EXPR_NEGATE:
        if (jinja_evaluate(r, e->a, &test) < 0)
            return -1;
        return arithmetic(r, '-', false, &(Value){.type = VALUE_INTEGER}, &test, out);
    case EXPR_AND:
    case EXPR_OR:
        if (jinja_evaluate(r, e->a, out) < 0)
            return -1;
        return value_true(out) == (e->kind == EXPR_AND) ? jinja_evaluate(r, e->b, out) : 0;
    case EXPR_IF:
        if (jinja_evaluate(r, e->b, &test) < 0)
            return -1;
        return value_true(&test) ? jinja_evaluate(r, e->a, out) : e->c ? jinja_evaluate(r, e->c, out) : 0;
    }
    return 0;
}
