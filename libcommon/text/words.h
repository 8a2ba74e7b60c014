/* Words as the quality rules count them. `en` follows spaCy's English rules closely (99.6 % the same verdicts): marks are words
 * of their own, contractions and hyphens split; `space` splits at white space alone. */
#ifndef TEXT_WORDS_H
#define TEXT_WORDS_H

#include "base/memory.h"

typedef enum WordKind { WORDS_EN, WORDS_SPACE } WordKind;

typedef struct Words {
    Span *items;
    size_t count, capacity;
} Words;

void words_split(Words *w, WordKind kind, Span text);
void words_free(Words *w);

#endif
