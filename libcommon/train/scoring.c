#include "train/scoring.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/folder.h"
#include "model/packed.h"

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
        status = packed_open(&s->model, err);
    if (status == 0)
        status = slot_new(&s->slot, &s->model, max_length > 2048 ? max_length : 2048, MODE_SCORE, err);
    if (status < 0)
        scorer_close(s);
    return status;
}

void scorer_close(Scorer *s)
{
    cache_close(&s->cache);
    slot_free(&s->slot);
    if (s->coder.tokenizer)
        chat_coder_close(&s->coder);
    model_close(&s->model);
    ids_free(&s->tokens);
    ids_free(&s->ids);
    buffer_free(&s->flags);
    free(s->offsets);
    free(s->prompts);
    free(s->scores);
}

/* Prompts shorter than this, and those before much longer answers, are not worth a second pass. */
enum { SHORTEST_PROMPT = 16, LONGEST_ANSWER = 4 /* times its prompt */ };

void scorer_add_ids(Scorer *s, const int32_t *ids, size_t count, size_t prompt)
{
    bool apart = prompt >= SHORTEST_PROMPT && prompt < count && count - prompt <= LONGEST_ANSWER * prompt;
    s->prompts = memory_grow(s->prompts, &s->prompt_capacity, s->count + 1, sizeof *s->prompts);
    s->prompts[s->count] = apart ? (int64_t)prompt : 0;
    s->offsets = memory_grow(s->offsets, &s->capacity, s->count + 2, sizeof *s->offsets);
    s->offsets[s->count] = (int64_t)s->tokens.count;
    for (size_t i = 0; i < count; i++)
        ids_add(&s->tokens, ids[i]);
    s->offsets[++s->count] = (int64_t)s->tokens.count;
}

int scorer_check(Scorer *s, const ChatInput *in, Error *err)
{
    if (chat_tokens(&s->coder, in, &s->ids, &s->flags, err) < 0)
        return -1;
    return s->ids.count ? 0 : error_set(err, "nothing to score");
}

int scorer_add(Scorer *s, const ChatInput *in, Error *err)
{
    if (scorer_check(s, in, err) < 0)
        return -1;
    if ((int64_t)s->ids.count > s->max_length) {
        s->ids.count = (size_t)s->max_length;
        s->truncated++;
    }
    size_t prompt = 0;
    while (in->answer && prompt < s->ids.count && !(s->flags.data[prompt] & TOKEN_TRAINED))
        prompt++;
    scorer_add_ids(s, s->ids.data, s->ids.count, prompt);
    return 0;
}

bool scorer_full(const Scorer *s)
{
    return (int64_t)s->tokens.count >= s->slot.rows;
}

void scorer_clear(Scorer *s)
{
    s->scored += s->tokens.count;
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

static int64_t length_of(const Scorer *s, size_t i)
{
    return s->offsets[i + 1] - s->offsets[i];
}

static const int32_t *text_of(const Scorer *s, size_t i)
{
    return s->tokens.data + s->offsets[i];
}

static bool has_prompt_of(const Scorer *s, size_t i, size_t before)
{
    return s->prompts[i] == s->prompts[before] && memcmp(text_of(s, i), text_of(s, before), (size_t)s->prompts[i] * sizeof(int32_t)) == 0;
}

static int cache_ready(Scorer *s, int64_t pages, Error *err)
{
    int64_t least = 4 * s->slot.rows / PAGE_TOKENS;
    if (s->cache.model && s->cache.pages >= pages)
        return 0;
    cache_close(&s->cache);
    return cache_open(&s->cache, &s->model, (pages > least ? pages : least) * PAGE_TOKENS, s->max_length, s->slot.rows, err);
}

/* Answers behind prompts that have been through: each prompt once, then all answers in one pass over forks of them. */
static int score_answers(Scorer *s, size_t first, size_t n, Error *err)
{
    const int32_t **tokens = memory_alloc(n, sizeof *tokens);
    int64_t *counts = memory_alloc(n, sizeof *counts), *last = memory_alloc(n, sizeof *last), pages = 0, rows = 0, at = 0;
    size_t *root = memory_alloc(n, sizeof *root), families = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k = first + i;
        if (i == 0 || !has_prompt_of(s, k, k - 1)) {
            tokens[families] = text_of(s, k);
            counts[families++] = s->prompts[k];
            pages += cache_pages(s->prompts[k]);
        }
        root[i] = families - 1;
        pages += cache_pages(length_of(s, k)) - s->prompts[k] / PAGE_TOKENS;
        rows += length_of(s, k) - s->prompts[k];
    }
    Sequence *roots = memory_zalloc(families, sizeof *roots), *branches = memory_zalloc(n, sizeof *branches);
    int32_t *labels = memory_alloc((size_t)rows, sizeof *labels);
    memset(labels, -1, (size_t)rows * sizeof *labels);
    int status = cache_ready(s, pages, err);
    if (status == 0)
        status = cache_prefill(&s->cache, &s->slot, tokens, counts, (int64_t)families, roots, NULL, err);
    for (size_t i = 0; i < n && status == 0; i++) {
        status = sequence_fork(&s->cache, &branches[i], &roots[root[i]], err);
        tokens[i] = text_of(s, first + i) + s->prompts[first + i];
        counts[i] = length_of(s, first + i) - s->prompts[first + i];
        last[i] = (at += counts[i]) - 1;
    }
    if (status == 0)
        status = cache_extend(&s->cache, &s->slot, tokens, counts, branches, (int64_t)n, labels, err);
    if (status == 0)
        head_scores(&s->model, &s->slot, last, (int64_t)n, s->scores + first);
    for (size_t i = 0; i < n; i++)
        sequence_free(&s->cache, &branches[i]);
    for (size_t i = 0; i < families; i++)
        sequence_free(&s->cache, &roots[i]);
    free(tokens), free(counts), free(last), free(root), free(roots), free(branches), free(labels);
    return status;
}

/* As many texts of one kind from `first` on as go through at once; under a sliding window whole texts go alone, as in cache_prefill. */
static size_t run_length(const Scorer *s, size_t first)
{
    bool apart = s->prompts[first] > 0, alone = !apart && s->model.config.sliding_window > 0;
    int64_t rows = 0, prompts = 0;
    size_t n = 0;
    for (size_t i = first; i < s->count && (s->prompts[i] > 0) == apart; i++, n++) {
        rows += length_of(s, i) - s->prompts[i];
        prompts += n == 0 || !has_prompt_of(s, i, i - 1) ? s->prompts[i] : 0;
        if (n > 0 && (alone || rows > s->slot.rows || prompts > s->slot.rows))
            break;
    }
    return n;
}

int scorer_run(Scorer *s, Error *err)
{
    s->scores = memory_grow(s->scores, &s->score_capacity, s->count + 1, sizeof *s->scores);
    for (size_t first = 0, n; first < s->count; first += n) {
        n = run_length(s, first);
        if ((s->prompts[first] > 0 ? score_answers : score_packed)(s, first, n, err) < 0)
            return -1;
    }
    return 0;
}
