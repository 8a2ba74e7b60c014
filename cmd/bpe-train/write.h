/* The files that transformers loads: tokenizer.json, tokenizer_config.json, chat_template.jinja. */
#ifndef BPE_TRAIN_WRITE_H
#define BPE_TRAIN_WRITE_H

#include <stdbool.h>
#include "text/bpe_train.h"
#include "text/chat.h"

typedef struct VocabularyFiles {
    const BpeResult *result;
    const char *regex;            /* of the splitter, NULL: none */
    const char *const *specials;  /* in the order of their ids, behind the vocabulary */
    size_t special_count;
    const char *bos, *eos;        /* NULL: none */
    const char *chat_template;    /* Jinja, NULL: none */
} VocabularyFiles;

/* Makes the folder before the work that fills it; *made: it was not there. */
int vocabulary_begin(const char *folder, bool *made, Error *err);
int vocabulary_write(const VocabularyFiles *v, const char *folder, Error *err);

#endif
