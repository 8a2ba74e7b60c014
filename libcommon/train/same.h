/* What the ranks of a job must have in common, and what tells them apart where they do not: one that was started with other options, or
 * read another model, would keep the others waiting for ever, or spoil the weights in silence. */
#ifndef TRAIN_SAME_H
#define TRAIN_SAME_H

#include "base/memory.h"
#include "base/option.h"
#include "dist/comm.h"
#include "io/json.h"
#include "model/model.h"
#include "train/run.h"

/* An option that two runs, or ranks, have with different values, as JSON ("nothing": it is not there). */
typedef struct OptionDifference {
    const char *name; /* of one of the objects */
    Buffer first, second;
} OptionDifference;

/* What option_json wrote, parsed; `text` keeps the bytes until both are freed. */
int options_parse(JsonTree *out, Buffer *text, const char *json, Error *err);
/* The first option of either that is not among free_options (NULL-terminated, may be NULL) and differs; false: there is none. The caller
 * frees the buffers. */
bool options_differ(const JsonValue *first, const JsonValue *second, const char *const *free_options, OptionDifference *d);

/* -1 on all ranks, with one text that names the rank, where one was started with other options than the first: of those that need not
 * be equal the others have no word. A collective. */
int ranks_same_options(Grid *g, const OptionSet *set, Error *err);
/* The same where one has another model, or other weights than those that hold the same part. */
int ranks_same_model(Grid *g, Model *m, Error *err);

/* What is trained on: a name for it, and a number that its content has. */
typedef struct DataNumber {
    const char *name;
    uint64_t number;
} DataNumber;

/* -1 on all ranks where one that is another process has read other data under the same names. A collective. */
int ranks_same_data(Grid *g, const DataNumber *data, size_t count, Error *err);
/* -1 where the run was started with other data under these names. The first start's are kept in its data.json. */
int run_same_data(const Run *run, const DataNumber *data, size_t count, Error *err);

/* -1 where the checkpoint in `folder` is of another configuration than the model that goes on from it: a file has changed under its name. */
int run_same_model(const Run *run, const Model *m, const char *folder, Error *err);

#endif
