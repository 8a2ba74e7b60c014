/* BPE over characters with byte fallback, as Llama 2, TinyLlama and Mistral write SentencePiece's models in tokenizer.json: a
 * blank is the character ▁ (U+2581), one is put before the text, and a character that the vocabulary lacks becomes a token
 * <0x..> for each of its bytes. Here ▁ is kept as a blank, in tokens and in texts, so that tokens are what they decode to. */
#ifndef TEXT_SENTENCEPIECE_H
#define TEXT_SENTENCEPIECE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "io/json.h"

typedef enum Prefix { PREFIX_NONE, PREFIX_ALWAYS, PREFIX_UNLESS_BLANK /* where the text begins with none */ } Prefix;

typedef struct SentencePiece {
    bool on;
    Prefix prefix;
    bool first_only;      /* the prefix goes before the text, not behind added tokens in it too */
    bool strip;           /* decoding drops one leading blank */
    bool split_all;       /* a piece begins at each blank */
    bool split_words;     /* at a blank behind something else, which is exact as no token has one inside */
    int32_t byte_id[256]; /* of the tokens <0x..> */
} SentencePiece;

/* Reads how a file with byte_fallback treats blanks; what would change ids and is not known is refused by name. */
int sentencepiece_read(SentencePiece *s, const JsonValue *root, const char *path, Error *err);
/* A token's bytes with blanks for ▁, in out. */
void sentencepiece_bytes(Span token, Buffer *out);
int sentencepiece_byte(Span token); /* the byte of a token <0x..>, or -1 */
/* The text as it is split and merged, in out; `first`: it is the beginning of a document. */
void sentencepiece_normal(const SentencePiece *s, Span text, bool first, Buffer *out);
/* The end of the piece that begins at `at`. */
size_t sentencepiece_next(const SentencePiece *s, Span text, size_t at);

#endif
