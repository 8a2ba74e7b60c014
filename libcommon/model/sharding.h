/* Weights and gradients of which a rank keeps its slices alone (ZeRO-2 and -3, FSDP): the arenas have room for no more, a slice of every
 * unit behind the other. The whole of a unit stands in one of a few rooms (rooms.h) from when it is asked for until others have been.
 *
 *   a unit's gradient   begins as zeros beside the slice; when the unit makes room, the ranks' are added up into the owners' slices
 *   a unit's weights    are gathered from the owners' slices (level 3), those that are not trained too
 *
 * Both are collectives: the ranks of the data group must ask for units in the same order, as they do where each does as many passes. */
#ifndef MODEL_SHARDING_H
#define MODEL_SHARDING_H

#include "dist/side.h"
#include "model/param.h"

/* level 2: gradients, 3: weights too, whose arena gives the others' slices back. Both collectives go on beside the computation: reduce, and
 * at level 3 gather, are data's, and the caller's. squares: a device's double to which every gradient's squares are added before ranks add
 * up, NULL: nobody looks. The arena of gradients is made here. */
int sharding_open(ParameterTable *t, int level, Comm *data, Side *reduce, Side *gather, double *squares, Error *err);
void sharding_close(ParameterTable *t);

/* Called by param.c, before a unit's entries are used: the room, at its first float, of gradients at its first trained one. */
float *sharding_weights(ParameterTable *t, int unit);
uint16_t *sharding_working(ParameterTable *t, int unit);
float *sharding_gradients(ParameterTable *t, int unit);
/* A pass is about to ask for the weights of these entries' units, in this order: of each the next is gathered while it is in use, so
 * that at most three units stand whole at a time. */
void sharding_expect(ParameterTable *t, const int *entries, int count);
/* Nothing more is added to the unit's gradient in this step: it need not wait for others to want its room. */
void sharding_finished(ParameterTable *t, int unit);
/* Do weights come by units, each with its working copy? */
bool sharding_all(const ParameterTable *t);
/* Where a float of this rank's slice of a unit lies in an arena of slices. */
size_t sharding_place(const ParameterTable *t, int unit, size_t offset);
/* A rank's share of the units that so many floats at the head of the whole arena are. */
size_t sharding_share(const ParameterTable *t, size_t floats);
/* The slice that the rank keeps of a unit's weights, trained or not (level 3), and where a float of it lies in the arena of weights. */
void sharding_weight_slice(const ParameterTable *t, int unit, size_t *begin, size_t *end);
size_t sharding_weight_place(const ParameterTable *t, int unit, size_t offset);
/* The rank's own slice of a unit that it holds whole, and has changed there, becomes what the room says. */
void sharding_keep(ParameterTable *t, int unit);
/* This rank's slice of a unit: begin … end of what would be the whole arena of weights. */
void sharding_slice(const ParameterTable *t, int unit, size_t *begin, size_t *end);
/* All gradients have come together in their owners' slices: -1 where a collective has failed since the last time. */
int sharding_finish(ParameterTable *t, Error *err);
/* The owners' weights have changed: what was gathered is old. */
void sharding_changed(ParameterTable *t);

#endif
