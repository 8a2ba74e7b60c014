/* Feeds shard_open with any index over a .bin of any size: it must refuse, or everything that it describes must be readable. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "data/shard.h"
#include "io/stream.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static char prefix[64], index[80], bin[80];
    static unsigned char tokens[512];
    if (!prefix[0]) {
        snprintf(prefix, sizeof prefix, "/tmp/fuzz-shard-%ld", (long)getpid());
        snprintf(index, sizeof index, "%s.idx", prefix);
        snprintf(bin, sizeof bin, "%s.bin", prefix);
    }
    size_t bytes = size ? 2 * (size_t)data[size - 1] : 0; /* the last byte is the size of the tokens */
    FILE *f = fopen(index, "wb"), *g = fopen(bin, "wb");
    if (!f || !g)
        abort();
    fwrite(data, 1, size ? size - 1 : 0, f);
    fwrite(tokens, 1, bytes, g);
    fclose(f);
    fclose(g);
    Shard s;
    Error err;
    if (shard_open(&s, prefix, &err) == 0) {
        int64_t sum = 0;
        for (int64_t d = 0; d < s.documents; d++)
            sum += s.length[d];
        if (sum != s.tokens || (s.tokens > 0 && shard_document_at(&s, s.tokens - 1) >= s.documents))
            abort();
        if (s.tokens < 1 << 20)
            shard_check_ids(&s, 1, &err);
        shard_close(&s);
    } else if (!err.text[0]) {
        abort();
    }
    unlink(index);
    unlink(bin);
    return 0;
}
