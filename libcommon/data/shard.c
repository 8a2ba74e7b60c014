#include "data/shard.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/memory.h"
#include "io/filemap.h"
#include "io/stream.h"

enum { HEADER = 34, CODE_INT32 = 4, CODE_UINT16 = 8 };
static const char magic[9] = "MMIDIDX\0";

struct ShardMapping {
    FileMap index, bin;
    int32_t *length; /* aligned copies: in the file the arrays begin at byte 34 */
    int64_t *pointer;
};

static uint64_t u64_at(const unsigned char *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

static int index_read(Shard *s, const char *path, Error *err)
{
    struct ShardMapping *m = s->mapping;
    const unsigned char *p = m->index.data;
    if (m->index.size < HEADER || memcmp(p, magic, 9) != 0)
        return error_set(err, "%s: not a Megatron index", path);
    if (u64_at(p + 9) != 1)
        return error_set(err, "%s: index version %" PRIu64 " is not 1", path, u64_at(p + 9));
    if (p[17] != CODE_INT32 && p[17] != CODE_UINT16)
        return error_set(err, "%s: dtype code %d is neither 8 (uint16) nor 4 (int32)", path, p[17]);
    s->item_size = p[17] == CODE_UINT16 ? 2 : 4;
    uint64_t sequences = u64_at(p + 18), documents = u64_at(p + 26), left = m->index.size - HEADER;
    if (sequences > left / 12 || documents > (left - 12 * sequences) / 8)
        return error_set(err, "%s: claims %" PRIu64 " sequences and %" PRIu64 " documents in %zu bytes", path, sequences, documents, m->index.size);
    uint64_t extra = left - 12 * sequences - 8 * documents;
    if (extra != 0 && extra != sequences)
        return error_set(err, "%s: %" PRIu64 " bytes too many", path, extra);
    m->length = memory_alloc(sequences, sizeof *m->length);
    m->pointer = memory_alloc(sequences, sizeof *m->pointer);
    s->start = memory_alloc(sequences + 1, sizeof *s->start);
    if (sequences > 0) {
        memcpy(m->length, p + HEADER, sequences * 4);
        memcpy(m->pointer, p + HEADER + 4 * sequences, sequences * 8);
    }
    s->documents = (int64_t)sequences;
    s->length = m->length;
    s->pointer = m->pointer;
    for (int64_t i = 0; i < s->documents; i++) {
        int64_t end;
        if (m->length[i] < 0 || m->pointer[i] < 0 || m->pointer[i] % s->item_size != 0 ||
            __builtin_add_overflow(m->pointer[i], (int64_t)m->length[i] * s->item_size, &end) || (uint64_t)end > m->bin.size)
            return error_set(err, "%s: document %" PRId64 " lies outside the .bin file", path, i);
        s->start[i] = s->tokens;
        s->tokens += m->length[i];
    }
    s->start[s->documents] = s->tokens;
    const unsigned char *d = p + HEADER + 12 * sequences;
    uint64_t last = 0;
    for (uint64_t i = 0; i < documents; i++) {
        uint64_t at = u64_at(d + 8 * i);
        if (at < last || at > sequences)
            return error_set(err, "%s: document starts are out of order", path);
        last = at;
    }
    return 0;
}

int shard_open(Shard *s, const char *prefix, Error *err)
{
    *s = (Shard){.prefix = memory_string(prefix), .mapping = memory_zalloc(1, sizeof *s->mapping)};
    struct ShardMapping *m = s->mapping;
    char *index = memory_format("%s.idx", prefix), *bin = memory_format("%s.bin", prefix);
    int status = -1;
    if (filemap_open(&m->index, index, err) == 0 && filemap_open(&m->bin, bin, err) == 0)
        status = index_read(s, index, err);
    s->data = m->bin.data;
    free(index);
    free(bin);
    if (status < 0)
        shard_close(s);
    return status;
}

void shard_close(Shard *s)
{
    if (s->mapping) {
        filemap_close(&s->mapping->index);
        filemap_close(&s->mapping->bin);
        free(s->mapping->length);
        free(s->mapping->pointer);
        free(s->mapping);
    }
    free(s->start);
    free(s->prefix);
    *s = (Shard){0};
}

void shard_copy(const Shard *s, int64_t document, int64_t begin, int64_t n, int32_t *out)
{
    const unsigned char *from = s->data + s->pointer[document] + begin * s->item_size;
    if (s->item_size == 4) {
        memcpy(out, from, (size_t)n * 4);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t x;
        memcpy(&x, from + 2 * i, 2);
        out[i] = x;
    }
}

int64_t shard_document_at(const Shard *s, int64_t at)
{
    int64_t low = 0, high = s->documents; /* start[low] <= at < start[high] */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (s->start[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int check_ids(const Shard *s, int64_t vocabulary, XXH3_state_t *sum, Error *err)
{
    int32_t piece[4096];
    for (int64_t d = 0; d < s->documents; d++)
        for (int64_t at = 0; at < s->length[d]; at += 4096) {
            int64_t n = s->length[d] - at < 4096 ? s->length[d] - at : 4096;
            shard_copy(s, d, at, n, piece);
            XXH3_64bits_update(sum, piece, (size_t)n * sizeof *piece);
            for (int64_t i = 0; i < n; i++)
                if (piece[i] < 0 || piece[i] >= vocabulary)
                    return error_set(err, "%s: document %" PRId64 " holds token %d, the vocabulary has %" PRId64, s->prefix, d,
                                     piece[i], vocabulary);
        }
    return 0;
}

int shard_check_ids(Shard *s, int64_t vocabulary, Error *err)
{
    XXH3_state_t *sum = XXH3_createState();
    XXH3_64bits_reset_withSeed(sum, XXH3_64bits(s->length, (size_t)s->documents * sizeof *s->length));
    int status = check_ids(s, vocabulary, sum, err);
    s->number = XXH3_64bits_digest(sum);
    XXH3_freeState(sum);
    return status;
}

struct ShardWriter {
    char *prefix;
    Writer *bin;
    int item_size;
    int64_t vocabulary, tokens;
    int32_t *length;
    size_t count, capacity;
};

ShardWriter *shard_writer_open(const char *prefix, int64_t vocabulary, Error *err)
{
    char *path = memory_format("%s.bin", prefix);
    Writer *bin = writer_open(path, err);
    free(path);
    if (!bin)
        return NULL;
    ShardWriter *w = memory_zalloc(1, sizeof *w);
    *w = (ShardWriter){.prefix = memory_string(prefix), .bin = bin, .item_size = vocabulary < 65500 ? 2 : 4, .vocabulary = vocabulary};
    return w;
}

int shard_writer_add(ShardWriter *w, const int32_t *tokens, int64_t n, Error *err)
{
    if (n > INT32_MAX)
        return error_set(err, "%s: a document of %" PRId64 " tokens is too long for the format", w->prefix, n);
    unsigned char piece[1 << 13];
    int64_t room = (int64_t)sizeof piece / w->item_size;
    for (int64_t at = 0; at < n; at += room) {
        int64_t m = n - at < room ? n - at : room;
        for (int64_t i = 0; i < m; i++) {
            if (tokens[at + i] < 0 || tokens[at + i] >= w->vocabulary)
                return error_set(err, "%s: token %d lies outside the vocabulary of %" PRId64, w->prefix, tokens[at + i], w->vocabulary);
            if (w->item_size == 2) {
                uint16_t x = (uint16_t)tokens[at + i];
                memcpy(piece + 2 * i, &x, 2);
            } else {
                memcpy(piece + 4 * i, &tokens[at + i], 4);
            }
        }
        if (writer_write(w->bin, piece, (size_t)(m * w->item_size), err) < 0)
            return -1;
    }
    w->length = memory_grow(w->length, &w->capacity, w->count + 1, sizeof *w->length);
    w->length[w->count++] = (int32_t)n;
    w->tokens += n;
    return 0;
}

int64_t shard_writer_tokens(const ShardWriter *w)
{
    return w->tokens;
}

int64_t shard_writer_documents(const ShardWriter *w)
{
    return (int64_t)w->count;
}

static void put_u64(Buffer *b, uint64_t x)
{
    buffer_append(b, &x, 8);
}

static int write_index(ShardWriter *w, Error *err)
{
    Buffer b = {0};
    buffer_append(&b, magic, 9);
    put_u64(&b, 1);
    buffer_byte(&b, w->item_size == 2 ? CODE_UINT16 : CODE_INT32);
    put_u64(&b, w->count);
    put_u64(&b, w->count + 1);
    buffer_append(&b, w->length, w->count * 4);
    for (uint64_t i = 0, at = 0; i < w->count; at += (uint64_t)w->length[i++] * (uint64_t)w->item_size)
        put_u64(&b, at);
    for (uint64_t i = 0; i <= w->count; i++)
        put_u64(&b, i);
    char *path = memory_format("%s.idx", w->prefix);
    int status = file_write(path, b.data, b.length, err);
    free(path);
    buffer_free(&b);
    return status;
}

static void writer_free(ShardWriter *w)
{
    free(w->prefix);
    free(w->length);
    free(w);
}

int shard_writer_close(ShardWriter *w, Error *err)
{
    /* An index of an older shard must not describe the new tokens for a moment. */
    char *path = memory_format("%s.idx", w->prefix);
    unlink(path);
    free(path);
    int status = writer_close(w->bin, err);
    if (status == 0)
        status = write_index(w, err);
    writer_free(w);
    return status;
}

void shard_writer_abandon(ShardWriter *w)
{
    if (!w)
        return;
    writer_abandon(w->bin);
    writer_free(w);
}
