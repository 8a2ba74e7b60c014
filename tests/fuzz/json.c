/* One line as a record and as a tree: what is accepted can be written and read again. */
#include <string.h>
#include "io/json.h"
#include "io/stream.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const char *const names[] = {"text", "id"};
    char *padded = memory_zalloc(1, size + READER_PADDING);
    if (size)
        memcpy(padded, data, size);
    Span line = {padded, size};
    Error err = {{0}};
    JsonParser *p = json_parser_new();
    JsonField fields[2];
    if (json_record(p, line, names, 2, fields, &err) == 0) {
        Buffer changed = {0};
        json_record_set(&changed, line, &fields[0], "text", (Span){"1", 1});
        size_t n = changed.length;
        buffer_reserve(&changed, READER_PADDING);
        memset(changed.data + n, 0, READER_PADDING);
        if (json_record(p, (Span){changed.data, n}, names, 2, fields, &err) < 0 || fields[0].type != JSON_INTEGER)
            abort();
        /* Without the member the rest is a record still. */
        changed.length = 0;
        json_record_remove(&changed, line, "text");
        n = changed.length;
        buffer_reserve(&changed, READER_PADDING);
        memset(changed.data + n, 0, READER_PADDING);
        Span value;
        if (json_record(p, (Span){changed.data, n}, names, 2, fields, &err) < 0 || json_record_find((Span){changed.data, n}, "text", &value))
            abort();
        buffer_free(&changed);
    } else if (!err.text[0]) {
        abort();
    }
    json_parser_free(p);
    JsonTree tree = {0};
    if (json_parse(&tree, "input", line, &err) == 0) {
        Buffer out = {0};
        json_write_value(&out, tree.root, -1);
        size_t n = out.length;
        buffer_reserve(&out, READER_PADDING);
        memset(out.data + n, 0, READER_PADDING);
        JsonTree again = {0};
        if (json_parse(&again, "output", (Span){out.data, n}, &err) < 0)
            abort();
        json_free(&again);
        buffer_free(&out);
    }
    json_free(&tree);
    free(padded);
    return 0;
}
