/* What generate's files share. */
#ifndef GENERATE_GENERATE_H
#define GENERATE_GENERATE_H

#include "base/progress.h"
#include "data/document.h"
#include "io/stream.h"
#include "train/answers.h"

typedef struct Generate {
    Common common;
    AnswerOptions answer;
    const char *model, *prompt, *system;
    bool raw, given;
    Answerer answerer;
    Writer *out;
    uint64_t done; /* prompts begun: the number of the next, which its random numbers go by */
    uint64_t answered;
    Progress *progress;
} Generate;

/* Talks until the end of standard input; Ctrl-C ends an answer, not the program. */
int generate_chat(Generate *g, Error *err);
/* Answers --prompt: as it comes on standard output, or with several samples or -o a line each. */
int generate_prompt(Generate *g, Error *err);

/* Reads one record after the other, with progress in `what`, finishes the prompts that were added, and closes g->out or, after a failure,
 * abandons it. The reader's options are the tool's. */
int generate_documents(Generate *g, DocumentReader *r, const char *what, Error *err);
/* --given: adds the log-probabilities of the answers that the records of the files have. */
int generate_given(Generate *g, const char *const *files, Error *err);

#endif
