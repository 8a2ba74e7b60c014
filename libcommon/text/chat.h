/* Chat templates: how a list of messages becomes text, and which of its bytes are control tokens or an assistant's words.
 * A template is one of the named ones below, recognised by its Jinja text; anything else is refused, since a template that
 * is nearly right trains a model that is quietly wrong.
 *
 * Control tokens are inserted by id and message contents are encoded as ordinary text, so that a user who writes
 * "<|eot_id|>" in a message cannot end the turn. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"
#include "base/memory.h"
#include "io/json.h"

typedef struct ChatTemplate {
    const char *name;          /* "llama3", "chatml" */
    const char *jinja;         /* what tokenizer_config.json's chat_template says */
    const char *const *tokens; /* the control tokens it needs in a vocabulary, NULL-terminated */
    const char *end_of_turn;   /* what an answer ends with */
} ChatTemplate;

const ChatTemplate *chat_template_named(const char *name);        /* NULL: no such name */
const ChatTemplate *chat_template_recognise(Span jinja, Error *err); /* NULL and an error for an unknown text */

/* A stretch of the rendered text. */
typedef struct ChatPiece {
    size_t begin, end;
    bool control; /* one control token */
    bool trained; /* the loss counts it: an assistant's content and the end of its turn */
    bool ending;  /* the end of an assistant's turn (DPO masks it) */
} ChatPiece;

typedef struct ChatText {
    Buffer text;
    ChatPiece *pieces;
    size_t count, capacity;
} ChatText;

/* Renders messages (an array of {"role","content"}, or a string: one user turn). bos: the beginning-of-text token or NULL.
 * generation adds the header of an assistant's turn. Roles are system, user, assistant, tool. `out` is emptied first and
 * can be used again. */
int chat_render(const ChatTemplate *t, const JsonValue *messages, const char *bos, bool generation, ChatText *out, Error *err);
/* An assistant's turn appended to an already rendered text (the answer to a prompt that ended in its header). */
void chat_render_answer(const ChatTemplate *t, Span answer, ChatText *out);
void chat_free(ChatText *text);

#endif
