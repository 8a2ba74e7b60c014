/* What a template's parser is made of: tokens (jinja_token.c), expressions (jinja_expression.c) and statements (jinja_parse.c). The first
 * fault is kept; after it every token is the end. */
#ifndef TEXT_JINJA_PARSER_H
#define TEXT_JINJA_PARSER_H

#include "text/jinja_internal.h"

typedef enum TokenType { TOKEN_NAME, TOKEN_STRING, TOKEN_INTEGER, TOKEN_FLOAT, TOKEN_OPERATOR, TOKEN_END } TokenType;

enum { JINJA_DEPTH = 200 /* of what is nested */ };

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

/* `format` has one %.*s, for the `length` bytes of `detail`. */
void parser_fail(Parser *p, const char *format, const char *detail, size_t length);
bool parser_blank(char c);
bool parser_at(const Parser *p, const char *text); /* Does it stand there? */
/* Goes on to the next token, inside a tag. */
void parser_next(Parser *p);
bool parser_is_operator(const Parser *p, const char *text);
bool parser_is_word(const Parser *p, const char *text);
/* Goes on behind an operator or a word, if that is the token; without it is a fault … */
bool parser_accept(Parser *p, const char *text);
void parser_expect(Parser *p, const char *text);
/* … and so is what is no name. */
Span parser_name(Parser *p);

/* Memory of the template's, zeroed. */
void *parser_zeroed(Parser *p, size_t size);
Expr *parser_expr(Parser *p, ExprKind kind, Expr *a);
/* Appends an argument, item or member to e. */
void parser_argument(Parser *p, Expr *e, Span keyword, Expr *value);
Expr *parse_expression(Parser *p);
Expr *parse_condition(Parser *p); /* without `… if … else …` */
Expr *parse_tuple(Parser *p);     /* a list without brackets, as after `=` */

#endif
