#include "train/scoring.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/folder.h"

int scorer_open(Scorer *s, const char *path, int64_t max_length, Device *d, Error *err)
{
    memset(s, 0, sizeof *s);
    s->max_length = max_length;
    char *folder = folder_resolve(path, err);
    int status = folder ? folder_load(&s->model, folder, 0, 0, d, err) : -1;
    if (status == 0 && s->model.config.num_labels != 1)
        status = error_set(err, "%s: not a reward model", folder);
    if (status == 0)
        status = chat_coder_open(&s->coder, folder, err);
    if (status == 0)
        status = slot_new(&s->slot, &s->model, max_length > 2048 ? max_length : 2048, MODE_SCORE, err);
    free(folder);
    if (status < 0)
        scorer_close(s);
    return status;
}

void scorer_close(Scorer *s)
{
    slot_free(&s->slot);
    if (s->coder.tokenizer)
        chat_coder_close(&s->coder);
    model_close(&s->model);
}

int scorer_run(Scorer *s, const JsonValue *prompt, const JsonValue *const *answers, size_t count, float *scores, Error *err)
{
    int64_t *last = memory_alloc(count, sizeof *last), used = 0, *lengths = memory_alloc(count, sizeof *lengths);
    int32_t **tokens = memory_zalloc(count, sizeof *tokens);
    Ids ids = {0};
    Buffer flags = {0};
    int status = 0;
    for (size_t i = 0; i < count && status == 0; i++) {
        status = prompt ? chat_tokens(&s->coder, prompt, answers[i], false, &ids, &flags, err)
                        : chat_tokens(&s->coder, answers[i], NULL, false, &ids, &flags, err);
        if (status == 0 && ids.count == 0)
            status = error_set(err, "nothing to score");
        lengths[i] = (int64_t)ids.count > s->max_length ? s->max_length : (int64_t)ids.count;
        tokens[i] = (int32_t *)memory_copy((char *)ids.data, ids.count * sizeof *ids.data);
    }
    for (size_t first = 0, n; first < count && status == 0; first += n) {
        used = 0;
        for (n = 0; first + n < count && (n == 0 || used + lengths[first + n] <= s->slot.rows); n++)
            used += lengths[first + n];
        Batch b;
        batch_new(&b, 1, used);
        int64_t at = 0;
        for (size_t i = 0; i < n; i++) {
            batch_place(&b, at, tokens[first + i], NULL, NULL, lengths[first + i], -1, 0, (int64_t)i);
            at += lengths[first + i];
            last[i] = at - 1;
        }
        status = slot_load(&s->slot, &b, err);
        if (status == 0) {
            model_forward(&s->model, &s->slot);
            head_scores(&s->model, &s->slot, last, (int64_t)n, scores + first);
        }
        batch_free(&b);
    }
    for (size_t i = 0; i < count; i++)
        free(tokens[i]);
    free(tokens);
    free(lengths);
    free(last);
    ids_free(&ids);
    buffer_free(&flags);
    return status;
}
