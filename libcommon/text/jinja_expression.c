/* A template's expressions, from tokens to a syntax tree: one function for each strength of binding. */
#include <string.h>
#include "text/jinja_parser.h"

void *parser_zeroed(Parser *p, size_t size)
{
    return memset(arena_alloc(&p->j->arena, 1, size), 0, size);
}

Expr *parser_expr(Parser *p, ExprKind kind, Expr *a)
{
    Expr *e = parser_zeroed(p, sizeof *e);
    e->kind = kind;
    e->line = p->line;
    e->a = a;
    return e;
}

void parser_argument(Parser *p, Expr *e, Span keyword, Expr *value)
{
    Expr **arguments = arena_alloc(&p->j->arena, e->count + 1, sizeof(Expr *));
    Span *keywords = arena_alloc(&p->j->arena, e->count + 1, sizeof *keywords);
    if (e->count) {
        memcpy(arguments, e->arguments, e->count * sizeof *arguments);
        memcpy(keywords, e->keywords, e->count * sizeof *keywords);
    }
    arguments[e->count] = value;
    keywords[e->count++] = keyword;
    e->arguments = arguments;
    e->keywords = keywords;
}

/* After the opening bracket, up to and with the closing one. */
static void parse_items(Parser *p, Expr *e, const char *close, bool keywords)
{
    while (!p->failed && !parser_is_operator(p, close)) {
        Span keyword = {0};
        Expr *value = parse_expression(p);
        if (keywords && parser_is_operator(p, "=") && value && value->kind == EXPR_NAME) {
            keyword = value->name;
            parser_next(p);
            value = parse_expression(p);
        }
        parser_argument(p, e, keyword, value);
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, close);
}

static Expr *literal(Parser *p, Value v)
{
    Expr *e = parser_expr(p, EXPR_LITERAL, NULL);
    e->literal = v;
    parser_next(p);
    return e;
}

static Expr *parse_name(Parser *p)
{
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    for (int i = 0; i < 6; i++)
        if (parser_is_word(p, words[i]))
            return literal(p, i < 4 ? value_bool(i < 2) : (Value){.type = VALUE_NONE});
    Expr *e = parser_expr(p, EXPR_NAME, NULL);
    e->name = p->token;
    parser_next(p);
    return e;
}

static Expr *parse_primary(Parser *p)
{
    if (p->type == TOKEN_NAME)
        return parse_name(p);
    if (p->type == TOKEN_INTEGER)
        return literal(p, value_integer((int64_t)p->number));
    if (p->type == TOKEN_FLOAT)
        return literal(p, (Value){.type = VALUE_FLOAT, .number = p->number});
    if (p->type == TOKEN_STRING) {
        Expr *e = literal(p, (Value){.type = VALUE_STRING, .data = p->token.data, .count = p->token.length});
        while (p->type == TOKEN_STRING) { /* neighbours are one */
            char *both = arena_alloc(&p->j->arena, e->literal.count + p->token.length + 1, 1);
            memcpy(both, e->literal.data, e->literal.count);
            memcpy(both + e->literal.count, p->token.data, p->token.length);
            e->literal.data = both;
            e->literal.count += p->token.length;
            parser_next(p);
        }
        return e;
    }
    if (parser_accept(p, "(")) {
        if (parser_is_operator(p, ")")) {
            parser_next(p);
            return parser_expr(p, EXPR_LIST, NULL);
        }
        Expr *e = parse_expression(p);
        if (parser_is_operator(p, ",")) {
            Expr *list = parser_expr(p, EXPR_LIST, NULL);
            parser_argument(p, list, (Span){0}, e);
            parser_next(p);
            parse_items(p, list, ")", false);
            return list;
        }
        parser_expect(p, ")");
        return e;
    }
    Expr *e = parser_expr(p, EXPR_LIST, NULL);
    if (parser_accept(p, "[")) {
        parse_items(p, e, "]", false);
    } else if (parser_accept(p, "{")) {
        e->kind = EXPR_DICT;
        while (!p->failed && !parser_is_operator(p, "}")) {
            Span key = p->token;
            if (p->type != TOKEN_STRING)
                parser_fail(p, "a key of a mapping is no string: '%.*s'", p->token.data, p->token.length);
            parser_next(p);
            parser_expect(p, ":");
            parser_argument(p, e, key, parse_expression(p));
            if (!parser_accept(p, ","))
                break;
        }
        parser_expect(p, "}");
    } else {
        parser_fail(p, "'%.*s' is unexpected", p->token.data, p->token.length);
    }
    return e;
}

static Expr *parse_subscript(Parser *p, Expr *object)
{
    Expr *from = NULL;
    if (!parser_is_operator(p, ":"))
        from = parse_expression(p);
    if (!parser_is_operator(p, ":")) {
        Expr *e = parser_expr(p, EXPR_GET, object);
        e->b = from;
        parser_expect(p, "]");
        return e;
    }
    Expr *e = parser_expr(p, EXPR_SLICE, object);
    e->b = from;
    parser_next(p);
    if (!parser_is_operator(p, ":") && !parser_is_operator(p, "]"))
        e->c = parse_expression(p);
    if (parser_accept(p, ":") && !parser_is_operator(p, "]"))
        e->d = parse_expression(p);
    parser_expect(p, "]");
    return e;
}

static Expr *parse_filter(Parser *p, Expr *value)
{
    Expr *e = parser_expr(p, EXPR_FILTER, value);
    e->name = parser_name(p);
    if (parser_accept(p, "("))
        parse_items(p, e, ")", true);
    return e;
}

static Expr *parse_test(Parser *p, Expr *value)
{
    Expr *e = parser_expr(p, EXPR_TEST, value);
    e->negated = parser_accept(p, "not");
    e->name = parser_name(p);
    if (parser_accept(p, "("))
        parse_items(p, e, ")", true);
    else if (p->type == TOKEN_STRING || p->type == TOKEN_INTEGER)
        parser_argument(p, e, (Span){0}, parse_primary(p));
    return e;
}

/* Members, calls, filters and tests: what binds tightest. */
static Expr *parse_postfix(Parser *p)
{
    Expr *e = parse_primary(p);
    while (!p->failed) {
        if (parser_accept(p, ".")) {
            Expr *get = parser_expr(p, EXPR_GET, e);
            get->b = parser_expr(p, EXPR_LITERAL, NULL);
            if (p->type == TOKEN_INTEGER) {
                get->b->literal = value_integer((int64_t)p->number);
                parser_next(p);
            } else {
                Span name = parser_name(p);
                get->b->literal = (Value){.type = VALUE_STRING, .data = name.data, .count = name.length};
                get->name = name;
            }
            e = get;
        } else if (parser_accept(p, "[")) {
            e = parse_subscript(p, e);
        } else if (parser_accept(p, "(")) {
            e = parser_expr(p, EXPR_CALL, e);
            parse_items(p, e, ")", true);
        } else if (parser_accept(p, "|")) {
            e = parse_filter(p, e);
        } else if (parser_accept(p, "is")) {
            e = parse_test(p, e);
        } else {
            break;
        }
    }
    return e;
}

static Expr *parse_unary(Parser *p)
{
    if (++p->depth > JINJA_DEPTH)
        parser_fail(p, "%.*s", "nested too deeply", 17);
    Expr *e;
    if (parser_accept(p, "-"))
        e = parser_expr(p, EXPR_NEGATE, p->failed ? NULL : parse_unary(p));
    else
        e = p->failed ? parser_expr(p, EXPR_LIST, NULL) : parse_postfix(p);
    p->depth--;
    return e;
}

static Expr *parse_binary(Parser *p, int level)
{
    static const char *const levels[][5] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}};
    if (level == 3)
        return parse_unary(p);
    Expr *e = parse_binary(p, level + 1);
    for (bool more = true; more && !p->failed;) {
        more = false;
        for (int i = 0; i < 5 && levels[level][i]; i++)
            if (parser_is_operator(p, levels[level][i])) {
                Expr *both = parser_expr(p, EXPR_BINARY, e);
                both->name = p->token;
                parser_next(p);
                both->b = parse_binary(p, level + 1);
                e = both;
                more = true;
                break;
            }
    }
    return e;
}

static Expr *parse_compare(Parser *p)
{
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">"};
    Expr *e = parse_binary(p, 0);
    for (bool more = true; more && !p->failed;) {
        more = false;
        for (int i = 0; i < 6; i++)
            if (parser_is_operator(p, operators[i])) {
                Expr *both = parser_expr(p, EXPR_BINARY, e);
                both->name = p->token;
                parser_next(p);
                both->b = parse_binary(p, 0);
                e = both;
                more = true;
                break;
            }
        if (parser_is_word(p, "in") || parser_is_word(p, "not")) {
            bool negated = parser_accept(p, "not");
            Expr *both = parser_expr(p, EXPR_BINARY, e);
            both->name = (Span){"in", 2};
            both->negated = negated;
            parser_expect(p, "in");
            both->b = parse_binary(p, 0);
            e = both;
            more = true;
        }
    }
    return e;
}

static Expr *parse_not(Parser *p)
{
    if (!parser_is_word(p, "not"))
        return parse_compare(p);
    parser_next(p);
    if (++p->depth > JINJA_DEPTH)
        parser_fail(p, "%.*s", "nested too deeply", 17);
    Expr *e = parser_expr(p, EXPR_NOT, p->failed ? NULL : parse_not(p));
    p->depth--;
    return e;
}

static Expr *parse_logic(Parser *p, bool or)
{
    Expr *e = or ? parse_logic(p, false) : parse_not(p);
    while (!p->failed && parser_accept(p, or ? "or" : "and")) {
        e = parser_expr(p, or ? EXPR_OR : EXPR_AND, e);
        e->b = or ? parse_logic(p, false) : parse_not(p);
    }
    return e;
}

Expr *parse_expression(Parser *p)
{
    if (++p->depth > JINJA_DEPTH)
        parser_fail(p, "%.*s", "nested too deeply", 17);
    Expr *e = p->failed ? parser_expr(p, EXPR_LIST, NULL) : parse_logic(p, true);
    if (!p->failed && parser_accept(p, "if")) {
        Expr *choice = parser_expr(p, EXPR_IF, e);
        choice->b = parse_logic(p, true);
        if (parser_accept(p, "else"))
            choice->c = parse_expression(p);
        e = choice;
    }
    p->depth--;
    return e;
}

Expr *parse_condition(Parser *p)
{
    return parse_logic(p, true);
}

Expr *parse_tuple(Parser *p)
{
    Expr *e = parse_expression(p);
    if (!parser_is_operator(p, ","))
        return e;
    Expr *list = parser_expr(p, EXPR_LIST, NULL);
    parser_argument(p, list, (Span){0}, e);
    while (!p->failed && parser_accept(p, ","))
        parser_argument(p, list, (Span){0}, parse_expression(p));
    return list;
}
