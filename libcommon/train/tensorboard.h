/* TensorBoard event files: a training log's numbers as scalars (tensorflow/core/util/event.proto, lib/io/record_writer: records of
 * length, CRC, protobuf, CRC). */
#ifndef TRAIN_TENSORBOARD_H
#define TRAIN_TENSORBOARD_H

#include <stdint.h>
#include "base/error.h"

typedef struct TensorBoard TensorBoard;

/* Opens the folder's file anew and fills it with the lines that the log has so far, so that a resumed run has each step once. Of a log
 * that cannot be read again (NULL) the file's own events stay, those up to the step that is resumed from. */
TensorBoard *tensorboard_open(const char *folder, const char *log, int64_t resume_step, Error *err);
/* A step's numbers: any number of tensorboard_add, then tensorboard_step, which writes them. A NaN is left out. */
void tensorboard_add(TensorBoard *t, const char *key, double value);
int tensorboard_step(TensorBoard *t, int64_t step, Error *err);
void tensorboard_close(TensorBoard *t);

#endif
