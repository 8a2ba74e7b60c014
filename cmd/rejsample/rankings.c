#include "rankings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "base/memory.h"
#include "io/stream.h"

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t ranking_item(const JsonValue *prompt, const Span *answers, size_t count)
{
    uint64_t *hashes = memory_alloc(count + 1, sizeof *hashes);
    Buffer text = {0};
    json_write_value(&text, prompt, -1);
    for (size_t i = 0; i < count; i++)
        hashes[i] = XXH3_64bits(answers[i].data, answers[i].length);
    qsort(hashes, count, sizeof *hashes, compare_hashes);
    hashes[count] = XXH3_64bits(text.data, text.length);
    uint64_t item = XXH3_64bits(hashes, (count + 1) * sizeof *hashes);
    buffer_free(&text);
    free(hashes);
    return item;
}

typedef struct Place {
    uint64_t answer;
    double rank;
} Place;

static int compare_ranks(const void *a, const void *b)
{
    double x = ((const Place *)a)->rank, y = ((const Place *)b)->rank;
    return x < y ? -1 : x > y;
}

static int compare_answers(const void *a, const void *b)
{
    return compare_hashes(&((const Place *)a)->answer, &((const Place *)b)->answer);
}

/* Any numbers that order the answers become places, equals the mean of theirs. */
static void set_places(Ranking *to, Place *places, size_t n)
{
    qsort(places, n, sizeof *places, compare_ranks);
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && places[end].rank == places[first].rank; end++)
            ;
        double mean = (double)(first + 1 + end) / 2;
        for (size_t i = first; i < end; i++)
            places[i].rank = mean;
    }
    qsort(places, n, sizeof *places, compare_answers);
    for (size_t i = 0; i < n; i++) {
        to->answers[i] = places[i].answer;
        to->ranks[i] = places[i].rank;
    }
}

static int add_record(Rankings *r, const JsonValue *record, Error *err)
{
    const JsonValue *prompt = json_get(record, "prompt"), *responses = json_get(record, "responses"), *ranks = json_get(record, "ranks");
    const JsonValue *annotator = json_get(record, "annotator");
    if (!prompt || !json_is(responses, JSON_ARRAY) || responses->count < 2)
        return error_set(err, "not a ranking: needs 'prompt' and two 'responses' or more");
    if (ranks && (!json_is(ranks, JSON_ARRAY) || ranks->count != responses->count))
        return error_set(err, "'ranks' must hold a number for each response");
    size_t n = responses->count;
    Place *places = memory_alloc(n, sizeof *places);
    Span *answers = memory_alloc(n, sizeof *answers);
    int status = 0;
    for (size_t i = 0; i < n && status == 0; i++) {
        const JsonValue *text = &responses->items[i], *rank = ranks ? &ranks->items[i] : NULL;
        if (!json_is(text, JSON_STRING) || (rank && !json_is(rank, JSON_NUMBER))) {
            status = error_set(err, "'responses' must hold strings and 'ranks' numbers");
            break;
        }
        answers[i] = text->string;
        places[i] = (Place){XXH3_64bits(text->string.data, text->string.length), rank ? rank->number : (double)i};
    }
    if (status == 0) {
        const char *name = json_is(annotator, JSON_STRING) ? annotator->string.data : "?";
        uint64_t item = ranking_item(prompt, answers, n);
        Ranking *to = (Ranking *)(uintptr_t)rankings_find(r, item, name);
        if (!to) {
            r->items = memory_grow(r->items, &r->capacity, r->count + 1, sizeof *r->items);
            to = &r->items[r->count++];
            *to = (Ranking){.item = item, .annotator = memory_string(name), .count = n, .answers = memory_alloc(n, sizeof *to->answers),
                            .ranks = memory_alloc(n, sizeof *to->ranks)};
        }
        set_places(to, places, n);
    }
    free(places);
    free(answers);
    return status;
}

int rankings_read(Rankings *r, const char *path, Error *err)
{
    Reader *in = reader_open(path, err);
    if (!in)
        return -1;
    Span line;
    int more = 0, status = 0;
    while (status == 0 && (more = reader_line(in, &line, err)) > 0) {
        JsonTree tree = {0};
        Error reason = {{0}};
        if (line.length > 0 && (json_parse(&tree, "ranking", line, &reason) < 0 || add_record(r, tree.root, &reason) < 0))
            status = error_set(err, "%s:%lld: %s", reader_name(in), (long long)reader_line_number(in), reason.text);
        json_free(&tree);
    }
    reader_close(in);
    return more < 0 ? -1 : status;
}

const Ranking *rankings_find(const Rankings *r, uint64_t item, const char *annotator)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->items[i].item == item && strcmp(r->items[i].annotator, annotator) == 0)
            return &r->items[i];
    return NULL;
}

void rankings_free(Rankings *r)
{
    for (size_t i = 0; i < r->count; i++) {
        free(r->items[i].annotator);
        free(r->items[i].answers);
        free(r->items[i].ranks);
    }
    free(r->items);
    *r = (Rankings){0};
}

/* Kendall's coefficient of concordance, corrected for ties (Kendall and Babington Smith 1939), of m rankings of the same item: 1 all
 * agree, 0 no more than chance. NAN where all is tied. */
static double concordance(const Ranking *const *list, size_t m)
{
    size_t n = list[0]->count;
    double k = (double)m, size = (double)n, spread = 0, ties = 0;
    for (size_t i = 0; i < n; i++) {
        double sum = -k * (size + 1) / 2;
        for (size_t j = 0; j < m; j++)
            sum += list[j]->ranks[i];
        spread += sum * sum;
    }
    for (size_t j = 0; j < m; j++)
        for (size_t i = 0; i < n; i++) {
            double t = 0;
            for (size_t l = 0; l < n; l++)
                t += list[j]->ranks[l] == list[j]->ranks[i];
            ties += t * t - 1; /* a group of t gives t (t² − 1) */
        }
    double most = k * k * (size * size * size - size) - k * ties;
    return most > 0 ? 12 * spread / most : NAN;
}

/* Cohen's kappa (1960) of two annotators over pairs of answers, each judged better, worse or equal; a pair counts in both directions,
 * so that the order of the answers is nothing. *pairs: of answers; *same: the share judged alike. NAN where chance explains all. */
static double cohens_kappa(const Rankings *r, const char *a, const char *b, size_t *items, size_t *pairs, double *same)
{
    double table[3][3] = {{0}}, n = 0, alike = 0, chance = 0;
    *items = *pairs = 0;
    for (size_t i = 0; i < r->count; i++) {
        const Ranking *x = &r->items[i], *y = strcmp(x->annotator, a) == 0 ? rankings_find(r, x->item, b) : NULL;
        if (!y)
            continue;
        ++*items;
        for (size_t p = 0; p < x->count; p++)
            for (size_t q = 0; q < x->count; q++)
                if (p != q)
                    table[1 + (x->ranks[p] > x->ranks[q]) - (x->ranks[p] < x->ranks[q])][1 + (y->ranks[p] > y->ranks[q]) - (y->ranks[p] < y->ranks[q])]++;
        *pairs += x->count * (x->count - 1) / 2;
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            n += table[i][j];
    for (int i = 0; i < 3; i++) {
        double rows = 0, columns = 0;
        for (int j = 0; j < 3; j++) {
            rows += table[i][j];
            columns += table[j][i];
        }
        alike += table[i][i] / n;
        chance += rows / n * (columns / n);
    }
    *same = alike;
    return n > 0 && chance < 1 ? (alike - chance) / (1 - chance) : NAN;
}

/* The annotators, each once, in the order they come up. */
static size_t list_annotators(const Rankings *r, const char **names)
{
    size_t count = 0;
    for (size_t i = 0; i < r->count; i++) {
        size_t k = 0;
        while (k < count && strcmp(names[k], r->items[i].annotator) != 0)
            k++;
        if (k == count)
            names[count++] = r->items[i].annotator;
    }
    return count;
}

static void report_concordance(const Rankings *r)
{
    const Ranking **list = memory_alloc(r->count + 1, sizeof *list);
    double sum = 0;
    size_t items = 0, tied = 0;
    for (size_t i = 0; i < r->count; i++) {
        size_t m = 0;
        bool seen = false;
        for (size_t k = 0; k < r->count; k++)
            if (r->items[k].item == r->items[i].item) {
                seen |= k < i;
                list[m++] = &r->items[k];
            }
        if (seen || m < 2)
            continue;
        double w = concordance(list, m);
        items += !isnan(w);
        tied += isnan(w);
        sum += isnan(w) ? 0 : w;
    }
    free(list);
    if (items)
        printf("Kendall's W %.4f, the mean of %zu items", sum / (double)items, items);
    else
        printf("Kendall's W: no item was ranked by two annotators");
    if (tied)
        printf(" (%zu more are tied throughout)", tied);
    putchar('\n');
}

void rankings_report(const Rankings *r)
{
    const char **names = memory_alloc(r->count + 1, sizeof *names);
    size_t n = list_annotators(r, names);
    report_concordance(r);
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++) {
            size_t items, pairs;
            double same, kappa = cohens_kappa(r, names[i], names[k], &items, &pairs, &same);
            if (items)
                printf("Cohen's kappa %.4f of %s and %s: %zu items, %zu pairs of answers, %.1f %% judged alike\n", kappa, names[i], names[k], items, pairs,
                       100 * same);
        }
    free(names);
}
