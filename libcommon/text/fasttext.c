#include "text/fasttext.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "io/stream.h"

enum { MAGIC = 793712314, VERSION = 12, LOSS_HS = 1, LOSS_NS = 2, LOSS_SOFTMAX = 3, LOSS_OVA = 4, SUPERVISED = 3 };

typedef struct Entry {
    char *word;
    size_t length;
    int64_t count;
    int8_t type; /* 0 word, 1 label */
} Entry;

struct FastText {
    int32_t dim, ws, epoch, min_count, neg, word_ngrams, loss, model, bucket, minn, maxn, update_rate;
    double t;
    int32_t words, labels;
    int64_t tokens;
    Entry *entries; /* words, then labels, by falling count */
    int32_t *slots; /* hash of a word -> entry + 1 */
    size_t mask;
    float *input, *output; /* [words + bucket, dim], [labels, dim] */
};

/* FNV-1a whose bytes are sign-extended, as fastText's. */
static uint32_t word_hash(const char *s, size_t n)
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
        const Entry *e = &f->entries[slot - 1];
        if (e->length == n && memcmp(e->word, s, n) == 0)
            return slot - 1;
    }
}

static void entries_index(FastText *f)
{
    size_t n = 64, count = (size_t)(f->words + f->labels);
    while (n < count * 2)
        n *= 2;
    free(f->slots);
    f->slots = memory_zalloc(n, sizeof *f->slots);
    f->mask = n - 1;
    for (size_t i = 0; i < count; i++) {
        size_t h = word_hash(f->entries[i].word, f->entries[i].length);
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
    if (f->model != SUPERVISED)
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
        Entry *e = &f->entries[i];
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
    entries_index(f);
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
                id_add(s, f->words + (int32_t)(word_hash(b.data + i, j - i) % (uint32_t)f->bucket));
        }
    }
    buffer_free(&b);
}

static bool is_break(char c)
{
    return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r' || c == 0 || c == '\n';
}

/* Rows of a line, ending with </s>; labels go to *label. */
static void line_ids(const FastText *f, FastTextScratch *s, Span text, int32_t *label)
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
            while (i < text.length && !is_break(text.data[i]))
                i++;
            word = text.data + b;
            n = i - b;
            if (i < text.length)
                i++;
            if (n == 0)
                continue;
        }
        uint32_t h = word_hash(word, n);
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

static void hidden_make(const FastText *f, FastTextScratch *s)
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

static void output_make(const FastText *f, const float *hidden, float *p)
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
    line_ids(f, s, text, NULL);
    if (s->count == 0)
        return -1;
    hidden_make(f, s);
    output_make(f, s->hidden, probabilities);
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

/* ---- training ---- */

static int compare_entries(const void *a, const void *b)
{
    const Entry *x = a, *y = b;
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
        while (i < lines.length && !is_break(lines.data[i]))
            i++;
        bool newline = i < lines.length && lines.data[i] == '\n';
        for (int end = 0; end < 2; end++) {
            const char *w = end ? "</s>" : lines.data + b;
            size_t n = end ? 4 : i - b;
            if (n == 0 || (end && !newline))
                continue;
            f->tokens++;
            size_t h = word_hash(w, n);
            while (slots[h & mask] && !(f->entries[slots[h & mask] - 1].length == n && memcmp(f->entries[slots[h & mask] - 1].word, w, n) == 0))
                h++;
            if (slots[h & mask]) {
                f->entries[slots[h & mask] - 1].count++;
                continue;
            }
            f->entries = memory_grow(f->entries, &capacity, count + 1, sizeof *f->entries);
            f->entries[count++] = (Entry){memory_copy(w, n), n, 1, n > 9 && memcmp(w, "__label__", 9) == 0};
            slots[h & mask] = (int32_t)count;
            if (count * 2 > mask) {
                mask = mask * 2 + 1;
                free(slots);
                slots = memory_zalloc(mask + 1, sizeof *slots);
                for (size_t k = 0; k < count; k++) {
                    size_t g = word_hash(f->entries[k].word, f->entries[k].length);
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
    hidden_make(f, s);
    output_make(f, s->hidden, s->output);
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
                    .model = SUPERVISED, .bucket = o->word_ngrams > 1 || o->maxn > 0 ? o->bucket : 0, .minn = o->minn, .maxn = o->maxn, .update_rate = 100, .t = 1e-4};
    dictionary_make(f, lines);
    if (f->labels < 2) {
        error_set(err, "the lines hold %d labels (__label__…), a classifier needs two", f->labels);
        fasttext_free(f);
        return NULL;
    }
    entries_index(f);
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
        line_ids(f, &s, (Span){lines.data + starts[i], end - starts[i]}, &label);
        if (label >= 0 && s.count > 0)
            line_learn(f, &s, label, (float)(o->lr * (1 - (double)n / (double)steps)), gradient);
    }
    free(gradient);
    free(starts);
    fasttext_scratch_free(&s);
    return f;
}
