/* People rank candidates in a terminal: each prompt's answers are shown in random order, and an order with ties is typed. A ranking is
 * saved at once, so a session can be broken off and taken up again. */
#ifndef REJSAMPLE_ANNOTATE_H
#define REJSAMPLE_ANNOTATE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

typedef struct Annotate {
    const char *path;      /* ranking documents, which are added to; NULL: none */
    const char *annotator; /* NULL: $USER */
    bool report;           /* only say how far the annotators of the files agree */
    uint64_t seed;
} Annotate;

/* files: candidates (prompt, responses), or with `report` alone rankings. */
int annotate_run(const Annotate *a, const char *const *files, Error *err);

#endif
