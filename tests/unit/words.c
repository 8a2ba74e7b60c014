/* smoke: words and sentences against spaCy's and uniseg's (tests/data/words.txt), and what must hold for any text.
 * `words KIND` (en, uax29, space, sentences) instead prints the words of texts on its input: texts end with NUL, words are parted
 * by \1 (tests/reference/qfilter_check.py). */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "io/stream.h"
#include "tests/unit/tap.h"
#include "text/words.h"

static void split(Words *w, Words *tokens, const char *kind, Span text)
{
    if (strcmp(kind, "sentences") == 0)
        words_sentences(w, tokens, text);
    else
        words_split(w, strcmp(kind, "space") == 0 ? WORDS_SPACE : strcmp(kind, "uax29") == 0 ? WORDS_UAX29 : WORDS_EN, text);
}

static int print_words(const char *kind)
{
    Buffer in = {0};
    Words w = {0}, tokens = {0};
    for (size_t n = 1; n > 0; in.length += n) {
        buffer_reserve(&in, 1 << 20);
        n = fread(in.data + in.length, 1, 1 << 20, stdin);
    }
    for (size_t at = 0; at < in.length;) {
        const char *nul = memchr(in.data + at, 0, in.length - at);
        size_t end = nul ? (size_t)(nul - in.data) : in.length;
        split(&w, &tokens, kind, (Span){in.data + at, end - at});
        for (size_t i = 0; i < w.count; i++) {
            if (i)
                putchar(1);
            fwrite(w.items[i].data, 1, w.items[i].length, stdout);
        }
        putchar(0);
        at = end + 1;
    }
    words_free(&w);
    words_free(&tokens);
    buffer_free(&in);
    return fclose(stdout) != 0;
}

/* A line of the golden file with \n, \t, \\ and \s (a blank inside a sentence) as they are meant. */
static void unescape(Span line, Buffer *out)
{
    out->length = 0;
    for (size_t i = 0; i < line.length; i++) {
        char c = line.data[i];
        if (c == '\\' && i + 1 < line.length) {
            c = line.data[++i];
            c = (char)(c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 's' ? ' ' : c);
        }
        buffer_byte(out, c);
    }
}

/* The golden file: a line "text TEXT", then lines "KIND WORD WORD …". */
static void test_golden(void)
{
    Error err;
    Reader *r = reader_open("tests/data/words.txt", &err);
    Span line;
    Buffer text = {0}, word = {0};
    Words w = {0}, tokens = {0};
    int compared = 0, wrong = 0;
    while (r && reader_line(r, &line, &err) > 0) {
        const char *blank = memchr(line.data, ' ', line.length);
        size_t at = blank ? (size_t)(blank - line.data) : line.length, i = 0;
        char kind[16] = {0};
        memcpy(kind, line.data, at < sizeof kind - 1 ? at : sizeof kind - 1);
        if (*kind == '#')
            continue;
        if (strcmp(kind, "text") == 0) {
            unescape(at < line.length ? (Span){line.data + at + 1, line.length - at - 1} : (Span){line.data + at, 0}, &text);
            continue;
        }
        split(&w, &tokens, kind, (Span){text.data ? text.data : "", text.length});
        int same = 1;
        while (at < line.length) {
            size_t end = ++at;
            while (end < line.length && line.data[end] != ' ')
                end++;
            unescape((Span){line.data + at, end - at}, &word);
            same &= i < w.count && w.items[i].length == word.length && memcmp(w.items[i].data, word.data, word.length) == 0;
            i++;
            at = end;
        }
        same &= i == w.count;
        compared++;
        wrong += !same;
        if (!same) {
            printf("# %s of: %.*s\n#", kind, (int)text.length, text.data);
            for (size_t k = 0; k < w.count; k++)
                printf(" [%.*s]", (int)w.items[k].length, w.items[k].data);
            printf("\n");
        }
    }
    reader_close(r);
    ok(compared > 300 && wrong == 0, "words and sentences of %d texts as spaCy and uniseg split them", compared);
    words_free(&w);
    words_free(&tokens);
    buffer_free(&text);
    buffer_free(&word);
}

/* Words follow one another inside the text, and what stands between is white space: for texts drawn from pieces that matter. */
static void test_order(void)
{
    static const char *const pieces[] = {"a", "I", "'", "’", ".", "..", "…", "-", "—", "(", ")", ":", "/", "@", "9", "km", " ", "  ", "\n", "\xc2\xa0", "é",
                                         "日", "n't", "😀", "\xf0\x9f\x87\xa9", "\xcc\x81", "\xe2\x80\x8d", "http://", "www.", "U.S.", "$", "_", "\x01"};
    static const char *const kinds[] = {"en", "uax29", "space", "sentences"};
    Buffer b = {0};
    Words w = {0}, tokens = {0};
    uint64_t seed = 1;
    int fine[4] = {1, 1, 1, 1};
    for (int round = 0; round < 20000; round++) {
        b.length = 0;
        for (int n = round % 17; n >= 0; n--) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            buffer_string(&b, pieces[(seed >> 33) % (sizeof pieces / sizeof *pieces)]);
        }
        char *exact = memory_copy(b.data, b.length); /* sanitizers see a step past the end */
        for (int k = 0; k < 4; k++) {
            const char *at = exact, *end = exact + b.length;
            split(&w, &tokens, kinds[k], (Span){exact, b.length});
            Words between = {0};
            for (size_t i = 0; i <= w.count; i++) {
                const char *next = i < w.count ? w.items[i].data : end;
                fine[k] &= next >= at && (i == w.count || (w.items[i].length > 0 && next + w.items[i].length <= end));
                words_split(&between, WORDS_SPACE, (Span){at, (size_t)(next - at)});
                fine[k] &= between.count == 0;
                at = i < w.count ? next + w.items[i].length : end;
            }
            words_free(&between);
        }
        free(exact);
    }
    for (int k = 0; k < 4; k++)
        ok(fine[k], "%s: what stands between words is white space", kinds[k]);
    buffer_free(&b);
    words_free(&w);
    words_free(&tokens);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return print_words(argv[1]);
    test_golden();
    test_order();
    return tap_end();
}
