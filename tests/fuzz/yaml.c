/* A task definition of any bytes: refused with its place, or a tree and the lines where its members stand. */
#include <stdlib.h>
#include "io/yaml.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    Error err = {{0}};
    const char *path = fuzz_file(data, size, ".yaml");
    YamlTree yaml = {0};
    if (yaml_parse_file(&yaml, path, &err) == 0) {
        if (yaml.tree.root->type == JSON_OBJECT)
            for (size_t i = 0; i < yaml.tree.root->count; i++)
                if (yaml.lines[i] < 1)
                    abort();
        json_free(&yaml.tree);
    } else if (!err.text[0]) {
        abort();
    }
    unlink(path);
    return 0;
}
