/* What the readers of tokenizer files (tokenizer_json.c, tiktoken.c), tokenizer.c and the encoder (encoder.c) share. */
#ifndef TEXT_TOKENIZER_INTERNAL_H
#define TEXT_TOKENIZER_INTERNAL_H

#include "text/pretokenize.h"
#include "text/sentencepiece.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

enum { MAX_SPLITS = 8 };

struct Tokenizer {
    Vocabulary vocabulary;
    Splitter splits[MAX_SPLITS]; /* applied one after the other */
    int split_count;
    bool prefix_blank;           /* what comes to the last split gets a blank before it, if none is there */
    SentencePiece sentencepiece; /* instead of splits, where it is on */
    bool nfc, ignore_merges;
    AddedToken *added;           /* longest first */
    size_t added_count;
    unsigned char begins[256];   /* an added token begins with this byte */
    int32_t eos, bos, pad, begins_with; /* ids or -1 */
    char *bos_text, *chat_template, *folder;
};

/* Fill an empty tokenizer from one file, compressed or not. */
int tokenizer_read_json(Tokenizer *t, const char *path, Error *err);
int tokenizer_read_tiktoken(Tokenizer *t, const char *path, Error *err);

#endif
