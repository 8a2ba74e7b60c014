/* A task as lm-evaluation-harness defines it (lm_eval/config/task.py, api/task.py of version 0.4.13): a YAML file says how documents
 * become prompts and what is counted. The man page lists the fields; others are refused by name. */
#ifndef LMEVAL_TASK_H
#define LMEVAL_TASK_H

#include "base/mersenne.h"
#include "io/json.h"
#include "lmeval.h"
#include "text/jinja.h"
#include "text/python_re.h"

typedef enum TaskKind { TASK_GENERATE, TASK_CHOICE, TASK_LIKELIHOOD, TASK_ROLLING } TaskKind;

/* The documents of a split, each parsed when it is asked for. */
typedef struct Split {
    char *name; /* NULL: none */
    struct SplitLine {
        char *text;
        size_t length;
        const char *file;
        int64_t line;
    } *lines;
    size_t count, capacity;
    Span *columns; /* of any document; the others have null there */
    size_t column_count, column_capacity;
    char **files;
    size_t file_count;
    bool skip;            /* --on-error=skip */
    uint64_t skipped;     /* lines that are no records */
    Error first_skip;
    JsonParser *parser;
    Arena arena;
} Split;

/* A document with all columns. Valid until the split's next one. */
typedef struct Doc {
    const JsonValue *root;
    const Split *split;
    JinjaVariable *variables;
} Doc;

/* doc_to_text and its like: the name of a column, a template, or a value of its own. */
typedef struct Field {
    const char *name;       /* for messages */
    const JsonValue *value; /* as the definition has it; NULL: absent */
    Jinja *template;
    bool column, function; /* function: Python's, whose values are a column of the field's name */
} Field;

typedef enum MetricKind {
    METRIC_ACC, METRIC_ACC_NORM, METRIC_ACC_BYTES, METRIC_ACC_MUTUAL_INFO, METRIC_EXACT_MATCH, METRIC_F1, METRIC_MCC, METRIC_BRIER, METRIC_PERPLEXITY,
    METRIC_WORD_PERPLEXITY, METRIC_BYTE_PERPLEXITY, METRIC_BITS_PER_BYTE, METRIC_BLEU, METRIC_CHRF, METRIC_CHRF_WORDS, METRIC_TER, METRIC_BYPASS, METRICS
} MetricKind;

typedef struct Metric {
    MetricKind kind;
    bool median;             /* instead of the mean */
    PythonRe **ignored;      /* exact_match: what is deleted from both sides first */
    size_t ignored_count;
    bool ignore_case, ignore_punctuation, ignore_numbers;
    double *items, *weights; /* a document each; weights are words, bytes or the right answers */
    size_t width;            /* how many of items and weights a document has; 1 but for corpus.h's */
    size_t count, capacity, weight_capacity;
} Metric;

typedef enum FilterKind { FILTER_REGEX, FILTER_STRIP, FILTER_LOWER, FILTER_UPPER, FILTER_MAP, FILTER_CHOICE, FILTER_NONE } FilterKind;

typedef struct Filter {
    FilterKind kind;
    PythonRe *pattern;
    int64_t group;      /* which match; negative: from the end */
    Span fallback;
    const JsonValue *map, *otherwise;
    PythonRe **ignored; /* multi_choice_regex: what is deleted before choices are looked for */
    size_t ignored_count;
    bool ignore_case, ignore_punctuation;
} Filter;

typedef struct Pipeline {
    char *name;
    Filter *filters;
    size_t count;
    Metric *metrics; /* of this pipeline; a task that does not generate has one pipeline without filters */
} Pipeline;

/* What the few-shot examples may say otherwise than the task (fewshot_config). */
typedef struct Shots {
    Field text, target, choice, prefix;
    const char *target_delimiter, *delimiter;
    bool first_n;
    const JsonValue *samples;
} Shots;

typedef struct Task {
    const char *path;
    char *name;
    TaskKind kind;
    JsonTree *trees; /* of the file and what it includes */
    size_t tree_count;
    Field text, target, choice, prefix, description;
    const char *target_delimiter, *delimiter;
    Shots shots;
    int64_t num_fewshot;
    char *test, *validation, *training, *fewshot; /* names of splits, NULL: none */
    Split docs, pool;
    Pipeline *pipelines;
    size_t pipeline_count, metric_count;
    const char **until;
    size_t until_count;
    int64_t max_tokens;
    bool multiple_input, multiple_target;
    Mersenne random;
    Arena arena;
} Task;

/* Reads the definition and (without --check) its documents, as the options of the Eval say: files of splits, how many examples. */
int task_open(Task *t, const char *path, const Eval *e, Error *err);
/* A task of our own format: a file with context, choices and answer. */
int task_open_choices(Task *t, const char *path, const Eval *e, Error *err);
void task_close(Task *t);
/* The split that few-shot examples are of; NULL: the definition's own samples. */
const char *task_pool(const Task *t);
/* All documents, and the numbers printed. */
int task_run(Eval *e, Task *t, Error *err);

int split_read(Split *s, const char *file, Error *err);
void split_free(Split *s);
int split_doc(Split *s, size_t at, Doc *out, Error *err);
/* Appends a document that stands in the definition. */
void split_add_value(Split *s, const JsonValue *v);
bool json_equal(const JsonValue *a, const JsonValue *b);

int field_set(Field *f, const char *name, const JsonValue *value, Error *err);
/* Once the columns are known: a text that is no column is a template. */
int field_bind(Field *f, const Split *s, Error *err);
/* Values live in the arena. */
int field_text(const Task *t, const Field *f, const Doc *d, Arena *arena, JsonValue *out, Error *err);
int field_target(const Task *t, const Field *f, const Doc *d, Arena *arena, JsonValue *out, Error *err);
int field_choice(const Field *f, const Doc *d, Arena *arena, JsonValue *out, Error *err);
/* Python's str(). */
int value_string_of(const JsonValue *v, Arena *arena, Span *out, Error *err);
/* ast.literal_eval of strings, numbers, truth values, None, lists, tuples and mappings. */
int literal_eval(Span text, Arena *arena, JsonValue *out, Error *err);

/* What stands before a continuation: text, of which control tokens are stretches (with --chat). */
typedef struct Context {
    Buffer text;
    ChatPiece *pieces; /* control tokens alone */
    size_t count, capacity;
} Context;

/* The contexts of a document: one, or with multiple_input one a choice. Draws the few-shot examples. */
int task_contexts(Task *t, Eval *e, const Doc *d, Arena *arena, Context **out, size_t *count, Error *err);
void contexts_free(Context *c, size_t count);
/* What is put between context and choice. */
const char *task_choice_delimiter(const Task *t, const Eval *e, Span prefix);
int task_prefix(const Task *t, const Doc *d, Arena *arena, Span *out, Error *err);

/* Ids of the context (with what the tokenizer begins texts with), appended. */
int context_encode(Eval *e, const Context *c, Ids *ids, Error *err);
/* Ids of context and continuation; *context_count of them are the context's, at least one (lm_eval/api/model.py, _encode_pair). */
int pair_encode(Eval *e, const Context *c, Span continuation, Ids *ids, int64_t *context_count, Error *err);

int filter_read(Filter *f, const JsonValue *v, Error *err);
/* choices: those of the document, for multi_choice_regex. */
int filters_apply(const Pipeline *p, Span answer, const Span *choices, size_t choice_count, Arena *arena, Span *out, Error *err);
/* The match that the pattern and group_select choose, without blanks at its ends; empty: none. */
int filter_find(const Filter *f, Span text, Span *out, Error *err);
int filter_choose(const Filter *f, Span answer, const Span *choices, size_t choice_count, Arena *arena, Span *out, Error *err);
Span filter_strip(Span s);
int filter_case(Span s, Arena *arena, bool upper, Span *out, Error *err);
/* A list of patterns, as of regexes_to_ignore. */
int filter_patterns(const JsonValue *v, PythonRe ***out, size_t *count, Error *err);
/* exact_match of an answer and what was wanted. */
int metric_match(const Metric *m, Span answer, Span wanted, bool *equal, Error *err);

extern const char *const metric_names[METRICS], *const metric_aggregations[METRICS];
/* Whether documents may have several right answers. */
bool metric_takes_several(MetricKind metric);
bool metric_allowed(TaskKind kind, MetricKind metric);
Metric metric_new(MetricKind kind);
void metric_add(Metric *m, double item, double weight);
/* An answer and what was wanted: any of them (exact_match), or the one. */
int metric_add_answer(Metric *m, Span answer, const Span *wanted, size_t count, Error *err);
/* The aggregate, and its standard error: NaN where the harness has none. */
int metric_value(const Metric *m, int64_t bootstraps, double *value, double *stderror, Error *err);

#endif
