/* When each rank did what in one step: the timeline of a pipeline, in the format that chrome://tracing and ui.perfetto.dev draw
 * (Chrome's trace events). A process is a pipeline, a thread in it a stage; what is not covered is the bubble. */
#ifndef TRAIN_TRACE_H
#define TRAIN_TRACE_H

#include "dist/comm.h"

typedef enum TraceKind { TRACE_FORWARD, TRACE_BACKWARD, TRACE_WAIT } TraceKind;

typedef struct TraceEvent {
    double begin, end; /* seconds since trace_begin */
    int64_t micro_batch;
    int32_t kind, chunk;
} TraceEvent;

typedef struct Trace {
    double begin;
    TraceEvent *events;
    size_t count, capacity;
} Trace;

/* All ranks begin together: the moment from which each counts by its own clock. A collective, as trace_write. */
int trace_begin(Trace *t, Grid *g, Error *err);
/* begin and end by clock_seconds. */
void trace_add(Trace *t, TraceKind kind, int chunk, int64_t micro_batch, double begin, double end);
void trace_close(Trace *t);

/* Writes all ranks' events; the first rank does. *bubble: idle over busy time of this rank's pipeline between its first pass and its
 * last, all its ranks together, which pipeline_bubble foretells for stages that take equally long. chunks and micro_batches: of
 * the schedule, for that; step: for the file to say. */
int trace_write(Trace *t, Grid *g, const char *path, int64_t step, int chunks, int64_t micro_batches, double *bubble, Error *err);

#endif
