/* smoke: token shards have Megatron's bytes, samples are had in any order. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/memory.h"
#include "data/samples.h"
#include "io/stream.h"
#include "tap.h"

static char folder[] = "/tmp/lmpipe-shard-XXXXXX";

static char *place(const char *name)
{
    return memory_format("%s/%s", folder, name);
}

static void writes_megatron_bytes(void)
{
    /* What Megatron-LM's IndexedDatasetBuilder writes for two documents of 3 and 1 tokens in uint16. */
    static const unsigned char wanted[] = {
        'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0};
    char *prefix = place("golden"), *index = place("golden.idx");
    Error err;
    Buffer b = {0};
    ShardWriter *w = shard_writer_open(prefix, 50000, &err);
    ok(w && shard_writer_add(w, (int32_t[]){1, 2, 49999}, 3, &err) == 0 && shard_writer_add(w, (int32_t[]){7}, 1, &err) == 0, "a shard takes documents");
    ok(access(index, F_OK) != 0, "nothing is there before the shard is closed");
    ok(shard_writer_close(w, &err) == 0 && file_read(index, &b, 0, &err) == 0, "it closes");
    ok(b.length == sizeof wanted && memcmp(b.data, wanted, sizeof wanted) == 0, "the index has Megatron's bytes");
    buffer_free(&b);
    Shard s;
    ok(shard_open(&s, prefix, &err) == 0 && s.item_size == 2 && s.documents == 2 && s.tokens == 4, "it opens again");
    int32_t got[3];
    shard_copy(&s, 0, 0, 3, got);
    ok(got[0] == 1 && got[1] == 2 && got[2] == 49999, "tokens come back");
    ok(shard_document_at(&s, 2) == 0 && shard_document_at(&s, 3) == 1, "a token's document is found");
    ok(shard_check_ids(&s, 50000, &err) == 0 && shard_check_ids(&s, 49999, &err) < 0, "ids are checked against a vocabulary");
    shard_close(&s);
    w = shard_writer_open(prefix, 100, &err);
    ok(w && shard_writer_add(w, (int32_t[]){100}, 1, &err) < 0 && shard_writer_add(w, (int32_t[]){-1}, 1, &err) < 0, "ids outside the vocabulary are refused");
    shard_writer_abandon(w);
    ok(shard_open(&s, prefix, &err) == 0 && s.tokens == 4, "an abandoned shard leaves the old one");
    shard_close(&s);
    w = shard_writer_open(prefix, 65500, &err);
    ok(w && shard_writer_add(w, (int32_t[]){65499}, 1, &err) == 0 && shard_writer_close(w, &err) == 0 && shard_open(&s, prefix, &err) == 0 && s.item_size == 4,
       "65,500 ids need int32");
    shard_close(&s);
    free(prefix);
    free(index);
}

static void deals_samples(void)
{
    enum { T = 4 };
    static const int lengths[] = {3, 0, 6, 1, 7, 4}; /* 21 tokens: 5 samples of 4, and a last label */
    char *prefix = place("samples");
    Error err;
    ShardWriter *w = shard_writer_open(prefix, 1000, &err);
    int32_t all[21], label[21], document[21], n = 0;
    for (int d = 0; d < 6; d++) {
        int32_t one[8];
        for (int i = 0; i < lengths[d]; i++) {
            one[i] = all[n] = 100 * d + i;
            label[n] = i + 1 < lengths[d] ? 100 * d + i + 1 : -1;
            document[n++] = d;
        }
        shard_writer_add(w, one, lengths[d], &err);
    }
    Shard s;
    ok(shard_writer_close(w, &err) == 0 && shard_open(&s, prefix, &err) == 0 && s.tokens == 21, "a shard of six documents, one of them empty");
    ok(samples_count(&s, T) == 5, "its last sample ends at the last label");
    Batch b;
    batch_new(&b, 1, T);
    bool tokens = true, labels = true, weights = true, positions = true;
    for (int64_t g = 4; g >= 0; g--) { /* any order: no state */
        batch_clear(&b);
        samples_place(&s, g, &b, 0);
        for (int i = 0; i < T; i++) {
            int64_t at = g * T + i, start = at;
            while (start > g * T && document[start - 1] == document[at])
                start--;
            tokens &= b.tokens[i] == all[at];
            labels &= b.labels[i] == label[at];
            weights &= (b.weights[i] > 0) == (label[at] >= 0);
            positions &= b.positions[i] == at - start && b.begin[i] == start - g * T;
        }
    }
    ok(tokens, "sample g is tokens g T to (g + 1) T");
    ok(labels, "the next token is the label, a document's last token has none");
    ok(weights, "no label weighs nothing");
    ok(positions, "positions restart with each document, and attention stays inside it");
    batch_free(&b);
    shard_close(&s);
    int64_t seen[7] = {0}, moved = 0;
    bool first = true, same = true;
    for (int64_t i = 0; i < 14; i++) {
        int64_t g = samples_order(i, 7, 5);
        first &= i >= 7 || g == i;
        seen[g]++;
        moved += i >= 7 && g != i - 7;
        same &= g == samples_order(i, 7, 5);
    }
    for (int i = 0; i < 7; i++)
        same &= seen[i] == 2;
    ok(first, "the first epoch keeps the order");
    ok(same && moved > 0, "the second is a permutation by seed");
    free(prefix);
}

int main(void)
{
    if (!mkdtemp(folder))
        return 1;
    writes_megatron_bytes();
    deals_samples();
    char *command = memory_format("rm -rf %s", folder);
    int status = system(command);
    free(command);
    return tap_end() || status != 0;
}
