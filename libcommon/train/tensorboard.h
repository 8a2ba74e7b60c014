/* TensorBoard event files: a training log's numbers as scalars (tensorflow/core/util/event.proto, lib/io/record_writer: records of
 * length, CRC, protobuf, CRC). */
#ifndef TRAIN_TENSORBOARD_H
#define TRAIN_TENSORBOARD_H

#include <stdint.h>
#include "base/error.h"

typedef struct TensorBoard TensorBoard;

/* Opens the folder's file anew and fills it with the lines that the log has so far (NULL: none), so that a resumed run has each
 * step once. */
TensorBoard *tensorboard_open(const char *folder, const char *log, Error *err);
/* A step's numbers: any number of tensorboard_add, then tensorboard_step, which writes them. A NaN is left out. */
void tensorboard_add(TensorBoard *t, const char *key, double value);
int tensorboard_step(TensorBoard *t, int64_t step, Error *err);
void tensorboard_close(TensorBoard *t);

#endif
