/* Words as the quality rules count them: pieces of the text, without white space.
 *   en     the tokens of spaCy's blank English tokenizer: marks are words of their own, contractions and hyphens split
 *   uax29  the segments of Unicode's word boundaries (UAX 29) but those of white space alone
 *   space  what stands between white space */
#ifndef TEXT_WORDS_H
#define TEXT_WORDS_H

#include "base/memory.h"

typedef enum WordKind { WORDS_EN, WORDS_UAX29, WORDS_SPACE } WordKind;

typedef struct Words {
    Span *items; /* they point into the text */
    size_t count, capacity;
} Words;

/* The words of valid UTF-8, in place of what w held. */
void words_split(Words *w, WordKind kind, Span text);
/* The sentences of spaCy's sentencizer over English tokens, stripped, without empty ones, in place of what out held: one ends
 * behind a token that is one end mark (. ! ? 。 …) and the punctuation that follows. tokens is scratch. */
void words_sentences(Words *out, Words *tokens, Span text);
void words_free(Words *w);

#endif
