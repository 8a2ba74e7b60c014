/* Models as files, and what they say of a text. */
#include "text/fasttext.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/stream.h"
#include "text/fasttext_internal.h"

enum { MAGIC = 793712314, VERSION = 12 };

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

typedef struct Cursor {
    const char *p, *end;
    bool bad;
} Cursor;

static void take(Cursor *c, void *to, size_t n)
{
    if (c->bad || (size_t)(c->end - c->p) < n) {
        c->bad = true;
        memset(to, 0, n);
        return;
    }
    memcpy(to, c->p, n);
    c->p += n;
}

static int64_t take_i64(Cursor *c)
{
    int64_t x;
    take(c, &x, 8);
    return x;
}

static int32_t take_i32(Cursor *c)
{
    int32_t x;
    take(c, &x, 4);
    return x;
}

static uint8_t take_u8(Cursor *c)
{
    uint8_t x;
    take(c, &x, 1);
    return x;
}

static int read_matrix(Cursor *c, const char *name, int64_t rows, int64_t cols, float **out, const char *path, Error *err)
{
    int64_t m = take_i64(c), n = take_i64(c);
    if (c->bad || m != rows || n != cols)
        return error_set(err, "%s: the %s matrix is %" PRId64 "×%" PRId64 ", not %" PRId64 "×%" PRId64, path, name, m, n, rows, cols);
    size_t bytes;
    if (__builtin_mul_overflow((size_t)m * sizeof(float), (size_t)n, &bytes) || (size_t)(c->end - c->p) < bytes)
        return error_set(err, "%s: the %s matrix is cut off", path, name);
    *out = memory_alloc((size_t)(m * n), sizeof **out);
    take(c, *out, bytes);
    for (int64_t i = 0; i < m * n; i++)
        if (!isfinite((*out)[i]))
            return error_set(err, "%s: the %s matrix holds a NaN or an infinity", path, name);
    return 0;
}

static int read_model(FastText *f, Cursor *c, const char *path, Error *err)
{
    if (take_i32(c) != MAGIC)
        return error_set(err, "%s: not a fastText model", path);
    int32_t version = take_i32(c);
    if (version > VERSION || version < 11)
        return error_set(err, "%s: fastText version %d is not supported", path, version);
    int32_t *fields[] = {&f->dim, &f->ws, &f->epoch, &f->min_count, &f->neg, &f->word_ngrams, &f->loss, &f->model, &f->bucket, &f->minn, &f->maxn, &f->update_rate};
    for (int i = 0; i < 12; i++)
        *fields[i] = take_i32(c);
    take(c, &f->t, 8);
    if (c->bad || f->dim < 1 || f->dim > 1 << 16 || f->bucket < 0 || f->word_ngrams > 64 || f->maxn > 64 || f->minn < 0)
        return error_set(err, "%s: the header is cut off or absurd", path);
    if (f->model != FASTTEXT_SUPERVISED)
        return error_set(err, "%s: not a classifier", path);
    if (f->loss != LOSS_SOFTMAX && f->loss != LOSS_OVA && f->loss != LOSS_NS)
        return error_set(err, "%s: hierarchical softmax is not supported yet", path);
    if (version == 11)
        f->maxn = 0;
    int32_t size = take_i32(c), words = take_i32(c), labels = take_i32(c);
    f->tokens = take_i64(c);
    int64_t pruned = take_i64(c);
    if (c->bad || size < 0 || words < 0 || labels < 1 || (int64_t)words + labels != size || (int64_t)size * 10 > c->end - c->p)
        return error_set(err, "%s: the dictionary's sizes do not fit", path);
    if (pruned >= 0)
        return error_set(err, "%s: quantised and pruned models (.ftz) are not supported yet", path);
    f->entries = memory_zalloc((size_t)size, sizeof *f->entries);
    f->words = words;
    f->labels = labels;
    for (int32_t i = 0; i < size; i++) {
        const char *nul = memchr(c->p, 0, (size_t)(c->end - c->p));
        if (!nul)
            return error_set(err, "%s: the dictionary is cut off", path);
        FastTextEntry *e = &f->entries[i];
        e->length = (size_t)(nul - c->p);
        e->word = memory_copy(c->p, e->length);
        c->p = nul + 1;
        e->count = take_i64(c);
        e->type = (int8_t)take_u8(c);
        if (c->bad || e->type != (i >= words))
            return error_set(err, "%s: dictionary entry %d is damaged", path, i);
    }
    if (take_u8(c))
        return error_set(err, "%s: quantised models (.ftz) are not supported yet", path);
    if (read_matrix(c, "input", (int64_t)words + f->bucket, f->dim, &f->input, path, err) < 0)
        return -1;
    if (take_u8(c))
        return error_set(err, "%s: quantised models (.ftz) are not supported yet", path);
    return read_matrix(c, "output", labels, f->dim, &f->output, path, err);
}

FastText *fasttext_load(const char *path, Error *err)
{
    Buffer data = {0};
    if (file_read(path, &data, (size_t)1 << 36, err) < 0)
        return NULL;
    FastText *f = memory_zalloc(1, sizeof *f);
    Cursor c = {data.data, data.data + data.length, false};
    int status = read_model(f, &c, path, err);
    buffer_free(&data);
    if (status < 0) {
        fasttext_free(f);
        return NULL;
    }
    fasttext_index(f);
    return f;
}

int fasttext_save(const FastText *f, const char *path, Error *err)
{
    Writer *w = writer_open(path, err);
    if (!w)
        return -1;
    Buffer b = {0};
    const int32_t head[] = {MAGIC, VERSION, f->dim, f->ws, f->epoch, f->min_count, f->neg, f->word_ngrams, f->loss, f->model, f->bucket, f->minn, f->maxn, f->update_rate};
    buffer_append(&b, head, sizeof head);
    buffer_append(&b, &f->t, 8);
    const int32_t sizes[] = {f->words + f->labels, f->words, f->labels};
    const int64_t counts[] = {f->tokens, -1};
    buffer_append(&b, sizes, sizeof sizes);
    buffer_append(&b, counts, sizeof counts);
    for (int32_t i = 0; i < f->words + f->labels; i++) {
        buffer_append(&b, f->entries[i].word, f->entries[i].length + 1);
        buffer_append(&b, &f->entries[i].count, 8);
        buffer_append(&b, &f->entries[i].type, 1);
    }
    const int64_t shapes[2][2] = {{(int64_t)f->words + f->bucket, f->dim}, {f->labels, f->dim}};
    const float *matrices[2] = {f->input, f->output};
    int status = 0;
    for (int i = 0; i < 2 && status == 0; i++) {
        buffer_byte(&b, 0);
        buffer_append(&b, shapes[i], sizeof shapes[i]);
        status = writer_write(w, b.data, b.length, err);
        b.length = 0;
        if (status == 0)
            status = writer_write(w, matrices[i], (size_t)(shapes[i][0] * shapes[i][1]) * sizeof(float), err);
    }
    buffer_free(&b);
    if (status < 0) {
        writer_abandon(w);
        return -1;
    }
    return writer_close(w, err);
}

static void id_add(FastTextScratch *s, int32_t id)
{
    s->ids = memory_grow(s->ids, &s->capacity, s->count + 1, sizeof *s->ids);
    s->ids[s->count++] = id;
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
                id_add(s, f->words + (int32_t)(fasttext_hash(b.data + i, j - i) % (uint32_t)f->bucket));
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
            id_add(s, f->words + (int32_t)(h % (uint64_t)f->bucket));
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

void fasttext_output(const FastText *f, const float *hidden, float *p)
{
    float most = -INFINITY, sum = 0;
    for (int l = 0; l < f->labels; l++) {
        const float *row = f->output + (int64_t)l * f->dim;
        float z = 0;
        for (int d = 0; d < f->dim; d++)
            z += row[d] * hidden[d];
        p[l] = f->loss == LOSS_SOFTMAX ? z : 1.0f / (1.0f + expf(-z));
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
