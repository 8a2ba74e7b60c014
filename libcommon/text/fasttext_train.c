/* Training of softmax classifiers: the dictionary of the lines, then plain gradient descent as fastText's `supervised`. */
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "text/fasttext_internal.h"

static int compare_entries(const void *a, const void *b)
{
    const FastTextEntry *x = a, *y = b;
    if (x->type != y->type)
        return x->type - y->type;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return strcmp(x->word, y->word);
}

static void dictionary_make(FastText *f, Span lines)
{
    size_t capacity = 0, count = 0, mask = (1 << 16) - 1;
    int32_t *slots = memory_zalloc(mask + 1, sizeof *slots);
    for (size_t i = 0; i < lines.length;) {
        size_t b = i;
        while (i < lines.length && !fasttext_is_break(lines.data[i]))
            i++;
        bool newline = i < lines.length && lines.data[i] == '\n';
        for (int end = 0; end < 2; end++) {
            const char *w = end ? "</s>" : lines.data + b;
            size_t n = end ? 4 : i - b;
            if (n == 0 || (end && !newline))
                continue;
            f->tokens++;
            size_t h = fasttext_hash(w, n);
            while (slots[h & mask] && !(f->entries[slots[h & mask] - 1].length == n && memcmp(f->entries[slots[h & mask] - 1].word, w, n) == 0))
                h++;
            if (slots[h & mask]) {
                f->entries[slots[h & mask] - 1].count++;
                continue;
            }
            f->entries = memory_grow(f->entries, &capacity, count + 1, sizeof *f->entries);
            f->entries[count++] = (FastTextEntry){memory_copy(w, n), n, 1, n > 9 && memcmp(w, "__label__", 9) == 0};
            slots[h & mask] = (int32_t)count;
            if (count * 2 > mask) {
                mask = mask * 2 + 1;
                free(slots);
                slots = memory_zalloc(mask + 1, sizeof *slots);
                for (size_t k = 0; k < count; k++) {
                    size_t g = fasttext_hash(f->entries[k].word, f->entries[k].length);
                    while (slots[g & mask])
                        g++;
                    slots[g & mask] = (int32_t)k + 1;
                }
            }
        }
        i++;
    }
    free(slots);
    qsort(f->entries, count, sizeof *f->entries, compare_entries);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (f->entries[i].type == 0 && f->entries[i].count < f->min_count) {
            free(f->entries[i].word);
            continue;
        }
        f->words += f->entries[i].type == 0;
        f->labels += f->entries[i].type == 1;
        f->entries[kept++] = f->entries[i];
    }
}

static void line_learn(FastText *f, FastTextScratch *s, int32_t label, float rate, float *gradient)
{
    fasttext_hidden(f, s);
    fasttext_output(f, s->hidden, s->output);
    memset(gradient, 0, (size_t)f->dim * sizeof *gradient);
    for (int l = 0; l < f->labels; l++) {
        float alpha = rate * ((l == label) - s->output[l]), *row = f->output + (int64_t)l * f->dim;
        for (int d = 0; d < f->dim; d++) {
            gradient[d] += alpha * row[d];
            row[d] += alpha * s->hidden[d];
        }
    }
    float share = 1.0f / (float)s->count;
    for (size_t i = 0; i < s->count; i++) {
        float *row = f->input + (int64_t)s->ids[i] * f->dim;
        for (int d = 0; d < f->dim; d++)
            row[d] += share * gradient[d];
    }
}

FastText *fasttext_train(const FastTextOptions *o, Span lines, Error *err)
{
    FastText *f = memory_zalloc(1, sizeof *f);
    *f = (FastText){.dim = o->dim, .ws = 5, .epoch = o->epoch, .min_count = o->min_count, .neg = 5, .word_ngrams = o->word_ngrams, .loss = LOSS_SOFTMAX,
                    .model = FASTTEXT_SUPERVISED, .bucket = o->word_ngrams > 1 || o->maxn > 0 ? o->bucket : 0, .minn = o->minn, .maxn = o->maxn, .update_rate = 100, .t = 1e-4};
    dictionary_make(f, lines);
    if (f->labels < 2) {
        error_set(err, "the lines hold %d labels (__label__…), a classifier needs two", f->labels);
        fasttext_free(f);
        return NULL;
    }
    fasttext_index(f);
    size_t rows = (size_t)f->words + (size_t)f->bucket, *starts = NULL, count = 0, capacity = 0;
    f->input = memory_alloc(rows * (size_t)f->dim, sizeof *f->input);
    for (size_t i = 0; i < rows * (size_t)f->dim; i++)
        f->input[i] = (float)((2 * random_uniform(o->seed, RANDOM_CLASSIFIER, i) - 1) / f->dim);
    f->output = memory_zalloc((size_t)f->labels * (size_t)f->dim, sizeof *f->output);
    for (size_t i = 0; i < lines.length; i++)
        if (i == 0 || lines.data[i - 1] == '\n') {
            starts = memory_grow(starts, &capacity, count + 1, sizeof *starts);
            starts[count++] = i;
        }
    FastTextScratch s = {0};
    float *gradient = memory_alloc((size_t)f->dim, sizeof *gradient);
    /* One thread, lines in an order of their own each epoch: the same seed gives the same bits. */
    uint64_t steps = (uint64_t)count * (uint64_t)o->epoch;
    for (uint64_t n = 0; n < steps; n++) {
        size_t i = (size_t)random_permute(o->seed, RANDOM_CLASSIFIER + ((n / count + 1) << 8), n % count, count);
        const char *newline = memchr(lines.data + starts[i], '\n', lines.length - starts[i]);
        size_t end = newline ? (size_t)(newline - lines.data) : lines.length;
        int32_t label = -1;
        fasttext_line(f, &s, (Span){lines.data + starts[i], end - starts[i]}, &label);
        if (label >= 0 && s.count > 0)
            line_learn(f, &s, label, (float)(o->lr * (1 - (double)n / (double)steps)), gradient);
    }
    free(gradient);
    free(starts);
    fasttext_scratch_free(&s);
    return f;
}
