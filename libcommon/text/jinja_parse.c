/* From a template's text to its syntax tree. Blocks of chat templates are trimmed as transformers asks Jinja to (trim_blocks,
 * lstrip_blocks). */
#include <stdlib.h>
#include <string.h>
#include "text/jinja_internal.h"
#include "text/unicode.h"
#include "text/utf8.h"

typedef enum TokenType { TOKEN_NAME, TOKEN_STRING, TOKEN_INTEGER, TOKEN_FLOAT, TOKEN_OPERATOR, TOKEN_END } TokenType;

enum { MAX_DEPTH = 200 };

typedef struct Parser {
    Jinja *j;
    const char *at, *end;
    int line, depth;
    TokenType type;
    Span token;       /* of a string: its value */
    double number;
    bool print;       /* inside {{ }}, not {% %} */
    int brackets;
    bool strip_text;  /* the tag before ended in a minus sign */
    bool line_start;  /* the next text begins a line */
    Error *err;
    bool failed;
} Parser;

static void fail(Parser *p, const char *format, const char *detail, size_t length)
{
    if (!p->failed) {
        error_set(p->err, format, (int)length, detail);
        error_prefix(p->err, "%s, line %d", jinja_kind_name(p->j->kind), p->line);
    }
    p->failed = true;
    p->type = TOKEN_END;
}

bool span_is(Span s, const char *text)
{
    return s.length == strlen(text) && memcmp(s.data, text, s.length) == 0;
}

static bool blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Bytes of the letter, digit or underscore that stands there; 0: none. */
static size_t name_char(const Parser *p)
{
    size_t n;
    return p->at < p->end && unicode_is_word(utf8_decode(p->at, &n)) ? n : 0;
}

static bool looking_at(const Parser *p, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(p->end - p->at) >= n && memcmp(p->at, text, n) == 0;
}

/* The tag's end: what follows is trimmed. */
static bool tag_end(Parser *p)
{
    const char *close = p->print ? "}}" : "%}";
    bool minus = looking_at(p, p->print ? "-}}" : "-%}"), plus = !p->print && looking_at(p, "+%}");
    if (!minus && !plus && !looking_at(p, close))
        return false;
    p->at += minus || plus ? 3 : 2;
    p->line_start = false;
    p->strip_text = minus;
    if (!minus && !plus && !p->print && p->j->kind == JINJA_CHAT && p->at < p->end && *p->at == '\n') {
        p->at++;
        p->line++;
        p->line_start = true;
    }
    return true;
}

static void read_string(Parser *p)
{
    char quote = *p->at++;
    char *out = arena_alloc(&p->j->arena, (size_t)(p->end - p->at) + 1, 1);
    size_t n = 0;
    for (; p->at < p->end && *p->at != quote; p->at++) {
        p->line += *p->at == '\n';
        if (*p->at != '\\') {
            out[n++] = *p->at;
            continue;
        }
        if (++p->at == p->end)
            break;
        static const char from[] = "nrtbfv\\'\"0", to[] = "\n\r\t\b\f\v\\'\"";
        const char *escape = strchr(from, *p->at);
        if (!escape || *p->at == '0' || *p->at == 0) {
            fail(p, "the escape \\%.*s in a string", p->at, 1);
            return;
        }
        out[n++] = to[escape - from];
    }
    if (p->at == p->end) {
        fail(p, "%.*s does not end", "a string", 8);
        return;
    }
    p->at++;
    p->type = TOKEN_STRING;
    p->token = (Span){out, n};
}

static void next(Parser *p)
{
    if (p->failed)
        return;
    while (p->at < p->end && blank(*p->at))
        p->line += *p->at++ == '\n';
    if (p->at == p->end) {
        fail(p, "%.*s is not closed", "a tag", 5);
        return;
    }
    if (p->brackets == 0 && tag_end(p)) {
        p->type = TOKEN_END;
        p->token = (Span){"", 0};
        return;
    }
    const char *begin = p->at;
    char c = *begin;
    if (c == '\'' || c == '"') {
        read_string(p);
        return;
    }
    if (c >= '0' && c <= '9') {
        while (p->at < p->end && ((*p->at >= '0' && *p->at <= '9') || *p->at == '.'))
            p->at++;
        p->token = (Span){begin, (size_t)(p->at - begin)};
        p->type = memchr(begin, '.', p->token.length) ? TOKEN_FLOAT : TOKEN_INTEGER;
        p->number = 0;
        char digits[16] = ""; /* strtod alone would read an exponent, and on behind the template's end */
        if (p->token.length < sizeof digits)
            p->number = strtod(memcpy(digits, begin, p->token.length), NULL);
        else
            fail(p, "the number %.*s is too long", begin, p->token.length);
        return;
    }
    if (name_char(p)) {
        for (size_t n; (n = name_char(p)) > 0; p->at += n)
            ;
        p->token = (Span){begin, (size_t)(p->at - begin)};
        p->type = TOKEN_NAME;
        return;
    }
    static const char *const operators[] = {"==", "!=", "<=", ">=", "//", "**", "<", ">", "+", "-", "*", "/", "%", "~", "|", ".", ",", ":", "(", ")", "[", "]", "{", "}", "="};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (looking_at(p, operators[i])) {
            p->at += strlen(operators[i]);
            p->token = (Span){begin, (size_t)(p->at - begin)};
            p->type = TOKEN_OPERATOR;
            p->brackets += strchr("([{", c) != NULL;
            p->brackets -= strchr(")]}", c) != NULL && p->brackets > 0;
            return;
        }
    size_t length;
    utf8_decode(begin, &length);
    fail(p, "'%.*s' is unexpected", begin, length);
}

static bool is_operator(const Parser *p, const char *text)
{
    return p->type == TOKEN_OPERATOR && span_is(p->token, text);
}

static bool is_word(const Parser *p, const char *text)
{
    return p->type == TOKEN_NAME && span_is(p->token, text);
}

static bool accept(Parser *p, const char *text)
{
    if (!is_operator(p, text) && !is_word(p, text))
        return false;
    next(p);
    return true;
}

static void expect(Parser *p, const char *text)
{
    if (!accept(p, text))
        fail(p, "'%.*s' is missing", text, strlen(text));
}

static Span expect_name(Parser *p)
{
    Span name = p->token;
    if (p->type != TOKEN_NAME)
        fail(p, "%.*s is missing", "a name", 6);
    else
        next(p);
    return name;
}

static void *zeroed(Parser *p, size_t size)
{
    return memset(arena_alloc(&p->j->arena, 1, size), 0, size);
}

static Expr *expr_new(Parser *p, ExprKind kind, Expr *a)
{
    Expr *e = zeroed(p, sizeof *e);
    e->kind = kind;
    e->line = p->line;
    e->a = a;
    return e;
}

static Expr *parse_expr(Parser *p);

static void argument_add(Parser *p, Expr *e, Span keyword, Expr *value)
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
    while (!p->failed && !is_operator(p, close)) {
        Span keyword = {0};
        Expr *value = parse_expr(p);
        if (keywords && is_operator(p, "=") && value && value->kind == EXPR_NAME) {
            keyword = value->name;
            next(p);
            value = parse_expr(p);
        }
        argument_add(p, e, keyword, value);
        if (!accept(p, ","))
            break;
    }
    expect(p, close);
}

static Expr *literal(Parser *p, Value v)
{
    Expr *e = expr_new(p, EXPR_LITERAL, NULL);
    e->literal = v;
    next(p);
    return e;
}

static Expr *parse_name(Parser *p)
{
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    for (int i = 0; i < 6; i++)
        if (is_word(p, words[i]))
            return literal(p, i < 4 ? value_bool(i < 2) : (Value){.type = VALUE_NONE});
    Expr *e = expr_new(p, EXPR_NAME, NULL);
    e->name = p->token;
    next(p);
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
            next(p);
        }
        return e;
    }
    if (accept(p, "(")) {
        if (is_operator(p, ")")) {
            next(p);
            return expr_new(p, EXPR_LIST, NULL);
        }
        Expr *e = parse_expr(p);
        if (is_operator(p, ",")) {
            Expr *list = expr_new(p, EXPR_LIST, NULL);
            argument_add(p, list, (Span){0}, e);
            next(p);
            parse_items(p, list, ")", false);
            return list;
        }
        expect(p, ")");
        return e;
    }
    Expr *e = expr_new(p, EXPR_LIST, NULL);
    if (accept(p, "[")) {
        parse_items(p, e, "]", false);
    } else if (accept(p, "{")) {
        e->kind = EXPR_DICT;
        while (!p->failed && !is_operator(p, "}")) {
            Span key = p->token;
            if (p->type != TOKEN_STRING)
                fail(p, "a key of a mapping is no string: '%.*s'", p->token.data, p->token.length);
            next(p);
            expect(p, ":");
            argument_add(p, e, key, parse_expr(p));
            if (!accept(p, ","))
                break;
        }
        expect(p, "}");
    } else {
        fail(p, "'%.*s' is unexpected", p->token.data, p->token.length);
    }
    return e;
}

static Expr *parse_subscript(Parser *p, Expr *object)
{
    Expr *from = NULL;
    if (!is_operator(p, ":"))
        from = parse_expr(p);
    if (!is_operator(p, ":")) {
        Expr *e = expr_new(p, EXPR_GET, object);
        e->b = from;
        expect(p, "]");
        return e;
    }
    Expr *e = expr_new(p, EXPR_SLICE, object);
    e->b = from;
    next(p);
    if (!is_operator(p, ":") && !is_operator(p, "]"))
        e->c = parse_expr(p);
    if (accept(p, ":") && !is_operator(p, "]"))
        e->d = parse_expr(p);
    expect(p, "]");
    return e;
}

static Expr *parse_filter(Parser *p, Expr *value)
{
    Expr *e = expr_new(p, EXPR_FILTER, value);
    e->name = expect_name(p);
    if (accept(p, "("))
        parse_items(p, e, ")", true);
    return e;
}

static Expr *parse_test(Parser *p, Expr *value)
{
    Expr *e = expr_new(p, EXPR_TEST, value);
    e->negated = accept(p, "not");
    e->name = expect_name(p);
    if (accept(p, "("))
        parse_items(p, e, ")", true);
    else if (p->type == TOKEN_STRING || p->type == TOKEN_INTEGER)
        argument_add(p, e, (Span){0}, parse_primary(p));
    return e;
}

/* Members, calls, filters and tests: what binds tightest. */
static Expr *parse_postfix(Parser *p)
{
    Expr *e = parse_primary(p);
    while (!p->failed) {
        if (accept(p, ".")) {
            Expr *get = expr_new(p, EXPR_GET, e);
            get->b = expr_new(p, EXPR_LITERAL, NULL);
            if (p->type == TOKEN_INTEGER) {
                get->b->literal = value_integer((int64_t)p->number);
                next(p);
            } else {
                Span name = expect_name(p);
                get->b->literal = (Value){.type = VALUE_STRING, .data = name.data, .count = name.length};
                get->name = name;
            }
            e = get;
        } else if (accept(p, "[")) {
            e = parse_subscript(p, e);
        } else if (accept(p, "(")) {
            e = expr_new(p, EXPR_CALL, e);
            parse_items(p, e, ")", true);
        } else if (accept(p, "|")) {
            e = parse_filter(p, e);
        } else if (accept(p, "is")) {
            e = parse_test(p, e);
        } else {
            break;
        }
    }
    return e;
}

static Expr *parse_unary(Parser *p)
{
    if (++p->depth > MAX_DEPTH)
        fail(p, "%.*s", "nested too deeply", 17);
    Expr *e;
    if (accept(p, "-"))
        e = expr_new(p, EXPR_NEGATE, p->failed ? NULL : parse_unary(p));
    else
        e = p->failed ? expr_new(p, EXPR_LIST, NULL) : parse_postfix(p);
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
            if (is_operator(p, levels[level][i])) {
                Expr *both = expr_new(p, EXPR_BINARY, e);
                both->name = p->token;
                next(p);
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
            if (is_operator(p, operators[i])) {
                Expr *both = expr_new(p, EXPR_BINARY, e);
                both->name = p->token;
                next(p);
                both->b = parse_binary(p, 0);
                e = both;
                more = true;
                break;
            }
        if (is_word(p, "in") || is_word(p, "not")) {
            bool negated = accept(p, "not");
            Expr *both = expr_new(p, EXPR_BINARY, e);
            both->name = (Span){"in", 2};
            both->negated = negated;
            expect(p, "in");
            both->b = parse_binary(p, 0);
            e = both;
            more = true;
        }
    }
    return e;
}

static Expr *parse_not(Parser *p)
{
    if (!is_word(p, "not"))
        return parse_compare(p);
    next(p);
    if (++p->depth > MAX_DEPTH)
        fail(p, "%.*s", "nested too deeply", 17);
    Expr *e = expr_new(p, EXPR_NOT, p->failed ? NULL : parse_not(p));
    p->depth--;
    return e;
}

static Expr *parse_logic(Parser *p, bool or)
{
    Expr *e = or ? parse_logic(p, false) : parse_not(p);
    while (!p->failed && accept(p, or ? "or" : "and")) {
        e = expr_new(p, or ? EXPR_OR : EXPR_AND, e);
        e->b = or ? parse_logic(p, false) : parse_not(p);
    }
    return e;
}

static Expr *parse_expr(Parser *p)
{
    if (++p->depth > MAX_DEPTH)
        fail(p, "%.*s", "nested too deeply", 17);
    Expr *e = p->failed ? expr_new(p, EXPR_LIST, NULL) : parse_logic(p, true);
    if (!p->failed && accept(p, "if")) {
        Expr *choice = expr_new(p, EXPR_IF, e);
        choice->b = parse_logic(p, true);
        if (accept(p, "else"))
            choice->c = parse_expr(p);
        e = choice;
    }
    p->depth--;
    return e;
}

/* A list without brackets, as after `in` or `=`. */
static Expr *parse_tuple(Parser *p)
{
    Expr *e = parse_expr(p);
    if (!is_operator(p, ","))
        return e;
    Expr *list = expr_new(p, EXPR_LIST, NULL);
    argument_add(p, list, (Span){0}, e);
    while (!p->failed && accept(p, ","))
        argument_add(p, list, (Span){0}, parse_expr(p));
    return list;
}

static void expect_end(Parser *p)
{
    if (p->type != TOKEN_END)
        fail(p, "'%.*s' is unexpected", p->token.data, p->token.length);
}

static Statement *statement_new(Parser *p, StatementKind kind)
{
    Statement *s = zeroed(p, sizeof *s);
    s->kind = kind;
    s->line = p->line;
    return s;
}

/* The text up to the next tag, trimmed on both sides; NULL for none. */
static Statement *parse_text(Parser *p)
{
    const char *begin = p->at;
    while (p->at < p->end && !(p->at + 1 < p->end && *p->at == '{' && strchr("{%#", p->at[1])))
        p->at++;
    const char *first = begin, *last = p->at;
    for (const char *c = begin; c < last; c++)
        p->line += *c == '\n';
    if (p->strip_text)
        while (first < last && blank(*first))
            first++;
    if (p->at + 2 < p->end && p->at[2] == '-') {
        while (last > first && blank(last[-1]))
            last--;
    } else if (p->j->kind == JINJA_CHAT && p->at + 1 < p->end && p->at[1] != '{' && !(p->at + 2 < p->end && p->at[2] == '+')) {
        const char *line = last;
        while (line > first && line[-1] != '\n' && blank(line[-1]))
            line--;
        if (line > first ? line[-1] == '\n' : p->line_start)
            last = line;
    }
    p->strip_text = p->line_start = false;
    if (first == last)
        return NULL;
    Statement *s = statement_new(p, STATEMENT_TEXT);
    s->text = (Span){first, (size_t)(last - first)};
    return s;
}

static void skip_comment(Parser *p)
{
    while (p->at < p->end && !looking_at(p, "#}"))
        p->line += *p->at++ == '\n';
    if (p->at == p->end) {
        fail(p, "%.*s is not closed", "a comment", 9);
        return;
    }
    p->strip_text = p->at[-1] == '-';
    bool plus = p->at[-1] == '+';
    p->at += 2;
    if (!p->strip_text && !plus && p->j->kind == JINJA_CHAT && p->at < p->end && *p->at == '\n') {
        p->at++;
        p->line++;
        p->line_start = true;
    }
}

static Statement *parse_body(Parser *p, const char *const *ends);

static Statement *parse_if(Parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    Statement *s = statement_new(p, STATEMENT_IF);
    s->expr = parse_expr(p);
    expect_end(p);
    s->body = parse_body(p, ends);
    if (accept(p, "elif")) {
        if (++p->depth > MAX_DEPTH)
            fail(p, "%.*s", "nested too deeply", 17);
        s->otherwise = p->failed ? NULL : parse_if(p); /* reads the endif */
        p->depth--;
        return s;
    }
    if (accept(p, "else")) {
        expect_end(p);
        s->otherwise = parse_body(p, ends + 2);
    }
    expect(p, "endif");
    expect_end(p);
    return s;
}

static Statement *parse_for(Parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    Statement *s = statement_new(p, STATEMENT_FOR);
    s->name = expect_name(p);
    if (accept(p, ","))
        s->name2 = expect_name(p);
    expect(p, "in");
    s->expr = parse_logic(p, true);
    if (accept(p, "if"))
        s->filter = parse_expr(p);
    expect_end(p);
    s->body = parse_body(p, ends);
    if (accept(p, "else")) {
        expect_end(p);
        s->otherwise = parse_body(p, ends + 1);
    }
    expect(p, "endfor");
    expect_end(p);
    return s;
}

static Statement *parse_set(Parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    Statement *s = statement_new(p, STATEMENT_SET);
    s->name = expect_name(p);
    if (accept(p, "."))
        s->name2 = expect_name(p);
    if (accept(p, "=")) {
        s->expr = parse_tuple(p);
        expect_end(p);
        return s;
    }
    expect_end(p);
    s->kind = STATEMENT_SET_BLOCK;
    s->body = parse_body(p, ends);
    expect(p, "endset");
    expect_end(p);
    return s;
}

static Statement *parse_macro(Parser *p)
{
    static const char *const ends[] = {"endmacro", NULL};
    Statement *s = statement_new(p, STATEMENT_MACRO);
    s->name = expect_name(p);
    Expr *list = expr_new(p, EXPR_LIST, NULL);
    expect(p, "(");
    while (!p->failed && !is_operator(p, ")")) {
        Span name = expect_name(p);
        argument_add(p, list, name, accept(p, "=") ? parse_expr(p) : NULL);
        if (!accept(p, ","))
            break;
    }
    expect(p, ")");
    expect_end(p);
    s->parameters = list->keywords;
    s->defaults = list->arguments;
    s->parameter_count = list->count;
    s->body = parse_body(p, ends);
    expect(p, "endmacro");
    expect_end(p);
    return s;
}

static Statement *parse_block(Parser *p)
{
    static const char *const generation[] = {"endgeneration", NULL};
    if (accept(p, "if"))
        return parse_if(p);
    if (accept(p, "for"))
        return parse_for(p);
    if (accept(p, "set"))
        return parse_set(p);
    if (accept(p, "macro"))
        return parse_macro(p);
    if (accept(p, "generation")) { /* marks what an assistant says; chat.h finds that by itself */
        expect_end(p);
        Statement *s = statement_new(p, STATEMENT_IF);
        s->expr = expr_new(p, EXPR_LITERAL, NULL);
        s->expr->literal = value_bool(true);
        s->body = parse_body(p, generation);
        expect(p, "endgeneration");
        expect_end(p);
        return s;
    }
    if (is_word(p, "break") || is_word(p, "continue")) {
        Statement *s = statement_new(p, is_word(p, "break") ? STATEMENT_BREAK : STATEMENT_CONTINUE);
        next(p);
        expect_end(p);
        return s;
    }
    fail(p, "the statement '%.*s' is not known here", p->token.data, p->token.length);
    return NULL;
}

/* Statements up to a block that begins with one of `ends` (NULL: the end of the text); the parser stands at that word. */
static Statement *parse_body(Parser *p, const char *const *ends)
{
    Statement *first = NULL, **link = &first;
    if (++p->depth > MAX_DEPTH)
        fail(p, "%.*s", "nested too deeply", 17);
    while (!p->failed) {
        Statement *s = parse_text(p);
        if (s) {
            *link = s;
            link = &s->next;
        }
        if (p->at == p->end) {
            while (ends && ends[0] && ends[1])
                ends++; /* the last is what closes */
            if (ends)
                fail(p, "'%.*s' is missing", ends[0], strlen(ends[0]));
            break;
        }
        char kind = p->at[1];
        p->at += 2;
        if (kind == '#') {
            skip_comment(p);
            continue;
        }
        if (p->at < p->end && (*p->at == '-' || (*p->at == '+' && kind == '%')))
            p->at++;
        p->print = kind == '{';
        p->brackets = 0;
        next(p);
        if (kind == '{') {
            s = statement_new(p, STATEMENT_PRINT);
            s->expr = parse_tuple(p);
            expect_end(p);
        } else {
            bool over = false;
            for (int i = 0; ends && ends[i]; i++)
                over |= is_word(p, ends[i]);
            if (over)
                break;
            s = parse_block(p);
        }
        if (s) {
            *link = s;
            link = &s->next;
        }
    }
    p->depth--;
    return first;
}

int jinja_parse(Jinja *j, Span text, Error *err)
{
    Parser p = {.j = j, .at = text.data, .end = text.data + text.length, .line = 1, .line_start = true, .err = err};
    j->body = parse_body(&p, NULL);
    return p.failed ? -1 : 0;
}
