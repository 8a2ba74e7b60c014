/* Splits the texts of JSON Lines into words on one core: MB a second of en, uax29, space. */
#include <stdio.h>
#include <time.h>
#include "io/json.h"
#include "io/stream.h"
#include "text/words.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"text"};
    Error err;
    Reader *r = argc == 2 ? reader_open(argv[1], &err) : NULL;
    JsonParser *p = json_parser_new();
    JsonField field;
    Span line;
    Words w = {0};
    double took[3] = {0}, bytes = 0;
    while (r && reader_line(r, &line, &err) > 0) {
        if (json_record(p, line, names, 1, &field, &err) < 0 || field.type != JSON_STRING)
            continue;
        bytes += (double)field.string.length;
        for (int k = 0; k < 3; k++) {
            double begin = seconds();
            words_split(&w, (WordKind)k, field.string);
            took[k] += seconds() - begin;
        }
    }
    words_free(&w);
    json_parser_free(p);
    reader_close(r);
    printf("%.0f %.0f %.0f\n", bytes / 1e6 / took[WORDS_EN], bytes / 1e6 / took[WORDS_UAX29], bytes / 1e6 / took[WORDS_SPACE]);
    return bytes > 0 ? 0 : 1;
}
