/* Which source each global sample comes from, so that after any number of samples every source has had its share to within
 * one, or of many sources now and then one and a half: Megatron's rule (helpers.cpp, build_blending_indices): sample i goes to the
 * source that maximises weight·max(i,1) − used, the lowest index on ties. */
#ifndef DATA_BLEND_H
#define DATA_BLEND_H

#include <stddef.h>
#include <stdint.h>

typedef struct Blend {
    size_t count;
    double *weights; /* normalised to a sum of 1 */
    uint64_t *used;
    uint64_t next;   /* the global sample that blend_next decides */
} Blend;

void blend_new(Blend *b, const double *weights, size_t count);
/* Goes to a global sample; backwards restarts from 0 (count·sample steps: a million samples take a few milliseconds). */
void blend_seek(Blend *b, uint64_t sample);
/* The source of the next sample; *index is its number within that source. */
size_t blend_next(Blend *b, uint64_t *index);
void blend_free(Blend *b);

#endif
