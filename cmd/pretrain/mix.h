/* --mix-file: a JSON object of weights by source, which may be changed while the run goes on. Each change is written to mix.jsonl in
 * the run before the first step that it rules, so that a resumed run changes its mix at the same steps. */
#ifndef PRETRAIN_MIX_H
#define PRETRAIN_MIX_H

#include <sys/stat.h>
#include "base/error.h"
#include "sources.h"

typedef struct MixChange {
    int64_t step;     /* the first that it rules, from 0 */
    double *weights;  /* [sources] */
} MixChange;

typedef struct Mix {
    const char *file;
    char *record;     /* mix.jsonl */
    const Sources *sources;
    struct stat seen; /* the file when it was last read */
    MixChange *changes;
    size_t count, done; /* recorded, and handed out by mix_next */
} Mix;

/* Reads what the run has recorded so far. */
int mix_open(Mix *m, const char *file, const char *run, const Sources *sources, Error *err);
void mix_close(Mix *m);
/* The next change that rules step `step` and has not been handed out, NULL: none. Behind the recorded ones the file is looked at:
 * new weights are recorded first. A file that cannot be read or does not fit is named on standard error, and the mix stays. */
const MixChange *mix_next(Mix *m, int64_t step);

#endif
