#include "train/tensorboard.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include "base/memory.h"
#include "io/json.h"
#include "io/stream.h"

struct TensorBoard {
    FILE *file;
    char *path;
    Buffer values; /* Summary: the step's values so far */
    Buffer event, record;
    uint32_t table[256];
};

/* CRC-32C (Castagnoli), reflected, as iSCSI has it. */
static void table_fill(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? UINT32_C(0x82f63b78) : 0);
    }
}

/* Rotated by 15 bits and moved by a constant, so that a CRC of bytes that hold CRCs is no special case. */
static uint32_t masked_crc(const TensorBoard *t, const char *data, size_t n)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++)
        crc = t->table[(crc ^ (unsigned char)data[i]) & 255] ^ crc >> 8;
    crc = ~crc;
    return (crc >> 15 | crc << 17) + UINT32_C(0xa282ead8);
}

/* Protobuf: a field's key is its number and how its value is laid out. */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void put_varint(Buffer *b, uint64_t x)
{
    for (; x > 127; x >>= 7)
        buffer_byte(b, (char)(x | 128));
    buffer_byte(b, (char)x);
}

static void put_key(Buffer *b, int field, int layout)
{
    put_varint(b, (uint64_t)(field << 3 | layout));
}

static void put_bytes(Buffer *b, int field, const void *data, size_t n)
{
    put_key(b, field, BYTES);
    put_varint(b, n);
    buffer_append(b, data, n);
}

static void event_begin(TensorBoard *t)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    double seconds = (double)now.tv_sec + 1e-6 * (double)now.tv_usec;
    t->event.length = 0;
    put_key(&t->event, 1, FIXED64);
    buffer_append(&t->event, &seconds, 8);
}

static int event_write(TensorBoard *t, Error *err)
{
    uint64_t n = t->event.length;
    t->record.length = 0;
    buffer_append(&t->record, &n, 8);
    uint32_t crc = masked_crc(t, t->record.data, 8);
    buffer_append(&t->record, &crc, 4);
    buffer_append(&t->record, t->event.data, t->event.length);
    crc = masked_crc(t, t->event.data, t->event.length);
    buffer_append(&t->record, &crc, 4);
    if (fwrite(t->record.data, 1, t->record.length, t->file) != t->record.length)
        return error_set(err, "%s:", t->path);
    return 0;
}

void tensorboard_add(TensorBoard *t, const char *key, double value)
{
    if (!isfinite(value))
        return;
    Buffer one = {0};
    float x = (float)value;
    put_bytes(&one, 1, key, strlen(key));
    put_key(&one, 2, FIXED32);
    buffer_append(&one, &x, 4);
    put_bytes(&t->values, 1, one.data, one.length);
    buffer_free(&one);
}

static int step_write(TensorBoard *t, int64_t step, Error *err)
{
    event_begin(t);
    put_key(&t->event, 2, VARINT);
    put_varint(&t->event, (uint64_t)step);
    put_bytes(&t->event, 5, t->values.data, t->values.length);
    t->values.length = 0;
    return event_write(t, err);
}

int tensorboard_step(TensorBoard *t, int64_t step, Error *err)
{
    if (step_write(t, step, err) < 0)
        return -1;
    return fflush(t->file) == 0 ? 0 : error_set(err, "%s:", t->path);
}

/* A log's line: an object whose numbers are scalars of its `step`. */
static int line_write(TensorBoard *t, const char *name, Span line, Error *err)
{
    JsonTree tree = {0};
    int status = json_parse(&tree, name, line, err);
    const JsonValue *step = status == 0 && json_is(tree.root, JSON_OBJECT) ? json_get(tree.root, "step") : NULL;
    if (status == 0 && json_is(step, JSON_INTEGER)) {
        for (size_t i = 0; i < tree.root->count; i++)
            if (json_is(&tree.root->items[i], JSON_NUMBER) && &tree.root->items[i] != step)
                tensorboard_add(t, tree.root->keys[i].data, tree.root->items[i].number);
        status = step_write(t, step->integer, err);
    }
    json_free(&tree);
    return status;
}

static int log_write(TensorBoard *t, const char *log, Error *err)
{
    Reader *r = reader_open(log, err);
    if (!r)
        return -1;
    Span line;
    int got, status = 0;
    while (status == 0 && (got = reader_line(r, &line, err)) > 0)
        status = line_write(t, log, line, err);
    reader_close(r);
    return status < 0 || got < 0 ? -1 : 0;
}

/* The step of an event that event_begin has begun: behind the time. */
static int64_t event_step(const char *event, size_t n)
{
    enum { TIME = 9 };
    uint64_t step = 0;
    if (n <= TIME || event[TIME] != (2 << 3 | VARINT))
        return 0;
    for (size_t i = TIME + 1, shift = 0; i < n && shift < 64; i++, shift += 7) {
        step |= (uint64_t)(event[i] & 127) << shift;
        if (!(event[i] & 128))
            break;
    }
    return (int64_t)step;
}

/* Where the records end that are whole and of no later step. */
static off_t records_end(TensorBoard *t, int64_t step)
{
    enum { HEAD = 12, CRC = 4, MOST = 1 << 24 };
    off_t end = 0;
    char head[HEAD];
    while (fread(head, 1, HEAD, t->file) == HEAD) {
        uint64_t n;
        uint32_t crc;
        memcpy(&n, head, 8);
        memcpy(&crc, head + 8, CRC);
        if (crc != masked_crc(t, head, 8) || n > MOST)
            break;
        t->event.length = 0;
        buffer_reserve(&t->event, n + CRC);
        if (fread(t->event.data, 1, n + CRC, t->file) != n + CRC)
            break;
        memcpy(&crc, t->event.data + n, CRC);
        if (crc != masked_crc(t, t->event.data, n) || event_step(t->event.data, n) > step)
            break;
        end += (off_t)(HEAD + n + CRC);
    }
    return end;
}

TensorBoard *tensorboard_open(const char *folder, const char *log, int64_t resume_step, Error *err)
{
    if (folder_create(folder, err) < 0)
        return NULL;
    TensorBoard *t = memory_zalloc(1, sizeof *t);
    table_fill(t->table);
    t->path = memory_format("%s/events.out.tfevents.lmpipe", folder);
    int d = open(t->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    t->file = d >= 0 ? fdopen(d, "r+") : NULL;
    off_t end = t->file && !log ? records_end(t, resume_step) : 0;
    int status = t->file && ftruncate(d, end) == 0 && fseeko(t->file, end, SEEK_SET) == 0 ? 0 : error_set(err, "%s:", t->path);
    if (status == 0 && end == 0) {
        event_begin(t);
        put_bytes(&t->event, 3, "brain.Event:2", 13);
        status = event_write(t, err);
    }
    if (status == 0 && log && access(log, R_OK) == 0)
        status = log_write(t, log, err);
    if (status == 0 && fflush(t->file) != 0)
        status = error_set(err, "%s:", t->path);
    if (status == 0)
        return t;
    tensorboard_close(t);
    return NULL;
}

void tensorboard_close(TensorBoard *t)
{
    if (!t)
        return;
    if (t->file)
        fclose(t->file);
    buffer_free(&t->values);
    buffer_free(&t->event);
    buffer_free(&t->record);
    free(t->path);
    free(t);
}
