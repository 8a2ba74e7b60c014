/* Log-probabilities of continuations, many in one pass: they are packed one behind the other, and attention stays inside each.
 * What the requests of a group begin with (the context of a question's choices) is computed once: its keys and values go to pages of
 * a KV cache that the rest of each request continues. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "lmeval.h"
#include "text/unicode.h"
#include "text/utf8.h"

void requests_add(Requests *q, Eval *e, const int32_t *ids, int64_t count, int64_t context)
{
    /* max_length + 1 tokens fit: the last one is only a label (lm-evaluation-harness, api/model.py). */
    int64_t drop = count - (e->max_length + 1) > 0 ? count - (e->max_length + 1) : 0;
    q->items = memory_grow(q->items, &q->capacity, q->count + 1, sizeof *q->items);
    Request *r = &q->items[q->count++];
    *r = (Request){.first = q->ids.count, .count = count - drop, .context = context - drop < 1 ? 1 : context - drop, .greedy = true, .group = q->group};
    for (int64_t i = drop; i < count; i++)
        ids_add(&q->ids, ids[i]);
    q->rows += r->count - 1;
    e->tokens += r->count;
}

void requests_group(Requests *q)
{
    q->group++;
}

/* Appends a text's ids, behind the token that the tokenizer puts before every text, where it does. */
static int encode(Eval *e, Span text, Ids *ids, Error *err)
{
    if (tokenizer_begins(e->tokenizer) >= 0)
        ids_add(ids, tokenizer_begins(e->tokenizer));
    return encoder_encode(e->encoder, text, NULL, ids, err);
}
int requests_add_rolling(Requests *q, Eval *e, Ids *ids, Span text, Error *err)
{
    int32_t prefix;
    ids->count = 0;
    if (eval_prefix(e, &prefix, err) < 0)
        return -1;
    ids_add(ids, prefix);
    if (encode(e, text, ids, err) < 0)
        return -1;
    int64_t n = (int64_t)ids->count;
    for (int64_t done = 1; done < n;) {
        int64_t end = done + e->max_length < n ? done + e->max_length : n;
        int64_t begin = end - e->max_length - 1 > 0 ? end - e->max_length - 1 : 0;
        requests_add(q, e, ids->data + begin, end - begin, done - begin);
        done = end;
    }
    return 0;
}

int64_t text_words(Span s)
{
    int64_t n = 1;
    bool blank = false;
    for (size_t i = 0, length; i < s.length; i += length) {
        bool b = unicode_is_blank(utf8_decode(s.data + i, &length));
        n += b && !blank;
        blank = b;
    }
    return n;
}

void requests_cut(Requests *q, size_t count)
{
    while (q->count > count) {
        const Request *r = &q->items[--q->count];
        q->rows -= r->count - 1;
        q->ids.count = r->first;
    }
}

void requests_free(Requests *q)
{
    free(q->items);
    ids_free(&q->ids);
    *q = (Requests){0};
}

bool requests_full(const Requests *q, const Eval *e)
{
    return q->rows >= 4 * e->slot.rows;
}

int eval_slot(Eval *e, int64_t rows, Error *err)
{
    if (rows <= e->slot.rows)
        return 0;
    slot_free(&e->slot);
    return slot_new(&e->slot, &e->model, rows, MODE_SCORE, err);
}

static int score_packed(Eval *e, const Requests *q, Request *r, size_t n, int64_t rows, Error *err)
{
    if (rows == 0)
        return 0;
    if (eval_slot(e, rows, err) < 0)
        return -1;
    Batch b;
    batch_new(&b, 1, rows);
    int64_t at = 0;
    for (size_t i = 0; i < n; at += r[i++].count - 1) {
        const int32_t *ids = q->ids.data + r[i].first;
        batch_place(&b, at, ids, ids + 1, NULL, r[i].count - 1, -1, 0, (int64_t)i);
        for (int64_t t = 0; t + 1 < r[i].context; t++)
            b.labels[at + t] = -1;
    }
    int status = slot_load(&e->slot, &b, err);
    if (status == 0) {
        float *lp = memory_alloc((size_t)rows, sizeof *lp);
        int32_t *best = memory_alloc((size_t)rows, sizeof *best);
        model_forward(&e->model, &e->slot);
        head_logprobs(&e->model, &e->slot, b.labels, lp, NULL, best);
        at = 0;
        for (size_t i = 0; i < n; at += r[i++].count - 1)
            for (int64_t t = r[i].context - 1; t < r[i].count - 1; t++) {
                r[i].logprob += (double)lp[at + t];
                r[i].greedy &= best[at + t] == b.labels[at + t];
            }
        free(lp);
        free(best);
    }
    batch_free(&b);
    return status;
}

/* Neighbours of one group that have their first `shared` tokens in common. */
typedef struct Family {
    size_t first, count;
    int64_t shared, rows, pages; /* rows behind what is shared; pages of all */
} Family;

enum { FEWEST_SHARED = 8 };

/* The row behind which a continuation's first token stands is each request's own, so that its labels may differ. */
static Family family_at(const Requests *q, size_t first, size_t last)
{
    const Request *r = q->items;
    Family f = {.first = first, .shared = r[first].context - 1};
    for (size_t i = first; i < last && r[i].group == r[first].group; i++, f.count++) {
        int64_t n = r[i].context - 1 < f.shared ? r[i].context - 1 : f.shared, same = 0;
        while (same < n && q->ids.data[r[i].first + (size_t)same] == q->ids.data[r[first].first + (size_t)same])
            same++;
        f.shared = same;
    }
    if (f.count < 2 || f.shared < FEWEST_SHARED)
        return (Family){.first = first, .count = 1};
    f.pages = cache_pages(f.shared);
    for (size_t i = first; i < first + f.count; i++) {
        f.rows += r[i].count - 1 - f.shared;
        f.pages += cache_pages(r[i].count - 1) - f.shared / PAGE_TOKENS;
    }
    return f;
}

static int cache_ready(Eval *e, int64_t pages, Error *err)
{
    int64_t least = 4 * e->slot.rows / PAGE_TOKENS, longest = e->max_length;
    if (e->cache.model && e->cache.pages >= pages && e->cache.table_rows >= e->slot.rows)
        return 0;
    cache_close(&e->cache);
    return cache_open(&e->cache, &e->model, (pages > least ? pages : least) * PAGE_TOKENS, longest, e->slot.rows, err);
}

/* The rest of each request, in one pass over forks of what its family has in common. */
static int score_branches(Eval *e, const Requests *q, const Family *families, size_t n, const Sequence *roots, int64_t rows, Error *err)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += families[i].count;
    Sequence *branches = memory_zalloc(count, sizeof *branches);
    const int32_t **tokens = memory_alloc(count, sizeof *tokens);
    int64_t *counts = memory_alloc(count, sizeof *counts), at = 0;
    int32_t *labels = memory_alloc((size_t)rows, sizeof *labels), *best = memory_alloc((size_t)rows, sizeof *best);
    float *lp = memory_alloc((size_t)rows, sizeof *lp);
    size_t k = 0;
    int status = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t m = 0; m < families[i].count; m++, k++) {
            const Request *r = &q->items[families[i].first + m];
            if (status == 0)
                status = sequence_fork(&e->cache, &branches[k], &roots[i], err);
            tokens[k] = q->ids.data + r->first + families[i].shared;
            counts[k] = r->count - 1 - families[i].shared;
            for (int64_t t = families[i].shared; t + 1 < r->count; t++)
                labels[at++] = t + 1 < r->context ? -1 : q->ids.data[r->first + (size_t)t + 1];
        }
    if (status == 0)
        status = cache_extend(&e->cache, &e->slot, tokens, counts, branches, (int64_t)count, labels, err);
    if (status == 0) {
        head_logprobs(&e->model, &e->slot, labels, lp, NULL, best);
        at = 0;
        for (size_t i = 0; i < n; i++)
            for (size_t m = 0; m < families[i].count; m++) {
                Request *r = &q->items[families[i].first + m];
                for (int64_t t = families[i].shared; t + 1 < r->count; t++, at++)
                    if (labels[at] >= 0) {
                        r->logprob += (double)lp[at];
                        r->greedy &= best[at] == labels[at];
                    }
            }
    }
    for (k = 0; k < count; k++)
        sequence_free(&e->cache, &branches[k]);
    free(branches);
    free(tokens);
    free(counts);
    free(labels);
    free(best);
    free(lp);
    return status;
}

static int score_families(Eval *e, const Requests *q, const Family *families, size_t n, int64_t shared, int64_t rows, int64_t pages, Error *err)
{
    if (eval_slot(e, rows > shared ? rows : shared, err) < 0 || cache_ready(e, pages, err) < 0)
        return -1;
    Sequence *roots = memory_zalloc(n, sizeof *roots);
    const int32_t **tokens = memory_alloc(n, sizeof *tokens);
    int64_t *counts = memory_alloc(n, sizeof *counts);
    for (size_t i = 0; i < n; i++) {
        tokens[i] = q->ids.data + q->items[families[i].first].first;
        counts[i] = families[i].shared;
    }
    int status = cache_prefill(&e->cache, &e->slot, tokens, counts, (int64_t)n, roots, NULL, err);
    if (status == 0)
        status = score_branches(e, q, families, n, roots, rows, err);
    for (size_t i = 0; i < n; i++)
        sequence_free(&e->cache, &roots[i]);
    free(roots);
    free(tokens);
    free(counts);
    return status;
}

/* As many families from request `first` on as a pass takes; *count gets how many requests they are, 0 where the first has none. */
static int score_some_families(Eval *e, const Requests *q, size_t first, size_t *count, Error *err)
{
    enum { MOST = 512 };
    Family families[MOST];
    int64_t shared = 0, rows = 0, pages = 0, room = 4 * e->slot.rows / PAGE_TOKENS;
    size_t n = 0, at = first;
    while (at < q->count && n < MOST) {
        Family f = family_at(q, at, q->count);
        bool fits = n == 0 || (shared + f.shared <= e->slot.rows && rows + f.rows <= e->slot.rows && pages + f.pages <= room);
        if (f.shared == 0 || !fits)
            break;
        families[n++] = f;
        shared += f.shared;
        rows += f.rows;
        pages += f.pages;
        at += f.count;
    }
    *count = at - first;
    return n ? score_families(e, q, families, n, shared, rows, pages, err) : 0;
}

int requests_score(Requests *q, Eval *e, Error *err)
{
    for (size_t first = 0, n; first < q->count; first += n) {
        if (score_some_families(e, q, first, &n, err) < 0)
            return -1;
        if (n > 0)
            continue;
        int64_t rows = 0;
        for (n = 0; first + n < q->count && (n == 0 || rows + q->items[first + n].count - 1 <= e->slot.rows) && family_at(q, first + n, q->count).shared == 0; n++)
            rows += q->items[first + n].count - 1;
        if (score_packed(e, q, q->items + first, n, rows, err) < 0)
            return -1;
    }
    return 0;
}

/* What a text begins with where nothing stands before it: BOS, else EOS. */
int eval_prefix(const Eval *e, int32_t *id, Error *err)
{
    *id = tokenizer_bos(e->tokenizer) >= 0 ? tokenizer_bos(e->tokenizer) : tokenizer_eos(e->tokenizer);
    return *id >= 0 ? 0 : error_set(err, "the tokenizer names neither a bos_token nor an eos_token to begin a text with");
}

