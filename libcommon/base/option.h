/* One declarative table of options a tool: it parses the command line, prints --help, and reads --config FILE.json.
 * The variable that an option points to holds the default before parsing. Long options are "--name value" or
 * "--name=value"; letters are "-j 4" or "-j4"; "--" ends options; "-" alone is an operand. Options and operands mix. */
#ifndef BASE_OPTION_H
#define BASE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef enum OptionType {
    OPTION_FLAG,     /* bool: --name; --name=false and --no-name clear it */
    OPTION_INTEGER,  /* int64_t; 1e6 and 4k, 2M, 1G (powers of 1000) are taken */
    OPTION_SIZE,     /* int64_t bytes: K M G T are powers of 1024 */
    OPTION_NUMBER,   /* double, finite */
    OPTION_STRING,   /* const char * */
    OPTION_CHOICE,   /* const char *, one of `choices` ("auto|cpu|cuda") */
    OPTION_LIST,     /* OptionList: may be given several times, values kept in order */
    OPTION_OPTIONAL, /* const char *: --name alone stores `choices` as the value, --name=V stores V */
    OPTION_HEADING,  /* no option: `help` is printed as a heading */
    OPTION_MORE      /* no option: the ones up to the next heading are only named by --help, explained by --help=all */
} OptionType;

typedef struct OptionList {
    const char **values;
    size_t count;
} OptionList;

typedef struct Option {
    const char *name;     /* without dashes; NULL ends the table */
    char letter;          /* 0: none */
    OptionType type;
    void *value;
    const char *argument; /* its name in --help: "FILE" */
    const char *help;     /* one line; states the default */
    const char *choices;
    double minimum, maximum; /* of numbers; both 0: no bounds */
} Option;

typedef struct OptionSet {
    const char *tool;      /* "dedup" */
    const char *synopsis;  /* "dedup [OPTION]… [FILE]…"; several lines allowed */
    const char *summary;   /* one sentence under the synopsis */
    const Option *options; /* the tool's table; rows that all tools share are OPTION_COMMON_... below */
    const char *footer;    /* printed last, may be NULL */
    /* Results. */
    const char **operands; /* NULL-terminated, order of the command line */
    size_t operand_count;
    const Option **given;  /* the options seen, in the order given (a repeated one appears again) */
    size_t given_count;
    char **texts;          /* what --config gave, to which options' strings point until option_free */
    size_t text_count, text_capacity;
} OptionSet;

#define OPTION_MORE_HEADING(text) {NULL, 0, OPTION_MORE, 0, 0, text, 0, 0, 0}

/* What means the same in every tool. Point OptionSet.options at a table that includes the macros below. */
typedef struct Common {
    const char *output;   /* NULL: standard output */
    int64_t threads;      /* 0: one for each CPU */
    int64_t seed;
    bool quiet, verbose;
    const char *progress; /* auto|always|never */
    const char *stats;    /* NULL or a file */
    const char *on_error; /* fail|skip */
    bool text;
    const char *tmp;      /* NULL: $TMPDIR, else /tmp */
    int64_t memory;       /* bytes, 0: the tool's default */
    const char *device;   /* auto|cpu|cuda */
    const char *dtype;    /* f32|bf16 */
    const char *log;
    bool dry_run;
    const char *config;
} Common;

#define COMMON_DEFAULT {.progress = "auto", .on_error = "fail", .device = "auto", .dtype = "f32"}

#define OPTION_COMMON_OUTPUT(c)   {"output", 'o', OPTION_STRING, &(c)->output, "FILE", "write there instead of standard output", 0, 0, 0}
#define OPTION_COMMON_THREADS(c)  {"threads", 'j', OPTION_INTEGER, &(c)->threads, "N", "threads (default: one for each CPU)", 0, 0, 4096}
#define OPTION_COMMON_SEED(c)     {"seed", 0, OPTION_INTEGER, &(c)->seed, "N", "seed of all random choices (default 0)", 0, 0, 9.2e18}
#define OPTION_COMMON_TMP(c)      {"tmp", 0, OPTION_STRING, &(c)->tmp, "DIR", "folder for temporary files (default: $TMPDIR or /tmp)", 0, 0, 0}
#define OPTION_COMMON_TEXT(c)     {"text", 0, OPTION_FLAG, &(c)->text, 0, "input is plain text, a document a line", 0, 0, 0}
#define OPTION_COMMON_ON_ERROR(c) {"on-error", 0, OPTION_CHOICE, &(c)->on_error, "fail|skip", "what a malformed record does (default fail)", "fail|skip", 0, 0}
#define OPTION_COMMON_DEVICE(c)   {"device", 0, OPTION_CHOICE, &(c)->device, "auto|cpu|cuda", "where to compute (default auto)", "auto|cpu|cuda", 0, 0}, \
                                  {"dtype", 0, OPTION_CHOICE, &(c)->dtype, "f32|bf16", "type to compute in (default f32)", "f32|bf16", 0, 0}
#define OPTION_COMMON_LOG(c)      {"log", 0, OPTION_STRING, &(c)->log, "FILE", "append training metrics there, JSON Lines", 0, 0, 0}
#define OPTION_COMMON_DRY_RUN(c)  {"dry-run", 0, OPTION_FLAG, &(c)->dry_run, 0, "print sizes, memory, FLOPs and time, and stop", 0, 0, 0}
#define OPTION_COMMON_CONFIG(c)   {"config", 0, OPTION_STRING, &(c)->config, "FILE", "read options from a JSON object; the command line wins", 0, 0, 0}
/* In every table, last: */
#define OPTION_COMMON_END(c)                                                                                       \
    {"quiet", 'q', OPTION_FLAG, &(c)->quiet, 0, "no messages but errors", 0, 0, 0},                                 \
    {"verbose", 'v', OPTION_FLAG, &(c)->verbose, 0, "say more", 0, 0, 0},                                           \
    {"progress", 0, OPTION_CHOICE, &(c)->progress, "WHEN", "auto, always or never (default auto)", "auto|always|never", 0, 0},     \
    {"stats", 0, OPTION_STRING, &(c)->stats, "FILE", "write counts and timings there, one JSON object", 0, 0, 0},   \
    {NULL, 0, 0, 0, 0, 0, 0, 0, 0}

enum { OPTIONS_RUN = 0, OPTIONS_DONE = 1 /* --help or --version was printed */, OPTIONS_USAGE = -1,
       OPTIONS_FAILED = -2 /* they could not be printed */ };

/* Parses argv[1..]. Unknown options are usage errors, and an abbreviation is unknown; of an option given twice the last counts. -h/--help (a screen), --help=all and --version are built in. Also calls message_begin(tool, quiet, verbose). */
int option_parse(OptionSet *set, int argc, char **argv, Error *err);
/* The usual first lines of a main(): parses, prints usage errors ("tool: reason" and a hint at --help). Returns -1 to go
 * on, else the exit status (0, 1 or 2). */
int option_main(OptionSet *set, int argc, char **argv);
/* Was this variable's option given (on the command line or in --config)? */
bool option_given(const OptionSet *set, const void *value);
/* A whole number as OPTION_INTEGER (base 1000) and OPTION_SIZE (1024) take it; -1: none. */
int option_whole(const char *text, double base, int64_t *out);
/* The merged options as a JSON object with the options' names as keys, in the order of the table (saved beside
 * checkpoints). Caller frees. */
char *option_json(const OptionSet *set);
void option_free(OptionSet *set);

#endif
