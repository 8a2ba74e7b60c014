/* The tables of unicode_data.c; ask unicode.h. */
#ifndef TEXT_UNICODE_DATA_H
#define TEXT_UNICODE_DATA_H

#include <stddef.h>
#include <stdint.h>

extern const uint16_t unicode_block[];  /* of each 128 code points: which block of flags */
extern const uint16_t unicode_flags[];
extern const uint32_t unicode_lower[][3];         /* code point, its full lower case (1 or 2, 0 for none) */
extern const size_t unicode_lower_count;
extern const uint32_t unicode_decomposition[][4]; /* code point, two parts (or one and 0), does it compose again */
extern const size_t unicode_decomposition_count;
extern const uint32_t unicode_combining[][3];     /* first, last, combining class */
extern const size_t unicode_combining_count;
extern const uint8_t unicode_break_block[]; /* the same two steps to the word-break classes of unicode.h */
extern const uint8_t unicode_breaks[];

#endif
