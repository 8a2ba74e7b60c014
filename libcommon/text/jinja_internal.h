/* What the files behind jinja.h share: jinja_parser.h and its three (text to syntax), jinja.c (syntax to text), jinja_value.c (values)
 * and jinja_filter.c (filters, tests, methods). */
#ifndef TEXT_JINJA_INTERNAL_H
#define TEXT_JINJA_INTERNAL_H

#include <stdbool.h>
#include "text/jinja.h"

/* ---- Values. All memory is the render's arena, or the template's for literals. ---- */
typedef enum ValueType { VALUE_UNDEFINED, VALUE_NONE, VALUE_BOOL, VALUE_INTEGER, VALUE_FLOAT, VALUE_STRING, VALUE_LIST, VALUE_MAP, VALUE_MACRO } ValueType;

typedef struct Value Value;
struct Value {
    ValueType type;
    uint8_t origin;  /* of what has no bytes of its own, and of a mapping's keys */
    int64_t integer; /* VALUE_BOOL too */
    double number;
    const char *data;        /* VALUE_STRING: bytes, and the origin of each (NULL: all 0) */
    const uint8_t *origins;
    size_t count;            /* bytes, items or members */
    Value *items;            /* elements, or the members' values */
    Span *keys;              /* members' */
    struct Map *map;         /* a namespace: the one kind of value that changes */
    const struct Statement *macro;
};

/* A namespace's members. */
typedef struct Map {
    Span *keys;
    Value *values;
    size_t count, capacity;
} Map;

/* ---- Syntax ---- */
typedef enum ExprKind {
    EXPR_LITERAL, EXPR_NAME, EXPR_LIST, EXPR_DICT, EXPR_GET, EXPR_SLICE, EXPR_CALL, EXPR_FILTER, EXPR_TEST, EXPR_NOT, EXPR_NEGATE,
    EXPR_BINARY, EXPR_AND, EXPR_OR, EXPR_IF,
} ExprKind;

typedef struct Expr Expr;
struct Expr {
    ExprKind kind;
    int line;
    Span name;             /* variable, filter, test, operator */
    Value literal;
    Expr *a, *b, *c, *d;   /* operands; of a slice: object, from, to, step; of a condition: value, test, else */
    Expr **arguments;      /* items of a list, arguments, values of a dict */
    Span *keywords;        /* of an argument, NULL data: by position; keys of a dict */
    size_t count;
    bool negated;          /* is not, not in */
};

typedef enum StatementKind { STATEMENT_TEXT, STATEMENT_PRINT, STATEMENT_IF, STATEMENT_FOR, STATEMENT_SET, STATEMENT_SET_BLOCK, STATEMENT_MACRO,
                             STATEMENT_BREAK, STATEMENT_CONTINUE } StatementKind;

typedef struct Statement Statement;
struct Statement {
    StatementKind kind;
    int line;
    Span text, name, name2; /* text; target of set and for, macro's name; attribute or the second target */
    Expr *expr, *filter;    /* value, condition, iterable; a for's `if` */
    Statement *body, *otherwise, *next;
    Span *parameters;       /* of a macro */
    Expr **defaults;
    size_t parameter_count;
};

struct Jinja {
    Arena arena;
    JinjaKind kind;
    char *source;
    Statement *body;
};

/* ---- A render ---- */
typedef struct Scope {
    Span name;
    Value value;
} Scope;

typedef struct Render {
    Arena arena;
    JinjaKind kind;
    Scope *scopes; /* a stack of names */
    size_t scope_count, scope_capacity, frame; /* frame: where the innermost loop's or macro's names begin */
    Buffer *text, *origins;
    Error *err;
    int line, depth;
    int jump; /* 1 break, 2 continue */
} Render;

const char *jinja_kind_name(JinjaKind kind); /* for messages */
int render_fail(Render *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool span_is(Span s, const char *text);
bool span_equal(Span a, Span b);

Value value_bool(bool b);
Value value_integer(int64_t i);
Value value_text(const char *text);
Value value_from_json(Render *r, const JsonValue *v, uint8_t origin, const uint8_t *item_origins);
bool value_true(const Value *v);
bool value_equal(const Value *a, const Value *b);
bool value_is_number(const Value *v); /* a truth value is one, as in Python */
/* Member or element; undefined where there is none. */
Value value_member(const Value *object, Span key);
/* Key number i of a mapping, as a string. */
Value value_key(Render *r, const Value *map, size_t i);
void map_set(Render *r, Map *m, Span key, Value v);
/* What {{ }} prints: of lists and mappings Python's repr, all of whose bytes have the greatest origin of those inside. */
int value_print(Render *r, const Value *v, Buffer *text, Buffer *origins);
void value_print_float(Buffer *b, double x); /* as Python writes it */
/* Appends n bytes and the origin of each (from NULL: all 0). */
void value_append(Buffer *text, Buffer *origins, const char *data, const uint8_t *from, size_t n);
/* A string value out of two buffers, copied. */
Value value_string(Render *r, const Buffer *text, const Buffer *origins);
uint8_t value_greatest_origin(const Value *v);
Value value_substring(const Value *s, size_t begin, size_t end);
/* A string as the list of its code points, which Python iterates over; anything else as it is. */
Value value_points(Render *r, const Value *v);

typedef struct Arguments {
    Value *values;
    Span *keywords;
    size_t count;
} Arguments;

/* Argument number `at` or the one with that keyword; NULL where absent. */
const Value *argument(const Arguments *a, size_t at, const char *keyword);
int value_filter(Render *r, Span name, const Value *v, const Arguments *a, Value *out);
int value_test(Render *r, Span name, const Value *v, const Arguments *a, bool *out);
int value_method(Render *r, Span name, const Value *object, const Arguments *a, Value *out);
int value_contains(Render *r, const Value *container, const Value *item, bool *out);

int jinja_parse(Jinja *j, Span text, Error *err);
/* Names: the innermost of that name from place `from` of the stack on, NULL where there is none. */
void scope_push(Render *r, Span name, Value v);
Scope *scope_find(Render *r, Span name, size_t from);
int jinja_evaluate(Render *r, const Expr *e, Value *out);
/* Statements whose output is a value. */
int jinja_capture(Render *r, const Statement *body, Value *out);

#endif
