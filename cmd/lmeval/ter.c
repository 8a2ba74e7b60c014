/* Translation edit rate: the fewest words inserted, deleted, replaced, and stretches of words moved, that make the reference of the
 * answer. Finding the best moves is hard; what is found depends on the order in which they are tried, which is that of Tercom as
 * sacrebleu's lib_ter.py has it, limits included. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "corpus.h"

enum { MAX_SHIFT_SIZE = 10, MAX_SHIFT_DISTANCE = 50, BEAM = 25, MAX_CANDIDATES = 1000, FAR = 1 << 29 };

enum { OP_NONE, OP_SAME, OP_REPLACE, OP_DELETE, OP_INSERT };

typedef struct Ter {
    const int32_t *wanted; /* words as numbers */
    size_t n, m;           /* words of answer and reference */
    int32_t *words, *moved, *best; /* [n]: the answer as it is now, with a move, with the best move */
    int32_t *cost;         /* [n + 1, m + 1]; outside the beam: not set */
    unsigned char *op;
    int32_t *row[2];       /* [m + 1] of a move that is tried */
    int64_t *at;           /* [m]: the answer's word that a reference's word stands for or behind; -1: before all */
    unsigned char *answer_wrong, *wanted_wrong;
} Ter;

/* The reference's words that the answer's first i may end at. */
static void beam(const Ter *t, size_t i, size_t *begin, size_t *end)
{
    double ratio = t->n ? (double)t->m / (double)t->n : 1, width = BEAM < ratio / 2 ? ceil(ratio / 2 + BEAM) : BEAM, middle = floor((double)i * ratio);
    *begin = i > 0 && middle > width ? (size_t)(middle - width) : 0;
    *end = i == 0 || i == t->n || middle + width > (double)(t->m + 1) ? t->m + 1 : (size_t)(middle + width);
}

/* A row of the edit distance's table from the one before it. op NULL: only the costs. */
static void fill_row(const Ter *t, const int32_t *words, size_t i, const int32_t *before, int32_t *row, unsigned char *op)
{
    size_t begin, end, first, last;
    beam(t, i, &begin, &end);
    beam(t, i - 1, &first, &last);
    for (size_t j = begin; j < end; j++) {
        int32_t above = j >= first && j < last ? before[j] : FAR, cost = FAR;
        unsigned char how = OP_NONE;
        if (j == 0) {
            cost = above + 1;
            how = OP_DELETE;
        } else {
            int32_t corner = j > first && j <= last ? before[j - 1] : FAR, left = j > begin ? row[j - 1] : FAR;
            bool same = words[i - 1] == t->wanted[j - 1];
            if (corner + !same < cost) {
                cost = corner + !same;
                how = same ? OP_SAME : OP_REPLACE;
            }
            if (above + 1 < cost) {
                cost = above + 1;
                how = OP_DELETE;
            }
            if (left + 1 < cost) {
                cost = left + 1;
                how = OP_INSERT;
            }
        }
        row[j] = cost;
        if (op)
            op[j] = how;
    }
}

/* The whole table of t->words. Returns the distance. */
static int32_t fill_table(Ter *t)
{
    size_t width = t->m + 1;
    for (size_t j = 0; j <= t->m; j++) {
        t->cost[j] = (int32_t)j;
        t->op[j] = OP_INSERT;
    }
    for (size_t i = 1; i <= t->n; i++)
        fill_row(t, t->words, i, t->cost + (i - 1) * width, t->cost + i * width, t->op + i * width);
    return t->cost[t->n * width + t->m];
}

/* The distance of t->moved, whose first `same` words are those of t->words. */
static int32_t distance_moved(Ter *t, size_t same)
{
    const int32_t *before = t->cost + same * (t->m + 1);
    for (size_t i = same + 1; i <= t->n; i++) {
        fill_row(t, t->moved, i, before, t->row[i % 2], NULL);
        before = t->row[i % 2];
    }
    return before[t->m];
}

/* Which word stands for which, and which are wrong, by the table's way. */
static void align(Ter *t)
{
    memset(t->answer_wrong, 0, t->n + 1);
    memset(t->wanted_wrong, 0, t->m + 1);
    for (size_t i = t->n, j = t->m; i > 0 || j > 0;) {
        unsigned char op = t->op[i * (t->m + 1) + j];
        if (op == OP_DELETE) {
            t->answer_wrong[--i] = 1;
        } else if (op == OP_INSERT || i == 0) {
            t->wanted_wrong[--j] = 1;
            t->at[j] = (int64_t)i - 1;
        } else {
            i--;
            j--;
            t->answer_wrong[i] = t->wanted_wrong[j] = op == OP_REPLACE;
            t->at[j] = (int64_t)i;
        }
    }
}

/* Moves `length` words from `start` to stand before word `target` (inside themselves: that many words further). Returns how many words
 * at the beginning are as they were. */
static size_t move(const Ter *t, size_t start, size_t length, size_t target)
{
    size_t first = target < start ? target : start, middle, end;
    if (target < start) {
        middle = start;
        end = start + length;
    } else {
        middle = start + length;
        end = target > start + length ? target : length + target;
        end = end > t->n ? t->n : end;
    }
    /* words[first … middle) and words[middle … end) change places. */
    memcpy(t->moved, t->words, t->n * sizeof *t->moved);
    memcpy(t->moved + first, t->words + middle, (end - middle) * sizeof *t->moved);
    memcpy(t->moved + first + (end - middle), t->words + first, (middle - first) * sizeof *t->moved);
    return first;
}

typedef struct Best {
    bool any;
    int32_t gain;
    size_t length, start, target;
} Best;

/* More gain, then longer, then from further in front, then to further in front. */
static bool better(const Best *a, const Best *b)
{
    if (!b->any || a->gain != b->gain)
        return !b->any || a->gain > b->gain;
    if (a->length != b->length)
        return a->length > b->length;
    return a->start != b->start ? a->start < b->start : a->target < b->target;
}

static bool wrong(const unsigned char *flags, size_t first, size_t count)
{
    return memchr(flags + first, 1, count) != NULL;
}

/* Tries all places for a stretch that answer and reference share. */
static void try_places(Ter *t, size_t start, size_t wanted, size_t length, int32_t distance, Best *best, int *tried)
{
    int64_t previous = -1;
    for (int64_t offset = -1; offset < (int64_t)length; offset++) {
        int64_t place = (int64_t)wanted + offset, target = place < 0 ? 0 : t->at[place] + 1;
        if (target == previous)
            continue;
        previous = target;
        size_t same = move(t, start, length, (size_t)target);
        Best b = {true, distance - distance_moved(t, same), length, start, (size_t)target};
        ++*tried;
        if (better(&b, best)) {
            *best = b;
            memcpy(t->best, t->moved, t->n * sizeof *t->best);
        }
    }
}

static Best best_move(Ter *t, int32_t distance, int *tried)
{
    Best best = {0};
    align(t);
    for (size_t start = 0; start < t->n; start++)
        for (size_t wanted = 0; wanted < t->m; wanted++) {
            if ((wanted > start ? wanted - start : start - wanted) > MAX_SHIFT_DISTANCE)
                continue;
            for (size_t length = 1; length <= MAX_SHIFT_SIZE && start + length <= t->n && wanted + length <= t->m; length++) {
                if (t->words[start + length - 1] != t->wanted[wanted + length - 1])
                    break;
                int64_t stands = t->at[wanted];
                bool within = stands >= (int64_t)start && stands < (int64_t)(start + length);
                if (!wrong(t->answer_wrong, start, length) || !wrong(t->wanted_wrong, wanted, length) || within)
                    continue;
                try_places(t, start, wanted, length, distance, &best, tried);
                if (*tried >= MAX_CANDIDATES)
                    return best;
            }
        }
    return best;
}

/* Words as numbers: equal words have equal ones. */
static int32_t *numbered(const WordList *w, const WordList *known, const int32_t *numbers)
{
    int32_t *out = memory_alloc(w->count + 1, sizeof *out);
    for (size_t i = 0; i < w->count; i++) {
        Span s = word_list_at(w, i, 1);
        out[i] = -1;
        for (size_t k = 0; k < known->count && out[i] < 0; k++) {
            Span other = word_list_at(known, k, 1);
            if (other.length == s.length && memcmp(other.data, s.data, s.length) == 0)
                out[i] = numbers ? numbers[k] : (int32_t)k;
        }
    }
    return out;
}

static double edits(const WordList *answer, const WordList *wanted)
{
    size_t n = answer->count, m = wanted->count;
    if (m == 0)
        return (double)n;
    int32_t *numbers = numbered(wanted, wanted, NULL);
    Ter t = {.wanted = numbers, .n = n, .m = m, .words = numbered(answer, wanted, numbers)};
    t.moved = memory_zalloc(n + 1, sizeof *t.moved);
    t.best = memory_zalloc(n + 1, sizeof *t.best);
    t.cost = memory_zalloc((n + 1) * (m + 1), sizeof *t.cost);
    t.op = memory_zalloc((n + 1) * (m + 1), 1);
    t.row[0] = memory_zalloc(m + 1, sizeof **t.row);
    t.row[1] = memory_zalloc(m + 1, sizeof **t.row);
    t.at = memory_zalloc(m + 1, sizeof *t.at);
    t.answer_wrong = memory_zalloc(n + 1, 1);
    t.wanted_wrong = memory_zalloc(m + 1, 1);
    int tried = 0, moves = 0;
    int32_t distance = fill_table(&t);
    for (;;) {
        Best best = best_move(&t, distance, &tried);
        if (tried >= MAX_CANDIDATES || !best.any || best.gain <= 0)
            break;
        moves++;
        memcpy(t.words, t.best, n * sizeof *t.words);
        distance = fill_table(&t);
    }
    void *owned[] = {numbers, t.words, t.moved, t.best, t.cost, t.op, t.row[0], t.row[1], t.at, t.answer_wrong, t.wanted_wrong};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        free(owned[i]);
    return moves + distance;
}

int ter_numbers(Span answer, Span wanted, double out[2], Error *err)
{
    Arena arena = {0};
    WordList a, b;
    int status = filter_case(answer, &arena, false, &answer, err) < 0 ? -1 : filter_case(wanted, &arena, false, &wanted, err);
    if (status == 0) {
        word_list_split(&a, answer);
        word_list_split(&b, wanted);
        out[0] = edits(&a, &b);
        out[1] = (double)b.count;
        word_list_free(&a);
        word_list_free(&b);
    }
    arena_free(&arena);
    return status;
}
