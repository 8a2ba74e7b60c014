/* Unicode's word boundaries (UAX 29 of Unicode 16); callers use words.h. */
#ifndef TEXT_WORDS_UAX29_H
#define TEXT_WORDS_UAX29_H

#include "text/words.h"

/* Appends the segments that are not white space alone. */
void uax29_split(Words *w, Span text);

#endif
