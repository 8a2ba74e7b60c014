/* When each rank did what in one step: the timeline of a pipeline, in the format that chrome://tracing and ui.perfetto.dev draw
 * (Chrome's trace events). A process is a pipeline, a thread in it a stage; what is not covered is the bubble. Behind the stages stands what went
 * on beside their passes (dist/side.h): gradients that came together and weights that were gathered, unit by unit (model/param.h). */
#ifndef TRAIN_TRACE_H
#define TRAIN_TRACE_H

#include "dist/side.h"
#include "train/pipeline.h"

typedef enum TraceKind { TRACE_FORWARD, TRACE_BACKWARD, TRACE_WAIT, TRACE_SEND, TRACE_REDUCE, TRACE_GATHER } TraceKind;

typedef struct TraceEvent {
    double begin, end; /* seconds since trace_begin */
    int64_t micro_batch; /* of what is beside the passes the unit */
    int32_t kind, chunk;
    double given, bytes; /* of what is beside: when it could have begun; of the unit */
} TraceEvent;

typedef struct Trace {
    double begin;
    TraceEvent *events;
    size_t count, capacity;
    size_t from; /* the events of the passes that go backward too, and what comes after; before them are passes forward alone */
} Trace;

/* All ranks begin together: the moment from which each counts by its own clock, on one machine the same for all. A collective, as
 * trace_write. */
int trace_begin(Trace *t, Grid *g, Error *err);
/* begin and end by clock_seconds. */
void trace_add(Trace *t, TraceKind kind, const PipelineAction *of, double begin, double end);
/* What has been recorded beside the passes since side_record; s may be NULL. */
void trace_add_side(Trace *t, const Side *s);
void trace_close(Trace *t);

/* A step's passes as they were, and as the simulation of their schedule (cost.h) has them that is given each pass's own time and
 * whose messages take none: it is the shorter by what ranks lost between two passes. */
typedef struct TraceSummary {
    double seconds, simulated;       /* from the first pass of all ranks to the last */
    double bubble, simulated_bubble; /* idle over busy time of the first pipeline, all its ranks together, */
    double formula;                  /* and for stages that take equally long (pipeline_bubble) */
} TraceSummary;

/* Writes all ranks' events; the first rank does, and has the summary, which is 0 on the others. chunks: of the schedule; step: for the
 * file to say. */
int trace_write(Trace *t, Grid *g, const char *path, int64_t step, int chunks, TraceSummary *s, Error *err);

#endif
