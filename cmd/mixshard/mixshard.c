/* mixshard: mixes token shards in exact proportions, with held-out documents and phases.
 *
 * A source's documents are taken in an order permuted by the seed. The first of them, until --holdout tokens are full, are
 * held out; the rest is a stream, gone through again (in another order) for each further epoch. Within a phase documents of
 * the sources are dealt so that each keeps its share as it goes, and the last document of a source in a phase is cut, so
 * that the proportions are exact to the token. Memory: one permutation in no memory, the shards mapped. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "base/option.h"
#include "base/random.h"
#include "data/shard.h"
#include "io/json.h"
#include "io/stream.h"

typedef struct Source {
    char *name;
    double weight;
    Shard shard;
    int64_t held_documents, held_tokens; /* at the head of the permuted order */
    int64_t next, epoch;                 /* place in the permuted order */
    int64_t cut;                         /* tokens of the document at `next` already used */
    int64_t taken;
    double *shares;                      /* of each phase */
} Source;

typedef struct Mix {
    Common common;
    int64_t tokens, sequence_length, holdout, max_epochs;
    OptionList phases;
    Source *sources;
    size_t count;
    double *phase_share;
    int32_t *buffer;
    size_t buffer_capacity;
} Mix;

static Mix self = {.common = COMMON_DEFAULT, .sequence_length = 1024, .max_epochs = 1};

static const Option options[] = {
    {"tokens", 0, OPTION_INTEGER, &self.tokens, "N", "tokens of the mix (rounded up to samples)", 0, 1, 1e18},
    {"seq-len", 0, OPTION_INTEGER, &self.sequence_length, "T", "sample length that the proportions are exact to (default 1024)", 0, 1, 1 << 24},
    {"holdout", 0, OPTION_INTEGER, &self.holdout, "N", "tokens of each source never trained on (default 0)", 0, 0, 1e18},
    {"max-epochs", 0, OPTION_INTEGER, &self.max_epochs, "E", "times that a source may be gone through (default 1)", 0, 1, 1e6},
    {"phase", 0, OPTION_LIST, &self.phases, "SHARE:NAME=W,…", "a stretch of the mix with weights of its own (repeatable)", 0, 0, 0},
    {"output", 'o', OPTION_STRING, &self.common.output, "DIR", "folder for train, heldout-NAME and manifest.json", 0, 0, 0},
    OPTION_COMMON_SEED(&self.common),
    OPTION_COMMON_END(&self.common),
};

/* NAME=WEIGHT:PREFIX */
static int source_open(Source *s, const char *text, Error *err)
{
    const char *equals = strchr(text, '='), *colon = equals ? strchr(equals, ':') : NULL;
    char *end = NULL;
    if (!colon || equals == text || colon[1] == 0)
        return error_set(err, "'%s' is not NAME=WEIGHT:PREFIX", text);
    s->weight = strtod(equals + 1, &end);
    if (end != colon || !(s->weight >= 0) || !isfinite(s->weight))
        return error_set(err, "'%s': the weight must be a number, not negative", text);
    s->name = memory_copy(text, (size_t)(equals - text));
    if (strchr(s->name, '/') || s->name[0] == '.')
        return error_set(err, "'%s': the name becomes part of a file's name", s->name);
    return shard_open(&s->shard, colon + 1, err);
}

static int sources_open(Mix *m, OptionSet *set, Error *err)
{
    m->sources = memory_zalloc(set->operand_count, sizeof *m->sources);
    for (size_t i = 0; i < set->operand_count; i++) {
        if (source_open(&m->sources[i], set->operands[i], err) < 0)
            return -1;
        m->count++;
        for (size_t k = 0; k < i; k++)
            if (strcmp(m->sources[k].name, m->sources[i].name) == 0)
                return error_set(err, "two sources are called '%s'", m->sources[i].name);
    }
    return 0;
}

/* "0.2:math=0.7,code=0.3": the share of the mix, and weights; a source that is not named has none there. */
static int phase_parse(Mix *m, const char *text, size_t phase, Error *err)
{
    char *end;
    m->phase_share[phase] = strtod(text, &end);
    if (*end != ':' || !(m->phase_share[phase] > 0))
        return error_set(err, "--phase %s: not SHARE:NAME=WEIGHT,…", text);
    for (size_t i = 0; i < m->count; i++)
        m->sources[i].shares[phase] = 0;
    for (const char *p = end + 1; *p;) {
        size_t n = strcspn(p, "="), k = 0;
        while (k < m->count && !(strlen(m->sources[k].name) == n && memcmp(m->sources[k].name, p, n) == 0))
            k++;
        if (k == m->count)
            return error_set(err, "--phase %s: no source is called '%.*s'", text, (int)n, p);
        if (p[n] != '=')
            return error_set(err, "--phase %s: not SHARE:NAME=WEIGHT,…", text);
        double w = strtod(p + n + 1, &end);
        if (end == p + n + 1 || !(w >= 0) || (*end && *end != ','))
            return error_set(err, "--phase %s: bad weight of '%.*s'", text, (int)n, p);
        m->sources[k].shares[phase] = w;
        p = *end ? end + 1 : end;
    }
    return 0;
}

static size_t phases_make(Mix *m, Error *err)
{
    size_t n = m->phases.count ? m->phases.count : 1;
    m->phase_share = memory_alloc(n, sizeof *m->phase_share);
    for (size_t i = 0; i < m->count; i++) {
        m->sources[i].shares = memory_alloc(n, sizeof(double));
        m->sources[i].shares[0] = m->sources[i].weight;
    }
    m->phase_share[0] = 1;
    for (size_t p = 0; p < m->phases.count; p++)
        if (phase_parse(m, m->phases.values[p], p, err) < 0)
            return 0;
    double all = 0;
    for (size_t p = 0; p < n; p++) {
        double sum = 0;
        all += m->phase_share[p];
        for (size_t i = 0; i < m->count; i++)
            sum += m->sources[i].shares[p];
        if (!(sum > 0)) {
            error_set(err, "the weights of a phase sum to 0");
            return 0;
        }
        for (size_t i = 0; i < m->count; i++)
            m->sources[i].shares[p] /= sum;
    }
    for (size_t p = 0; p < n; p++)
        m->phase_share[p] /= all;
    return n;
}

static uint64_t stream_of(size_t source, int64_t epoch)
{
    return RANDOM_SPLIT + ((uint64_t)source << 8) + ((uint64_t)epoch << 32);
}

/* The document at a place of the source's order. Held-out documents come first in every epoch's count; later epochs permute
 * the others among themselves. */
static int64_t document_of(const Mix *m, size_t source, int64_t place, int64_t epoch)
{
    const Source *s = &m->sources[source];
    int64_t n = s->shard.documents, held = s->held_documents;
    if (epoch > 0)
        place = held + (int64_t)random_permute((uint64_t)m->common.seed, stream_of(source, epoch), (uint64_t)(place - held), (uint64_t)(n - held));
    return (int64_t)random_permute((uint64_t)m->common.seed, stream_of(source, 0), (uint64_t)place, (uint64_t)n);
}

static int32_t *room_for(Mix *m, int64_t n)
{
    m->buffer = memory_grow(m->buffer, &m->buffer_capacity, (size_t)n, sizeof *m->buffer);
    return m->buffer;
}

static int64_t greatest_id(const Mix *m)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->sources[i].shard.item_size == 4)
            return INT32_MAX;
    return 65499;
}

static int write_holdout(Mix *m, size_t source, Error *err)
{
    Source *s = &m->sources[source];
    char *prefix = memory_format("%s/heldout-%s", m->common.output, s->name);
    ShardWriter *w = shard_writer_open(prefix, greatest_id(m), err);
    free(prefix);
    int status = w ? 0 : -1;
    while (status == 0 && s->held_tokens < m->holdout) {
        if (s->held_documents == s->shard.documents) {
            status = error_set(err, "source '%s': %" PRId64 " tokens cannot hold out %" PRId64, s->name, s->shard.tokens, m->holdout);
            break;
        }
        int64_t d = document_of(m, source, s->held_documents++, 0), n = s->shard.length[d];
        if (n > m->holdout - s->held_tokens)
            n = m->holdout - s->held_tokens; /* the rest of that document is not trained on either */
        int32_t *tokens = room_for(m, n);
        shard_copy(&s->shard, d, 0, n, tokens);
        status = shard_writer_add(w, tokens, n, err);
        s->held_tokens += n;
    }
    if (status < 0) {
        shard_writer_abandon(w);
        return -1;
    }
    s->next = s->held_documents;
    return shard_writer_close(w, err);
}

/* Writes the next document of a source, at most `most` tokens of it; returns how many, or -1. */
static int64_t take(Mix *m, size_t source, int64_t most, ShardWriter *w, Error *err)
{
    Source *s = &m->sources[source];
    if (s->next == s->shard.documents) {
        s->epoch++;
        s->next = s->held_documents;
        if (s->epoch >= m->max_epochs || s->next == s->shard.documents)
            return error_set(err, "source '%s' has run out: %" PRId64 " tokens to train on, gone through %" PRId64 " time%s (--max-epochs)", s->name,
                             s->shard.tokens - s->held_tokens, s->epoch, s->epoch == 1 ? "" : "s");
    }
    int64_t d = document_of(m, source, s->next, s->epoch), n = s->shard.length[d] - s->cut;
    int64_t begin = s->cut;
    if (n > most) {
        n = most;
        s->cut += n;
    } else {
        s->next++;
        s->cut = 0;
    }
    int32_t *tokens = room_for(m, n > 0 ? n : 1);
    shard_copy(&s->shard, d, begin, n, tokens);
    if (n > 0 && shard_writer_add(w, tokens, n, err) < 0)
        return -1;
    s->taken += n;
    return n;
}

/* One phase: the source that is furthest behind its share gives its next document. */
static int write_phase(Mix *m, size_t phase, int64_t tokens, ShardWriter *w, Error *err)
{
    int64_t *left = memory_alloc(m->count, sizeof *left), *whole = memory_alloc(m->count, sizeof *whole), rest = tokens;
    for (size_t i = 0; i < m->count; i++) {
        whole[i] = left[i] = (int64_t)floor(m->sources[i].shares[phase] * (double)tokens);
        rest -= left[i];
    }
    for (size_t i = 0; rest > 0; i = (i + 1) % m->count) /* what rounding has left */
        if (m->sources[i].shares[phase] > 0) {
            left[i]++;
            whole[i]++;
            rest--;
        }
    int status = 0;
    for (;;) {
        size_t best = m->count;
        double most = 0;
        for (size_t i = 0; i < m->count; i++) {
            double behind = whole[i] > 0 ? (double)left[i] / (double)whole[i] : 0;
            if (behind > most) {
                most = behind;
                best = i;
            }
        }
        if (best == m->count)
            break;
        int64_t n = take(m, best, left[best], w, err);
        if (n < 0) {
            status = -1;
            break;
        }
        left[best] -= n;
    }
    free(left);
    free(whole);
    return status;
}

static int write_manifest(const Mix *m, int64_t tokens, int64_t documents, Error *err)
{
    Buffer b = {0};
    buffer_format(&b, "{\n  \"tokens\": %" PRId64 ",\n  \"documents\": %" PRId64 ",\n  \"seq_len\": %" PRId64 ",\n  \"samples\": %" PRId64 ",\n  \"seed\": %" PRId64 ",\n  \"sources\": {",
                  tokens, documents, m->sequence_length, (tokens - 1) / m->sequence_length, m->common.seed);
    for (size_t i = 0; i < m->count; i++) {
        const Source *s = &m->sources[i];
        buffer_string(&b, i ? ",\n    " : "\n    ");
        json_write_string(&b, (Span){s->name, strlen(s->name)});
        buffer_string(&b, ": {\"prefix\": ");
        json_write_string(&b, (Span){s->shard.prefix, strlen(s->shard.prefix)});
        buffer_string(&b, ", \"weight\": ");
        json_write_number(&b, s->weight);
        buffer_format(&b, ", \"tokens\": %" PRId64 ", \"share\": ", s->taken);
        json_write_number(&b, (double)s->taken / (double)tokens);
        int64_t usable = s->shard.tokens - s->held_tokens;
        buffer_string(&b, ", \"epochs\": ");
        json_write_number(&b, usable > 0 ? (double)s->taken / (double)usable : 0);
        buffer_format(&b, ", \"held_out_tokens\": %" PRId64 ", \"held_out_documents\": %" PRId64 "}", s->held_tokens, s->held_documents);
    }
    buffer_string(&b, "\n  }\n}\n");
    char *path = memory_format("%s/manifest.json", m->common.output);
    int status = file_write(path, b.data, b.length, err);
    free(path);
    buffer_free(&b);
    return status;
}

static int run(Mix *m, OptionSet *set, Error *err)
{
    if (sources_open(m, set, err) < 0)
        return -1;
    size_t phases = phases_make(m, err);
    if (phases == 0 || folder_create(m->common.output, err) < 0)
        return -1;
    for (size_t i = 0; i < m->count; i++)
        if (m->holdout > 0 && write_holdout(m, i, err) < 0)
            return -1;
    /* Whole samples, and one token more that is the last sample's last label. */
    int64_t samples = (m->tokens + m->sequence_length - 1) / m->sequence_length, tokens = samples * m->sequence_length + 1, given = 0;
    char *prefix = memory_format("%s/train", m->common.output);
    ShardWriter *w = shard_writer_open(prefix, greatest_id(m), err);
    free(prefix);
    int status = w ? 0 : -1;
    for (size_t p = 0; p < phases && status == 0; p++) {
        int64_t n = p + 1 == phases ? tokens - given : (int64_t)(m->phase_share[p] * (double)samples) * m->sequence_length;
        status = write_phase(m, p, n, w, err);
        given += n;
    }
    if (status < 0) {
        shard_writer_abandon(w);
        return -1;
    }
    int64_t documents = shard_writer_documents(w);
    if (shard_writer_close(w, err) < 0 || write_manifest(m, tokens, documents, err) < 0)
        return -1;
    for (size_t i = 0; i < m->count; i++)
        message("%s: %" PRId64 " tokens, %.4f of the mix, %.2f epochs", m->sources[i].name, m->sources[i].taken,
                (double)m->sources[i].taken / (double)tokens,
                (double)m->sources[i].taken / (double)(m->sources[i].shard.tokens - m->sources[i].held_tokens));
    return 0;
}

int main(int argc, char **argv)
{
    OptionSet set = {.tool = "mixshard", .synopsis = "mixshard NAME=WEIGHT:PREFIX… --tokens N [OPTION]… -o DIR",
                     .summary = "Mix token shards in exact proportions, with held-out documents and phases.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    if (set.operand_count == 0)
        return message_usage("no source is named");
    if (!self.common.output)
        return message_usage("-o DIR is needed");
    if (self.tokens < 1)
        return message_usage("--tokens is needed");
    Error err;
    status = run(&self, &set, &err) < 0 ? message_failed(&err) : 0;
    for (size_t i = 0; i < self.count; i++) {
        shard_close(&self.sources[i].shard);
        free(self.sources[i].name);
        free(self.sources[i].shares);
    }
    free(self.sources);
    free(self.phase_share);
    free(self.buffer);
    option_free(&set);
    return status;
}
