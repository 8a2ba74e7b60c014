/* llama.cpp's converter (convert_hf_to_gguf.py) knows a vocabulary by a hash of the ids of one text, and refuses those it has not
 * met. */
#ifndef BPE_TRAIN_CONVERTER_H
#define BPE_TRAIN_CONVERTER_H

#include "text/tokenizer.h"

/* Says the line of Python that registers the vocabulary there; pattern: --pattern. */
int converter_report(const Tokenizer *t, const char *pattern, Error *err);

#endif
