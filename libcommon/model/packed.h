/* Products with weights that stay as they are: packed once, so that a pass over few rows reads them as they lie, and so that the bits
 * of a row do not depend on how many there are. A device that gains nothing by it multiplies as ever. */
#ifndef MODEL_PACKED_H
#define MODEL_PACKED_H

#include "model/model.h"

/* Packs every weight of a product, as much memory again; they must not change any more. */
int packed_open(Model *m, Error *err);
void packed_close(Model *m);
/* y = x·Wᵀ with the parameters first … last, one below the other, as W. */
void packed_product(Model *m, Tensor y, Tensor x, int first, int last);

#endif
