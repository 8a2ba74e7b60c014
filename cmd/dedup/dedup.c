/* dedup: drops documents, lines or paragraphs that were there before. Here are the options; dedup.h is the map of the rest. */
#include "dedup.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/message.h"
#include "base/progress.h"
#include "base/thread.h"
#include "parts.h"

const char *const method_names[METHODS] = {"url", "exact", "fuzzy", "paragraphs", "lines"};

static bool wanted[METHODS];
static const char *removed_path;
static Dedup self = {.common = COMMON_DEFAULT, .threshold = 0.8, .ngram = 5, .max_line_count = 6, .bucket = 30000000};

static const Option options[] = {
    OPTION_WHOLE_DOCUMENTS(wanted, &self),
    {"lines", 0, OPTION_FLAG, &wanted[METHOD_LINES], 0, "cut lines seen more than --max-line-count times", 0, 0, 0},
    {"max-line-count", 0, OPTION_INTEGER, &self.max_line_count, "N", "(default 6)", 0, 1, 1e15},
    {"bucket", 0, OPTION_INTEGER, &self.bucket, "N", "documents in which lines are counted (default 30 million)", 0, 1, 1e15},
    {"keep-first", 0, OPTION_FLAG, &self.keep_first, 0, "leave the first copy of a line that is cut", 0, 0, 0},
    {"paragraphs", 0, OPTION_FLAG, &wanted[METHOD_PARAGRAPHS], 0, "cut paragraphs that stood before, anywhere", 0, 0, 0},
    {"removed", 0, OPTION_STRING, &removed_path, "FILE", "write removed documents there, with the reason", 0, 0, 0},
    OPTION_COMMON_OUTPUT(&self.common),
    OPTION_MEMORY_OF_TABLES(&self.common),
    OPTION_COMMON_TMP(&self.common),
    OPTION_COMMON_ON_ERROR(&self.common),
    OPTION_COMMON_THREADS(&self.common),
    OPTION_COMMON_END(&self.common),
};

/* The methods in the order given, each once. */
static int methods_given(const OptionSet *set, Method *methods)
{
    int n = 0;
    bool seen[METHODS] = {false};
    for (size_t i = 0; i < set->given_count; i++)
        for (int m = 0; m < METHODS; m++)
            if (set->given[i]->value == &wanted[m] && wanted[m] && !seen[m]) {
                seen[m] = true;
                methods[n++] = (Method)m;
            }
    return n;
}

int stats_write(const Dedup *d, double seconds, Error *err)
{
    Buffer b = {0};
    buffer_format(&b, "{\"documents_in\":%" PRIu64 ",\"bytes_in\":%" PRIu64 ",\"skipped\":%" PRIu64 ",\"cut\":%" PRIu64 ",\"removed\":{", d->documents_in,
                  d->bytes_in, d->skipped, d->cut);
    for (int m = 0; m < METHODS; m++)
        buffer_format(&b, "%s\"%s\":%" PRIu64, m ? "," : "", method_names[m], d->removed_count[m]);
    buffer_format(&b, "},\"documents_out\":%" PRIu64 ",\"bytes_out\":%" PRIu64 ",\"spills\":%" PRIu64 ",\"seconds\":%.3f}\n", d->documents_out, d->bytes_out,
                  d->spills, seconds);
    int status = file_write(d->common.stats, b.data, b.length, err);
    buffer_free(&b);
    return status;
}

static int run(Dedup *d, const Method *methods, int count, const char *const *files, Error *err)
{
    double begun = clock_seconds();
    Writer *out = writer_open(d->common.output, err);
    int status = out ? 0 : -1;
    if (status == 0 && removed_path) {
        size_t sorting = (size_t)d->common.memory / 8;
        d->common.memory -= (int64_t)sorting;
        d->removed = removed_open(removed_path, d->common.tmp, sorting, (int)d->common.threads, err);
        status = d->removed ? 0 : -1;
    }
    if (status == 0)
        status = stages_run(d, methods, count, files, out, err);
    if (status < 0) {
        writer_abandon(out);
        removed_abandon(d->removed);
        return -1;
    }
    if (writer_close(out, err) < 0) {
        removed_abandon(d->removed);
        return -1;
    }
    status = removed_close(d->removed, err);
    return status == 0 && d->common.stats ? stats_write(d, clock_seconds() - begun, err) : status;
}

void common_settle(Common *c)
{
    if (c->threads < 1)
        c->threads = thread_default_count();
    if (!c->tmp)
        c->tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    if (c->memory == 0)
        c->memory = (int64_t)(memory_available() / 2);
}

int main(int argc, char **argv)
{
    static const struct Step {
        const char *name;
        int (*main)(int, char **);
    } steps[] = {{"sign", sign_main}, {"sort", sort_main}, {"match", pair_main}, {"verify", verify_main}, {"apply", apply_main}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps && argc > 1; i++)
        if (strcmp(argv[1], steps[i].name) == 0)
            return steps[i].main(argc - 1, argv + 1);
    OptionSet set = {.tool = "dedup", .synopsis = "dedup [--url] [--exact] [--lines] [--paragraphs] [--fuzzy]\n[OPTION]… [FILE]…\ndedup sign|sort|match|verify|apply …    (by many machines: the manual)",
                     .summary = "Drop documents, lines or paragraphs that were there before; the first stays.", .options = options};
    int status = option_main(&set, argc, argv);
    if (status >= 0)
        return status;
    Method methods[METHODS];
    int count = methods_given(&set, methods);
    if (count == 0)
        return message_usage("nothing to do: --url, --exact, --lines, --paragraphs or --fuzzy");
    if ((self.bands == 0) != (self.rows == 0))
        return message_usage("--bands and --rows go together");
    common_settle(&self.common);
    Error err;
    status = run(&self, methods, count, (const char *const *)set.operands, &err) < 0 ? message_failed(&err) : 0;
    option_free(&set);
    return status;
}
