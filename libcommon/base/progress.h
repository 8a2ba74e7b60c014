/* How far a tool is: a bar on a terminal, a plain line every 10 s elsewhere (only with --progress=always or when standard
 * error is a terminal; "auto" elsewhere prints nothing), none when quiet. Thread-safe, cheap to call often. */
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
