/* A tokenizer.json, or where it does not begin with a brace a .tiktoken file, of any bytes: refused, or it encodes text that decodes to known bytes. */
#include <string.h>
#include "text/tokenizer.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    Error err = {{0}};
    const char *path = fuzz_file(data, size, size && data[0] == '{' ? ".json" : ".tiktoken");
    Tokenizer *t = tokenizer_open(path, &err);
    if (t) {
        Encoder *e = encoder_new(t);
        Ids ids = {0};
        ParseSpecial all = {.all = true};
        static const char text[] = "Hello, world 123!  d\xc3\xa9j\xc3\xa0 vu\n\n\xe6\x9d\xb1\xe4\xba\xac<|end_of_text|>";
        Buffer out = {0};
        if (encoder_encode(e, (Span){text, sizeof text - 1}, &all, &ids, &err) == 0)
            tokenizer_decode(t, ids.data, ids.count, false, &out, &err);
        buffer_free(&out);
        ids_free(&ids);
        encoder_free(e);
        tokenizer_close(t);
    } else if (!err.text[0]) {
        abort();
    }
    unlink(path);
    return 0;
}
