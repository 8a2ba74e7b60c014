/* The heuristics that The Llama 3 Herd of Models (section 3.1.1) names without figures: duplicated n-grams, which find logs and
 * error messages whose lines are long and all different (limits of Rae et al. 2021, table A1), a count of listed words for adult
 * pages that no list of domains has, and the divergence of a document's tokens from the corpus's for outlier tokens. A threshold of
 * 0 turns its rule off. */
#include "rules.h"

const Llama3 llama3_default = {{0.15, 0.14, 0.13, 0.12, 0.11, 0.10}, 3, 0, 99};

const char *llama3(const Llama3 *r, Page *p, const List *dirty_words)
{
    if (p->length == 0)
        return "empty";
    const char *reason = duplicated_grams(r->dup_n_grams, p);
    if (!reason && dirty_words && r->max_dirty_words > 0 && (double)list_count_words(dirty_words, p->text) > r->max_dirty_words)
        reason = "dirty_words";
    return reason;
}
