/* dedup sort: all parts' keys of one share of the keys, in order. */
#include "parts.h"

static const char *share = "1/1";
static Common common = COMMON_DEFAULT;

static const Option options[] = {
    {"part", 0, OPTION_STRING, &share, "I/N", "the keys of share I of N (default 1/1)", 0, 0, 0},
    OPTION_COMMON_OUTPUT(&common),
    OPTION_MEMORY_OF_TABLES(&common),
    OPTION_COMMON_TMP(&common),
    OPTION_COMMON_THREADS(&common),
    OPTION_COMMON_END(&common),
};

/* {key, number of the document, size of its set} of one part's documents, of keys in the share: equal stretches of all keys. */
static int add_keys(Sorter *sorter, const Part *p, uint64_t index, uint64_t count, Error *err)
{
    const uint64_t *keys = p->keys;
    for (uint64_t i = 0; i < p->terms.documents; i++) {
        Set set = part_set(p, i);
        for (uint32_t b = 0; b < p->terms.bands && set.count > 0; b++, keys++)
            if ((uint64_t)((unsigned __int128)*keys * count >> 64) == index && sorter_add(sorter, (SortRecord){{*keys, p->first + i, set.count}}, err) < 0)
                return -1;
    }
    return 0;
}

static int run(const char *const *files, Error *err)
{
    uint64_t index, count;
    Inputs in = {0};
    RecordWriter w = {0};
    Sorter *sorter = sorter_new(common.tmp, (size_t)common.memory, (int)common.threads);
    int status = share_parse(share, &index, &count, err);
    if (status == 0)
        status = inputs_open(&in, files, FILE_SIGNATURES, false, err);
    for (size_t i = 0; i < in.part_count && status == 0; i++)
        status = add_keys(sorter, &in.parts[i], index, count, err);
    if (status == 0)
        status = sorter_finish(sorter, err);
    if (status == 0)
        status = records_open(&w, common.output, FILE_KEYS, &in.terms, err);
    SortRecord r;
    int got = 0;
    while (status == 0 && (got = sorter_next(sorter, &r, err)) > 0)
        status = records_write(&w, r, err);
    if (status == 0 && got == 0)
        status = records_close(&w, err);
    else
        records_abandon(&w);
    sorter_free(sorter);
    inputs_close(&in);
    return status < 0 || got < 0 ? -1 : 0;
}

int sort_main(int argc, char **argv)
{
    OptionSet set = {.tool = "dedup sort", .synopsis = "dedup sort [--part I/N] [OPTION]… -o FILE SIGNATURES…",
                     .summary = "Sort a share of the keys of all parts of a corpus.", .options = options};
    return step_main(&set, argc, argv, &common, "dedup sign", run);
}
