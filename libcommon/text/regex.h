/* Regular expressions of unknown tokenizers, in Oniguruma's syntax for Ruby as Hugging Face's library reads them, through PCRE2. Its
 * Unicode tables are replaced: \p{..}, \P{..}, \s, \w, \d and their capitals are written out as ranges of Unicode 16.0 before
 * compiling. */
#ifndef TEXT_REGEX_H
#define TEXT_REGEX_H

#include <stdbool.h>
#include "base/error.h"
#include "base/memory.h"

void *regex_compile(const char *pattern, Error *err);
void regex_free(void *code);
void *regex_scratch(void *code);
void regex_scratch_free(void *scratch);
/* Pieces: matches, and the stretches between them unless matches_only (Hugging Face's behaviours "Isolated", and "Removed"
 * inverted). */
int regex_split(void *code, void *scratch, bool matches_only, Span text, int (*emit)(void *context, Span piece), void *context, Error *err);

#endif
