/* A model's folder that the ranks of a grid write together, each what it holds: one model.safetensors in Hugging Face's layout comes
 * of any grid. The first rank makes the folder's files and the header (folder_begin), then each writes its boxes; a box's checksum
 * is that of the bytes that were written, found under "FILE NAME global 4 box 0+2" (box_text), the header's under "FILE header". */
#ifndef MODEL_FOLDER_PARTS_H
#define MODEL_FOLDER_PARTS_H

#include "io/json.h"
#include "model/box.h"
#include "model/model.h"

/* Makes the file with its header and its full size, in an existing folder: room for what is trained. */
int parts_begin(const Model *m, Dtype type, const char *folder, Error *err);
/* Writes what is this rank's own (its replica's) in some stretches of the arena of what is trained, whose values lie one after the
 * other in host memory, and waits until it is on the disk; another thread may do it. sums: gets the checksums as members of a JSON
 * object, `,"KEY": "xxh3"` each; NULL: not wanted. */
int parts_write(const Model *m, const float *values, const ArenaStretch *stretches, int n, Dtype type, const char *folder, Buffer *sums, Error *err);
/* The header's checksum, which the first rank adds. */
int parts_sum_header(const Model *m, const char *folder, Buffer *sums, Error *err);
/* Do the headers and the boxes that are members of `sums` have the checksums they had? Other members, files, are passed over. */
int parts_check(const char *folder, const JsonValue *sums, Error *err);

#endif
