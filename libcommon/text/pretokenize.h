/* Splitting text into the pieces that BPE merges inside, as the regular expressions of known tokenizers do. The known ones
 * are recognised by their text and scanned by hand; any other goes through PCRE2, with its classes written out from our own
 * Unicode tables. */
#ifndef TEXT_PRETOKENIZE_H
#define TEXT_PRETOKENIZE_H

#include <stdbool.h>
#include "base/error.h"
#include "base/memory.h"

typedef enum SplitKind { SPLIT_NONE, SPLIT_GPT2, SPLIT_CL100K, SPLIT_QWEN2, SPLIT_O200K, SPLIT_REGEX } SplitKind;

typedef struct Splitter {
    SplitKind kind;
    char *regex;    /* as it stands in tokenizer.json; NULL for SPLIT_NONE */
    void *code;     /* of PCRE2 */
    bool matches_only; /* what the regular expression does not match is left out (the known ones match all) */
} Splitter;

/* A regular expression, or a name: gpt2, cl100k, llama3, qwen2, o200k, none. */
int splitter_open(Splitter *s, const char *name_or_regex, Error *err);
void splitter_close(Splitter *s);

/* Calls emit for each piece in order; stretches that the regular expression does not match are pieces too, unless matches_only. scratch: of
 * splitter_scratch. emit returns -1 to stop. */
int splitter_run(const Splitter *s, void *scratch, Span text, int (*emit)(void *context, Span piece), void *context, Error *err);
void *splitter_scratch(const Splitter *s);
void splitter_scratch_free(void *scratch);

/* The end of the piece that begins at `at`, for the kinds scanned by hand (not SPLIT_REGEX). */
size_t splitter_next(SplitKind kind, Span text, size_t at);

#endif
