/* Models as files: fastText's .bin and .ftz. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/stream.h"
#include "text/fasttext_internal.h"

enum { MAGIC = 793712314, VERSION = 12, CENTROIDS = 256 };

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

/* The words that a product quantiser's codes stand for (src/productquantizer.cc): each of `parts` codes names one of 256 centroids of
 * `width` numbers, the last one of `last`. */
typedef struct Quantiser {
    int32_t dim, parts, width, last;
    const char *centroids; /* [dim * 256] floats, unaligned */
} Quantiser;

static int read_quantiser(Cursor *c, Quantiser *q, int64_t dim)
{
    q->dim = take_i32(c);
    q->parts = take_i32(c);
    q->width = take_i32(c);
    q->last = take_i32(c);
    if (c->bad || q->dim != dim || q->width < 1 || q->width > q->dim || q->last < 1 || q->last > q->width || q->parts != (q->dim + q->width - 1) / q->width ||
        (int64_t)(q->parts - 1) * q->width + q->last != q->dim)
        return -1;
    size_t bytes = (size_t)q->dim * CENTROIDS * sizeof(float);
    if ((size_t)(c->end - c->p) < bytes)
        return -1;
    q->centroids = c->p;
    c->p += bytes;
    return 0;
}

static void quantiser_row(const Quantiser *q, const uint8_t *codes, float norm, float *row)
{
    for (int32_t part = 0; part < q->parts; part++) {
        int32_t width = part == q->parts - 1 ? q->last : q->width;
        const char *from = q->centroids + ((size_t)part * CENTROIDS * (size_t)q->width + (size_t)codes[part] * (size_t)width) * sizeof(float);
        float *to = row + (int64_t)part * q->width;
        memcpy(to, from, (size_t)width * sizeof *to);
        for (int32_t i = 0; i < width; i++)
            to[i] *= norm;
    }
}

/* A quantised matrix, written out as the dense one that it stands for. */
static int read_quantised(Cursor *c, const char *name, int64_t rows, int64_t cols, float **out, const char *path, Error *err)
{
    bool norms = take_u8(c);
    int64_t m = take_i64(c), n = take_i64(c);
    int32_t size = take_i32(c);
    if (c->bad || m != rows || n != cols)
        return error_set(err, "%s: the %s matrix is %" PRId64 "×%" PRId64 ", not %" PRId64 "×%" PRId64, path, name, m, n, rows, cols);
    const uint8_t *codes = (const uint8_t *)c->p, *norm_codes = NULL;
    Quantiser q = {0}, lengths = {0};
    bool bad = size < 0 || size > c->end - c->p;
    c->p += bad ? 0 : size;
    bad = bad || read_quantiser(c, &q, cols) < 0 || (int64_t)size != rows * q.parts;
    if (!bad && norms) {
        norm_codes = (const uint8_t *)c->p;
        bad = rows > c->end - c->p;
        c->p += bad ? 0 : rows;
        bad = bad || read_quantiser(c, &lengths, 1) < 0;
    }
    if (bad)
        return error_set(err, "%s: the quantised %s matrix is cut off or damaged", path, name);
    *out = memory_alloc((size_t)(rows * cols), sizeof **out);
    for (int64_t r = 0; r < rows; r++) {
        float norm = 1;
        if (norms)
            quantiser_row(&lengths, norm_codes + r, 1, &norm);
        quantiser_row(&q, codes + r * q.parts, norm, *out + r * cols);
    }
    for (int64_t i = 0; i < rows * cols; i++)
        if (!isfinite((*out)[i]))
            return error_set(err, "%s: the quantised %s matrix holds a NaN or an infinity", path, name);
    return 0;
}

/* Which n-grams a pruned model kept: pairs of old and new numbers. */
static int read_pruned(FastText *f, Cursor *c, int64_t count, const char *path, Error *err)
{
    if (count > f->bucket || count * 8 > c->end - c->p)
        return error_set(err, "%s: the list of kept n-grams is cut off or absurd", path);
    /* As large as what the file holds, whatever number of n-grams its header claims. */
    f->kept_mask = 15;
    while (f->kept_mask < (size_t)count * 2)
        f->kept_mask = f->kept_mask * 2 + 1;
    f->kept = memory_alloc(f->kept_mask + 1, sizeof *f->kept);
    memset(f->kept, -1, (f->kept_mask + 1) * sizeof *f->kept);
    for (int64_t i = 0; i < count; i++) {
        int32_t old = take_i32(c), new = take_i32(c);
        if (old < 0 || old >= f->bucket || new < 0 || new >= count)
            return error_set(err, "%s: kept n-gram %" PRId64 " is damaged", path, i);
        *fasttext_kept(f, old) = (FastTextKept){old, new};
    }
    return 0;
}

/* Huffman's tree over the labels' counts, in the order that fastText's Model::buildTree takes them: the two lightest become
 * children, and a label goes before a node only where it is lighter. */
static int build_tree(FastText *f, const char *path, Error *err)
{
    int32_t n = f->labels, leaf = n - 1, node = n;
    int64_t *counts = memory_alloc((size_t)n * 2, sizeof *counts);
    f->tree = memory_alloc((size_t)n, sizeof *f->tree);
    int status = 0;
    for (int32_t i = 0; i < 2 * n; i++)
        counts[i] = i < n ? f->entries[f->words + i].count : (int64_t)1e15;
    for (int32_t i = 0; i < n && status == 0; i++)
        if (counts[i] < 0 || counts[i] >= (int64_t)1e15 / n)
            status = error_set(err, "%s: a count of a label is absurd", path);
    for (int32_t i = n; i < 2 * n - 1 && status == 0; i++) {
        for (int side = 0; side < 2; side++)
            f->tree[i - n][side] = leaf >= 0 && counts[leaf] < counts[node] ? leaf-- : node++;
        counts[i] = counts[f->tree[i - n][0]] + counts[f->tree[i - n][1]];
    }
    free(counts);
    return status;
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
    if (f->loss < LOSS_HS || f->loss > LOSS_OVA)
        return error_set(err, "%s: loss %d is not known", path, f->loss);
    if (version == 11)
        f->maxn = 0;
    int32_t size = take_i32(c), words = take_i32(c), labels = take_i32(c);
    f->tokens = take_i64(c);
    int64_t pruned = take_i64(c);
    if (c->bad || size < 0 || words < 0 || labels < 1 || (int64_t)words + labels != size || (int64_t)size * 10 > c->end - c->p)
        return error_set(err, "%s: the dictionary's sizes do not fit", path);
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
    if (pruned >= 0 && read_pruned(f, c, pruned, path, err) < 0)
        return -1;
    bool quantised = take_u8(c);
    if (pruned >= 0 && !quantised)
        return error_set(err, "%s: pruned, but not quantised", path);
    int64_t rows = (int64_t)words + (pruned >= 0 ? pruned : f->bucket);
    if ((quantised ? read_quantised : read_matrix)(c, "input", rows, f->dim, &f->input, path, err) < 0)
        return -1;
    bool quantised_output = take_u8(c) && quantised;
    if ((quantised_output ? read_quantised : read_matrix)(c, "output", labels, f->dim, &f->output, path, err) < 0)
        return -1;
    return f->loss == LOSS_HS ? build_tree(f, path, err) : 0;
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

int fasttext_save(const FastText *f, Writer *w, Error *err)
{
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
