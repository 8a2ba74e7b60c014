/* Needle in a haystack: "The magic number of Xyz is 7." stands somewhere in filler text, and the end of the text asks for it.
 * A needle counts as found if the right digit is more probable than the nine wrong ones; chance is 0.1. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/random.h"
#include "lmeval.h"

static const char *const filler[] = {
    " The grass is green and the sky is blue.", " A road goes through the valley and over the hill.", " In the evening the wind came from the west.",
    " The house by the river has a red door.", " Many people walk along the old wall in summer.", " The bread was good and the water was cold.",
    " He read the letter and put it on the table.", " Rain fell on the roof of the small school.",
};
static const char *const names[] = {"London", "Paris", "Rome", "Berlin", "Madrid", "Vienna", "Athens", "Dublin"};

static int add_text(Eval *e, Ids *ids, const char *text, Error *err)
{
    return encoder_encode(e->encoder, (Span){text, strlen(text)}, NULL, ids, err);
}

/* Filler until `length` tokens, with the needle in at `depth` of it, moved back to the end of a sentence. */
static int build(Eval *e, int64_t length, double depth, uint64_t seed, int *digit, Ids *out, Error *err)
{
    Ids needle = {0}, question = {0};
    char text[128];
    const char *name = names[random_below(seed, RANDOM_SAMPLE, 1, 8)];
    *digit = (int)random_below(seed, RANDOM_SAMPLE, 0, 10);
    snprintf(text, sizeof text, " The magic number of %s is %d.", name, *digit);
    int status = add_text(e, &needle, text, err);
    snprintf(text, sizeof text, " The magic number of %s is", name);
    if (status == 0)
        status = add_text(e, &question, text, err);
    int64_t room = length - (int64_t)needle.count - (int64_t)question.count - 1, begin = (int64_t)(depth * (double)room);
    out->count = 0;
    bool placed = false;
    for (uint64_t i = 0; status == 0 && (int64_t)out->count < room + (placed ? (int64_t)needle.count : 0); i++) {
        Ids sentence = {0};
        status = add_text(e, &sentence, filler[random_below(seed, RANDOM_SAMPLE, i + 2, 8)], err);
        bool full = (int64_t)(out->count + sentence.count) > room + (placed ? (int64_t)needle.count : 0);
        if (!placed && status == 0 && ((int64_t)(out->count + sentence.count) > begin || full)) {
            for (size_t k = 0; k < needle.count; k++)
                ids_add(out, needle.data[k]);
            placed = true;
        }
        for (size_t k = 0; k < sentence.count && !full; k++)
            ids_add(out, sentence.data[k]);
        ids_free(&sentence);
        if (full)
            break;
    }
    for (size_t k = 0; k < question.count && status == 0; k++)
        ids_add(out, question.data[k]);
    ids_free(&needle);
    ids_free(&question);
    return status;
}

static int find(Eval *e, int64_t length, double depth, uint64_t seed, bool *found, Error *err)
{
    int digit;
    Ids ids = {0};
    Requests q = {0};
    int status = build(e, length, depth, seed, &digit, &ids, err);
    size_t context = ids.count;
    for (int d = 0; d < 10 && status == 0; d++) {
        char text[8];
        snprintf(text, sizeof text, " %d.", d);
        ids.count = context;
        status = add_text(e, &ids, text, err);
        requests_add(&q, e, ids.data, (int64_t)ids.count, (int64_t)context);
    }
    if (status == 0)
        status = requests_score(&q, e, err);
    size_t best = 0;
    for (size_t d = 1; d < q.count; d++)
        if (q.items[d].logprob > q.items[best].logprob)
            best = d;
    *found = (int)best == digit;
    requests_free(&q);
    ids_free(&ids);
    return status;
}

int eval_needle(Eval *e, Error *err)
{
    int64_t lengths[64];
    size_t count = 0;
    for (size_t i = 0; i < e->needle_lengths.count && count < 64; i++) {
        lengths[count++] = strtoll(e->needle_lengths.values[i], NULL, 10);
        if (lengths[count - 1] < 64 || lengths[count - 1] > e->max_length)
            return error_set(err, "--needle-length %s must lie in 64 … %" PRId64, e->needle_lengths.values[i], e->max_length);
    }
    for (int64_t part = 4; count < 3 && e->needle_lengths.count == 0; part /= 2)
        lengths[count++] = e->sample_length / part;
    for (size_t i = 0; i < count; i++) {
        int64_t all = 0, right = 0;
        for (int depth = 0; depth <= 4; depth++) {
            int64_t hits = 0;
            for (int64_t k = 0; k < e->needle_samples; k++) {
                bool found;
                uint64_t seed = (uint64_t)e->common.seed + (uint64_t)k * 7919 + (uint64_t)depth * 104729 + (uint64_t)lengths[i];
                if (find(e, lengths[i], depth / 4.0, seed, &found, err) < 0)
                    return -1;
                hits += found;
            }
            char *task = memory_format("needle/%" PRId64 "/depth-%d", lengths[i], depth * 25);
            result_print(e, task, "found", (double)hits / (double)e->needle_samples, NAN, e->needle_samples);
            free(task);
            all += e->needle_samples;
            right += hits;
        }
        char *task = memory_format("needle/%" PRId64, lengths[i]);
        double p = (double)right / (double)all;
        result_print(e, task, "found", p, sqrt(p * (1 - p) / (double)(all - 1)), all);
        free(task);
    }
    return 0;
}
