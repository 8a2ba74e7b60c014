/* How command lines name token shards and give numbers to their sources: NAME=WEIGHT:PREFIX, and NAME=NUMBER,NAME=NUMBER,… */
#ifndef DATA_SOURCE_H
#define DATA_SOURCE_H

#include <stdbool.h>
#include "base/error.h"
#include "base/memory.h"

typedef struct SourceOperand {
    Span name;          /* of a prefix alone its last part */
    double weight;      /* a number from 0 to 1e12 */
    bool named, weighted; /* were they given? A weight that was not is 1 */
    const char *prefix; /* into the text that was parsed */
} SourceOperand;

/* "math=0.25:dir/math", "math:dir/math" or "dir/math". A colon behind a slash belongs to the prefix. */
int source_parse(SourceOperand *s, const char *text, Error *err);

/* The next "NAME=NUMBER" of a list, its comma with it; *list is moved behind it, to "" at the end. The error says "not
 * NAME=NUMBER" and no more: the caller knows what the list is. */
int source_number(const char **list, Span *name, double *number, Error *err);

#endif
