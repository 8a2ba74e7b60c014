/* Chat templates: how a list of messages becomes text, and which of its bytes are control tokens or an assistant's words.
 * The template is the tokenizer's own Jinja text (jinja.h), rendered as transformers' apply_chat_template renders it.
 *
 * Control tokens are those that the template itself writes; message contents are encoded as ordinary text, so that a user
 * who writes "<|eot_id|>" in a message cannot end the turn. Added tokens that are not special are words as in transformers, but where
 * the template marks turns with them, and of those that it knows (<tool_call>, <think>) only an assistant writes any. An assistant's turn is what stands between the header that
 * add_generation_prompt writes and the token that ends the turn, that token included. Where a template writes no such
 * header (Llama 2, Mistral) the turn begins with the message's own text. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include "text/tokenizer.h"

/* The templates that bpe-train gives a new vocabulary. */
typedef struct ChatTemplate {
    const char *name;          /* "llama3", "chatml" */
    const char *jinja;
    const char *const *tokens; /* the control tokens it needs in a vocabulary, NULL-terminated */
    const char *end_of_turn;   /* what an answer ends with */
} ChatTemplate;

const ChatTemplate *chat_template_named(const char *name); /* NULL: no such name */

/* A tokenizer's template, compiled. For one thread. */
typedef struct ChatRenderer ChatRenderer;

/* The tokenizer must outlive the renderer. NULL and an error where it has no template or one that is not understood. */
ChatRenderer *chat_open(const Tokenizer *t, Error *err);
void chat_close(ChatRenderer *r);
int32_t chat_end_of_turn(const ChatRenderer *r); /* id of the token that ends an assistant's turn */

/* A stretch of the rendered text. */
typedef struct ChatPiece {
    size_t begin, end;
    int32_t id;   /* of a control token, or -1: ordinary text */
    bool trained; /* the loss counts it: an assistant's turn */
    bool ending;  /* the end of an assistant's turn (DPO masks it) */
} ChatPiece;

typedef struct ChatText {
    Buffer text;
    ChatPiece *pieces;
    size_t count, capacity;
} ChatText;

typedef struct ChatInput {
    const JsonValue *messages; /* [{"role","content"}, …], or a string: one user turn */
    const JsonValue *answer;   /* of the assistant: a string or a list with one message; then it alone is trained. May be NULL */
    const JsonValue *tools;    /* descriptions of functions, may be NULL */
    bool generation;           /* the header of an assistant's turn follows */
} ChatInput;

/* Roles are system, user, assistant, tool. `out` is emptied first and can be used again. */
int chat_render(ChatRenderer *r, const ChatInput *in, ChatText *out, Error *err);
void chat_free(ChatText *text);

#endif
