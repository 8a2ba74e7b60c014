/* A mix that changes while the run goes on: by --mix-file, a JSON object of weights by source that somebody edits, or by --mix-rule,
 * which raises what lags. Each change is written to mix.jsonl in the run before the first step that it rules, so that a resumed run
 * changes its mix at the same steps. */
#ifndef PRETRAIN_MIX_H
#define PRETRAIN_MIX_H

#include <sys/stat.h>
#include "base/error.h"
#include "sources.h"

typedef struct MixChange {
    int64_t step;     /* the first that it rules, from 0 */
    double *weights;  /* [sources] */
} MixChange;

/* NAME=LOSS,…: what each held-out class should reach, and how far the mix may move. */
typedef struct MixRule {
    double *target;  /* [sources], NAN: none */
    double step;     /* a raised share is multiplied by 1 + step */
    double limit;    /* shares stay within start / limit … start·limit */
} MixRule;

typedef struct Mix {
    const char *file; /* NULL: nobody edits */
    char *record;     /* mix.jsonl */
    const Sources *sources;
    struct stat seen; /* the file when it was last read */
    double *first;    /* read when the run began, recorded with its first step */
    MixChange *changes;
    size_t count, done; /* recorded, and handed out by mix_next */
} Mix;

/* Reads what the run has recorded so far, which rules it without a file too. Of a run that has no record yet the file must be there and fit. */
int mix_open(Mix *m, const char *file, const char *run, const Sources *sources, Error *err);
void mix_close(Mix *m);
/* The next change that rules step `step` and has not been handed out, NULL: none. Behind the recorded ones the file is looked at:
 * new weights are recorded first. A file that cannot be read or does not fit is named on standard error, and the mix stays. */
const MixChange *mix_next(Mix *m, int64_t step);
/* Records new weights, which it takes, for step `step` and what follows; why: further members of the record's line, or "". False, with a
 * warning, where the record cannot be written: the mix stays. */
bool mix_change(Mix *m, int64_t step, double *weights, const char *why);

/* Each name must be that of a --data and of a --val. */
int mix_rule_open(MixRule *r, const char *targets, double step, double limit, const Sources *sources, const Sources *held_out, Error *err);
void mix_rule_close(MixRule *r);
/* After an evaluation behind `step` steps: loss[source] in nats a token, NAN where none was measured. The source whose loss is
 * furthest above its target gets a larger share, of all others' in proportion to what they have above their least; recorded as a
 * change from step `step` on. Nothing changes where all targets are met or nothing can be given, and what a run before this one
 * decided is not decided again. */
void mix_rule_apply(Mix *m, const MixRule *r, int64_t step, const double *loss);

#endif
