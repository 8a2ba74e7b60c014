/* dedup apply: what becomes of each document, by the matches of a round; and, once all is decided, a part without what is removed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/message.h"
#include "base/progress.h"
#include "parts.h"
#include "shingle.h"

static const char *share = "1/1", *fates_path, *removed_path;
static Dedup self = {.common = COMMON_DEFAULT};

static const Option options[] = {
    {"fates", 0, OPTION_STRING, &fates_path, "FILE", "what becomes of each document; a round writes it anew", 0, 0, 0},
    {"part", 0, OPTION_STRING, &share, "I/N", "DOCUMENTS are those of the I-th of N SIGNATURES (default 1/1)", 0, 0, 0},
    {"removed", 0, OPTION_STRING, &removed_path, "FILE", "write removed documents there, with the reason", 0, 0, 0},
    OPTION_COMMON_OUTPUT(&self.common),
    OPTION_MEMORY_OF_TABLES(&self.common),
    OPTION_COMMON_TMP(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_END(&self.common),
};

/* One document's matches of this round. */
typedef struct Matches {
    uint64_t first;   /* the first kept document that it is like; UINT64_MAX: none */
    uint64_t waiting; /* the first that it is like and that may yet be kept */
    bool open;        /* some before it have not been compared with it */
} Matches;

static uint64_t decide(uint64_t fate, const Matches *m, uint32_t round)
{
    int kind = fate_kind(fate);
    if (kind == FATE_KEPT || kind == FATE_REMOVED)
        return fate;
    uint64_t match = kind == FATE_REMOVED_FOR_NOW && fate_value(fate) < m->first ? fate_value(fate) : m->first;
    if (match != UINT64_MAX)
        return fate_make(m->open || m->waiting < match ? FATE_REMOVED_FOR_NOW : FATE_REMOVED, match);
    return m->open || m->waiting != UINT64_MAX ? fate_make(FATE_UNDECIDED, 0) : fate_make(FATE_KEPT, round);
}

/* Documents in order: those before one are as decided as they get when it comes. fates: in place. */
static int decide_all(const Inputs *in, Sorter *sorter, uint64_t *fates, uint32_t round, uint64_t *left, Error *err)
{
    SortRecord r;
    int got = sorter_next(sorter, &r, err);
    for (uint64_t i = 0; i < in->terms.documents && got >= 0; i++) {
        Matches m = {UINT64_MAX, UINT64_MAX, false};
        for (; got > 0 && r.key[0] == i; got = sorter_next(sorter, &r, err)) {
            int kind = r.key[1] == PAIR_OPEN ? FATE_REMOVED : fate_kind(fates[r.key[1]]);
            m.open |= r.key[1] == PAIR_OPEN;
            if (kind == FATE_KEPT && r.key[1] < m.first)
                m.first = r.key[1];
            if (kind == FATE_UNDECIDED && r.key[1] < m.waiting)
                m.waiting = r.key[1];
        }
        fates[i] = decide(fates[i], &m, round);
        *left += fate_kind(fates[i]) == FATE_UNDECIDED || fate_kind(fates[i]) == FATE_REMOVED_FOR_NOW;
    }
    return got;
}

/* One round; --fates is read, if it is there, and written anew. */
static int round_run(const Inputs *in, Error *err)
{
    Fates old = {0};
    Writer *out = NULL;
    uint64_t *fates = memory_zalloc(in->terms.documents, sizeof *fates), left = 0;
    Sorter *sorter = sorter_new(self.common.tmp, (size_t)self.common.memory, (int)self.common.threads);
    int status = 0;
    if (access(fates_path, F_OK) == 0 && (status = fates_open(&old, fates_path, in, err)) == 0)
        memcpy(fates, old.fates, in->terms.documents * sizeof *fates);
    Terms terms = in->terms;
    terms.round = old.terms.round + 1;
    terms.count = terms.documents;
    if (status == 0)
        status = pairs_sort(in, sorter, 0, 1, err);
    if (status == 0)
        status = decide_all(in, sorter, fates, terms.round, &left, err);
    fates_close(&old);
    terms.undecided = left > 0;
    if (status == 0 && (!(out = writer_open(fates_path, err)) || writer_write(out, fates, terms.count * sizeof *fates, err) < 0 ||
                        terms_write(out, terms, FILE_FATES, err) < 0))
        status = -1;
    if (status == 0)
        status = writer_close(out, err);
    else
        writer_abandon(out);
    if (status == 0 && printf("%" PRIu64 "\n", left) < 0)
        status = error_set(err, "standard output:");
    sorter_free(sorter);
    free(fates);
    return status;
}

/* The documents of a part on their way out. */
typedef struct Leaving {
    const Inputs *in;
    const Part *part;
    Fates fates;
    uint64_t at;
    Writer *out, *removed;
    Buffer line;
} Leaving;

static int write_removed(Leaving *l, Span raw, uint64_t number, uint64_t match, Error *err)
{
    const Part *p = part_of(l->in, match);
    Set a = part_set(l->part, number - l->part->first), b = part_set(p, match - p->first);
    double similarity = l->in->terms.method == METHOD_FUZZY ? shingles_jaccard(a.hashes, a.count, b.hashes, b.count) : -1;
    Span name = part_name(p, match - p->first);
    l->line.length = 0;
    removal_write(&l->line, raw, method_names[l->in->terms.method], &name, &name, similarity);
    return writer_write(l->removed, l->line.data, l->line.length, err);
}

static int leave_emit(void *context, Document *document, Error *err)
{
    Leaving *l = context;
    if (l->at == l->part->terms.documents)
        return error_set(err, "%s:%jd: %s has no more documents", document->file, (intmax_t)document->line, l->part->path);
    Span signed_name = part_name(l->part, l->at);
    bool named = document->fields[0].type == JSON_STRING || document->fields[0].type == JSON_NUMBER;
    if (named && (signed_name.length != document->id.length || memcmp(signed_name.data, document->id.data, signed_name.length) != 0))
        return error_set(err, "%s:%jd: in %s another document stands here, %.*s", document->file, (intmax_t)document->line, l->part->path,
                         (int)(signed_name.length < 200 ? signed_name.length : 200), signed_name.data);
    uint64_t number = l->part->first + l->at++, fate = l->fates.fates[number];
    if (fate_kind(fate) == FATE_REMOVED) {
        self.removed_count[l->in->terms.method]++;
        return l->removed && fate_value(fate) < number ? write_removed(l, document->raw, number, fate_value(fate), err) : 0;
    }
    return sink_write(&self, &(Sink){.out = l->out}, number, document->raw, err);
}

static int documents_run(Leaving *l, Error *err)
{
    uint64_t index, count;
    if (share_parse(share, &index, &count, err) < 0)
        return -1;
    if (count != l->in->part_count)
        return error_set(err, "--part %s, but there are %zu files of signatures", share, l->in->part_count);
    if (fates_open(&l->fates, fates_path, l->in, err) < 0)
        return -1;
    if (l->fates.terms.undecided)
        return error_set(err, "%s: documents are undecided; another round of match, verify and apply is needed", fates_path);
    l->part = &l->in->parts[index];
    if (!(l->out = writer_open(self.common.output, err)) || (removed_path && !(l->removed = writer_open(removed_path, err))))
        return -1;
    DocumentReader r = {.common = &self.common, .files = l->in->others, .emit = leave_emit, .context = l};
    int status = document_run(&r, err);
    document_report(&r);
    if (status == 0 && l->at < l->part->terms.documents)
        status = error_set(err, "%s: %" PRIu64 " documents were signed, %" PRIu64 " came", l->part->path, l->part->terms.documents, l->at);
    self.documents_in = r.documents;
    self.bytes_in = r.bytes_in;
    self.skipped = r.skipped;
    if (status == 0) {
        status = writer_close(l->out, err);
        l->out = NULL;
    }
    if (status == 0) {
        status = writer_close(l->removed, err);
        l->removed = NULL;
    }
    return status;
}

static int run(const char *const *files, Error *err)
{
    double begun = clock_seconds();
    Inputs in = {0};
    int status = inputs_open(&in, files, FILE_MATCHES, true, err);
    if (status == 0 && in.part_count == 0)
        status = error_set(err, "the files of dedup sign are missing");
    if (status == 0 && in.other_count > 0 && in.file_count > 0)
        status = error_set(err, "%s: matches belong to a round, which takes no documents such as %s", in.files[0].path, in.others[0]);
    if (status == 0 && in.other_count == 0) {
        status = round_run(&in, err);
    } else if (status == 0) {
        Leaving l = {.in = &in};
        status = documents_run(&l, err);
        writer_abandon(l.out);
        writer_abandon(l.removed);
        fates_close(&l.fates);
        buffer_free(&l.line);
        if (status == 0 && self.common.stats)
            status = stats_write(&self, clock_seconds() - begun, err);
    }
    inputs_close(&in);
    return status;
}

int apply_main(int argc, char **argv)
{
    OptionSet set = {.tool = "dedup apply",
                     .synopsis = "dedup apply --fates FILE [OPTION]… SIGNATURES… MATCHES…\ndedup apply --fates FILE [--part I/N] [OPTION]… SIGNATURES… DOCUMENTS…",
                     .summary = "Decide what becomes of documents, and print how many are undecided; or write a part's that stay.",
                     .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    if (!fates_path)
        return message_usage("--fates FILE is missing");
    common_settle(&self.common);
    Error err;
    status = run((const char *const *)set.operands, &err) < 0 ? message_failed(&err) : 0;
    option_free(&set);
    return status;
}
