#include "model/generate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"

int generator_open(Generator *g, Model *m, const GenerateOptions *o, int64_t max_prompt, Error *err)
{
    memset(g, 0, sizeof *g);
    g->model = m;
    g->options = *o;
    if (g->options.batch < o->samples)
        g->options.batch = o->samples;
    g->max_length = max_prompt + o->max_tokens;
    int64_t batch = g->options.batch, most = batch > DECODE_ROWS ? batch : DECODE_ROWS, rows = max_prompt > 2048 ? max_prompt : 2048;
    if (rows < batch)
        rows = batch;
    if (cache_open(&g->cache, m, batch * (g->max_length + PAGE_TOKENS) + batch * (max_prompt + PAGE_TOKENS), g->max_length, most, err) < 0 ||
        slot_new(&g->slot, m, rows, MODE_SCORE, err) < 0) {
        generator_close(g);
        return -1;
    }
    sampler_open(&g->sampler, m->config.vocab_size);
    g->cache.least_rows = batch > 1 ? DECODE_ROWS : 1;
    g->logits = memory_alloc((size_t)(most * m->config.vocab_size), sizeof *g->logits);
    return 0;
}

void generator_close(Generator *g)
{
    cache_close(&g->cache);
    slot_free(&g->slot);
    sampler_close(&g->sampler);
    free(g->logits);
    memset(g, 0, sizeof *g);
}

/* A sequence that is being written. */
typedef struct Line {
    Sequence sequence;
    Answer *answer;
    const int32_t *prompt;
    int64_t prompt_length, capacity;
    uint64_t prompt_index, sample;
    int32_t *seen; /* prompt and answer, where the repetition penalty needs them */
} Line;

/* Chooses from the logits; false when the answer is over. */
static bool line_extend(Generator *g, Line *l, float *logits, bool (*watch)(void *, int32_t), void *context)
{
    const GenerateOptions *o = &g->options;
    Answer *a = l->answer;
    int32_t token = sampler_choose(&g->sampler, &o->sample, logits, l->seen, l->prompt_length + a->count, l->prompt_index, l->sample, (uint64_t)a->count);
    for (int i = 0; i < o->stop_count; i++)
        if (o->stops[i] == token) {
            a->stopped = true;
            return false;
        }
    size_t capacity = (size_t)l->capacity;
    a->tokens = memory_grow(a->tokens, &capacity, (size_t)a->count + 1, sizeof *a->tokens);
    l->capacity = (int64_t)capacity;
    l->seen[l->prompt_length + a->count] = token;
    a->tokens[a->count++] = token;
    bool goes_on = !watch || watch(context, token);
    return goes_on && a->count < o->max_tokens;
}

static int lines_decode(Generator *g, Line **lines, int64_t count, bool (*watch)(void *, int32_t), void *context, Error *err)
{
    int64_t v = g->model->config.vocab_size;
    int32_t *tokens = memory_alloc((size_t)count, sizeof *tokens);
    Sequence **sequences = memory_alloc((size_t)count, sizeof *sequences);
    int status = 0;
    while (count > 0 && status == 0) {
        for (int64_t i = 0; i < count; i++) {
            tokens[i] = lines[i]->answer->tokens[lines[i]->answer->count - 1];
            sequences[i] = &lines[i]->sequence;
        }
        status = cache_decode(&g->cache, &g->slot, tokens, sequences, count, g->logits, err);
        int64_t going = 0;
        for (int64_t i = 0; i < count && status == 0; i++)
            if (line_extend(g, lines[i], g->logits + i * v, watch, context))
                lines[going++] = lines[i];
        count = going;
    }
    free(tokens);
    free(sequences);
    return status;
}

/* One batch of prompts, all of whose samples are decoded at once. */
static int run_group(Generator *g, const int32_t *const *prompts, const int64_t *lengths, int64_t count, uint64_t first_index,
                     Answer *answers, bool (*watch)(void *, int32_t), void *context, Error *err)
{
    int64_t samples = g->options.samples, v = g->model->config.vocab_size, active = 0;
    Sequence *roots = memory_zalloc((size_t)count, sizeof *roots);
    Line *lines = memory_zalloc((size_t)(count * samples), sizeof *lines);
    Line **going = memory_alloc((size_t)(count * samples), sizeof *going);
    float *logits = memory_alloc((size_t)(count * v), sizeof *logits), *copy = memory_alloc((size_t)v, sizeof *copy);
    int status = cache_prefill(&g->cache, &g->slot, prompts, lengths, count, roots, logits, err);
    for (int64_t i = 0; i < count && status == 0; i++)
        for (int64_t k = 0; k < samples && status == 0; k++) {
            Line *l = &lines[i * samples + k];
            *l = (Line){.answer = &answers[i * samples + k], .prompt = prompts[i], .prompt_length = lengths[i],
                        .prompt_index = first_index + (uint64_t)i, .sample = (uint64_t)k};
            l->seen = memory_alloc((size_t)(lengths[i] + g->options.max_tokens), sizeof *l->seen);
            memcpy(l->seen, prompts[i], (size_t)lengths[i] * sizeof *l->seen);
            *l->answer = (Answer){0};
            status = sequence_fork(&g->cache, &l->sequence, &roots[i], err);
            memcpy(copy, logits + i * v, (size_t)v * sizeof *copy);
            if (status == 0 && line_extend(g, l, copy, watch, context))
                going[active++] = l;
        }
    if (status == 0)
        status = lines_decode(g, going, active, watch, context, err);
    for (int64_t i = 0; i < count * samples; i++) {
        sequence_free(&g->cache, &lines[i].sequence);
        free(lines[i].seen);
    }
    for (int64_t i = 0; i < count; i++)
        sequence_free(&g->cache, &roots[i]);
    free(roots);
    free(lines);
    free(going);
    free(logits);
    free(copy);
    return status;
}

int generator_run(Generator *g, const int32_t *const *prompts, const int64_t *lengths, int64_t count, uint64_t first_index,
                  Answer *answers, bool (*watch)(void *context, int32_t token), void *context, Error *err)
{
    int64_t group = g->options.batch / g->options.samples;
    for (int64_t i = 0; i < count; i++)
        if (lengths[i] < 1 || lengths[i] + g->options.max_tokens > g->max_length)
            return error_set(err, "a prompt of %" PRId64 " tokens and %" PRId64 " to answer are more than %" PRId64, lengths[i],
                             g->options.max_tokens, g->max_length);
    for (int64_t first = 0; first < count; first += group) {
        int64_t n = count - first < group ? count - first : group;
        if (run_group(g, prompts + first, lengths + first, n, first_index + (uint64_t)first, answers + first * g->options.samples, watch, context, err) < 0)
            return -1;
    }
    return 0;
}
