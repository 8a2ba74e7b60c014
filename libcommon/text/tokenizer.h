/* Tokenizers: byte-level BPE, or BPE with byte fallback (text/sentencepiece.h), from a tokenizer.json, a folder that holds one,
 * or a .tiktoken file (gzip'd or not). Ids are those of Hugging Face tokenizers and tiktoken. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/memory.h"
#include "io/json.h"

typedef struct Tokenizer Tokenizer;

typedef struct AddedToken {
    char *content;
    size_t length;
    int32_t id;
    bool special, lstrip, rstrip, single_word;
} AddedToken;

Tokenizer *tokenizer_open(const char *path, Error *err);
void tokenizer_close(Tokenizer *t);

int64_t tokenizer_size(const Tokenizer *t);                        /* greatest id + 1 */
int32_t tokenizer_id(const Tokenizer *t, const char *token);       /* of an added or special token, or -1 */
Span tokenizer_bytes(const Tokenizer *t, int32_t id);              /* what an id decodes to; NULL data: no such id */
bool tokenizer_is_special(const Tokenizer *t, int32_t id);
/* Tokens that tokenizer_config.json names, -1 where it names none. */
int32_t tokenizer_eos(const Tokenizer *t);
int32_t tokenizer_bos(const Tokenizer *t);
int32_t tokenizer_pad(const Tokenizer *t);
int32_t tokenizer_begins(const Tokenizer *t);                      /* put before every text by tokenizer.json's post_processor, -1: none */
const char *tokenizer_chat_template(const Tokenizer *t);           /* Jinja text, NULL: none */
const char *tokenizer_folder(const Tokenizer *t);                  /* where its files lie, NULL for a single file */

/* Which added tokens in a text are taken as tokens. */
typedef struct ParseSpecial {
    bool all;             /* every added token */
    const char *list;     /* or these, comma-separated; NULL: none */
} ParseSpecial;

/* One a thread: caches and scratch. */
typedef struct Encoder Encoder;
Encoder *encoder_new(const Tokenizer *t);
void encoder_free(Encoder *e);

typedef struct Ids {
    int32_t *data;
    size_t count, capacity;
} Ids;

/* Appends the ids of valid UTF-8 text. */
int encoder_encode(Encoder *e, Span text, const ParseSpecial *parse, Ids *out, Error *err);
void ids_add(Ids *ids, int32_t id);
void ids_free(Ids *ids);

/* Appends the bytes of a whole text's ids; specials too unless skip_special. With byte fallback the blank that encoding put
 * before the text goes. */
int tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t count, bool skip_special, Buffer *out, Error *err);

/* Byte-level characters: the code point that stands for a byte in tokenizer files (GPT-2's table), and back (-1: none). */
uint32_t bytelevel_char(unsigned char byte);
int bytelevel_byte(uint32_t c);

#endif
