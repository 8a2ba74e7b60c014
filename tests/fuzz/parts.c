/* A file of dedup's steps: refused, or all of its documents' sets, names and records lie inside. */
#include <stdlib.h>
#include "cmd/dedup/parts.c"
#include "tests/fuzz/file.h"

const char *const method_names[METHODS]; /* of dedup.c, which has a main() */

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const char *paths[] = {fuzz_file(data, size, ""), NULL};
    for (FileKind kind = FILE_KEYS; kind < FILE_FATES; kind++) {
        Inputs in;
        Error err = {{0}};
        uint64_t total = 0;
        if (inputs_open(&in, paths, kind, false, &err) == 0) {
            for (size_t i = 0; i < in.part_count; i++)
                for (uint64_t d = 0; d < in.parts[i].terms.documents; d++) {
                    Set s = part_set(&in.parts[i], d);
                    Span name = part_name(&in.parts[i], d);
                    for (size_t j = 0; j < s.count; j++)
                        total += s.hashes[j];
                    for (size_t j = 0; j < name.length; j++)
                        total += (unsigned char)name.data[j];
                }
            for (size_t i = 0; i < in.file_count; i++)
                for (uint64_t r = 0; r < in.files[i].terms.count; r++)
                    total += in.files[i].records[r].key[2];
        } else if (!err.text[0]) {
            abort();
        }
        Fates f;
        if (fates_open(&f, paths[0], &in, NULL) == 0)
            fates_close(&f);
        inputs_close(&in);
        __asm__ volatile("" : : "r"(total));
    }
    unlink(paths[0]);
    return 0;
}
