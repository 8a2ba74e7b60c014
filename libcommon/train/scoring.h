/* A reward model reading answers: rmtrain --score and rejsample share it. */
#ifndef TRAIN_SCORING_H
#define TRAIN_SCORING_H

#include "model/head.h"
#include "train/examples.h"

typedef struct Scorer {
    Model model;
    ChatCoder coder;
    Slot slot;
    int64_t max_length;
} Scorer;

int scorer_open(Scorer *s, const char *path, int64_t max_length, Device *d, Error *err);
void scorer_close(Scorer *s);
/* Scores of answers to one prompt (messages or a string); the reward is read at the last token. A prompt NULL scores whole
 * chats: answers[i] is a list of messages. */
int scorer_run(Scorer *s, const JsonValue *prompt, const JsonValue *const *answers, size_t count, float *scores, Error *err);

#endif
