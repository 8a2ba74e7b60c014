/* What dedup's steps for many machines share. */
#include <inttypes.h>
#include "base/message.h"
#include "parts.h"

int step_main(OptionSet *set, int argc, char **argv, Common *c, const char *wanted, int (*run)(const char *const *files, Error *err))
{
    int status = option_main(set, argc, argv);
    if (status >= 0)
        return status;
    if (!c->output)
        return message_usage("-o FILE is missing");
    if (set->operand_count == 0)
        return message_usage("the files of %s are missing", wanted);
    common_settle(c);
    Error err;
    status = run((const char *const *)set->operands, &err) < 0 ? message_failed(&err) : 0;
    option_free(set);
    return status;
}

int pairs_sort(const Inputs *in, Sorter *sorter, uint64_t index, uint64_t count, Error *err)
{
    for (size_t i = 0; i < in->file_count; i++) {
        const RecordFile *f = &in->files[i];
        for (uint64_t j = 0; j < f->terms.count; j++) {
            const SortRecord *r = &f->records[j];
            if (r->key[0] >= f->terms.documents || (r->key[1] != PAIR_OPEN && r->key[1] >= r->key[0]))
                return error_set(err, "%s: record %" PRIu64 " names no two documents of the corpus", f->path, j + 1);
            if ((uint64_t)((unsigned __int128)r->key[0] * count / f->terms.documents) == index && sorter_add(sorter, *r, err) < 0)
                return -1;
        }
    }
    return sorter_finish(sorter, err);
}
