/* mixshard: token shards with weights in, one mixed shard out, with documents of each source held out for testing. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/message.h"
#include "base/option.h"
#include "base/progress.h"
#include "base/stop.h"
#include "io/json.h"
#include "io/stats.h"
#include "io/stream.h"
#include "mix.h"

static Common common = COMMON_DEFAULT;
static int64_t tokens, sequence_length = 2048, holdout, vocabulary;
static const char *shuffle = "document";
static OptionList phases, epochs;

static const Option options[] = {
    {"output", 'o', OPTION_STRING, &common.output, "DIR", "folder to write (required)", 0, 0, 0},
    {"tokens", 0, OPTION_INTEGER, &tokens, "N", "tokens of the mix (required)", 0, 1, 9e18},
    {"seq-len", 0, OPTION_INTEGER, &sequence_length, "T", "sequence length (default 2048)", 0, 1, 1 << 30},
    {"holdout", 0, OPTION_INTEGER, &holdout, "N", "tokens of each source to hold out (default 0)", 0, 0, 9e18},
    {"phase", 0, OPTION_LIST, &phases, "SHARE:NAME=W,…", "the next part of the mix has its own weights", 0, 0, 0},
    {"max-epochs", 0, OPTION_LIST, &epochs, "[NAME=]E", "how often a source may be seen (default 1)", 0, 0, 0},
    {"shuffle", 0, OPTION_CHOICE, &shuffle, "UNIT", "document (default) or sequence", "document|sequence", 0, 0},
    {"vocab-size", 0, OPTION_INTEGER, &vocabulary, "N", "ids lie below it (default: by the inputs' type)", 0, 1, 2147483647},
    OPTION_COMMON_SEED(&common),
    OPTION_COMMON_DRY_RUN(&common),
    {"threads", 'j', OPTION_INTEGER, &common.threads, "N", "as everywhere; one does the work", 0, 0, 4096},
    OPTION_COMMON_END(&common),
};

static OptionSet set = {
    .tool = "mixshard",
    .synopsis = "mixshard NAME=WEIGHT:PREFIX... --tokens N --seq-len T [OPTION]... -o DIR",
    .summary = "Mix token shards in exact proportions, and hold documents of each source out.",
    .options = options,
    .footer = "Writes DIR/train.{bin,idx}, DIR/heldout-NAME.{bin,idx}, last DIR/manifest.json.",
};

typedef struct Copy {
    int32_t *tokens;
    size_t capacity;
} Copy;

static int copy_piece(ShardWriter *w, Copy *c, const Source *s, int64_t document, int64_t begin, int64_t n, Error *err)
{
    c->tokens = memory_grow(c->tokens, &c->capacity, (size_t)n, sizeof *c->tokens);
    shard_copy(&s->shard, document, begin, n, c->tokens);
    if (shard_writer_add(w, c->tokens, n, err) < 0)
        return error_prefix(err, "%s: document %" PRId64, s->prefix, document);
    return 0;
}

static int write_heldout(ShardWriter *w, const Source *s, Copy *c, Error *err)
{
    int64_t left = holdout;
    int status = 0;
    for (size_t i = 0; i < s->held_out_count && status == 0; i++) {
        int64_t n = s->shard.length[s->held_out[i]] < left ? s->shard.length[s->held_out[i]] : left;
        status = copy_piece(w, c, s, s->held_out[i], 0, n, err);
        left -= n;
    }
    return status;
}

/* The source that is furthest behind its share of what the phase has so far goes next: any stretch has the proportions to
 * within a document or so. */
static int write_phase(Mix *m, const Phase *p, ShardWriter *w, Copy *c, Progress *progress, Error *err)
{
    int64_t *given = memory_zalloc(m->count, sizeof *given), done = 0;
    int status = 0;
    while (done < p->total && status == 0) {
        size_t next = m->count;
        double most = -INFINITY;
        for (size_t i = 0; i < m->count; i++) {
            double behind = (double)p->tokens[i] / (double)p->total * (double)done - (double)given[i];
            if (given[i] < p->tokens[i] && behind > most) {
                most = behind;
                next = i;
            }
        }
        Source *s = &m->sources[next];
        int64_t document, begin, n;
        source_next(s, p->tokens[next] - given[next], &document, &begin, &n);
        status = copy_piece(w, c, s, document, begin, n, err);
        given[next] += n;
        done += n;
        s->used += n;
        s->entries++;
        progress_set(progress, (uint64_t)shard_writer_tokens(w));
        if (status == 0 && stop_requested())
            status = error_set(err, "stopped by a signal; nothing is written");
    }
    free(given);
    return status;
}

static int write_train(Mix *m, ShardWriter *w, Copy *c, Error *err)
{
    Progress *progress = progress_begin(&common, "tokens", (uint64_t)m->tokens);
    int status = 0;
    for (size_t p = 0; p < m->phase_count && status == 0; p++)
        status = write_phase(m, &m->phases[p], w, c, progress, err);
    progress_end(progress);
    return status;
}

/* Of source i's held-out shard, or with i = count of the mix. */
static char *shard_prefix(const Mix *m, size_t i)
{
    return i < m->count ? memory_format("%s/heldout-%s", common.output, m->sources[i].name) : memory_format("%s/train", common.output);
}

/* All shards, under temporary names: shards[i] of source i (NULL where nothing is held out), then the mix. */
static int shards_write(Mix *m, ShardWriter **shards, Error *err)
{
    Copy copy = {0};
    int status = 0;
    for (size_t i = holdout > 0 ? 0 : m->count; i <= m->count && status == 0; i++) {
        char *prefix = shard_prefix(m, i);
        shards[i] = shard_writer_open(prefix, vocabulary, err);
        free(prefix);
        status = !shards[i] ? -1 : i < m->count ? write_heldout(shards[i], &m->sources[i], &copy, err) : write_train(m, shards[i], &copy, err);
    }
    free(copy.tokens);
    return status;
}

static void remove_file(const char *prefix, const char *suffix)
{
    char *path = memory_format("%s%s", prefix, suffix);
    unlink(path);
    free(path);
}

static bool is_source(const Mix *m, const char *prefix)
{
    char *path = memory_format("%s.idx", prefix);
    struct stat here, there;
    bool found = false;
    for (size_t i = 0; i < m->count && stat(path, &here) == 0 && !found; i++) {
        char *source = memory_format("%s.idx", m->sources[i].prefix);
        found = stat(source, &there) == 0 && here.st_dev == there.st_dev && here.st_ino == there.st_ino;
        free(source);
    }
    free(path);
    return found;
}

/* Gives the shards their names. An older mix goes first, so that at no moment its tokens stand beside documents that were held
 * out of other ones, nor its manifest beside new shards. */
static int shards_name(const Mix *m, ShardWriter **shards, Error *err)
{
    char *manifest = memory_format("%s/manifest", common.output);
    remove_file(manifest, ".json");
    free(manifest);
    for (size_t i = 0; i <= m->count; i++) {
        char *prefix = shard_prefix(m, i);
        bool keep = !shards[i] && is_source(m, prefix);
        if (!keep)
            remove_file(prefix, ".idx");
        if (!keep && !shards[i])
            remove_file(prefix, ".bin");
        free(prefix);
    }
    int status = 0;
    for (size_t i = 0; i <= m->count && status == 0; i++)
        if (shards[i]) {
            ShardWriter *w = shards[i];
            shards[i] = NULL;
            status = shard_writer_close(w, err);
        }
    return status;
}

static void key(Buffer *b, const char *before, const char *name)
{
    buffer_string(b, before);
    json_write_string(b, (Span){name, strlen(name)});
    buffer_string(b, ": ");
}

static void number(Buffer *b, const char *before, const char *name, double x)
{
    key(b, before, name);
    json_write_number(b, x);
}

static void manifest(const Mix *m, int64_t entries, Buffer *b)
{
    buffer_format(b, "{\"tool\": \"mixshard\", \"version\": \"%s\",\n \"tokens\": %" PRId64 ", \"documents\": %" PRId64 ", \"seq_len\": %" PRId64
                     ", \"seed\": %" PRId64 ", \"shuffle\": \"%s\", \"holdout\": %" PRId64 ", \"dtype\": \"%s\",\n \"sources\": [",
                  LMPIPE_VERSION, m->tokens, entries, sequence_length, common.seed, shuffle, holdout, vocabulary < 65500 ? "uint16" : "int32");
    for (size_t i = 0; i < m->count; i++) {
        const Source *s = &m->sources[i];
        key(b, i ? ",\n  {" : "\n  {", "name");
        json_write_string(b, (Span){s->name, strlen(s->name)});
        key(b, ", ", "prefix");
        json_write_string(b, (Span){s->prefix, strlen(s->prefix)});
        buffer_format(b, ", \"tokens\": %" PRId64 ", \"documents\": %" PRId64 ", \"heldout_tokens\": %" PRId64 ", \"heldout_documents\": %zu"
                         ", \"excluded_tokens\": %" PRId64 ", \"excluded_documents\": %" PRId64 ", \"train_tokens\": %" PRId64
                         ", \"used_tokens\": %" PRId64 ", \"entries\": %" PRId64,
                      s->shard.tokens, s->shard.documents, holdout, s->held_out_count, s->held_tokens, s->held_documents, s->train_tokens, s->used,
                      s->entries);
        number(b, ", ", "max_epochs", s->max_epochs);
        number(b, ", ", "epochs", s->train_tokens ? (double)s->used / (double)s->train_tokens : 0);
        number(b, ", ", "share", (double)s->used / (double)m->tokens);
        buffer_byte(b, '}');
    }
    buffer_string(b, "],\n \"phases\": [");
    int64_t begin = 0;
    bool first = true;
    for (size_t p = 0; p < m->phase_count; p++) {
        const Phase *one = &m->phases[p];
        if (one->total == 0)
            continue;
        buffer_format(b, "%s\n  {\"begin\": %" PRId64 ", \"tokens\": %" PRId64 ", \"sources\": {", first ? "" : ",", begin, one->total);
        for (size_t i = 0; i < m->count; i++) {
            key(b, i ? ", " : "", m->sources[i].name);
            buffer_format(b, "%" PRId64, one->tokens[i]);
        }
        buffer_string(b, "}}");
        begin += one->total;
        first = false;
    }
    buffer_string(b, "]}\n");
}

/* A phase of less than about half a sample is rounded away, and what it asked for with it; the last one keeps the last label. */
static void warn_of_phases(const Mix *m)
{
    for (size_t p = 0; p < m->phase_count; p++)
        if (m->phases[p].share > 0 && m->phases[p].total <= (m->tokens > 1))
            message_warning("a share of %g of %" PRId64 " tokens is no sample of %" PRId64 ": that phase is left out", m->phases[p].share, m->tokens,
                            sequence_length);
}

static void report(const Mix *m, bool planned)
{
    for (size_t i = 0; i < m->count; i++) {
        const Source *s = &m->sources[i];
        int64_t n = planned ? s->wanted : s->used;
        message("%s: %" PRId64 " tokens (%.4f %%), %.3f epochs of %" PRId64 "; %" PRId64 " held out", s->name, n, 100.0 * (double)n / (double)m->tokens,
                s->train_tokens ? (double)n / (double)s->train_tokens : 0.0, s->train_tokens, holdout);
    }
}

static int mix(Mix *m, Error *err)
{
    double begun = clock_seconds();
    bool wide = false;
    if (mix_open(m, (uint64_t)common.seed, strcmp(shuffle, "sequence") == 0 ? sequence_length : 0, err) < 0 ||
        mix_hold_out(m, holdout, (uint64_t)common.seed, err) < 0)
        return -1;
    /* Whole samples, and one token more that is the last sample's last label; where a source has too few for that, N alone. */
    int64_t samples = tokens / sequence_length + (tokens % sequence_length != 0), whole;
    if ((__builtin_mul_overflow(samples, sequence_length, &whole) || mix_plan(m, whole + 1, sequence_length, NULL) < 0) && mix_plan(m, tokens, sequence_length, err) < 0)
        return -1;
    warn_of_phases(m);
    for (size_t i = 0; i < m->count; i++)
        wide |= m->sources[i].shard.item_size == 4;
    if (vocabulary == 0)
        vocabulary = wide ? INT32_MAX : 65499;
    if (common.dry_run) {
        report(m, true);
        return 0;
    }
    char *path = memory_format("%s/manifest.json", common.output);
    ShardWriter **shards = memory_zalloc(m->count + 1, sizeof *shards);
    Buffer text = {0};
    int64_t entries = 0;
    int status = folder_create(common.output, err);
    if (status == 0)
        status = shards_write(m, shards, err);
    if (status == 0) {
        entries = shard_writer_documents(shards[m->count]);
        status = shards_name(m, shards, err);
    }
    for (size_t i = 0; i <= m->count; i++)
        shard_writer_abandon(shards[i]);
    if (status == 0) {
        manifest(m, entries, &text);
        status = file_write(path, text.data, text.length, err);
    }
    if (status == 0) {
        report(m, false);
        const StatsItem items[] = {{"tokens", (double)m->tokens}, {"documents", (double)entries}, {"sources", (double)m->count}};
        status = stats_write(common.stats, items, sizeof items / sizeof *items, begun, err);
    }
    free(path);
    free(shards);
    buffer_free(&text);
    return status;
}

int main(int argc, char **argv)
{
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Error err;
    Mix m;
    if (!common.output || tokens == 0 || set.operand_count == 0)
        return message_usage(!common.output ? "-o DIR is needed" : tokens == 0 ? "--tokens N is needed" : "no source is named");
    if (mix_parse(&m, &set, &phases, &epochs, &err) < 0)
        return message_usage("%s", err.text);
    stop_install();
    status = mix(&m, &err) < 0 ? message_failed(&err) : 0;
    if (status != 0 && stop_requested())
        status = STATUS_STOPPED;
    mix_free(&m);
    option_free(&set);
    return status;
}
