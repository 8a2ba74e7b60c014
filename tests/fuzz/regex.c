/* A pattern, a replacement and a text, a line each: refused, or findall's matches lie in the text, in order, and sub ends. */
#include <stdlib.h>
#include <string.h>
#include "io/json.h"
#include "tests/fuzz/file.h"
#include "text/python_re.h"

static Span line_of(Span *rest)
{
    const char *end = memchr(rest->data, '\n', rest->length);
    Span line = {rest->data, end ? (size_t)(end - rest->data) : rest->length};
    size_t used = line.length + (end ? 1 : 0);
    *rest = (Span){rest->data + used, rest->length - used};
    return line;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    Span rest = {memory_copy((const char *)data, size), size}, whole = rest;
    Error err = {{0}};
    if (size == 0 || !json_utf8_valid(rest)) {
        free((char *)whole.data);
        return 0;
    }
    Span pattern = line_of(&rest), replacement = line_of(&rest);
    PythonRe *re = python_re_compile(pattern, &err);
    if (re) {
        PythonMatch m = {0};
        size_t last = 0;
        int found;
        while ((found = python_re_next(re, rest, &m, &err)) == 1) {
            if (m.begin < last || m.end < m.begin || m.end > rest.length)
                abort();
            for (size_t g = 0; g <= python_re_groups(re); g++) {
                Span s = python_re_group(re, rest, g);
                if (s.data && (s.data < rest.data || s.data + s.length > rest.data + rest.length))
                    abort();
            }
            last = m.end;
        }
        Buffer out = {0};
        if (found == 0)
            python_re_sub(re, replacement, rest, 0, &out, &err);
        buffer_free(&out);
        python_re_free(re);
    } else if (!err.text[0]) {
        abort();
    }
    free((char *)whole.data);
    return 0;
}
