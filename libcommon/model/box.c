#include "model/box.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/memory.h"

Box box_of(const Parameter *p)
{
    return (Box){{p->begin[0], p->ndim == 2 ? p->begin[1] : 0}, {p->extent[0], p->ndim == 2 ? p->extent[1] : 1}};
}

size_t box_count(const Box *b)
{
    return (size_t)b->extent[0] * (size_t)b->extent[1];
}

bool box_meet(const Box *a, const Box *b, Box *both)
{
    for (int d = 0; d < 2; d++) {
        int64_t a_end = a->begin[d] + a->extent[d], b_end = b->begin[d] + b->extent[d];
        int64_t begin = a->begin[d] > b->begin[d] ? a->begin[d] : b->begin[d], end = a_end < b_end ? a_end : b_end;
        if (begin >= end)
            return false;
        both->begin[d] = begin;
        both->extent[d] = end - begin;
    }
    return true;
}

/* Where an element that b holds stands in it. */
static size_t place(const Box *b, int64_t row, int64_t column)
{
    return (size_t)((row - b->begin[0]) * b->extent[1] + column - b->begin[1]);
}

void box_copy(void *to, const Box *to_box, const void *from, const Box *from_box, const Box *both, size_t size)
{
    for (int64_t r = both->begin[0]; r < both->begin[0] + both->extent[0]; r++)
        memcpy((char *)to + place(to_box, r, both->begin[1]) * size, (const char *)from + place(from_box, r, both->begin[1]) * size,
               (size_t)both->extent[1] * size);
}

/* The boxes that elements begin … end-1 of b, row by row, make up; they are at most three. Returns how many. */
static int box_cut(const Box *b, size_t begin, size_t end, Box out[3])
{
    int64_t width = b->extent[1], first = (int64_t)begin, last = (int64_t)end;
    int n = 0;
    while (first < last) {
        int64_t row = first / width, column = first % width, rows = 1, columns = width - column;
        if (column == 0 && last - first >= width)
            rows = (last - first) / width; /* whole rows */
        else if (columns > last - first)
            columns = last - first;
        out[n++] = (Box){{b->begin[0] + row, b->begin[1] + column}, {rows, columns}};
        first += rows * columns;
    }
    return n;
}

OwnBox *boxes_own(const ParameterTable *t, const ArenaStretch *stretches, int n, size_t *count)
{
    OwnBox *all = NULL;
    size_t capacity = 0;
    *count = 0;
    for (size_t i = 0; i < t->count; i++) {
        const Parameter *p = &t->items[i];
        if (!p->owner || !p->trainable)
            continue;
        Box whole = box_of(p);
        size_t at = p->offset - t->frozen, before = 0;
        int number = 0;
        for (int k = 0; k < n; before += stretches[k].end - stretches[k].begin, k++) {
            size_t begin = stretches[k].begin > at ? stretches[k].begin - at : 0, end = stretches[k].end > at ? stretches[k].end - at : 0;
            Box pieces[3];
            int found = begin < p->count ? box_cut(&whole, begin, end < p->count ? end : p->count, pieces) : 0;
            for (int j = 0; j < found; begin += box_count(&pieces[j++])) {
                all = memory_grow(all, &capacity, *count + 1, sizeof *all);
                all[(*count)++] = (OwnBox){p, pieces[j], before + at + begin - stretches[k].begin, number++};
            }
        }
    }
    return all;
}

char *box_text(const Parameter *p, const Box *b)
{
    if (p->ndim == 1)
        return memory_format("global %" PRId64 " box %" PRId64 "+%" PRId64, p->shape[0], b->begin[0], b->extent[0]);
    return memory_format("global %" PRId64 ",%" PRId64 " box %" PRId64 "+%" PRId64 ",%" PRId64 "+%" PRId64, p->shape[0], p->shape[1],
                         b->begin[0], b->extent[0], b->begin[1], b->extent[1]);
}

int box_parse(const char *text, const Parameter *p, Box *b, Error *err)
{
    int64_t shape[2] = {0, 1};
    int end = -1;
    *b = (Box){.extent = {0, 1}};
    if (p->ndim == 1)
        sscanf(text, "global %" SCNd64 " box %" SCNd64 "+%" SCNd64 "%n", &shape[0], &b->begin[0], &b->extent[0], &end);
    else
        sscanf(text, "global %" SCNd64 ",%" SCNd64 " box %" SCNd64 "+%" SCNd64 ",%" SCNd64 "+%" SCNd64 "%n", &shape[0], &shape[1], &b->begin[0],
               &b->extent[0], &b->begin[1], &b->extent[1], &end);
    bool fine = end >= 0 && text[end] == 0 && shape[0] == p->shape[0] && (p->ndim == 1 || shape[1] == p->shape[1]);
    for (int d = 0; d < 2 && fine; d++)
        fine = b->begin[d] >= 0 && b->extent[d] >= 0 && b->extent[d] <= shape[d] && b->begin[d] <= shape[d] - b->extent[d];
    return fine ? 0 : error_set(err, "'%s' is no part of '%s'", text, p->name);
}
