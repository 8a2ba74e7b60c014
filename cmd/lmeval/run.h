/* A task while it runs: documents whose requests or questions wait, so that one pass takes many. */
#ifndef LMEVAL_RUN_H
#define LMEVAL_RUN_H

#include "task.h"

/* A document whose requests wait. */
typedef struct Item {
    size_t at;                /* in the split */
    size_t first, count;      /* of its requests; with acc_mutual_info as many again without a context */
    double *chars, *bytes;    /* of each choice, or of the text: words and bytes */
    int64_t *gold;            /* right choices */
    size_t gold_count;
    bool several_golds;
} Item;

/* A document whose answer is to be written. */
typedef struct Question {
    size_t at;
    int32_t *ids;
    int64_t length;
    Span *wanted; /* any of them is right */
    size_t wanted_count;
    Span *choices; /* the document's column of that name, where a filter asks for it */
    size_t choice_count;
} Question;

typedef struct TaskRun {
    Eval *e;
    Task *t;
    Requests requests;
    Item *items;
    size_t item_count, item_capacity;
    Question *questions;
    size_t question_count, question_capacity;
    Arena arena, kept; /* a document's, and what questions hold */
    Ids ids;
    uint64_t skipped;
    Error first_skip;
} TaskRun;

const struct SplitLine *run_line(const TaskRun *r, size_t at);
/* What is logged of each document: the beginning of its record, and the record written. */
void run_log_begin(const TaskRun *r, size_t at, Buffer *b);
int run_log_end(const TaskRun *r, Buffer *b, Error *err);

/* A document's question waits. */
int question_take(TaskRun *r, const Doc *d, const Context *context, size_t at, Error *err);
/* All that wait are answered, and the answers counted. */
int questions_answer(TaskRun *r, Error *err);

#endif
