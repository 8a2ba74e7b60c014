/* A fastText model of any bytes: refused, or it answers. */
#include <string.h>
#include "text/fasttext.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    Error err = {{0}};
    const char *path = fuzz_file(data, size, ".bin");
    FastText *f = fasttext_load(path, &err);
    if (f) {
        FastTextScratch s;
        memset(&s, 0, sizeof s);
        int labels = fasttext_labels(f);
        float *p = memory_zalloc((size_t)labels + 1, sizeof *p);
        static const char text[] = "the quick brown fox";
        fasttext_predict(f, &s, (Span){text, sizeof text - 1}, p);
        free(p);
        fasttext_scratch_free(&s);
        fasttext_free(f);
    } else if (!err.text[0]) {
        abort();
    }
    unlink(path);
    return 0;
}
