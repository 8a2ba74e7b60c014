/* JSON (RFC 8259) in and out. Parsing is simdjson's, behind this C header. Strict: UTF-8 is checked, duplicate keys,
 * lone surrogates and raw control characters are errors, depth at most 256; NaN and Infinity are refused. A whole number of more
 * than 64 bits is read as a double; one past a double's range is refused where it is read, and passes in other fields. */
#ifndef IO_JSON_H
#define IO_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/memory.h"

typedef enum JsonType { JSON_ABSENT, JSON_NULL, JSON_BOOL, JSON_INTEGER, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonType;

/* ---- Trees, for configurations and tokenizer files. Everything belongs to the document's arena. ---- */
typedef struct JsonValue JsonValue;
struct JsonValue {
    JsonType type;
    bool boolean;
    int64_t integer;        /* JSON_INTEGER; `number` is set too */
    double number;
    Span string;            /* JSON_STRING: unescaped UTF-8, NUL behind; may hold NULs */
    size_t count;           /* members or elements */
    JsonValue *items;       /* elements, or the members' values */
    Span *keys;             /* members' keys, in the order of the text (NUL behind each) */
};
typedef struct JsonTree {
    JsonValue *root;
    Arena arena;
} JsonTree;

/* `text` needs READER_PADDING readable bytes behind it (file_read gives them). Errors: "NAME: offset N: reason"; they
 * leave nothing to free. */
int json_parse(JsonTree *out, const char *name, Span text, Error *err);
int json_parse_file(JsonTree *out, const char *path, Error *err);
void json_free(JsonTree *tree);
const JsonValue *json_get(const JsonValue *object, const char *key); /* NULL where absent (or not an object) */
bool json_is(const JsonValue *v, JsonType type);                     /* false for NULL */
const JsonValue *json_list(const JsonValue *v, size_t *count);       /* a list's items; another value is a list of one, NULL of none */

/* ---- Records: one object a line, of which a tool reads some top-level fields and passes the rest through. ---- */
typedef struct JsonField {
    JsonType type;  /* JSON_ABSENT where the record lacks it */
    Span raw;       /* the value as it stands in the line */
    Span string;    /* unescaped, for JSON_STRING; lies in the parser until its next record */
    bool boolean;
    int64_t integer;
    double number;
    size_t key_begin; /* offset of the member's opening quote in the line */
} JsonField;

typedef struct JsonParser JsonParser; /* one a thread */
JsonParser *json_parser_new(void);
void json_parser_free(JsonParser *p);
/* Reads the fields called names[0 … count-1] of one object. The whole line is validated. On errors the text is the reason
 * alone ("not an object", "offset 17: …"); the caller adds file and line. */
int json_record(JsonParser *p, Span line, const char *const *names, size_t count, JsonField *fields, Error *err);
/* Like json_parse on a value of the line (a messages array, say); valid until the next call on this parser or record. */
const JsonValue *json_field_tree(JsonParser *p, const JsonField *field, Error *err);
/* Where the value of the member `name` stands in a line that json_record has taken, or its copy (keys with escapes are not seen). */
bool json_record_find(Span line, const char *name, Span *value);
/* Appends `line` with one member's value replaced (field->type not JSON_ABSENT, or the line has a member `name`) or a member added
 * at the end; all other bytes are copied. `value` is JSON. No newline is added. The line is valid and ends in its brace. */
void json_record_set(Buffer *out, Span line, const JsonField *field, const char *name, Span value);
/* Appends `line` without the member `name`, if it has one. */
void json_record_remove(Buffer *out, Span line, const char *name);

/* ---- Writing ---- */
bool json_utf8_valid(Span text);                 /* for plain text input */
void json_write_string(Buffer *b, Span string);  /* with quotes; UTF-8 as it is, control characters escaped */
void json_write_number(Buffer *b, double x);     /* shortest that reads back; NaN and infinities become null */
void json_write_value(Buffer *b, const JsonValue *v, int indent); /* indent < 0: one line, ", " and ": " */

#endif
