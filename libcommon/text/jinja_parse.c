/* A template's text and statements, to its syntax tree. */
#include <string.h>
#include "text/jinja_parser.h"

static void expect_end(Parser *p)
{
    if (p->type != TOKEN_END)
        parser_fail(p, "'%.*s' is unexpected", p->token.data, p->token.length);
}

static Statement *statement_new(Parser *p, StatementKind kind)
{
    Statement *s = parser_zeroed(p, sizeof *s);
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
        while (first < last && parser_blank(*first))
            first++;
    if (p->at + 2 < p->end && p->at[2] == '-') {
        while (last > first && parser_blank(last[-1]))
            last--;
    } else if (p->j->kind == JINJA_CHAT && p->at + 1 < p->end && p->at[1] != '{' && !(p->at + 2 < p->end && p->at[2] == '+')) {
        const char *line = last;
        while (line > first && line[-1] != '\n' && parser_blank(line[-1]))
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
    while (p->at < p->end && !parser_at(p, "#}"))
        p->line += *p->at++ == '\n';
    if (p->at == p->end) {
        parser_fail(p, "%.*s is not closed", "a comment", 9);
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
    s->expr = parse_expression(p);
    expect_end(p);
    s->body = parse_body(p, ends);
    if (parser_accept(p, "elif")) {
        if (++p->depth > JINJA_DEPTH)
            parser_fail(p, "%.*s", "nested too deeply", 17);
        s->otherwise = p->failed ? NULL : parse_if(p); /* reads the endif */
        p->depth--;
        return s;
    }
    if (parser_accept(p, "else")) {
        expect_end(p);
        s->otherwise = parse_body(p, ends + 2);
    }
    parser_expect(p, "endif");
    expect_end(p);
    return s;
}

static Statement *parse_for(Parser *p)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    Statement *s = statement_new(p, STATEMENT_FOR);
    s->name = parser_name(p);
    if (parser_accept(p, ","))
        s->name2 = parser_name(p);
    parser_expect(p, "in");
    s->expr = parse_condition(p);
    if (parser_accept(p, "if"))
        s->filter = parse_expression(p);
    expect_end(p);
    s->body = parse_body(p, ends);
    if (parser_accept(p, "else")) {
        expect_end(p);
        s->otherwise = parse_body(p, ends + 1);
    }
    parser_expect(p, "endfor");
    expect_end(p);
    return s;
}

static Statement *parse_set(Parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    Statement *s = statement_new(p, STATEMENT_SET);
    s->name = parser_name(p);
    if (parser_accept(p, "."))
        s->name2 = parser_name(p);
    if (parser_accept(p, "=")) {
        s->expr = parse_tuple(p);
        expect_end(p);
        return s;
    }
    expect_end(p);
    s->kind = STATEMENT_SET_BLOCK;
    s->body = parse_body(p, ends);
    parser_expect(p, "endset");
    expect_end(p);
    return s;
}

static Statement *parse_macro(Parser *p)
{
    static const char *const ends[] = {"endmacro", NULL};
    Statement *s = statement_new(p, STATEMENT_MACRO);
    s->name = parser_name(p);
    Expr *list = parser_expr(p, EXPR_LIST, NULL);
    parser_expect(p, "(");
    while (!p->failed && !parser_is_operator(p, ")")) {
        Span name = parser_name(p);
        parser_argument(p, list, name, parser_accept(p, "=") ? parse_expression(p) : NULL);
        if (!parser_accept(p, ","))
            break;
    }
    parser_expect(p, ")");
    expect_end(p);
    s->parameters = list->keywords;
    s->defaults = list->arguments;
    s->parameter_count = list->count;
    s->body = parse_body(p, ends);
    parser_expect(p, "endmacro");
    expect_end(p);
    return s;
}

static Statement *parse_block(Parser *p)
{
    static const char *const generation[] = {"endgeneration", NULL};
    if (parser_accept(p, "if"))
        return parse_if(p);
    if (parser_accept(p, "for"))
        return parse_for(p);
    if (parser_accept(p, "set"))
        return parse_set(p);
    if (parser_accept(p, "macro"))
        return parse_macro(p);
    if (parser_accept(p, "generation")) { /* marks what an assistant says; chat.h finds that by itself */
        expect_end(p);
        Statement *s = statement_new(p, STATEMENT_IF);
        s->expr = parser_expr(p, EXPR_LITERAL, NULL);
        s->expr->literal = value_bool(true);
        s->body = parse_body(p, generation);
        parser_expect(p, "endgeneration");
        expect_end(p);
        return s;
    }
    if (parser_is_word(p, "break") || parser_is_word(p, "continue")) {
        Statement *s = statement_new(p, parser_is_word(p, "break") ? STATEMENT_BREAK : STATEMENT_CONTINUE);
        parser_next(p);
        expect_end(p);
        return s;
    }
    parser_fail(p, "the statement '%.*s' is not known here", p->token.data, p->token.length);
    return NULL;
}

/* Statements up to a block that begins with one of `ends` (NULL: the end of the text); the parser stands at that word. */
static Statement *parse_body(Parser *p, const char *const *ends)
{
    Statement *first = NULL, **link = &first;
    if (++p->depth > JINJA_DEPTH)
        parser_fail(p, "%.*s", "nested too deeply", 17);
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
                parser_fail(p, "'%.*s' is missing", ends[0], strlen(ends[0]));
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
        parser_next(p);
        if (kind == '{') {
            s = statement_new(p, STATEMENT_PRINT);
            s->expr = parse_tuple(p);
            expect_end(p);
        } else {
            bool over = false;
            for (int i = 0; ends && ends[i]; i++)
                over |= parser_is_word(p, ends[i]);
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
