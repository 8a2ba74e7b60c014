/* Shared objects that are loaded only where what they lean on is there: CUDA kernels, MPI, NCCL. */
#ifndef BASE_PLUGIN_H
#define BASE_PLUGIN_H

#include <stdbool.h>
#include "base/error.h"

/* Loads `file` from the folder of shared objects beside this program (../lib in a build folder, ../lib/lmpipe when installed),
 * or what the environment variable `variable` names instead, and returns the address of `symbol`. NULL with the reason, which
 * begins with `what`; an object that was built from other headers (its lmpipe_interface differs) is refused. shared: the object's own libraries look for its names too. A loaded object stays. */
void *plugin_symbol(const char *what, const char *variable, const char *file, const char *symbol, bool shared, Error *err);

#endif
