/* Files of a deduplication by many machines: the signatures of each part of the corpus, and between the steps records of three
 * numbers and the documents' fates. Each file ends in its terms, by which a step knows its inputs apart and refuses files that
 * were cut off or are of another deduplication. Numbers are those of the machine that wrote them; all must have one byte order. */
#ifndef DEDUP_PARTS_H
#define DEDUP_PARTS_H

#include "dedup.h"
#include "io/filemap.h"
#include "io/stream.h"
#include "sorter.h"

typedef enum FileKind { FILE_SIGNATURES, FILE_KEYS, FILE_PAIRS, FILE_MATCHES, FILE_FATES, FILE_KINDS } FileKind;

/* The last bytes of every file. */
typedef struct Terms {
    uint64_t documents;      /* of the part (FILE_SIGNATURES), of the corpus */
    uint64_t count;          /* records, fates; of signatures: shingles */
    uint64_t checksum;       /* of the part's keys; of all parts' checksums */
    uint64_t name_bytes;     /* FILE_SIGNATURES: of all ids together */
    double threshold;
    uint32_t method, ngram, bands, rows;
    uint32_t round, undecided; /* FILE_FATES: rounds done; 1: another one is needed */
    uint32_t kind;
    char magic[12];
} Terms;

/* The signatures of a part, as they lie in its file. A document is a sorted set of hashes and `bands` keys; two documents that
 * share a key are compared. Of --url and --exact there is one key and a set of one hash: together the 128 bits of keys.h. */
typedef struct Part {
    const char *path;
    FileMap map;
    Terms terms;
    uint64_t first;             /* the number of its first document in the corpus */
    const uint64_t *hashes, *keys; /* all documents' in a row; keys only of those with a set */
    const uint64_t *set_ends, *name_ends; /* [documents] */
    const char *names;
} Part;

/* What a step was given, told apart by kind. */
typedef struct Inputs {
    Part *parts;
    size_t part_count;
    struct RecordFile *files; /* of the kind that the step takes */
    size_t file_count;
    const char **others; /* NULL-terminated: no files of dedup's steps: documents */
    size_t other_count;
    Terms terms;         /* of the corpus, once there is a part or a file */
} Inputs;

typedef struct RecordFile {
    const char *path;
    FileMap map;
    Terms terms;
    const SortRecord *records; /* [terms.count] */
} RecordFile;

/* documents: operands of no kind are taken as documents; otherwise they are errors. */
int inputs_open(Inputs *in, const char *const *paths, FileKind kind, bool documents, Error *err);
void inputs_close(Inputs *in);
/* A document's part. */
const Part *part_of(const Inputs *in, uint64_t number);
typedef struct Set {
    const uint64_t *hashes;
    size_t count;
} Set;
Set part_set(const Part *p, uint64_t index); /* index: within the part */
Span part_name(const Part *p, uint64_t index);

/* Records into a file, closed by its terms. */
typedef struct RecordWriter {
    Writer *out;
    Terms terms;
} RecordWriter;

int records_open(RecordWriter *w, const char *path, FileKind kind, const Terms *corpus, Error *err);
int records_write(RecordWriter *w, SortRecord r, Error *err);
int records_close(RecordWriter *w, Error *err);
void records_abandon(RecordWriter *w);
int terms_write(Writer *out, Terms terms, FileKind kind, Error *err);

/* What became of each document (FILE_FATES), [documents] numbers. */
enum { FATE_UNDECIDED, FATE_KEPT, FATE_REMOVED, FATE_REMOVED_FOR_NOW /* an earlier match may come to light */ };
typedef struct Fates {
    FileMap map;
    Terms terms;
    const uint64_t *fates;
} Fates;

/* Those of the inputs' corpus. */
int fates_open(Fates *f, const char *path, const Inputs *in, Error *err);
void fates_close(Fates *f);
static inline int fate_kind(uint64_t fate)
{
    return (int)(fate >> 62);
}
/* FATE_KEPT: the round that decided; FATE_REMOVED: the number of the document that is kept for it. */
static inline uint64_t fate_value(uint64_t fate)
{
    return fate & ((UINT64_C(1) << 62) - 1);
}
static inline uint64_t fate_make(int kind, uint64_t value)
{
    return (uint64_t)kind << 62 | value;
}

/* A pair whose second number is this: the first document has not been compared with all before it. */
#define PAIR_OPEN UINT64_MAX

/* "I/N" of --part: part I (from 0) of N. */
int share_parse(const char *text, uint64_t *index, uint64_t *count, Error *err);

/* Pairs or matches of the inputs, checked, whose later document is in share `index` of `count` of the corpus: in order, for sorter_next. */
int pairs_sort(const Inputs *in, Sorter *sorter, uint64_t index, uint64_t count, Error *err);

/* Steps by their names; each is a main(). */
int sign_main(int argc, char **argv);
int sort_main(int argc, char **argv);
int pair_main(int argc, char **argv);
int verify_main(int argc, char **argv);
int apply_main(int argc, char **argv);
/* Of those that write -o from files of the steps named by `wanted`. */
int step_main(OptionSet *set, int argc, char **argv, Common *c, const char *wanted, int (*run)(const char *const *files, Error *err));

#endif
