/* A link slower than this machine's memory, for measurements of what communication costs where there is one machine alone: with
 * LMPIPE_LINK=X in the environment every collective of a host's tensors takes the bytes that the rank sends over X bytes a second longer,
 * asleep, as if hardware moved them. The collectives of a rank share its link. */
#ifndef DIST_PACE_H
#define DIST_PACE_H

#include <stddef.h>
#include "base/error.h"

typedef struct Pace Pace;

/* *p NULL: the variable is not set. -1: it is no number above 0. */
int pace_open(Pace **p, Error *err);
void pace_close(Pace *p);
/* Returns when the link, free again, has moved so many bytes. p may be NULL. */
void pace_take(Pace *p, size_t bytes);

#endif
