/* Log-probabilities of continuations, many in one pass: they are packed one behind the other, and attention stays inside each. */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "lmeval.h"
#include "text/unicode.h"
#include "text/utf8.h"

void requests_add(Requests *q, const Eval *e, const int32_t *ids, int64_t count, int64_t context)
{
    /* max_length + 1 tokens fit: the last one is only a label (lm-evaluation-harness, api/model.py). */
    int64_t drop = count - (e->max_length + 1) > 0 ? count - (e->max_length + 1) : 0;
    q->items = memory_grow(q->items, &q->capacity, q->count + 1, sizeof *q->items);
    Request *r = &q->items[q->count++];
    *r = (Request){.first = q->ids.count, .count = count - drop, .context = context - drop < 1 ? 1 : context - drop, .greedy = true, .group = q->group};
    for (int64_t i = drop; i < count; i++)
        ids_add(&q->ids, ids[i]);
    q->rows += r->count - 1;
}

void requests_group(Requests *q)
{
    q->group++;
}

int requests_add_rolling(Requests *q, Eval *e, Ids *ids, Span text, Error *err)
{
    int32_t prefix;
    ids->count = 0;
    if (eval_prefix(e, &prefix, err) < 0)
        return -1;
    ids_add(ids, prefix);
    if (eval_encode(e, text, ids, err) < 0)
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

int requests_score(Requests *q, Eval *e, Error *err)
{
    for (size_t first = 0, n; first < q->count; first += n) {
        int64_t rows = 0;
        for (n = 0; first + n < q->count && (n == 0 || rows + q->items[first + n].count - 1 <= e->slot.rows); n++)
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

int eval_encode(Eval *e, Span text, Ids *ids, Error *err)
{
    if (tokenizer_begins(e->tokenizer) >= 0)
        ids_add(ids, tokenizer_begins(e->tokenizer));
    return encoder_encode(e->encoder, text, NULL, ids, err);
}
