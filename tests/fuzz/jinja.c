/* A chat template: compiled and, where that goes, rendered over a short conversation. */
#include <stdlib.h>
#include <string.h>
#include "io/stream.h"
#include "tests/fuzz/file.h"
#include "text/jinja.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    Error err = {{0}};
    if (!json_utf8_valid((Span){(const char *)data, size}))
        return 0;
    Jinja *j = jinja_compile((Span){(const char *)data, size}, size % 2 ? JINJA_TASK : JINJA_CHAT, &err);
    if (!j) {
        if (!err.text[0])
            abort();
        return 0;
    }
    static const char text[] = "[{\"role\":\"user\",\"content\":\" a \\u00e9\"},{\"role\":\"assistant\",\"content\":\"b\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1.5}}}]}]";
    char padded[sizeof text + READER_PADDING] = {0};
    memcpy(padded, text, sizeof text);
    JsonTree tree = {0};
    if (json_parse(&tree, "chat", (Span){padded, sizeof text - 1}, &err) < 0)
        abort();
    JinjaVariable variables[] = {{.name = "messages", .value = tree.root, .origin = 1}, {.name = "tools", .value = tree.root, .origin = 1}};
    JinjaOutput out = {0};
    if (jinja_render(j, variables, 2, &out, &err) == 0 && out.text.length != out.origins.length)
        abort();
    jinja_output_free(&out);
    json_free(&tree);
    jinja_free(j);
    return 0;
}
