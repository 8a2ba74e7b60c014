/* What generate's files share: its settings, and the prompts that wait for a batch. */
#ifndef GENERATE_GENERATE_H
#define GENERATE_GENERATE_H

#include "base/progress.h"
#include "io/stream.h"
#include "train/answers.h"

typedef struct Generate {
    Common common;
    AnswerOptions answer;
    const char *model, *prompt, *system;
    bool raw;
    Answerer answerer;
    Writer *out;
    /* Prompts wait until a batch is full. */
    int32_t **prompts;
    int64_t *lengths, waiting, room;
    char **records;
    size_t *record_lengths;
    uint64_t done; /* prompts answered: the number of the next, which its random numbers go by */
    Progress *progress;
} Generate;

/* Talks until the end of standard input; Ctrl-C ends an answer, not the program. */
int generate_chat(Generate *g, Error *err);
/* Answers --prompt: as it comes on standard output, or with several samples or -o a line each. */
int generate_prompt(Generate *g, Error *err);

#endif
