#include "train/scoring.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/folder.h"

int scorer_open(Scorer *s, const char *path, const char *adapter, int64_t max_length, Dtype dtype, Device *d, Error *err)
{
    memset(s, 0, sizeof *s);
    s->max_length = max_length;
    int status = folder_load(&s->model, path, &(FolderLoad){.adapter = adapter}, d, err);
    if (status == 0 && s->model.config.num_labels != 1)
        status = error_set(err, "%s: not a reward model", path);
    if (status == 0)
        status = model_compute_in(&s->model, dtype, err);
    if (status == 0)
        status = chat_coder_open(&s->coder, s->model.tokenizer_folder ? s->model.tokenizer_folder : path, err);
    if (status == 0)
        status = slot_new(&s->slot, &s->model, max_length > 2048 ? max_length : 2048, MODE_SCORE, err);
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
    ids_free(&s->tokens);
    ids_free(&s->ids);
    buffer_free(&s->flags);
    free(s->offsets);
    free(s->scores);
}

void scorer_add_ids(Scorer *s, const int32_t *ids, size_t count)
{
    s->offsets = memory_grow(s->offsets, &s->capacity, s->count + 2, sizeof *s->offsets);
    s->offsets[s->count] = (int64_t)s->tokens.count;
    for (size_t i = 0; i < count; i++)
        ids_add(&s->tokens, ids[i]);
    s->offsets[++s->count] = (int64_t)s->tokens.count;
}

int scorer_add(Scorer *s, const ChatInput *in, Error *err)
{
    if (chat_tokens(&s->coder, in, &s->ids, &s->flags, err) < 0)
        return -1;
    if (s->ids.count == 0)
        return error_set(err, "nothing to score");
    if ((int64_t)s->ids.count > s->max_length) {
        s->ids.count = (size_t)s->max_length;
        s->truncated++;
    }
    scorer_add_ids(s, s->ids.data, s->ids.count);
    return 0;
}

bool scorer_full(const Scorer *s)
{
    return (int64_t)s->tokens.count >= s->slot.rows;
}

void scorer_clear(Scorer *s)
{
    s->count = s->tokens.count = 0;
}

static int score_packed(Scorer *s, size_t first, size_t n, Error *err)
{
    int64_t *last = memory_alloc(n, sizeof *last), rows = s->offsets[first + n] - s->offsets[first];
    Batch b;
    batch_new(&b, 1, rows);
    for (size_t i = 0; i < n; i++) {
        int64_t at = s->offsets[first + i] - s->offsets[first], length = s->offsets[first + i + 1] - s->offsets[first + i];
        batch_place(&b, at, s->tokens.data + s->offsets[first + i], NULL, NULL, length, -1, 0, (int64_t)i);
        last[i] = at + length - 1;
    }
    int status = slot_load(&s->slot, &b, err);
    if (status == 0) {
        model_forward(&s->model, &s->slot);
        head_scores(&s->model, &s->slot, last, (int64_t)n, s->scores + first);
    }
    batch_free(&b);
    free(last);
    return status;
}

int scorer_run(Scorer *s, Error *err)
{
    s->scores = memory_grow(s->scores, &s->score_capacity, s->count + 1, sizeof *s->scores);
    for (size_t first = 0, n; first < s->count; first += n) {
        for (n = 1; first + n < s->count && s->offsets[first + n + 1] - s->offsets[first] <= s->slot.rows; n++)
            ;
        if (score_packed(s, first, n, err) < 0)
            return -1;
    }
    return 0;
}
