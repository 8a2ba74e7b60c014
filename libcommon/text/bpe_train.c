#include "text/bpe_train.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "text/tokenizer.h"

struct PieceSlot {
    const char *bytes; /* NULL: empty */
    size_t length;
    uint64_t count, hash;
};

void pieces_new(PieceCounts *p)
{
    *p = (PieceCounts){.mask = (1 << 12) - 1};
    p->slots = memory_zalloc(p->mask + 1, sizeof *p->slots);
}

static struct PieceSlot *slot_find(struct PieceSlot *slots, size_t mask, Span piece, uint64_t hash)
{
    for (size_t h = hash;; h++) {
        struct PieceSlot *s = &slots[h & mask];
        if (!s->bytes || (s->hash == hash && s->length == piece.length && memcmp(s->bytes, piece.data, piece.length) == 0))
            return s;
    }
}

static void pieces_grow(PieceCounts *p)
{
    size_t mask = (p->mask + 1) * 2 - 1;
    struct PieceSlot *slots = memory_zalloc(mask + 1, sizeof *slots);
    for (size_t i = 0; i <= p->mask; i++)
        if (p->slots[i].bytes)
            *slot_find(slots, mask, (Span){p->slots[i].bytes, p->slots[i].length}, p->slots[i].hash) = p->slots[i];
    free(p->slots);
    p->slots = slots;
    p->mask = mask;
}

void pieces_add(PieceCounts *p, Span piece, uint64_t count)
{
    uint64_t hash = XXH3_64bits(piece.data, piece.length);
    struct PieceSlot *s = slot_find(p->slots, p->mask, piece, hash);
    if (!s->bytes) {
        *s = (struct PieceSlot){arena_copy(&p->bytes, piece.data, piece.length), piece.length, 0, hash};
        s->count = count;
        if (++p->used * 2 > p->mask)
            pieces_grow(p);
        return;
    }
    s->count += count;
}

void pieces_merge(PieceCounts *into, const PieceCounts *from)
{
    for (size_t i = 0; i <= from->mask; i++)
        if (from->slots[i].bytes)
            pieces_add(into, (Span){from->slots[i].bytes, from->slots[i].length}, from->slots[i].count);
}

void pieces_free(PieceCounts *p)
{
    arena_free(&p->bytes);
    free(p->slots);
    *p = (PieceCounts){0};
}

/* ---- training ---- */

typedef struct Word {
    int32_t *symbols;
    uint32_t length;
    uint64_t count;
} Word;

/* A pair, its count, and the words that (may) hold it; words appear again where they were added again. */
typedef struct Pair {
    uint64_t key;
    int64_t count;
    uint32_t *words;
    uint32_t used, capacity;
} Pair;

typedef struct HeapItem {
    int64_t count;
    uint64_t key;
} HeapItem;

typedef struct Trainer {
    Arena arena;
    Word *words;
    size_t word_count;
    Pair *pairs;        /* open addressing, key UINT64_MAX: empty */
    size_t pair_count, pair_mask;
    HeapItem *heap;
    size_t heap_count, heap_capacity;
    uint64_t *fresh;    /* pairs that the current merge made */
    size_t fresh_count, fresh_capacity;
} Trainer;

static uint64_t key_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t key_hash(uint64_t key)
{
    key *= UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(key ^ key >> 31);
}

static void pairs_allocate(Trainer *t, size_t slots)
{
    t->pairs = memory_alloc(slots, sizeof *t->pairs);
    for (size_t i = 0; i < slots; i++)
        t->pairs[i] = (Pair){.key = UINT64_MAX};
    t->pair_mask = slots - 1;
}

static Pair *pair_slot(Trainer *t, uint64_t key)
{
    for (size_t h = key_hash(key);; h++) {
        Pair *p = &t->pairs[h & t->pair_mask];
        if (p->key == key || p->key == UINT64_MAX)
            return p;
    }
}

static Pair *pair_get(Trainer *t, uint64_t key)
{
    Pair *p = pair_slot(t, key);
    if (p->key == key)
        return p;
    if (t->pair_count * 2 > t->pair_mask) {
        Pair *old = t->pairs;
        size_t slots = t->pair_mask + 1;
        pairs_allocate(t, slots * 2);
        for (size_t i = 0; i < slots; i++)
            if (old[i].key != UINT64_MAX)
                *pair_slot(t, old[i].key) = old[i];
        free(old);
        p = pair_slot(t, key);
    }
    t->pair_count++;
    p->key = key;
    return p;
}

static void pair_add(Trainer *t, uint64_t key, uint64_t count, uint32_t word)
{
    Pair *p = pair_get(t, key);
    p->count += (int64_t)count;
    if (p->used > 0 && p->words[p->used - 1] == word)
        return;
    if (p->used == p->capacity) {
        p->capacity = p->capacity ? p->capacity * 2 : 2;
        p->words = memory_realloc(p->words, p->capacity, sizeof *p->words);
    }
    p->words[p->used++] = word;
}

static bool heap_before(HeapItem a, HeapItem b)
{
    return a.count > b.count || (a.count == b.count && a.key < b.key); /* the key orders by left id, then right id */
}

static void heap_push(Trainer *t, HeapItem item)
{
    t->heap = memory_grow(t->heap, &t->heap_capacity, t->heap_count + 1, sizeof *t->heap);
    size_t i = t->heap_count++;
    while (i > 0 && heap_before(item, t->heap[(i - 1) / 2])) {
        t->heap[i] = t->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    t->heap[i] = item;
}

static HeapItem heap_pop(Trainer *t)
{
    HeapItem top = t->heap[0], last = t->heap[--t->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < t->heap_count; i = child) {
        if (child + 1 < t->heap_count && heap_before(t->heap[child + 1], t->heap[child]))
            child++;
        if (!heap_before(t->heap[child], last))
            break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

static int compare_slots(const void *a, const void *b)
{
    const struct PieceSlot *x = *(const struct PieceSlot *const *)a, *y = *(const struct PieceSlot *const *)b;
    size_t n = x->length < y->length ? x->length : y->length;
    int c = memcmp(x->bytes, y->bytes, n);
    return c ? c : x->length < y->length ? -1 : x->length > y->length;
}

/* Words in a fixed order, so that memory and speed do not depend on how pieces were counted (the result never does). */
static void words_make(Trainer *t, const PieceCounts *p, const int32_t byte_id[256])
{
    const struct PieceSlot **order = memory_alloc(p->used, sizeof *order);
    size_t n = 0;
    for (size_t i = 0; i <= p->mask; i++)
        if (p->slots[i].bytes)
            order[n++] = &p->slots[i];
    qsort(order, n, sizeof *order, compare_slots);
    t->words = memory_alloc(n, sizeof *t->words);
    for (size_t i = 0; i < n; i++) {
        Word *w = &t->words[t->word_count++];
        *w = (Word){arena_alloc(&t->arena, order[i]->length, sizeof(int32_t)), (uint32_t)order[i]->length, order[i]->count};
        for (uint32_t k = 0; k < w->length; k++)
            w->symbols[k] = byte_id[(unsigned char)order[i]->bytes[k]];
        for (uint32_t k = 0; k + 1 < w->length; k++)
            pair_add(t, key_of(w->symbols[k], w->symbols[k + 1]), w->count, (uint32_t)i);
    }
    free(order);
}

static void pair_lose(Trainer *t, uint64_t key, uint64_t count)
{
    pair_get(t, key)->count -= (int64_t)count;
}

static void pair_gain(Trainer *t, uint64_t key, uint64_t count, uint32_t word)
{
    if (pair_slot(t, key)->key != key) {
        t->fresh = memory_grow(t->fresh, &t->fresh_capacity, t->fresh_count + 1, sizeof *t->fresh);
        t->fresh[t->fresh_count++] = key;
    }
    pair_add(t, key, count, word);
}

/* Left to right, not overlapping; the left neighbour is the one that earlier replacements have left there. */
static void word_merge(Trainer *t, uint32_t index, int32_t left, int32_t right, int32_t whole)
{
    Word *w = &t->words[index];
    int32_t *s = w->symbols;
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->length; i++) {
        if (s[i] != left || i + 1 == w->length || s[i + 1] != right) {
            s[n++] = s[i];
            continue;
        }
        if (n > 0) {
            pair_lose(t, key_of(s[n - 1], left), w->count);
            pair_gain(t, key_of(s[n - 1], whole), w->count, index);
        }
        if (i + 2 < w->length) {
            pair_lose(t, key_of(right, s[i + 2]), w->count);
            pair_gain(t, key_of(whole, s[i + 2]), w->count, index);
        }
        s[n++] = whole;
        i++;
    }
    w->length = n;
}

static void alphabet_make(const PieceCounts *p, bool whole, BpeResult *out, int32_t byte_id[256])
{
    bool seen[256] = {false};
    for (size_t i = 0; i <= p->mask; i++)
        for (size_t k = 0; p->slots[i].bytes && k < p->slots[i].length; k++)
            seen[(unsigned char)p->slots[i].bytes[k]] = true;
    for (uint32_t c = 0; c < 0x144; c++) {
        int b = bytelevel_byte(c);
        if (b >= 0 && (whole || seen[b])) {
            byte_id[b] = out->alphabet_size;
            out->alphabet[out->alphabet_size++] = (unsigned char)b;
        }
    }
}

void bpe_train(const PieceCounts *p, int64_t size, uint64_t min_frequency, bool whole_alphabet, BpeResult *out)
{
    *out = (BpeResult){0};
    int32_t byte_id[256] = {0};
    Trainer t = {0};
    alphabet_make(p, whole_alphabet, out, byte_id);
    pairs_allocate(&t, 1 << 16);
    words_make(&t, p, byte_id);
    for (size_t i = 0; i <= t.pair_mask; i++)
        if (t.pairs[i].key != UINT64_MAX && t.pairs[i].count > 0)
            heap_push(&t, (HeapItem){t.pairs[i].count, t.pairs[i].key});
    size_t capacity = 0;
    while (out->alphabet_size + (int64_t)out->merge_count < size && t.heap_count > 0) {
        HeapItem top = heap_pop(&t);
        Pair *pair = pair_get(&t, top.key);
        if (pair->count != top.count) {
            if (pair->count > 0)
                heap_push(&t, (HeapItem){pair->count, top.key});
            continue;
        }
        if (top.count < 1 || (uint64_t)top.count < min_frequency)
            break;
        int32_t left = (int32_t)(top.key >> 32), right = (int32_t)(uint32_t)top.key;
        out->merges = memory_grow(out->merges, &capacity, out->merge_count + 1, sizeof *out->merges);
        int32_t whole = out->alphabet_size + (int32_t)out->merge_count;
        out->merges[out->merge_count++] = (BpeMerge){left, right};
        uint32_t *words = pair->words, used = pair->used;
        pair->words = NULL;
        pair->used = pair->capacity = 0;
        for (uint32_t i = 0; i < used; i++)
            word_merge(&t, words[i], left, right, whole);
        free(words);
        for (size_t i = 0; i < t.fresh_count; i++) {
            int64_t count = pair_get(&t, t.fresh[i])->count;
            if (count > 0)
                heap_push(&t, (HeapItem){count, t.fresh[i]});
        }
        t.fresh_count = 0;
    }
    for (size_t i = 0; i <= t.pair_mask; i++)
        free(t.pairs[i].words);
    free(t.pairs);
    free(t.heap);
    free(t.fresh);
    free(t.words);
    arena_free(&t.arena);
}

void bpe_result_free(BpeResult *r)
{
    free(r->merges);
    *r = (BpeResult){0};
}

void bpe_token_bytes(const BpeResult *r, int32_t id, Buffer *out)
{
    if (id < r->alphabet_size) {
        buffer_byte(out, (char)r->alphabet[id]);
        return;
    }
    BpeMerge m = r->merges[id - r->alphabet_size];
    bpe_token_bytes(r, m.left, out);
    bpe_token_bytes(r, m.right, out);
}
