/* --calibration: does a reward model win as often as it says? */
#ifndef RMTRAIN_CALIBRATION_H
#define RMTRAIN_CALIBRATION_H

#include "io/stream.h"
#include "train/scoring.h"

/* Scores pairs or rankings and writes a table (TSV) of those whose answers are not tied: bins of the probability with which the answer of
 * greater score wins by Bradley and Terry, σ(|difference|), 0.5 … 1; in each the pairs, the mean of that probability, and the share in which it is the
 * better one. The last line is all of them. Says accuracy, expected calibration error (Σ share·|predicted − observed|), Brier
 * score and log loss of "the better one wins". */
int calibration(Scorer *s, const ExampleOptions *o, const Common *common, const char *const *files, Writer *out, Error *err);

#endif
