/* dedup verify: compares the pairs whose later document is in one share of the corpus. */
#include "parts.h"
#include "shingle.h"

static const char *share = "1/1";
static Common common = COMMON_DEFAULT;

static const Option options[] = {
    {"part", 0, OPTION_STRING, &share, "I/N", "pairs of share I of N of the documents (default 1/1)", 0, 0, 0},
    OPTION_COMMON_OUTPUT(&common),
    OPTION_MEMORY_OF_TABLES(&common),
    OPTION_COMMON_TMP(&common),
    OPTION_COMMON_THREADS(&common),
    OPTION_COMMON_END(&common),
};

static Set set_of(const Inputs *in, uint64_t number)
{
    const Part *p = part_of(in, number);
    return part_set(p, number - p->first);
}

/* In order of the later document; each pair once. */
static int compare(const Inputs *in, Sorter *sorter, RecordWriter *w, Error *err)
{
    SortRecord r, last = {{UINT64_MAX, 0, 0}};
    int got;
    while ((got = sorter_next(sorter, &r, err)) > 0) {
        if (r.key[0] == last.key[0] && r.key[1] == last.key[1])
            continue;
        last = r;
        if (r.key[1] != PAIR_OPEN) {
            Set a = set_of(in, r.key[0]), b = set_of(in, r.key[1]);
            if (shingles_jaccard(a.hashes, a.count, b.hashes, b.count) < in->terms.threshold)
                continue;
        }
        if (records_write(w, r, err) < 0)
            return -1;
    }
    return got;
}

static int run(const char *const *files, Error *err)
{
    uint64_t index, count;
    Inputs in = {0};
    RecordWriter w = {0};
    Sorter *sorter = sorter_new(common.tmp, (size_t)common.memory, (int)common.threads);
    int status = share_parse(share, &index, &count, err);
    if (status == 0)
        status = inputs_open(&in, files, FILE_PAIRS, false, err);
    if (status == 0 && (in.part_count == 0 || in.file_count == 0))
        status = error_set(err, "the files of dedup %s are missing", in.part_count ? "match" : "sign");
    if (status == 0)
        status = pairs_sort(&in, sorter, index, count, err);
    if (status == 0)
        status = records_open(&w, common.output, FILE_MATCHES, &in.terms, err);
    if (status == 0)
        status = compare(&in, sorter, &w, err);
    if (status == 0)
        status = records_close(&w, err);
    else
        records_abandon(&w);
    sorter_free(sorter);
    inputs_close(&in);
    return status;
}

int verify_main(int argc, char **argv)
{
    OptionSet set = {.tool = "dedup verify", .synopsis = "dedup verify [--part I/N] [OPTION]… -o FILE SIGNATURES… PAIRS…",
                     .summary = "Compare the documents of pairs; those that are alike stay.", .options = options};
    return step_main(&set, argc, argv, &common, "dedup sign and dedup match", run);
}
