/* Weights and gradients of which a rank keeps its slices alone (ZeRO-2 and -3, FSDP). The arenas have room for everything, at the same
 * places; what other ranks own is there from when a unit is first asked for until two more have been, and its memory goes back to the
 * system where the device can give it back.
 *
 *   a unit's gradient   begins as zeros; when the unit makes room, the ranks' are added up into the owners' slices
 *   a unit's weights    are gathered from the owners' slices (level 3)
 *
 * Both are collectives: the ranks of the data group must ask for units in the same order, as they do where each does as many passes. */
#ifndef MODEL_SHARDING_H
#define MODEL_SHARDING_H

#include "model/param.h"

/* level 2: gradients, 3: weights too. squares: a device's double to which every gradient's squares are added before ranks add up, NULL: nobody
 * looks. The table's gradients must be there. */
int sharding_open(ParameterTable *t, int level, Comm *data, double *squares, Error *err);
void sharding_close(ParameterTable *t);

/* Called by param.c, before a unit's entries are used. */
void sharding_weights(ParameterTable *t, int unit);
void sharding_gradients(ParameterTable *t, int unit);
/* Do weights come by units, each with its working copy? */
bool sharding_all(const ParameterTable *t);
/* All gradients have come together in their owners' slices: -1 where a collective has failed since the last time. */
int sharding_finish(ParameterTable *t, Error *err);
/* The owners' weights have changed: what was gathered is old. */
void sharding_changed(ParameterTable *t);

#endif
