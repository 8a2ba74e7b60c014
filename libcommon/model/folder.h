/* Model folders in Hugging Face's layout: config.json, model.safetensors (or shards with an index), generation_config.json
 * and the tokenizer's files. */
#ifndef MODEL_FOLDER_H
#define MODEL_FOLDER_H

#include "model/model.h"

/* What --model may name: a model folder, or a run, of which `final` is taken, else `latest`. Caller frees; NULL on errors. */
char *folder_resolve(const char *path, Error *err);

/* How a model is opened; zeros: as it lies, all of it. */
typedef struct FolderLoad {
    int num_labels;              /* 1 makes a reward model of a causal one, with a fresh score layer */
    uint64_t seed;               /* of what is fresh */
    const ModelPart *part;       /* what a rank holds; NULL: all */
    const char *adapter;         /* an adapter's folder or run (adapter.h); NULL: none, or the one that `path` is */
    const struct LoraPlan *lora; /* NULL: the adapter is added to the weights. Else the model has adapters of its own in the parameter
                                  * table, with the adapter's values or fresh; the plan is kept until the model is closed */
} FolderLoad;

/* Opens the model that lies in `path` (after folder_resolve). Every tensor must be there with the shape that the configuration
 * implies; NaN and infinite weights are refused by name. An adapter's folder stands for its base model with the adapter. */
int folder_load(Model *m, const char *path, const FolderLoad *how /* NULL: zeros */, Device *d, Error *err);
/* What --model and --adapter (NULL: not given) name: the base model's folder, and the adapter or NULL; the caller frees both, after
 * errors too. */
int folder_base(const char *path, const char *adapter, char **base, char **adapter_path, Error *err);

/* Reads what is trained of an open model from a folder that the ranks of a grid wrote of it. */
int folder_reload(Model *m, const char *path, Error *err);
/* The names that files beside the weights may have, NULL at the end. */
extern const char *const folder_texts[];
/* Makes what belongs to a model but its weights, for which folder_parts.h then has room, in an existing folder: of a model with adapters
 * what belongs to them. The tokenizer's files are copied from m->tokenizer_folder where that is known. Touches no device. */
int folder_begin(const Model *m, Dtype type, const char *path, Error *err);

#endif
