/* dedup match: pairs of documents that share a key, to be compared. Not all of them: a document is removed because of one that is
 * kept before it, so it meets those that the last round has decided to keep, and the first few of which that is not known yet. What
 * is like many others is gone after the first round, and no later one has to name its pairs. */
#include <stdlib.h>
#include "parts.h"

static const char *fates_path;
static int64_t most = 1;
static Common common = COMMON_DEFAULT;

static const Option options[] = {
    {"fates", 0, OPTION_STRING, &fates_path, "FILE", "what the rounds before have decided (dedup apply)", 0, 0, 0},
    {"most", 0, OPTION_INTEGER, &most, "N", "undecided documents that one is paired with, a key (default 1)", 0, 1, 1e9},
    OPTION_COMMON_OUTPUT(&common),
    OPTION_COMMON_END(&common),
};

/* Documents of the key at hand that later ones are compared with. */
typedef struct Group {
    uint64_t key;
    const SortRecord **kept, **undecided;
    size_t kept_count, undecided_count, kept_capacity, undecided_capacity; /* of the undecided the first `most` are named */
} Group;

static int pair_write(RecordWriter *w, const SortRecord *later, const SortRecord *earlier, Error *err)
{
    uint64_t a = earlier->key[2], b = later->key[2], less = a < b ? a : b, greater = a < b ? b : a;
    if ((double)less < w->terms.threshold * (double)greater)
        return 0; /* sets of such different sizes cannot be that similar */
    return records_write(w, (SortRecord){{later->key[1], earlier->key[1], 0}}, err);
}

static int pair_with(RecordWriter *w, const Group *g, const SortRecord *later, Error *err)
{
    size_t named = g->undecided_count < (size_t)most ? g->undecided_count : (size_t)most;
    for (size_t i = 0; i < g->kept_count; i++)
        if (pair_write(w, later, g->kept[i], err) < 0)
            return -1;
    for (size_t i = 0; i < named; i++)
        if (pair_write(w, later, g->undecided[i], err) < 0)
            return -1;
    return named < g->undecided_count ? records_write(w, (SortRecord){{later->key[1], PAIR_OPEN, 0}}, err) : 0;
}

static int pairs_of(RecordWriter *w, Group *g, const RecordFile *f, const Fates *fates, Error *err)
{
    for (uint64_t i = 0; i < f->terms.count; i++) {
        const SortRecord *r = &f->records[i];
        if (r->key[1] >= f->terms.documents || (i > 0 && (r[-1].key[0] > r->key[0] || (r[-1].key[0] == r->key[0] && r[-1].key[1] > r->key[1]))))
            return error_set(err, "%s: its keys are not in order", f->path);
        if (i == 0 || r->key[0] != g->key)
            g->key = r->key[0], g->kept_count = g->undecided_count = 0;
        else if (r[-1].key[1] == r->key[1])
            continue; /* two bands of one document have the same key */
        uint64_t fate = fates->fates ? fates->fates[r->key[1]] : fate_make(FATE_UNDECIDED, 0);
        int kind = fate_kind(fate);
        if ((kind == FATE_UNDECIDED || kind == FATE_REMOVED_FOR_NOW) && pair_with(w, g, r, err) < 0)
            return -1;
        if (kind == FATE_KEPT && fate_value(fate) == fates->terms.round) {
            g->kept = memory_grow(g->kept, &g->kept_capacity, g->kept_count + 1, sizeof *g->kept);
            g->kept[g->kept_count++] = r;
        } else if (kind == FATE_UNDECIDED) {
            if (g->undecided_count < (size_t)most) {
                g->undecided = memory_grow(g->undecided, &g->undecided_capacity, g->undecided_count + 1, sizeof *g->undecided);
                g->undecided[g->undecided_count] = r;
            }
            g->undecided_count++;
        }
    }
    return 0;
}

static int run(const char *const *files, Error *err)
{
    Inputs in = {0};
    Fates fates = {0};
    RecordWriter w = {0};
    Group g = {0};
    int status = inputs_open(&in, files, FILE_KEYS, false, err);
    if (status == 0 && in.file_count == 0)
        status = error_set(err, "%s: holds signatures; the files of dedup sort are missing", files[0]);
    if (status == 0 && fates_path)
        status = fates_open(&fates, fates_path, &in, err);
    if (status == 0)
        status = records_open(&w, common.output, FILE_PAIRS, &in.terms, err);
    for (size_t i = 0; i < in.file_count && status == 0; i++)
        status = pairs_of(&w, &g, &in.files[i], &fates, err);
    if (status == 0)
        status = records_close(&w, err);
    else
        records_abandon(&w);
    free(g.kept);
    free(g.undecided);
    fates_close(&fates);
    inputs_close(&in);
    return status;
}

int pair_main(int argc, char **argv)
{
    OptionSet set = {.tool = "dedup match", .synopsis = "dedup match [--fates FILE] [--most N] [OPTION]… -o FILE KEYS…",
                     .summary = "Name pairs of documents that share a key.", .options = options};
    return step_main(&set, argc, argv, &common, "dedup sort", run);
}
