/* The tokens of a template's tags. Blocks of chat templates are trimmed as transformers asks Jinja to (trim_blocks, lstrip_blocks). */
#include <stdlib.h>
#include <string.h>
#include "text/jinja_parser.h"
#include "text/unicode.h"
#include "text/utf8.h"

void parser_fail(Parser *p, const char *format, const char *detail, size_t length)
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

bool parser_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Bytes of the letter, digit or underscore that stands there; 0: none. */
static size_t name_char(const Parser *p)
{
    size_t n;
    return p->at < p->end && unicode_is_word(utf8_decode(p->at, &n)) ? n : 0;
}

bool parser_at(const Parser *p, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(p->end - p->at) >= n && memcmp(p->at, text, n) == 0;
}

/* The tag's end: what follows is trimmed. */
static bool tag_end(Parser *p)
{
    const char *close = p->print ? "}}" : "%}";
    bool minus = parser_at(p, p->print ? "-}}" : "-%}"), plus = !p->print && parser_at(p, "+%}");
    if (!minus && !plus && !parser_at(p, close))
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
            parser_fail(p, "the escape \\%.*s in a string", p->at, 1);
            return;
        }
        out[n++] = to[escape - from];
    }
    if (p->at == p->end) {
        parser_fail(p, "%.*s does not end", "a string", 8);
        return;
    }
    p->at++;
    p->type = TOKEN_STRING;
    p->token = (Span){out, n};
}

void parser_next(Parser *p)
{
    if (p->failed)
        return;
    while (p->at < p->end && parser_blank(*p->at))
        p->line += *p->at++ == '\n';
    if (p->at == p->end) {
        parser_fail(p, "%.*s is not closed", "a tag", 5);
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
            parser_fail(p, "the number %.*s is too long", begin, p->token.length);
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
        if (parser_at(p, operators[i])) {
            p->at += strlen(operators[i]);
            p->token = (Span){begin, (size_t)(p->at - begin)};
            p->type = TOKEN_OPERATOR;
            p->brackets += strchr("([{", c) != NULL;
            p->brackets -= strchr(")]}", c) != NULL && p->brackets > 0;
            return;
        }
    size_t length;
    utf8_decode(begin, &length);
    parser_fail(p, "'%.*s' is unexpected", begin, length);
}

bool parser_is_operator(const Parser *p, const char *text)
{
    return p->type == TOKEN_OPERATOR && span_is(p->token, text);
}

bool parser_is_word(const Parser *p, const char *text)
{
    return p->type == TOKEN_NAME && span_is(p->token, text);
}

bool parser_accept(Parser *p, const char *text)
{
    if (!parser_is_operator(p, text) && !parser_is_word(p, text))
        return false;
    parser_next(p);
    return true;
}

void parser_expect(Parser *p, const char *text)
{
    if (!parser_accept(p, text))
        parser_fail(p, "'%.*s' is missing", text, strlen(text));
}

Span parser_name(Parser *p)
{
    Span name = p->token;
    if (p->type != TOKEN_NAME)
        parser_fail(p, "%.*s is missing", "a name", 6);
    else
        parser_next(p);
    return name;
}
