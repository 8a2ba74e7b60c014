/* Boxes: the rectangles of a tensor that ranks hold and files store. A vector's second dimension is 0+1. */
#ifndef MODEL_BOX_H
#define MODEL_BOX_H

#include "model/param.h"

typedef struct Box {
    int64_t begin[2], extent[2];
} Box;

Box box_of(const Parameter *p);
size_t box_count(const Box *b);
/* Do they share elements, and which? */
bool box_meet(const Box *a, const Box *b, Box *both);
/* Copies the elements of `both`, which lies in the two boxes that from and to hold row by row, each of `size` bytes. */
void box_copy(void *to, const Box *to_box, const void *from, const Box *from_box, const Box *both, size_t size);

/* Elements begin … end-1 of an arena of what is trained. */
typedef struct ArenaStretch {
    size_t begin, end;
} ArenaStretch;

/* A box of which this rank's replica is the one that is saved. */
typedef struct OwnBox {
    const Parameter *parameter;
    Box box;
    size_t at;  /* its elements, row by row, in an array that holds the stretches one after the other */
    int number; /* among the boxes of its parameter */
} OwnBox;

/* What lies in some stretches, which are in order; caller frees. */
OwnBox *boxes_own(const ParameterTable *t, const ArenaStretch *stretches, int n, size_t *count);

/* "global 259,48 box 0+130,0+48", as files say it; caller frees. */
char *box_text(const Parameter *p, const Box *b);
/* Reads that of a tensor of p's shape. */
int box_parse(const char *text, const Parameter *p, Box *b, Error *err);

#endif
