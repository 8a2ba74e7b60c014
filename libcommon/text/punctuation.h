/* Punctuation as datatrove's filters and spaCy's sentencizer list it (they are lists of their own, not Unicode's classes). */
#ifndef TEXT_PUNCTUATION_H
#define TEXT_PUNCTUATION_H

#include <stdbool.h>
#include <stdint.h>

/* datatrove's PUNCTUATION_SET: marks, controls, ends of sentences. */
bool punctuation_is_mark(uint32_t c);
/* datatrove's TERMINAL_PUNCTUATION. */
bool punctuation_ends_line(uint32_t c);
/* spaCy's Sentencizer. */
bool punctuation_ends_sentence(uint32_t c);

#endif
