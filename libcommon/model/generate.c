#include "model/generate.h"

#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/thread.h"
#include "model/head.h"
#include "model/packed.h"

enum { EXTEND_ROWS = 64 }; /* tokens of a conversation that go through the model at once */

/* A prompt and its answers. */
typedef struct Request {
    int32_t *prompt;
    int64_t length;
    uint64_t index;
    void *tag;
    Answer *answers;        /* [samples] */
    int64_t begun, ended;   /* samples */
    bool prefilled;
    Sequence root;          /* the prompt in the cache, until the last sample takes it over */
    float *logits;          /* behind the prompt, until then */
    struct Request *next;
} Request;

/* An answer that is being written. */
typedef struct Line {
    Sequence sequence;
    Request *request;
    Answer *answer;
    int64_t sample;
    size_t capacity; /* of answer->tokens */
    int32_t *seen;   /* prompt and answer, which the penalty counts */
} Line;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Pages that a prompt holds, and what one of its answers can come to hold besides: the prompt's last page, where that is not full,
 * is copied for each answer. */
static int64_t prompt_pages(const Request *r)
{
    return cache_pages(r->length);
}

static int64_t answer_pages(const Generator *g, int64_t length)
{
    return cache_pages(length + g->options.max_tokens) - length / PAGE_TOKENS;
}

int generator_open(Generator *g, Model *m, const GenerateOptions *o, int64_t max_prompt, Error *err)
{
    memset(g, 0, sizeof *g);
    g->model = m;
    g->options = *o;
    g->max_length = max_prompt + o->max_tokens;
    int64_t batch = o->batch, rows = max_prompt > 2048 ? max_prompt : 2048;
    rows = rows < batch ? batch : rows;
    size_t page = (size_t)(2 * m->config.num_hidden_layers * m->config.num_key_value_heads * m->config.head_dim * PAGE_TOKENS) * dtype_size(m->dtype);
    int64_t one = cache_pages(max_prompt) + cache_pages(g->max_length) + 1, pages = batch * one;
    if (o->cache_bytes > 0)
        pages = least(pages, (int64_t)((size_t)o->cache_bytes / page));
    int64_t most = o->keeps && batch < EXTEND_ROWS ? EXTEND_ROWS : batch;
    if (packed_open(m, err) < 0 || cache_open(&g->cache, m, (pages > one ? pages : one) * PAGE_TOKENS, g->max_length, most, err) < 0 ||
        slot_new(&g->slot, m, rows, MODE_SCORE, err) < 0) {
        generator_close(g);
        return -1;
    }
    g->threads = m->device->threads > 0 ? m->device->threads : thread_default_count();
    g->samplers = memory_alloc((size_t)g->threads, sizeof *g->samplers);
    for (int t = 0; t < g->threads; t++)
        sampler_open(&g->samplers[t], m->config.vocab_size);
    /* Without packed weights a product may sum in another order for another number of rows, so every pass has as many. */
    g->cache.least_rows = m->packed ? 1 : batch;
    g->logits = memory_alloc((size_t)(batch * m->config.vocab_size), sizeof *g->logits);
    g->lines = memory_zalloc((size_t)batch, sizeof *g->lines);
    return 0;
}

static void request_free(Generator *g, Request *r)
{
    sequence_free(&g->cache, &r->root);
    free(r->prompt);
    free(r->logits);
    free(r->answers);
    free(r);
}

void generator_close(Generator *g)
{
    for (int64_t i = 0; i < g->active; i++) {
        sequence_free(&g->cache, &g->lines[i].sequence);
        free(g->lines[i].seen);
    }
    for (Request *r = g->first, *next; r; r = next) {
        next = r->next;
        for (int64_t k = 0; k < g->options.samples; k++)
            free(r->answers[k].tokens);
        if (g->emit)
            g->emit(g->context, r->tag, NULL, NULL);
        request_free(g, r);
    }
    sequence_free(&g->cache, &g->kept);
    free(g->kept_tokens);
    cache_close(&g->cache);
    slot_free(&g->slot);
    for (int t = 0; g->samplers && t < g->threads; t++)
        sampler_close(&g->samplers[t]);
    free(g->samplers);
    free(g->logits);
    free(g->lines);
    memset(g, 0, sizeof *g);
}

/* The next token, from logits that are changed. */
static int32_t line_choose(Generator *g, const Line *l, float *logits, int thread)
{
    return sampler_choose(&g->samplers[thread], &g->options.sample, logits, l->seen, l->request->length + l->answer->count, l->request->index,
                          (uint64_t)l->sample, (uint64_t)l->answer->count);
}

/* Takes it; false when the answer is over. */
static bool line_extend(Generator *g, Line *l, int32_t token)
{
    const GenerateOptions *o = &g->options;
    Answer *a = l->answer;
    for (int i = 0; i < o->stop_count; i++)
        if (o->stops[i] == token) {
            a->stopped = true;
            return false;
        }
    a->tokens = memory_grow(a->tokens, &l->capacity, (size_t)a->count + 1, sizeof *a->tokens);
    l->seen[l->request->length + a->count] = token;
    a->tokens[a->count++] = token;
    a->stopped = o->ends && o->ends(o->ends_context, a);
    bool goes_on = !g->watch || g->watch(g->watch_context, token);
    return goes_on && !a->stopped && a->count < o->max_tokens;
}

static void line_end(Generator *g, Line *l)
{
    Request *r = l->request;
    if (g->options.keeps) {
        sequence_free(&g->cache, &g->kept);
        free(g->kept_tokens);
        g->kept = l->sequence;
        g->kept_tokens = l->seen;
    } else {
        sequence_free(&g->cache, &l->sequence);
        free(l->seen);
    }
    g->reserved -= answer_pages(g, r->length);
    g->counts.answers++;
    g->counts.answer_tokens += l->answer->count;
    if (++r->ended == g->options.samples)
        g->reserved -= prompt_pages(r);
}

/* Samples of a prompt that get a place now. */
typedef struct Deal {
    Request *request;
    int64_t samples;
} Deal;

/* The prompt behind what the conversation has kept of it; its last token always goes through, for its logits. */
static int prefill_rest(Generator *g, const Request *r, Sequence *root, float *logits, Error *err)
{
    int64_t same = 0, most = least(g->kept.length, r->length - 1), n = 0;
    while (same < most && g->kept_tokens[same] == r->prompt[same])
        same++;
    *root = g->kept;
    g->kept = (Sequence){0};
    sequence_cut(&g->cache, root, same);
    if (same == 0)
        return cache_prefill(&g->cache, &g->slot, &(const int32_t *){r->prompt}, &r->length, 1, root, logits, err);
    g->counts.kept_tokens += same;
    int32_t labels[EXTEND_ROWS];
    memset(labels, -1, sizeof labels);
    for (int64_t at = same; at < r->length; at += n) {
        n = least(r->length - at, EXTEND_ROWS);
        if (cache_extend(&g->cache, &g->slot, &(const int32_t *){r->prompt + at}, &n, root, 1, labels, err) < 0)
            return -1;
    }
    head_logits(g->model, &g->slot, &(int64_t){n - 1}, 1, logits);
    return 0;
}

/* New prompts go through the model together, or where that could change their bits one by one. */
static int prefill(Generator *g, Request *const *list, int64_t count, Error *err)
{
    int64_t v = g->model->config.vocab_size, at_once = g->model->packed && !g->options.keeps ? count : 1;
    const int32_t **prompts = memory_alloc((size_t)count, sizeof *prompts);
    int64_t *lengths = memory_alloc((size_t)count, sizeof *lengths);
    Sequence *roots = memory_zalloc((size_t)count, sizeof *roots);
    float *logits = memory_alloc((size_t)(count * v), sizeof *logits);
    int status = 0;
    for (int64_t i = 0; i < count; i++) {
        prompts[i] = list[i]->prompt;
        lengths[i] = list[i]->length;
    }
    for (int64_t i = 0; i < count && status == 0; i += at_once)
        status = g->options.keeps ? prefill_rest(g, list[i], roots + i, logits + i * v, err) : cache_prefill(&g->cache, &g->slot, prompts + i, lengths + i, at_once, roots + i, logits + i * v, err);
    for (int64_t i = 0; i < count; i++) {
        Request *r = list[i];
        r->prefilled = true;
        r->root = roots[i];
        r->logits = memory_alloc((size_t)v, sizeof *r->logits);
        memcpy(r->logits, logits + i * v, (size_t)v * sizeof *logits);
        g->waiting--;
        g->counts.prompts++;
        g->counts.prompt_tokens += r->length;
    }
    free(prompts);
    free(lengths);
    free(roots);
    free(logits);
    return status;
}

/* The next sample of a prefilled prompt takes a place. */
static int line_begin(Generator *g, Request *r, Error *err)
{
    int64_t v = g->model->config.vocab_size;
    Line *l = &g->lines[g->active];
    *l = (Line){.request = r, .answer = &r->answers[r->begun], .sample = r->begun};
    r->begun++;
    if (r->begun == g->options.samples) {
        l->sequence = r->root;
        r->root = (Sequence){0};
    } else if (sequence_fork(&g->cache, &l->sequence, &r->root, err) < 0) {
        sequence_free(&g->cache, &l->sequence);
        return -1;
    }
    l->seen = memory_alloc((size_t)(r->length + g->options.max_tokens), sizeof *l->seen);
    memcpy(l->seen, r->prompt, (size_t)r->length * sizeof *l->seen);
    memcpy(g->logits, r->logits, (size_t)v * sizeof *g->logits);
    if (line_extend(g, l, line_choose(g, l, g->logits, 0)))
        g->active++;
    else
        line_end(g, l);
    if (r->begun == g->options.samples) {
        free(r->logits);
        r->logits = NULL;
    }
    return 0;
}

/* Chooses who gets the free places, in the order of the prompts, as long as there are pages for whatever may become of an answer,
 * which are reserved. Only the last prompt chosen can have samples left over, so that one always goes on. */
static int64_t places_deal(Generator *g, Deal *deals)
{
    int64_t places = g->options.batch - g->active, count = 0;
    for (Request *r = g->first; r && places > 0; r = r->next) {
        int64_t left = g->options.samples - r->begun, need = answer_pages(g, r->length), own = r->prefilled ? 0 : prompt_pages(r);
        int64_t room = (g->cache.pages - g->reserved - own) / need, samples = least(least(left, places), room);
        if (left > 0 && samples > 0) {
            deals[count++] = (Deal){r, samples};
            g->reserved += own + samples * need;
            places -= samples;
        }
        if (samples < left)
            break;
    }
    return count;
}

/* An answer may end with its first token: its place is dealt again. */
static int places_fill(Generator *g, Error *err)
{
    int64_t places = g->options.batch, count;
    Deal *deals = memory_alloc((size_t)places, sizeof *deals);
    Request **fresh = memory_alloc((size_t)places, sizeof *fresh);
    int status = 0;
    while (status == 0 && (count = places_deal(g, deals)) > 0) {
        int64_t n = 0;
        for (int64_t i = 0; i < count; i++)
            if (!deals[i].request->prefilled)
                fresh[n++] = deals[i].request;
        status = n ? prefill(g, fresh, n, err) : 0;
        for (int64_t i = 0; i < count && status == 0; i++)
            for (int64_t k = 0; k < deals[i].samples && status == 0; k++)
                status = line_begin(g, deals[i].request, err);
    }
    free(deals);
    free(fresh);
    return status;
}

/* One token more for every answer that is being written. */
static int lines_decode(Generator *g, Error *err)
{
    int64_t v = g->model->config.vocab_size, count = g->active, going = 0;
    int32_t *tokens = memory_alloc((size_t)count, sizeof *tokens);
    Sequence **sequences = memory_alloc((size_t)count, sizeof *sequences);
    for (int64_t i = 0; i < count; i++) {
        tokens[i] = g->lines[i].answer->tokens[g->lines[i].answer->count - 1];
        sequences[i] = &g->lines[i].sequence;
    }
    int status = cache_decode(&g->cache, &g->slot, tokens, sequences, count, g->logits, err);
    g->counts.passes++;
#pragma omp parallel for schedule(static) num_threads(g->threads) if (count > 1 && status == 0)
    for (int64_t i = 0; i < count; i++)
        tokens[i] = status == 0 ? line_choose(g, &g->lines[i], g->logits + i * v, omp_get_thread_num()) : 0;
    for (int64_t i = 0; i < count && status == 0; i++) {
        if (line_extend(g, &g->lines[i], tokens[i]))
            g->lines[going++] = g->lines[i];
        else
            line_end(g, &g->lines[i]);
    }
    if (status == 0)
        g->active = going;
    free(tokens);
    free(sequences);
    return status;
}

/* Hands out what is finished, first come first. */
static int requests_emit(Generator *g, Error *err)
{
    while (g->first && g->first->ended == g->options.samples) {
        Request *r = g->first;
        g->first = r->next;
        g->last = g->first ? g->last : NULL;
        int status = g->emit(g->context, r->tag, r->answers, err);
        request_free(g, r);
        if (status < 0)
            return -1;
    }
    return 0;
}

static int step(Generator *g, Error *err)
{
    if (places_fill(g, err) < 0 || (g->active && lines_decode(g, err) < 0))
        return -1;
    return requests_emit(g, err);
}

int generator_add(Generator *g, const int32_t *prompt, int64_t length, uint64_t index, void *tag, Error *err)
{
    if (length < 1 || length + g->options.max_tokens > g->max_length)
        return error_set(err, "a prompt of %" PRId64 " tokens and %" PRId64 " to answer are more than %" PRId64, length, g->options.max_tokens,
                         g->max_length);
    Request *r = memory_zalloc(1, sizeof *r);
    *r = (Request){.length = length, .index = index, .tag = tag, .prompt = memory_alloc((size_t)length, sizeof *r->prompt),
                   .answers = memory_zalloc((size_t)g->options.samples, sizeof *r->answers)};
    memcpy(r->prompt, prompt, (size_t)length * sizeof *r->prompt);
    if (g->first)
        g->last->next = r;
    else
        g->first = r;
    g->last = r;
    g->waiting++;
    int64_t line = (g->options.batch + g->options.samples - 1) / g->options.samples;
    while (g->waiting >= line)
        if (step(g, err) < 0)
            return -1;
    return 0;
}

int generator_finish(Generator *g, Error *err)
{
    while (g->first)
        if (step(g, err) < 0)
            return -1;
    return 0;
}

static int keep_answers(void *context, void *tag, Answer *answers, Error *err)
{
    (void)err;
    const Generator *g = context;
    if (answers)
        memcpy(tag, answers, (size_t)g->options.samples * sizeof *answers);
    return 0;
}

int generator_run(Generator *g, const int32_t *const *prompts, const int64_t *lengths, int64_t count, uint64_t first_index,
                  Answer *answers, bool (*watch)(void *context, int32_t token), void *context, Error *err)
{
    g->emit = keep_answers;
    g->context = g;
    g->watch = watch;
    g->watch_context = context;
    int status = 0;
    for (int64_t i = 0; i < count && status == 0; i++)
        status = generator_add(g, prompts[i], lengths[i], first_index + (uint64_t)i, &answers[i * g->options.samples], err);
    return status == 0 ? generator_finish(g, err) : -1;
}
