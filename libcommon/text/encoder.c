/* Encoding: added tokens are cut out, the rest is normalised, split into pieces, and each piece merged. Pieces repeat, so
 * their ids are kept in a table: nine in ten pieces of English are answered from 16,000 entries. */
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "text/tokenizer_internal.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum { KEY_BYTES = 15, CACHE_IDS = 3, CACHE_SLOTS = 1 << 16, SHORT_PIECE = 48 };

/* A piece of up to 15 bytes that became up to three ids. */
typedef struct CacheEntry {
    unsigned char key[KEY_BYTES + 1]; /* padded with zeros; the last byte is the length, 0: empty */
    int32_t ids[CACHE_IDS];
    int32_t count;
} CacheEntry;

typedef struct Node { /* of a long piece's list */
    int32_t id, previous, next;
} Node;

typedef struct HeapItem {
    int32_t rank, position, left, right, id;
} HeapItem;

struct Encoder {
    const Tokenizer *tokenizer;
    CacheEntry *cache;
    void *scratch[MAX_SPLITS];
    int32_t *symbols;
    size_t symbol_capacity;
    Node *nodes;
    size_t node_capacity;
    HeapItem *heap;
    size_t heap_count, heap_capacity;
    Buffer normal, prefixed;
    Ids *out;
    int split;
    Error *err;
};

Encoder *encoder_new(const Tokenizer *t)
{
    Encoder *e = memory_zalloc(1, sizeof *e);
    e->tokenizer = t;
    e->cache = memory_zalloc(CACHE_SLOTS, sizeof *e->cache);
    for (int i = 0; i < t->split_count; i++)
        e->scratch[i] = splitter_scratch(&t->splits[i]);
    return e;
}

void encoder_free(Encoder *e)
{
    if (!e)
        return;
    for (int i = 0; i < e->tokenizer->split_count; i++)
        splitter_scratch_free(e->scratch[i]);
    free(e->cache);
    free(e->symbols);
    free(e->nodes);
    free(e->heap);
    buffer_free(&e->normal);
    buffer_free(&e->prefixed);
    free(e);
}

void ids_add(Ids *ids, int32_t id)
{
    ids->data = memory_grow(ids->data, &ids->capacity, ids->count + 1, sizeof *ids->data);
    ids->data[ids->count++] = id;
}

void ids_free(Ids *ids)
{
    free(ids->data);
    *ids = (Ids){0};
}

/* The ids that merging begins with, in e->symbols: a token a byte, or with byte fallback a token a character where there is one.
 * Returns how many, at most piece.length. */
static size_t symbols_make(Encoder *e, Span piece)
{
    const Tokenizer *t = e->tokenizer;
    const Vocabulary *v = &t->vocabulary;
    e->symbols = memory_grow(e->symbols, &e->symbol_capacity, piece.length, sizeof *e->symbols);
    size_t n = 0, length;
    if (!t->sentencepiece.on) {
        for (; n < piece.length; n++)
            e->symbols[n] = v->byte_id[(unsigned char)piece.data[n]];
        return n;
    }
    for (size_t i = 0; i < piece.length; i += length) {
        utf8_decode(piece.data + i, &length);
        int32_t id = vocabulary_find(v, piece.data + i, length);
        if (id >= 0)
            e->symbols[n++] = id;
        for (size_t k = 0; k < length && id < 0; k++)
            e->symbols[n++] = t->sentencepiece.byte_id[(unsigned char)piece.data[i + k]];
    }
    return n;
}

/* Lowest rank first, leftmost among equals. */
static void merge_short(Encoder *e, int n)
{
    const Vocabulary *v = &e->tokenizer->vocabulary;
    int32_t *ids = e->symbols;
    const Merge *merges[SHORT_PIECE];
    for (int i = 0; i + 1 < n; i++)
        merges[i] = vocabulary_merge(v, ids[i], ids[i + 1]);
    for (;;) {
        int best = -1;
        for (int i = 0; i + 1 < n; i++)
            if (merges[i] && (best < 0 || merges[i]->rank < merges[best]->rank))
                best = i;
        if (best < 0)
            break;
        ids[best] = merges[best]->id;
        n--;
        for (int i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            merges[i] = merges[i + 1];
        }
        if (best > 0)
            merges[best - 1] = vocabulary_merge(v, ids[best - 1], ids[best]);
        if (best + 1 < n)
            merges[best] = vocabulary_merge(v, ids[best], ids[best + 1]);
    }
    for (int i = 0; i < n; i++)
        ids_add(e->out, ids[i]);
}

static bool heap_before(const HeapItem *a, const HeapItem *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->position < b->position);
}

static void heap_push(Encoder *e, int32_t left, int32_t right)
{
    const Merge *m = vocabulary_merge(&e->tokenizer->vocabulary, e->nodes[left].id, e->nodes[right].id);
    if (!m)
        return;
    e->heap = memory_grow(e->heap, &e->heap_capacity, e->heap_count + 1, sizeof *e->heap);
    HeapItem item = {m->rank, left, e->nodes[left].id, e->nodes[right].id, m->id};
    size_t i = e->heap_count++;
    while (i > 0 && heap_before(&item, &e->heap[(i - 1) / 2])) {
        e->heap[i] = e->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    e->heap[i] = item;
}

static HeapItem heap_pop(Encoder *e)
{
    HeapItem top = e->heap[0], last = e->heap[--e->heap_count];
    size_t i = 0, n = e->heap_count;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap_before(&e->heap[child + 1], &e->heap[child]))
            child++;
        if (!heap_before(&e->heap[child], &last))
            break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return top;
}

/* The same by a list and a heap of candidates, n log n; a candidate is stale if either side has changed since. */
static void merge_long(Encoder *e, int32_t n)
{
    e->nodes = memory_grow(e->nodes, &e->node_capacity, (size_t)n, sizeof *e->nodes);
    e->heap_count = 0;
    for (int32_t i = 0; i < n; i++)
        e->nodes[i] = (Node){e->symbols[i], i - 1, i + 1 < n ? i + 1 : -1};
    for (int32_t i = 0; i + 1 < n; i++)
        heap_push(e, i, i + 1);
    while (e->heap_count > 0) {
        HeapItem item = heap_pop(e);
        Node *left = &e->nodes[item.position];
        if (left->id != item.left || left->next < 0 || e->nodes[left->next].id != item.right)
            continue;
        int32_t gone = left->next;
        left->id = item.id;
        left->next = e->nodes[gone].next;
        e->nodes[gone].id = -1;
        if (left->next >= 0) {
            e->nodes[left->next].previous = item.position;
            heap_push(e, item.position, left->next);
        }
        if (left->previous >= 0)
            heap_push(e, left->previous, item.position);
    }
    for (int32_t i = 0; i >= 0; i = e->nodes[i].next)
        ids_add(e->out, e->nodes[i].id);
}

static int merge_piece(Encoder *e, Span piece)
{
    const Vocabulary *v = &e->tokenizer->vocabulary;
    if (e->tokenizer->ignore_merges) {
        int32_t whole = vocabulary_find(v, piece.data, piece.length);
        if (whole >= 0) {
            ids_add(e->out, whole);
            return 0;
        }
    }
    for (size_t i = 0; i < piece.length && !e->tokenizer->sentencepiece.on; i++)
        if (v->byte_id[(unsigned char)piece.data[i]] < 0)
            return error_set(e->err, "the vocabulary has no token for the byte 0x%02x", (unsigned char)piece.data[i]);
    if (piece.length > INT32_MAX)
        return error_set(e->err, "a piece of more than 2 GiB");
    size_t n = symbols_make(e, piece);
    if (n <= SHORT_PIECE)
        merge_short(e, (int)n);
    else
        merge_long(e, (int32_t)n);
    return 0;
}

static int encode_piece(Encoder *e, Span piece)
{
    if (piece.length > KEY_BYTES)
        return merge_piece(e, piece);
    unsigned char key[KEY_BYTES + 1] = {0};
    memcpy(key, piece.data, piece.length);
    key[KEY_BYTES] = (unsigned char)piece.length;
    uint64_t words[2];
    memcpy(words, key, 16);
    uint64_t h = (words[0] ^ words[1] * UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xff51afd7ed558ccd);
    CacheEntry *c = &e->cache[(h ^ h >> 29) >> 16 & (CACHE_SLOTS - 1)];
    if (memcmp(c->key, key, sizeof key) != 0) {
        size_t before = e->out->count;
        if (merge_piece(e, piece) < 0)
            return -1;
        size_t n = e->out->count - before;
        if (n <= CACHE_IDS) {
            memcpy(c->key, key, sizeof key);
            memcpy(c->ids, e->out->data + before, n * sizeof *c->ids);
            c->count = (int32_t)n;
        }
        return 0;
    }
    Ids *out = e->out;
    out->data = memory_grow(out->data, &out->capacity, out->count + CACHE_IDS, sizeof *out->data);
    memcpy(out->data + out->count, c->ids, sizeof c->ids);
    out->count += (size_t)c->count;
    return 0;
}

static Span prefix(Encoder *e, Span piece)
{
    if (*piece.data == ' ')
        return piece;
    e->prefixed.length = 0;
    buffer_byte(&e->prefixed, ' ');
    buffer_append(&e->prefixed, piece.data, piece.length);
    return (Span){e->prefixed.data, e->prefixed.length};
}

/* The next split, or the merges behind the last one. */
static int split_piece(void *context, Span piece)
{
    Encoder *e = context;
    const Tokenizer *t = e->tokenizer;
    if (e->split == t->split_count)
        return encode_piece(e, piece);
    int level = e->split++;
    if (t->prefix_blank && e->split == t->split_count)
        piece = prefix(e, piece);
    int status = splitter_run(&t->splits[level], e->scratch[level], piece, split_piece, e, e->err);
    e->split = level;
    return status;
}

/* `first`: the text is the beginning of the document, and no added token comes before it. */
static int encode_plain(Encoder *e, Span text, bool first)
{
    if (text.length == 0)
        return 0;
    const SentencePiece *s = &e->tokenizer->sentencepiece;
    if (s->on) {
        sentencepiece_normal(s, text, first, &e->normal);
        text = (Span){e->normal.data, e->normal.length};
        for (size_t at = 0, end; at < text.length; at = end) {
            end = sentencepiece_next(s, text, at);
            if (encode_piece(e, (Span){text.data + at, end - at}) < 0)
                return -1;
        }
        return 0;
    }
    if (e->tokenizer->nfc && unicode_nfc_may_change(text)) {
        e->normal.length = 0;
        unicode_nfc(text, &e->normal);
        text = (Span){e->normal.data, e->normal.length};
    }
    const Tokenizer *t = e->tokenizer;
    /* The usual case, one split scanned by hand, without calls through pointers. */
    if (t->split_count == 1 && t->splits[0].kind != SPLIT_REGEX && !t->prefix_blank) {
        SplitKind kind = t->splits[0].kind;
        for (size_t at = 0, end; at < text.length; at = end) {
            end = splitter_next(kind, text, at);
            if (encode_piece(e, (Span){text.data + at, end - at}) < 0)
                return -1;
        }
        return 0;
    }
    e->split = 0;
    return split_piece(e, text);
}

static bool is_listed(const char *list, const AddedToken *a)
{
    for (const char *p = list; p && *p; p = *p == ',' ? p + 1 : p) {
        size_t n = strcspn(p, ",");
        if (n == a->length && memcmp(p, a->content, n) == 0)
            return true;
        p += n;
    }
    return false;
}

static bool is_word(Span text, size_t at)
{
    if (at >= text.length)
        return false;
    size_t n;
    unsigned c = unicode_class(utf8_decode(text.data + at, &n));
    return (c & (UNICODE_L | UNICODE_N | UNICODE_M)) || text.data[at] == '_';
}

static const AddedToken *added_at(const Tokenizer *t, Span text, size_t at, const ParseSpecial *parse)
{
    if (!t->begins[(unsigned char)text.data[at]])
        return NULL;
    for (size_t i = 0; i < t->added_count; i++) {
        const AddedToken *a = &t->added[i];
        if (a->length > text.length - at || memcmp(text.data + at, a->content, a->length) != 0)
            continue;
        if (!parse->all && !is_listed(parse->list, a))
            continue;
        if (a->single_word) {
            size_t before = at;
            while (before > 0 && ((unsigned char)text.data[--before] & 0xc0) == 0x80)
                ;
            if ((at > 0 && is_word(text, before)) || is_word(text, at + a->length))
                continue;
        }
        return a;
    }
    return NULL;
}

static size_t blank_before(Span text, size_t begin, size_t at)
{
    while (at > begin) {
        size_t p = at - 1, n;
        while (p > begin && ((unsigned char)text.data[p] & 0xc0) == 0x80)
            p--;
        if (!(unicode_class(utf8_decode(text.data + p, &n)) & UNICODE_SPACE))
            break;
        at = p;
    }
    return at;
}

int encoder_encode(Encoder *e, Span text, const ParseSpecial *parse, Ids *out, Error *err)
{
    const Tokenizer *t = e->tokenizer;
    e->out = out;
    e->err = err;
    size_t begin = 0;
    if (parse && (parse->all || parse->list) && t->added_count > 0) {
        for (size_t at = 0; at < text.length;) {
            const AddedToken *a = added_at(t, text, at, parse);
            if (!a) {
                at++;
                continue;
            }
            size_t end = a->lstrip ? blank_before(text, begin, at) : at;
            if (encode_plain(e, (Span){text.data + begin, end - begin}, begin == 0) < 0)
                return -1;
            ids_add(out, a->id);
            at += a->length;
            size_t n;
            while (a->rstrip && at < text.length && (unicode_class(utf8_decode(text.data + at, &n)) & UNICODE_SPACE))
                at += n;
            begin = at;
        }
    }
    return encode_plain(e, (Span){text.data + begin, text.length - begin}, begin == 0);
}
