/* Documents: one JSON object a line (id, text, …) or, with --text, a line each. Read in order, worked on by many threads,
 * written in order: same input, same bytes out, whatever the threads. */
#ifndef DATA_DOCUMENT_H
#define DATA_DOCUMENT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/option.h"
#include "io/json.h"
#include "io/stream.h"

enum { DOCUMENT_MAX_FIELDS = 16, DOCUMENT_MALFORMED = -2 };

typedef struct Document {
    const char *file;   /* for messages */
    int64_t line;       /* from 1 */
    uint64_t index;     /* place among all documents, from 0 */
    Span raw;           /* the line as read, without newline */
    Span text;          /* unescaped */
    Span id;            /* the field `id` (a string, or the number as it is written), else FILE:LINE */
    bool line_ended;    /* with --text: the line had its newline */
    JsonField *fields;  /* as many as DocumentReader.fields names; [0] is id and [1] is text */
    JsonParser *parser; /* of this thread, for json_field_tree */
    Buffer out;         /* what `work` wants written; emptied before each document */
    Buffer place;       /* FILE:LINE, where the record has no id */
    void *result;       /* result_size bytes of the batch for this document, cleared before `work` */
} Document;

/* What a tool wants done. */
typedef struct DocumentReader {
    const Common *common;      /* threads, text, on_error, progress */
    const char *const *files;  /* NULL-terminated; none: standard input */
    const char *const *file_names; /* what messages and ids call the files; NULL: as they are */
    const char *const *fields; /* names of further fields after id and text; NULL-terminated, may be NULL */
    bool text_optional;        /* chat and preference documents have no `text`; otherwise absent or not a string is malformed */
    size_t result_size;        /* bytes of Document.result */
    /* Called on many threads; thread is 0 … threads-1. NULL: nothing to do but parse. -1 ends the run, or with
     * --on-error=skip counts the record as malformed (the error names no place; it is added). Records before it are emitted. */
    int (*work)(void *context, Document *d, int thread, Error *err);
    /* Called in order on the caller's thread. -1 ends the run; DOCUMENT_MALFORMED says that the record is at fault: as with `work`,
     * the error names no place, and with --on-error=skip the record is counted and left out. */
    int (*emit)(void *context, Document *d, Error *err);
    void *context;
    /* The run failed by its input, a malformed record or an unreadable file, and not by `emit`: what came before has been emitted. */
    bool input_failed;
    /* Counts, filled by document_run. */
    uint64_t documents, skipped;
    uint64_t bytes_in;         /* of all lines, newlines too: what the files hold */
    uint64_t text_bytes;       /* of the documents' texts */
    char *first_skip;          /* the first malformed record's message, until document_report */
} DocumentReader;

/* Runs the whole input. Skipped records are told in one message at the end by the caller's use of document_report. */
int document_run(DocumentReader *r, Error *err);
void document_report(DocumentReader *r); /* "N malformed records skipped, the first: …" if any */

#endif
