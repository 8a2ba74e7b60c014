/* The parts of the English word rules (`--words=en`), which give the tokens of spaCy's blank English tokenizer: classes of
 * characters, special cases, addresses, and the scanner over them. Callers use words.h. */
#ifndef TEXT_WORDS_EN_H
#define TEXT_WORDS_EN_H

#include <stdbool.h>
#include <stdint.h>
#include "base/memory.h"
#include "text/words.h"

/* words_en_class.c: what a code point may be in the rules. */
enum {
    EN_LOWER = 1,     /* lower-case letters, and every letter of a script without case */
    EN_UPPER = 2,     /* upper-case letters, and the same ones */
    EN_ALPHA = 4,     /* either, and the few title-case letters */
    EN_DIGIT = 8,     /* 0 to 9 */
    EN_QUOTE = 16,    /* quotation marks, brackets of East Asia, the comma */
    EN_PREFIX = 32,   /* is cut off alone at the front of a chunk */
    EN_SUFFIX = 64,   /* is cut off alone at its back */
    EN_BEFORE_STOP = 128, /* a full stop behind it is cut off */
    EN_INFIX = 256,   /* may begin a cut in the middle */
    EN_ICON = 512,    /* a picture: cut off anywhere */
    EN_HOST = 1024    /* begins and ends a label of a host name */
};
enum { EN_TABLE = 0x20000 };
extern uint16_t english_classes[EN_TABLE];
void english_classes_build(void);
unsigned english_class_beyond(uint32_t c);
static inline unsigned english_class(uint32_t c)
{
    return c < EN_TABLE ? english_classes[c] : english_class_beyond(c);
}

/* words_en_special.c: chunks whose tokens stand in a list ("can't": ca, n't; "Mr."; ":-)"). */
enum { SPECIAL_BYTES = 32 };
typedef struct Special {
    char text[SPECIAL_BYTES];
    uint8_t length;
    uint32_t cuts;  /* bit i: a token begins at byte i */
    uint32_t plain; /* the same where only the other rules speak */
} Special;
/* The special case that is [b, e), or NULL. */
const Special *special_find(const char *b, const char *e);
/* Is there a special case with this first byte, last byte and length? A quick look; true is not certain. Bit i: of i bytes. */
extern uint32_t special_lengths[256], special_ends[256];
static inline bool special_possible(const char *b, size_t length)
{
    return length < SPECIAL_BYTES && (special_lengths[(unsigned char)*b] & special_ends[(unsigned char)b[length - 1]]) >> length & 1;
}
/* Fills the table. */
void special_build(void);
/* Every special case, for what the scanner has to add to it. */
void special_each(void (*visit)(Special *s));

/* words_en_url.c: is [b, e) an address: host.name, 1.2.3.4, with scheme, user, port, path? */
bool address_is_whole(const char *b, const char *e);

/* words_en.c: all tokens of a text, appended to w. White space that is more than one blank between two words is a token too; it
 * is written as an empty span. */
void english_split(Words *w, Span text);

#endif
