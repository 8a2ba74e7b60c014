/* Model folders in Hugging Face's layout: config.json, model.safetensors (or shards with an index), generation_config.json
 * and the tokenizer's files. */
#ifndef MODEL_FOLDER_H
#define MODEL_FOLDER_H

#include "model/model.h"

/* What --model may name: a model folder, or a run, of which `final` is taken, else `latest`. Caller frees; NULL on errors. */
char *folder_resolve(const char *path, Error *err);

/* Opens the model that lies in `path` (after folder_resolve), or the part of it that a rank holds (NULL: all). num_labels: 0 takes what the folder holds; 1 makes a reward
 * model of a causal one, with a fresh score layer (seed). Every tensor must be there with the shape that the configuration
 * implies; NaN and infinite weights are refused by name. */
int folder_load(Model *m, const char *path, int num_labels, uint64_t seed, const ModelPart *part, Device *d, Error *err);

/* Writes the model into an existing folder, its weights as F32 or rounded to BF16 or F16, with the tokenizer's files copied from m->tokenizer_folder where that is known. */
int folder_save(Model *m, Dtype type, const char *path, Error *err);
/* Reads what is trained of an open model from a folder that folder_save or the ranks of a grid wrote of it. */
int folder_reload(Model *m, const char *path, Error *err);
/* Makes what belongs to a model but its weights, for which folder_parts.h then has room. Touches no device. */
int folder_begin(const Model *m, Dtype type, const char *path, Error *err);

#endif
