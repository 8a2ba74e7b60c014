/* Perplexity and bits per byte of documents or a token shard.
 *
 * Documents are scored by rolling windows; bytes are those of the text. A shard's samples are scored as training sees them; its bytes are those of the decoded labels. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "data/document.h"
#include "data/samples.h"
#include "lmeval.h"

typedef struct Sums {
    Eval *e;
    double nll, bytes;
    int64_t tokens, words, documents;
    Requests requests;
    Ids ids;
} Sums;

static int score_waiting(Sums *s, Error *err)
{
    int status = requests_score(&s->requests, s->e, err);
    for (size_t i = 0; i < s->requests.count; i++)
        s->nll -= s->requests.items[i].logprob;
    requests_cut(&s->requests, 0);
    return status;
}

static int take_document(void *context, Document *d, Error *err)
{
    Sums *s = context;
    Eval *e = s->e;
    if (e->limit && s->documents >= e->limit)
        return 0;
    requests_group(&s->requests);
    if (requests_add_rolling(&s->requests, e, &s->ids, d->text, err) < 0)
        return -1;
    int64_t n = (int64_t)s->ids.count;
    s->tokens += n - 1;
    s->bytes += (double)d->text.length;
    s->words += text_words(d->text);
    s->documents++;
    return requests_full(&s->requests, e) ? score_waiting(s, err) : 0;
}

static int score_shard(Sums *s, const char *prefix, Error *err)
{
    Eval *e = s->e;
    Shard shard;
    if (shard_open(&shard, prefix, err) < 0)
        return -1;
    int status = shard_check_ids(&shard, e->model.config.vocab_size, err);
    if (status == 0)
        status = eval_slot(e, e->sample_length, err);
    int64_t samples = samples_count(&shard, e->sample_length), sequences = e->slot.rows / e->sample_length;
    if (status == 0 && samples < 1)
        status = error_set(err, "%s: %" PRId64 " tokens are less than one sample of %" PRId64, prefix, shard.tokens, e->sample_length);
    if (e->limit && samples > e->limit)
        samples = e->limit;
    Batch b;
    batch_new(&b, status == 0 ? sequences : 1, e->sample_length);
    float *lp = memory_alloc((size_t)b.rows, sizeof *lp);
    for (int64_t g = 0; g < samples && status == 0; g += sequences) {
        batch_clear(&b);
        for (int64_t i = 0; i < sequences && g + i < samples; i++)
            samples_place(&shard, g + i, &b, i);
        status = slot_load(&e->slot, &b, err);
        if (status < 0)
            break;
        model_forward(&e->model, &e->slot);
        head_logprobs(&e->model, &e->slot, b.labels, lp, NULL, NULL);
        for (int64_t r = 0; r < b.rows; r++)
            if (b.labels[r] >= 0) {
                s->nll -= (double)lp[r];
                s->tokens++;
                if (!tokenizer_is_special(e->tokenizer, b.labels[r]))
                    s->bytes += (double)tokenizer_bytes(e->tokenizer, b.labels[r]).length;
            }
    }
    s->documents = samples;
    free(lp);
    batch_free(&b);
    shard_close(&shard);
    return status;
}

int eval_perplexity(Eval *e, const char *path, Error *err)
{
    Sums s = {.e = e};
    char *index = memory_format("%s.idx", path), *name = task_name(path);
    bool shard = access(index, F_OK) == 0;
    int status;
    if (shard) {
        status = score_shard(&s, path, err);
    } else {
        const char *files[] = {path, NULL};
        Common plain = e->common;
        plain.threads = 1;
        DocumentReader r = {.common = &plain, .files = files, .emit = take_document, .context = &s};
        status = document_run(&r, err);
        document_report(&r);
        if (status == 0)
            status = score_waiting(&s, err);
    }
    if (status == 0 && s.tokens == 0)
        status = error_set(err, "%s: no tokens to measure on", path);
    if (status == 0) {
        result_print(e, name, "token_perplexity", exp(s.nll / (double)s.tokens), NAN, s.tokens);
        if (!shard)
            result_print(e, name, "word_perplexity", exp(s.nll / (double)s.words), NAN, s.documents);
        result_print(e, name, "byte_perplexity", exp(s.nll / s.bytes), NAN, s.documents);
        result_print(e, name, "bits_per_byte", s.nll / (s.bytes * M_LN2), NAN, s.documents);
    }
    requests_free(&s.requests);
    ids_free(&s.ids);
    free(index);
    free(name);
    return status;
}
