/* Answers written together: the bits of a prompt's answers alone, prompt pages shared, places dealt at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "model/folder.h"
#include "model/generate.h"
#include "model/packed.h"
#include "tap.h"

enum { PROMPTS = 23, SAMPLES = 3 };

static int32_t prompts[PROMPTS][200];
static const int32_t *prompt_of[PROMPTS];
static int64_t lengths[PROMPTS];

static void make_prompts(int64_t vocabulary)
{
    for (int i = 0; i < PROMPTS; i++) {
        lengths[i] = 1 + i * 37 % 150;
        for (int j = 0; j < 200; j++)
            prompts[i][j] = (int32_t)((i * 31 + j * 17 + i * j) % vocabulary);
        prompt_of[i] = prompts[i];
    }
}

/* Logits of the answer to prompt `mine`, prefilled and decoded with the `others` that follow it beside it. */
static void decode_beside(Model *m, int mine, int others, float *out)
{
    int64_t v = m->config.vocab_size;
    Error err = {{0}};
    KvCache c;
    Slot s;
    Sequence sequences[PROMPTS] = {{0}}, *all[PROMPTS];
    float *logits = memory_alloc((size_t)(PROMPTS * v), sizeof *logits);
    int32_t tokens[PROMPTS];
    int status = cache_open(&c, m, 200 * PROMPTS, 300, PROMPTS, &err) | slot_new(&s, m, 2048, MODE_SCORE, &err);
    /* It stands last, so that it lies in other rows. */
    const int32_t *given[PROMPTS];
    int64_t n[PROMPTS];
    for (int i = 0; i <= others; i++) {
        given[i] = prompts[(mine + others - i) % PROMPTS];
        n[i] = lengths[(mine + others - i) % PROMPTS];
        all[i] = &sequences[i];
    }
    status |= cache_prefill(&c, &s, given, n, others + 1, sequences, logits, &err);
    memcpy(out, logits + others * v, (size_t)v * sizeof *out);
    for (int step = 1; step <= 70; step++) {
        for (int i = 0; i <= others; i++)
            tokens[i] = given[i][(150 + step) % 200];
        status |= cache_decode(&c, &s, tokens, all, others + 1, logits, &err);
        memcpy(out + step * v, logits + others * v, (size_t)v * sizeof *out);
    }
    if (status)
        ok(0, "decoding works: %s", err.text);
    for (int i = 0; i <= others; i++)
        sequence_free(&c, &sequences[i]);
    cache_close(&c);
    slot_free(&s);
    free(logits);
}

static void test_bits(Model *m, const char *type)
{
    size_t n = (size_t)(71 * m->config.vocab_size);
    float *alone = memory_alloc(n, sizeof *alone), *beside = memory_alloc(n, sizeof *beside);
    static const int others[] = {1, 7, 8, 9, 22}, mine[] = {0, 4}; /* of one token, and of several blocks of keys */
    for (int p = 0; p < 2; p++) {
        decode_beside(m, mine[p], 0, alone);
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            decode_beside(m, mine[p], others[i], beside);
            ok(memcmp(alone, beside, n * sizeof *alone) == 0, "%s: %d others change no bit of 71 tokens' logits behind %lld", type, others[i], (long long)lengths[mine[p]]);
        }
    }
    free(alone);
    free(beside);
}

/* An answer's length goes by its first token. */
static int64_t wanted(int32_t first)
{
    return 1 + (int64_t)first * 7 % 19;
}

static bool is_long_enough(void *context, const Answer *a)
{
    (void)context;
    return a->count >= wanted(a->tokens[0]);
}

/* Passes that `places` take which are dealt in order as soon as they are free. */
static int64_t passes_needed(const Answer *answers, int places)
{
    int64_t left[64] = {0}, passes = 0;
    int next = 0, busy;
    do {
        busy = 0;
        for (int p = 0; p < places; p++) {
            while (left[p] == 0 && next < PROMPTS * SAMPLES)
                left[p] = answers[next++].count - 1;
            busy += left[p] > 0;
        }
        for (int p = 0; p < places; p++)
            left[p] -= left[p] > 0;
        passes += busy > 0;
    } while (busy);
    return passes;
}

static bool same(const Answer *a, const Answer *b)
{
    for (int i = 0; i < PROMPTS * SAMPLES; i++)
        if (a[i].count != b[i].count || memcmp(a[i].tokens, b[i].tokens, (size_t)a[i].count * sizeof *a[i].tokens) != 0)
            return false;
    return true;
}

static void answers_free(Answer *a)
{
    for (int i = 0; i < PROMPTS * SAMPLES; i++)
        free(a[i].tokens);
}

static void test_places(Model *m)
{
    GenerateOptions o = {.sample = {.temperature = 1.5, .top_p = 0.9, .repetition_penalty = 1.1, .seed = 3}, .max_tokens = 24, .samples = SAMPLES,
                         .batch = 69, .ends = is_long_enough};
    Answer first[PROMPTS * SAMPLES] = {{0}};
    static const struct {
        int batch;
        int64_t bytes;
    } ways[] = {{64, 0}, {7, 0}, {2, 0}, {1, 0}, {16, 1}, {16, 300 << 10}};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        Generator g;
        Error err = {{0}};
        Answer answers[PROMPTS * SAMPLES] = {{0}};
        o.batch = ways[w].batch;
        o.cache_bytes = ways[w].bytes;
        int status = generator_open(&g, m, &o, 200, &err);
        if (status == 0)
            status = generator_run(&g, prompt_of, lengths, PROMPTS, 5, answers, NULL, NULL, &err);
        ok(status == 0, "%d places, %lld bytes: runs %s", ways[w].batch, (long long)ways[w].bytes, err.text);
        if (status < 0)
            continue;
        if (w == 0)
            memcpy(first, answers, sizeof answers);
        int64_t shared = 0, tokens = 0;
        for (int i = 0; i < PROMPTS; i++)
            shared += (SAMPLES - 1) * (lengths[i] / PAGE_TOKENS);
        for (int i = 0; i < PROMPTS * SAMPLES; i++)
            tokens += answers[i].count;
        ok(same(answers, first), "the answers are those of the first way");
        if (ways[w].bytes == 0)
            ok(g.counts.passes == passes_needed(answers, ways[w].batch), "a free place is taken at once: %lld passes for %lld tokens",
               (long long)g.counts.passes, (long long)tokens);
        ok(g.counts.answer_tokens == tokens && g.counts.answers == PROMPTS * SAMPLES && g.counts.prompts == PROMPTS, "all is counted");
        ok(g.cache.shared == shared, "the samples of a prompt share its full pages: %lld times", (long long)g.cache.shared);
        ok(g.cache.most_used <= g.cache.pages && g.cache.most_held >= g.cache.most_used && g.cache.held == 0 && g.cache.free_count == g.cache.pages,
           "at most %lld of %lld pages in use (%lld unshared), none in the end", (long long)g.cache.most_used, (long long)g.cache.pages,
           (long long)g.cache.most_held);
        if (w > 0)
            answers_free(answers);
        generator_close(&g);
    }
    answers_free(first);
}

/* Turns of a conversation: each prompt is the last one, its answer and some words more; one time half of it is taken back. */
static void test_conversation(Model *m, const char *type)
{
    enum { TURNS = 6, MOST = 600 };
    GenerateOptions o = {.sample = {.temperature = 1, .top_k = 20, .seed = 3}, .max_tokens = 40, .samples = 1, .batch = 1};
    Generator g[2];
    Error err = {{0}};
    int status = generator_open(&g[0], m, &o, MOST, &err);
    o.keeps = true;
    if (!ok(status == 0 && generator_open(&g[1], m, &o, MOST, &err) == 0, "%s: a conversation opens %s", type, err.text))
        return;
    int32_t prompt[MOST];
    int64_t length = 0, kept = 0, expected = 0, was = 0, equal = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        Answer answers[2] = {{0}};
        if (turn == 4)
            length /= 2;
        expected += turn == 4 ? length : was;
        for (int i = 0; i < 5 + 17 * (turn % 3 == 1 ? 5 : turn % 3); i++)
            prompt[length++] = prompts[turn][i + 3 * turn];
        const int32_t *one = prompt;
        for (int k = 0; k < 2; k++)
            status |= generator_run(&g[k], &one, &length, 1, (uint64_t)turn, &answers[k], NULL, NULL, &err);
        equal += answers[0].count == answers[1].count && memcmp(answers[0].tokens, answers[1].tokens, (size_t)answers[0].count * sizeof *prompt) == 0;
        memcpy(prompt + length, answers[0].tokens, (size_t)answers[0].count * sizeof *prompt);
        length += answers[0].count;
        was = length - 1; /* the last token of an answer has not been through */
        kept = g[1].counts.kept_tokens;
        free(answers[0].tokens);
        free(answers[1].tokens);
    }
    ok(status == 0 && equal == TURNS, "%s: %lld of %d turns have the answers of a conversation read anew %s", type, (long long)equal, TURNS, err.text);
    ok(kept == expected && expected > 100, "%s: %lld tokens were kept, %lld in common", type, (long long)kept, (long long)expected);
    sequence_free(&g[1].cache, &g[1].kept);
    ok(g[1].cache.held == 0 && g[1].cache.free_count == g[1].cache.pages, "%s: no page is lost", type);
    generator_close(&g[0]);
    generator_close(&g[1]);
}

int main(void)
{
    Error err = {{0}};
    Model m;
    Device *d = device_open("cpu", 2, &err);
    if (ok(d && folder_load(&m, "tests/data/models/llama3", NULL, d, &err) == 0, "a model %s", err.text)) {
        make_prompts(m.config.vocab_size);
        ok(packed_open(&m, &err) == 0, "its weights are packed %s", err.text);
        test_bits(&m, "f32");
        test_places(&m);
        test_conversation(&m, "f32");
        m.config.sliding_window = 40;
        m.config.sliding_layers[0] = ~UINT64_C(0);
        test_bits(&m, "f32 under a window");
        m.config.sliding_window = 0;
        m.config.sliding_layers[0] = 0;
        packed_close(&m);
        if (ok(model_compute_in(&m, DTYPE_BF16, &err) == 0 && packed_open(&m, &err) == 0, "bf16 %s", err.text))
            test_bits(&m, "bf16");
        model_close(&m);
    }
    device_close(d);
    return tap_end();
}
