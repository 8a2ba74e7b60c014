/* Folders in PEFT's layout: adapter_config.json and adapter_model.safetensors, read beside a model and written. What would change
 * the mathematics and is not known is refused by name. */
#ifndef MODEL_ADAPTER_H
#define MODEL_ADAPTER_H

#include "io/safetensors.h"
#include "model/lora.h"
#include "model/model.h"

typedef struct Adapter {
    char *folder;
    LoraPlan plan;   /* as the file's tensors have it */
    bool classifies; /* task_type SEQ_CLS: with the score layer of a reward model */
    Safetensors file;
} Adapter;

/* An adapter and no model of its own? */
bool adapter_is(const char *folder);
/* The folder that `path` stands for: a PEFT folder, or a run whose final (else newest) model is one. Caller frees; NULL on errors. */
char *adapter_resolve(const char *path, Error *err);
int adapter_open(Adapter *a, const char *path, Error *err);
void adapter_close(Adapter *a);
/* Does every tensor of the file belong to this model, which lies whole in the table? `trained`: is it laid out there too, to be
 * trained on, so that nothing but A, B and a score may stand in it? */
int adapter_check(const Adapter *a, const ParameterTable *t, bool trained, Error *err);
/* The tensor that takes the place of a parameter or is an adapter's own; NULL: none. */
const SafetensorsEntry *adapter_find(const Adapter *a, const char *name);
/* values += s·B·A for the box of p that a rank holds, if p has an adapter. */
void adapter_add(const Adapter *a, const Parameter *p, float *values, int threads);
/* adapter_config.json of the model's own adapters, whose weights are written as a model's are (folder_parts.h). */
void adapter_config_write(const Model *m, Buffer *out);

#endif
