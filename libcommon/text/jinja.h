/* The part of Jinja that chat templates and evaluation tasks are written in, rendered as transformers or lm-evaluation-harness
 * render it. What lies outside it is refused by name and line.
 *
 * Every byte of the output remembers its origin: 0 for the template's own text, otherwise what the caller gave the value
 * that it came from. So a control token that a user wrote can be told from one that the template wrote. */
#ifndef TEXT_JINJA_H
#define TEXT_JINJA_H

#include <stdint.h>
#include "base/error.h"
#include "base/memory.h"
#include "io/json.h"

typedef struct Jinja Jinja;

/* JINJA_CHAT: blocks trimmed, a last newline dropped, undefined names empty, tojson as Python's json.dumps (transformers'
 * apply_chat_template). JINJA_TASK: text as it stands, undefined names refused, the filter regex_replace (lm-evaluation-harness,
 * utils.apply_template). */
typedef enum JinjaKind { JINJA_CHAT, JINJA_TASK } JinjaKind;

/* NULL and an error for text that is no template of this subset. */
Jinja *jinja_compile(Span text, JinjaKind kind, Error *err);
void jinja_free(Jinja *j);

/* A name that a template may use. An array's items can have origins of their own. */
typedef struct JinjaVariable {
    const char *name;
    const JsonValue *value;
    uint8_t origin;
    const uint8_t *item_origins; /* NULL: all have `origin` */
} JinjaVariable;

typedef struct JinjaOutput {
    Buffer text, origins; /* a byte each */
} JinjaOutput;

/* The output is emptied first and can be used again. */
int jinja_render(const Jinja *j, const JinjaVariable *variables, size_t count, JinjaOutput *out, Error *err);
void jinja_output_free(JinjaOutput *out);

#endif
