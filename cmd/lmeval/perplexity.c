/* Perplexity and bits per byte of documents or a token shard.
 *
 * Documents are scored by rolling windows as lm-evaluation-harness does (utils.get_rolling_token_windows): the first window
 * begins behind the prefix token, later full ones see one token of context, the last is filled up from the left. Bytes are
 * those of the text. A shard's samples are scored as training sees them; its bytes are those of the decoded labels. */
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
    Ids ids;
} Sums;

static int32_t prefix_token(const Eval *e)
{
    int32_t bos = tokenizer_bos(e->tokenizer), eos = tokenizer_eos(e->tokenizer);
    return bos >= 0 ? bos : eos;
}

static int64_t word_count(Span s)
{
    /* len(re.split(r"\s+", text)): one more than the runs of white space. */
    int64_t n = 1;
    bool blank = false;
    for (size_t i = 0; i < s.length; i++) {
        bool b = strchr(" \t\n\r\f\v", s.data[i]) && s.data[i];
        n += b && !blank;
        blank = b;
    }
    return n;
}

static int score_document(void *context, Document *d, Error *err)
{
    Sums *s = context;
    Eval *e = s->e;
    if (e->limit && s->documents >= e->limit)
        return 0;
    s->ids.count = 0;
    int32_t prefix = prefix_token(e);
    if (prefix < 0)
        return error_set(err, "the tokenizer names neither a bos_token nor an eos_token to begin a text with");
    ids_add(&s->ids, prefix);
    if (encoder_encode(e->encoder, d->text, NULL, &s->ids, err) < 0)
        return -1;
    int64_t n = (int64_t)s->ids.count;
    for (int64_t done = 1; done < n;) {
        int64_t end = done + e->max_length < n ? done + e->max_length : n;
        int64_t begin = end - e->max_length - 1 > 0 ? end - e->max_length - 1 : 0;
        double logprob;
        bool greedy;
        if (eval_continuation(e, s->ids.data + begin, end - begin, done - begin, &logprob, &greedy, err) < 0)
            return -1;
        s->nll -= logprob;
        done = end;
    }
    s->tokens += n - 1;
    s->bytes += (double)d->text.length;
    s->words += word_count(d->text);
    s->documents++;
    return 0;
}

static int score_shard(Sums *s, const char *prefix, Error *err)
{
    Eval *e = s->e;
    Shard shard;
    if (shard_open(&shard, prefix, err) < 0)
        return -1;
    int status = shard_check_ids(&shard, e->model.config.vocab_size, err);
    int64_t samples = samples_count(&shard, e->max_length), sequences = e->slot.rows / e->max_length;
    if (status == 0 && samples < 1)
        status = error_set(err, "%s: %" PRId64 " tokens are less than one sample of %" PRId64, prefix, shard.tokens, e->max_length);
    if (e->limit && samples > e->limit)
        samples = e->limit;
    Batch b;
    batch_new(&b, sequences, e->max_length);
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
        DocumentReader r = {.common = &plain, .files = files, .emit = score_document, .context = &s};
        status = document_run(&r, err);
        document_report(&r);
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
    ids_free(&s.ids);
    free(index);
    free(name);
    return status;
}
