/* English words: the tokens of spaCy's blank English tokenizer, by its order of work. White space parts a text into chunks. A chunk
 * loses marks at its front and its back, one of each a round, until nothing fits or a special case remains; the rest is an
 * address, or is cut in its middle. At last, tokens that touch one another and together read as a special case ("word:)" gave
 * ":" and ")") are put together. */
#include "text/words_en.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "text/unicode.h"
#include "text/utf8.h"

/* What a byte means while a chunk's end is looked for. */
enum { BYTE_LETTER, BYTE_MARK, BYTE_BLANK, BYTE_FOREIGN };
static uint8_t byte_kind[256];

/* What is cut off behind a digit: units and currencies, in a set of their bytes. */
static const char units[] =
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph "
    "hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % "
    "км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ "
    "тбكم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ كم غرام جرام جم كغ ملغ كوب اكواب "
    "$ £ € ¥ ฿ US$ C$ A$ ₽ ﷼ ₴ ₠ ₡ ₢ ₣ ₤ ₥ ₦ ₧ ₨ ₩ ₪ ₫ ₭ ₮ ₯ ₰ ₱ ₲ ₳ ₵ ₶ ₷ ₸ ₹ ₺ ₻ ₼ ₾ ₿ +";
enum { UNIT_BYTES = 10, UNIT_SLOTS = 512 };
static uint64_t unit_set[UNIT_SLOTS];

static size_t unit_slot(uint64_t key)
{
    size_t i = (size_t)(key * 0x9e3779b97f4a7c15u >> 55);
    while (unit_set[i] && unit_set[i] != key)
        i = (i + 1) % UNIT_SLOTS;
    return i;
}

static uint64_t unit_key(const char *b, size_t n)
{
    uint64_t key[2] = {0};
    memcpy(key, b, n);
    return key[0] ^ key[1] << 48;
}

static inline uint32_t at(const char *p, size_t *n)
{
    return utf8_decode(p, n);
}

/* The class of the character that ends at p, none at b. */
static inline unsigned class_before(const char *b, const char *p)
{
    if (p == b)
        return 0;
    if ((unsigned char)p[-1] < 0x80)
        return english_classes[(unsigned char)p[-1]];
    do
        p--;
    while (p > b && ((unsigned char)*p & 0xc0) == 0x80);
    size_t n;
    return english_class(at(p, &n));
}

static inline unsigned class_at(const char *p, const char *e)
{
    size_t n;
    return p < e ? english_class(at(p, &n)) : 0;
}

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline void add(Words *w, const char *b, const char *e)
{
    if (w->count == w->capacity)
        w->items = memory_grow(w->items, &w->capacity, w->count + 1, sizeof *w->items);
    w->items[w->count++] = (Span){b, (size_t)(e - b)};
}

/* Bytes to cut off at the front of [b, e), or 0. */
static size_t prefix_at(const char *b, const char *e)
{
    size_t n;
    unsigned class = english_class(at(b, &n));
    if (class & EN_PREFIX)
        return n;
    switch (*b) {
    case '+':
        return e - b > 1 && is_digit(b[1]) ? 0 : 1;
    case '.':
        while (b + n < e && b[n] == '.')
            n++;
        return n >= 2 ? n : 0;
    case 'U':
        return e - b >= 3 && b[1] == 'S' && b[2] == '$' ? 3 : 0;
    case 'A':
    case 'C':
        return e - b >= 2 && b[1] == '$' ? 2 : 0;
    default:
        return 0;
    }
}

/* A unit, a currency or a plus sign right behind the last digit of [b, e): its bytes, or 0. */
static size_t unit_before(const char *b, const char *e)
{
    size_t n = 0, most = (size_t)(e - b);
    while (n < most && n <= UNIT_BYTES && !is_digit(e[-1 - (long)n]))
        n++;
    if (n == 0 || n == most || n > UNIT_BYTES)
        return 0;
    return unit_set[unit_slot(unit_key(e - n, n))] ? n : 0;
}

/* A full stop ends [b, e): is it cut off? */
static bool stop_is_cut(const char *b, const char *e)
{
    const char *p = e - 1;
    unsigned last = class_before(b, p);
    if (last & EN_BEFORE_STOP)
        return true;
    if (p - b >= 3 && strchr("FfCcKk", p[-1]) && memcmp(p - 3, "\xc2\xb0", 2) == 0)
        return true;
    if (!(last & EN_UPPER))
        return false;
    do
        p--;
    while (((unsigned char)*p & 0xc0) == 0x80);
    return class_before(b, p) & EN_UPPER;
}

/* Bytes to cut off at the back of [b, e), or 0: the longest of what fits. */
static size_t suffix_at(const char *b, const char *e)
{
    if (b == e)
        return 0;
    unsigned char last = (unsigned char)e[-1];
    if (last == '.') {
        size_t n = 1;
        while (n < (size_t)(e - b) && e[-1 - (long)n] == '.')
            n++;
        return n >= 2 ? n : stop_is_cut(b, e);
    }
    if ((last == 's' || last == 'S') && e - b >= 2) {
        if (e[-2] == '\'')
            return 2;
        if (e - b >= 4 && memcmp(e - 4, "\xe2\x80\x99", 3) == 0)
            return 4;
    }
    size_t unit = unit_before(b, e);
    if (unit)
        return unit;
    if (last < 0x80)
        return english_classes[last] & EN_SUFFIX ? 1 : 0;
    const char *p = e - 1;
    while (p > b && ((unsigned char)*p & 0xc0) == 0x80)
        p--;
    size_t n;
    uint32_t c = at(p, &n);
    if (c == 0x2026 && p - b >= 3 && memcmp(p - 3, p, 3) == 0)
        return 6;
    return english_class(c) & EN_SUFFIX ? n : 0;
}

/* Bytes of the cut that begins at p inside [b, e), or 0. */
static size_t infix_at(const char *b, const char *p, const char *e)
{
    size_t n;
    uint32_t c = at(p, &n);
    unsigned class = english_class(c);
    if (!(class & EN_INFIX))
        return 0;
    if ((class & EN_ICON) || c == 0x2026)
        return n;
    if (c == '.' && p + 1 < e && p[1] == '.') {
        while (p + n < e && p[n] == '.')
            n++;
        return n;
    }
    unsigned left = class_before(b, p), right = class_at(p + n, e);
    switch (c) {
    case '.':
        return left & (EN_LOWER | EN_QUOTE) && right & (EN_UPPER | EN_QUOTE) ? 1 : 0;
    case ',':
        return left & right & EN_ALPHA ? 1 : 0;
    case ':':
    case '<':
    case '>':
    case '=':
    case '/':
        return left & (EN_ALPHA | EN_DIGIT) && right & EN_ALPHA ? 1 : 0;
    case '+':
    case '*':
    case '^':
    case '-':
        if (left & EN_DIGIT && (right & EN_DIGIT || (p + 1 < e && p[1] == '-')))
            return 1;
        if (c != '-')
            return 0;
        break;
    default:
        break;
    }
    /* Hyphens and dashes: one, or two or three hyphens, or two long dashes. */
    if (!(left & (EN_ALPHA | EN_DIGIT)))
        return 0;
    size_t most = c == '-' ? 3 : c == 0x2014 ? 2 : 1;
    for (size_t k = 1;; k++) {
        const char *q = p + n * k;
        if (class_at(q, e) & EN_ALPHA)
            return n * k;
        if (k == most || (size_t)(e - q) < n || memcmp(q, p, n) != 0)
            return 0;
    }
}

static void middle(Words *w, const char *b, const char *e)
{
    const char *p = b;
    while (p < e && !((unsigned char)*p >= 0x80 || english_classes[(unsigned char)*p] & EN_INFIX))
        p++;
    if (p == e) {
        add(w, b, e);
        return;
    }
    if (address_is_whole(b, e)) {
        add(w, b, e);
        return;
    }
    const char *begin = b;
    while (p < e) {
        size_t n = infix_at(b, p, e);
        if (n == 0) {
            do
                p++;
            while (p < e && ((unsigned char)*p & 0xc0) == 0x80);
            continue;
        }
        if (p > b) {
            if (p > begin)
                add(w, begin, p);
            add(w, p, p + n);
            begin = p + n;
        }
        p += n;
    }
    if (e > begin)
        add(w, begin, e);
}

static void add_special(Words *w, const Special *s, const char *b)
{
    unsigned begin = 0;
    for (unsigned i = 1; i <= s->length; i++)
        if (i == s->length || s->cuts >> i & 1) {
            add(w, b + begin, b + i);
            begin = i;
        }
}

/* The suffixes of a chunk, found last one first, as their lengths. */
typedef struct Tail {
    uint32_t *lengths;
    size_t count, capacity;
} Tail;

static inline const Special *special_of(const char *b, const char *e, bool specials)
{
    return specials ? special_find(b, e) : NULL;
}

/* The tokens of a chunk. specials: with the special cases. */
static void chunk(Words *w, Tail *tail, const char *b, const char *e, bool specials)
{
    const Special *s = NULL;
    tail->count = 0;
    while (b < e && !(s = special_of(b, e, specials))) {
        size_t front = prefix_at(b, e);
        if (front && (s = special_of(b + front, e, specials))) {
            add(w, b, b + front);
            b += front;
            break;
        }
        size_t back = suffix_at(b + front, e);
        if (!front && !back)
            break;
        if (front)
            add(w, b, b + front);
        if (back) {
            tail->lengths = memory_grow(tail->lengths, &tail->capacity, tail->count + 1, sizeof *tail->lengths);
            tail->lengths[tail->count++] = (uint32_t)back;
            if ((s = special_of(b, e - back, specials))) {
                w->count -= front > 0;
                e -= back;
                break;
            }
        }
        b += front;
        e -= back;
    }
    if (s)
        add_special(w, s, b);
    else if (b < e)
        middle(w, b, e);
    while (tail->count > 0) {
        size_t n = tail->lengths[--tail->count];
        add(w, e, e + n);
        e += n;
    }
}

/* Joined to the next: nothing stands between. */
static bool touches(const Span *t)
{
    return t[0].data + t[0].length == t[1].data;
}

/* The special case that the tokens from t (`left` of them) read as when put together, blanks between them left out, cut as
 * the other rules cut it: the longest with at most `most` tokens; *count is how many it takes. */
static const Special *phrase_at(const Span *t, size_t left, size_t most, size_t *count)
{
    char text[SPECIAL_BYTES];
    size_t length = 0;
    uint32_t cuts = 0, lengths = t->length ? special_lengths[(unsigned char)*t->data] : 0;
    const Special *best = NULL;
    if (t->length >= SPECIAL_BYTES || !(lengths >> t->length >> 1)) /* none is longer than the first token */
        return NULL;
    for (size_t n = 0; n < left && n < most && t[n].length && length + t[n].length < SPECIAL_BYTES; n++) {
        cuts |= 1u << length;
        memcpy(text + length, t[n].data, t[n].length);
        length += t[n].length;
        const Special *s = n > 0 && special_possible(text, length) ? special_find(text, text + length) : NULL;
        if (s && s->plain == cuts) {
            best = s;
            *count = n + 1;
        }
    }
    return best;
}

/* Do tokens of one chunk read as a special case? A look at every place of a chunk of three tokens or more: two would have been
 * the whole chunk. */
static bool has_phrase(const Words *w, size_t first)
{
    size_t n;
    for (size_t i = first; i + 1 < w->count; i++)
        if (phrase_at(w->items + i, w->count - i, SIZE_MAX, &n))
            return true;
    return false;
}

typedef struct Found {
    const Special *special;
    size_t first, count;
} Found;

static int longest_first(const void *a, const void *b)
{
    const Found *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int in_order(const void *a, const void *b)
{
    const Found *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Puts tokens of [first, w->count) together that read as special cases. Longer ones win, then earlier ones; one with blanks inside
 * changes nothing but keeps others from its tokens. */
static void join_phrases(Words *w, size_t first)
{
    Found *found = NULL;
    size_t count = 0, capacity = 0, kept = 0, n;
    for (size_t i = first; i < w->count; i++)
        for (size_t most = SIZE_MAX;;) {
            const Special *s = phrase_at(w->items + i, w->count - i, most, &n);
            if (!s)
                break;
            found = memory_grow(found, &capacity, count + 1, sizeof *found);
            found[count++] = (Found){s, i, n};
            most = n - 1;
        }
    if (count == 0)
        return;
    uint8_t *taken = memory_zalloc(w->count - first, 1);
    qsort(found, count, sizeof *found, longest_first);
    for (size_t i = 0; i < count; i++) {
        uint8_t *t = taken + (found[i].first - first);
        bool is_free = !t[0] && !t[found[i].count - 1], whole = true;
        memset(t, 1, found[i].count);
        for (size_t k = 0; k + 1 < found[i].count; k++)
            whole &= touches(w->items + found[i].first + k);
        if (is_free && whole)
            found[kept++] = found[i];
    }
    free(taken);
    qsort(found, kept, sizeof *found, in_order);
    Words out = {0};
    for (size_t i = first, k = 0; i < w->count;) {
        if (k < kept && found[k].first == i) {
            add_special(&out, found[k].special, w->items[i].data);
            i += found[k++].count;
        } else {
            add(&out, w->items[i].data, w->items[i].data + w->items[i].length);
            i++;
        }
    }
    free(found);
    w->items = memory_grow(w->items, &w->capacity, first + out.count, sizeof *w->items);
    memcpy(w->items + first, out.items, out.count * sizeof *out.items);
    w->count = first + out.count;
    words_free(&out);
}

/* How the other rules cut a special case. */
static void set_plain(Special *s)
{
    Words w = {0};
    Tail tail = {0};
    chunk(&w, &tail, s->text, s->text + s->length, false);
    for (size_t i = 0; i < w.count; i++)
        s->plain |= 1u << (w.items[i].data - s->text);
    words_free(&w);
    free(tail.lengths);
}

static void build(void)
{
    english_classes_build();
    for (unsigned c = 0; c < 256; c++) {
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        byte_kind[c] = c >= 0x80 ? BYTE_FOREIGN : letter ? BYTE_LETTER : unicode_is_blank(c) ? BYTE_BLANK : BYTE_MARK;
    }
    for (const char *p = units; *p;) {
        size_t n = strcspn(p, " ");
        uint64_t key = unit_key(p, n);
        unit_set[unit_slot(key)] = key;
        p += n + (p[n] == ' ');
    }
    special_build();
    special_each(set_plain);
}

/* Bytes of the white space at p, or 0. */
static inline size_t blank_at(const char *p)
{
    unsigned char c = (unsigned char)*p;
    if (byte_kind[c] != BYTE_FOREIGN)
        return byte_kind[c] == BYTE_BLANK;
    if (c != 0xc2 && (c < 0xe1 || c > 0xe3)) /* none begins with another byte */
        return 0;
    size_t n;
    return unicode_is_blank(utf8_decode(p, &n)) ? n : 0;
}

void english_split(Words *w, Span text)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, build);
    const char *p = text.data, *end = text.data + text.length;
    size_t first = w->count, n;
    bool phrases = false;
    Tail tail = {0};
    while (p < end) {
        const char *b = p;
        while (p < end && (n = blank_at(p)))
            p += n;
        /* One blank behind a word goes with it; other white space is a token. */
        if (p > b && !(p - b == 1 && *b == ' ' && b > text.data))
            add(w, b, b);
        b = p;
        while (p < end && byte_kind[(unsigned char)*p] == BYTE_LETTER)
            p++;
        if (p == end || byte_kind[(unsigned char)*p] == BYTE_BLANK) {
            const Special *s = p > b ? special_find(b, p) : NULL;
            if (s)
                add_special(w, s, b);
            else if (p > b)
                add(w, b, p);
            continue;
        }
        while (p < end && (byte_kind[(unsigned char)*p] <= BYTE_MARK || !blank_at(p)))
            p++;
        if (p == b)
            continue;
        size_t before = w->count;
        chunk(w, &tail, b, p, true);
        if (w->count - before >= 3)
            phrases = phrases || has_phrase(w, before);
    }
    free(tail.lengths);
    if (phrases)
        join_phrases(w, first);
}
