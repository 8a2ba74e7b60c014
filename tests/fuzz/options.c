/* A --config file of any bytes: refused with a reason, or every option keeps to its type and bounds. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/option.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const char *path = fuzz_file(data, size, ".json");
    Common common = COMMON_DEFAULT;
    double rate = 1;
    OptionList list = {0};
    Option options[] = {OPTION_COMMON_OUTPUT(&common), OPTION_COMMON_THREADS(&common), {"memory", 0, OPTION_SIZE, &common.memory, "SIZE", "memory", 0, 0, 0}, OPTION_COMMON_DEVICE(&common),
                        OPTION_COMMON_CONFIG(&common), {"lr", 0, OPTION_NUMBER, &rate, "X", "rate", 0, 0, 10},
                        {"list", 0, OPTION_LIST, &list, "S", "list", 0, 0, 0}, OPTION_COMMON_END(&common)};
    OptionSet set = {.tool = "fuzz", .synopsis = "fuzz", .options = options};
    char *argv[] = {(char[]){"fuzz"}, (char[]){"--config"}, (char *)(uintptr_t)path, NULL};
    Error err = {{0}};
    if (option_parse(&set, 3, argv, &err) == OPTIONS_RUN) {
        if (common.threads < 0 || common.threads > 4096 || common.memory < 0 || !(rate >= 0 && rate <= 10))
            abort();
        free(option_json(&set));
    } else if (!err.text[0]) {
        abort();
    }
    option_free(&set);
    unlink(path);
    return 0;
}
