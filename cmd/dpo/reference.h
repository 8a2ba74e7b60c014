/* The reference's log-probabilities, and the file in which they are kept between runs. */
#ifndef DPO_REFERENCE_H
#define DPO_REFERENCE_H

#include "train/examples.h"
#include "model/model.h"

/* Of each example's counted tokens, computed once; a rank's own. */
typedef struct Reference {
    double *sums, *held_out;
} Reference;

/* What the sums depend on: the reference's weights (in f32), what it computes in, and every token with what counts of it; so on data,
 * template and truncation too. A collective of all ranks: of several the key is made of what each holds, so each grid has its own. */
int reference_key(Model *m, bool keep_endings, const Examples *pairs, const Examples *held_out, Comm *world, char key[17], Error *err);
/* Takes the sums from the file if it has this key and as many (held_out 0: none). A collective: the first rank reads. */
int reference_read(Reference *r, const char *path, const char *key, size_t pairs, size_t held_out, Comm *world, bool *found, Error *err);
/* The first rank's to call. */
int reference_write(const Reference *r, const char *path, const char *key, size_t pairs, size_t held_out, Error *err);

#endif
