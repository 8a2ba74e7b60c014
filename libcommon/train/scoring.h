/* A reward model reading answers: rmtrain --score and rejsample share it. */
#ifndef TRAIN_SCORING_H
#define TRAIN_SCORING_H

#include "model/cache.h"
#include "model/head.h"
#include "train/examples.h"

typedef struct Scorer {
    Model model;
    ChatCoder coder;
    Slot slot;
    int64_t max_length;
    /* Texts that wait, so that one pass takes many; offsets[i] … offsets[i+1] of tokens. */
    Ids tokens, ids;
    Buffer flags;
    int64_t *offsets, *prompts; /* of each text also how many of its tokens are its prompt, 0: it is read whole */
    size_t count, capacity, prompt_capacity, score_capacity;
    KvCache cache; /* of prompts: neighbours with the same one share its keys and values */
    float *scores;      /* of the waiting texts, after scorer_run */
    uint64_t truncated; /* texts cut at max_length so far */
    uint64_t scored;    /* tokens of all texts so far */
} Scorer;

int scorer_open(Scorer *s, const char *path, const char *adapter, int64_t max_length, Dtype dtype, Device *d, Error *err);
void scorer_close(Scorer *s);
/* Would scorer_add take it? */
int scorer_check(Scorer *s, const ChatInput *in, Error *err);
/* Puts a text in line: an answer to messages, or with answer NULL a whole chat. */
int scorer_add(Scorer *s, const ChatInput *in, Error *err);
/* A text as tokens, no more than max_length, whose answer begins behind `prompt` of them (count: nowhere). */
void scorer_add_ids(Scorer *s, const int32_t *ids, size_t count, size_t prompt);
bool scorer_full(const Scorer *s); /* a pass or more is waiting */
/* Scores what waits; the reward is read at a text's last token. What else waits changes no bit of a score, where the weights are packed. */
int scorer_run(Scorer *s, Error *err);
void scorer_clear(Scorer *s);

#endif
