/* How far a tool is: on a terminal a line that is drawn anew; elsewhere nothing, or with --progress=always a line every 10 s; nothing
 * when quiet. Thread-safe, cheap to call often. And the clock. */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stdint.h>
#include "base/option.h"

typedef struct Progress Progress;

/* unit: "documents", "tokens", "bytes" (printed as MB), "steps". total 0: not known. */
Progress *progress_begin(const Common *common, const char *unit, uint64_t total);
void progress_set(Progress *p, uint64_t done);
/* A word beside the bar, such as "loss 2.31"; copied. */
void progress_note(Progress *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void progress_end(Progress *p);

double clock_seconds(void); /* monotonic */

#endif
