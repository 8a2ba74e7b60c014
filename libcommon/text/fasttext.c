/* What a model says of a text. */
#include "text/fasttext.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "text/fasttext_internal.h"

uint32_t fasttext_hash(const char *s, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) {
        h ^= (uint32_t)(int8_t)s[i];
        h *= 16777619u;
    }
    return h;
}

static int32_t entry_find(const FastText *f, const char *s, size_t n, uint32_t h)
{
    for (size_t i = h;; i++) {
        int32_t slot = f->slots[i & f->mask];
        if (!slot)
            return -1;
        const FastTextEntry *e = &f->entries[slot - 1];
        if (e->length == n && memcmp(e->word, s, n) == 0)
            return slot - 1;
    }
}

void fasttext_index(FastText *f)
{
    size_t n = 64, count = (size_t)(f->words + f->labels);
    while (n < count * 2)
        n *= 2;
    free(f->slots);
    f->slots = memory_zalloc(n, sizeof *f->slots);
    f->mask = n - 1;
    for (size_t i = 0; i < count; i++) {
        size_t h = fasttext_hash(f->entries[i].word, f->entries[i].length);
        while (f->slots[h & f->mask])
            h++;
        f->slots[h & f->mask] = (int32_t)i + 1;
    }
}

void fasttext_free(FastText *f)
{
    if (!f)
        return;
    for (int32_t i = 0; i < f->words + f->labels && f->entries; i++)
        free(f->entries[i].word);
    free(f->entries);
    free(f->slots);
    free(f->input);
    free(f->output);
    free(f->kept);
    free(f->tree);
    free(f);
}

int fasttext_labels(const FastText *f)
{
    return f->labels;
}

const char *fasttext_label(const FastText *f, int i)
{
    const char *w = f->entries[f->words + i].word;
    return strncmp(w, "__label__", 9) == 0 ? w + 9 : w;
}

static void id_add(FastTextScratch *s, int32_t id)
{
    s->ids = memory_grow(s->ids, &s->capacity, s->count + 1, sizeof *s->ids);
    s->ids[s->count++] = id;
}

FastTextKept *fasttext_kept(const FastText *f, int32_t gram)
{
    size_t at = (uint32_t)gram * 2654435761u & f->kept_mask;
    while (f->kept[at].gram >= 0 && f->kept[at].gram != gram)
        at = (at + 1) & f->kept_mask;
    return &f->kept[at];
}

/* An n-gram's row by its hash; a pruned model has few. */
static void gram_add(const FastText *f, FastTextScratch *s, int32_t gram)
{
    if (f->kept)
        gram = fasttext_kept(f, gram)->row;
    if (gram >= 0)
        id_add(s, f->words + gram);
}

static void add_subwords(const FastText *f, FastTextScratch *s, const char *word, size_t n)
{
    Buffer b = {0};
    buffer_byte(&b, '<');
    buffer_append(&b, word, n);
    buffer_byte(&b, '>');
    for (size_t i = 0; i < b.length; i++) {
        if (((unsigned char)b.data[i] & 0xc0) == 0x80)
            continue;
        size_t j = i;
        for (int k = 1; j < b.length && k <= f->maxn; k++) {
            j++;
            while (j < b.length && ((unsigned char)b.data[j] & 0xc0) == 0x80)
                j++;
            if (k >= f->minn && !(k == 1 && (i == 0 || j == b.length)) && f->bucket > 0)
                gram_add(f, s, (int32_t)(fasttext_hash(b.data + i, j - i) % (uint32_t)f->bucket));
        }
    }
    buffer_free(&b);
}

void fasttext_line(const FastText *f, FastTextScratch *s, Span text, int32_t *label)
{
    size_t hashes = 0;
    s->count = 0;
    for (size_t i = 0; i <= text.length;) {
        const char *word;
        size_t n;
        if (i == text.length) {
            word = "</s>";
            n = 4;
            i++;
        } else {
            size_t b = i;
            while (i < text.length && !fasttext_is_break(text.data[i]))
                i++;
            word = text.data + b;
            n = i - b;
            if (i < text.length)
                i++;
            if (n == 0)
                continue;
        }
        uint32_t h = fasttext_hash(word, n);
        int32_t e = entry_find(f, word, n, h);
        bool end = n == 4 && memcmp(word, "</s>", 4) == 0;
        if (e >= f->words || (e < 0 && n > 9 && memcmp(word, "__label__", 9) == 0)) {
            if (e >= f->words && label)
                *label = e - f->words;
            continue;
        }
        if (e >= 0)
            id_add(s, e);
        if (f->maxn > 0 && !end)
            add_subwords(f, s, word, n);
        s->hashes = memory_grow(s->hashes, &s->hash_capacity, hashes + 1, sizeof *s->hashes);
        s->hashes[hashes++] = (int32_t)h;
    }
    for (size_t i = 0; i < hashes && f->bucket > 0; i++) {
        uint64_t h = (uint64_t)(int64_t)s->hashes[i];
        for (size_t j = i + 1; j < hashes && j < i + (size_t)f->word_ngrams; j++) {
            h = h * 116049371 + (uint64_t)(int64_t)s->hashes[j];
            gram_add(f, s, (int32_t)(h % (uint64_t)f->bucket));
        }
    }
    if (!s->hidden) {
        s->hidden = memory_alloc((size_t)f->dim, sizeof *s->hidden);
        s->output = memory_alloc((size_t)f->labels, sizeof *s->output);
    }
}

void fasttext_hidden(const FastText *f, FastTextScratch *s)
{
    memset(s->hidden, 0, (size_t)f->dim * sizeof *s->hidden);
    for (size_t i = 0; i < s->count; i++) {
        const float *row = f->input + (int64_t)s->ids[i] * f->dim;
        for (int d = 0; d < f->dim; d++)
            s->hidden[d] += row[d];
    }
    float share = 1.0f / (float)s->count;
    for (int d = 0; d < f->dim; d++)
        s->hidden[d] *= share;
}

static float dot(const float *row, const float *hidden, int dim)
{
    float z = 0;
    for (int d = 0; d < dim; d++)
        z += row[d] * hidden[d];
    return z;
}

/* fastText looks the sigmoid up: 512 steps over -8 … 8, the value at a step's lower end. */
static float table_sigmoid(float x)
{
    enum { STEPS = 512, LIMIT = 8 };
    if (x < -LIMIT)
        return 0;
    if (x > LIMIT)
        return 1;
    float step = floorf((x + LIMIT) * STEPS / LIMIT / 2);
    return 1.0f / (1.0f + expf(-(step * 2 * LIMIT / STEPS - LIMIT)));
}

/* Hierarchical softmax: a label's probability is that of the turns on its way from the root, each with fastText's 1e-5. Nodes
 * stand behind their children, so one pass from the root down meets every parent first. */
static void tree_output(const FastText *f, const float *hidden, float *p)
{
    int nodes = f->labels - 1;
    float *scores = memory_alloc((size_t)f->labels + (size_t)nodes, sizeof *scores);
    scores[f->labels + nodes - 1] = 0;
    for (int k = nodes - 1; k >= 0; k--) {
        float right = 1.0f / (1.0f + expf(-dot(f->output + (int64_t)k * f->dim, hidden, f->dim))), score = scores[f->labels + k];
        scores[f->tree[k][0]] = score + logf(1.0f - right + 1e-5f);
        scores[f->tree[k][1]] = score + logf(right + 1e-5f);
    }
    for (int l = 0; l < f->labels; l++)
        p[l] = expf(scores[l]);
    free(scores);
}

void fasttext_output(const FastText *f, const float *hidden, float *p)
{
    float most = -INFINITY, sum = 0;
    for (int l = 0; l < f->labels; l++) {
        float z = dot(f->output + (int64_t)l * f->dim, hidden, f->dim);
        p[l] = f->loss == LOSS_SOFTMAX ? z : table_sigmoid(z);
        most = z > most ? z : most;
    }
    for (int l = 0; l < f->labels && f->loss == LOSS_SOFTMAX; l++)
        sum += p[l] = expf(p[l] - most);
    for (int l = 0; l < f->labels && f->loss == LOSS_SOFTMAX; l++)
        p[l] /= sum;
}

int fasttext_predict(const FastText *f, FastTextScratch *s, Span text, float *probabilities)
{
    fasttext_line(f, s, text, NULL);
    if (s->count == 0)
        return -1;
    fasttext_hidden(f, s);
    if (f->loss == LOSS_HS) {
        tree_output(f, s->hidden, probabilities);
        return 0;
    }
    fasttext_output(f, s->hidden, probabilities);
    /* fastText reports exp(log(p + 1e-5)). */
    for (int l = 0; l < f->labels; l++)
        probabilities[l] += 1e-5f;
    return 0;
}

void fasttext_scratch_free(FastTextScratch *s)
{
    free(s->ids);
    free(s->hashes);
    free(s->hidden);
    free(s->output);
    *s = (FastTextScratch){0};
}
