/* Any text as words and sentences: pieces of it, in order, none empty. */
#include <string.h>
#include "io/json.h"
#include "tests/fuzz/file.h"
#include "text/words.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    Span text = {memory_copy((const char *)data, size), size};
    Words w = {0}, tokens = {0};
    for (int kind = 0; kind < 4 && json_utf8_valid(text); kind++) {
        if (kind == 3)
            words_sentences(&w, &tokens, text);
        else
            words_split(&w, (WordKind)kind, text);
        const char *at = text.data;
        for (size_t i = 0; i < w.count; i++) {
            if (w.items[i].length == 0 || w.items[i].data < at)
                abort();
            at = w.items[i].data + w.items[i].length;
        }
        if (at > text.data + size)
            abort();
    }
    words_free(&w);
    words_free(&tokens);
    free((char *)text.data);
    return 0;
}
