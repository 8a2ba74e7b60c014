/* Where the time of a device goes: between profile_begin and profile_end its table of operations is one that times each, waits for
 * it, and counts its FLOPs and the bytes that it must read and write at least. */
#ifndef KERNELS_PROFILE_H
#define KERNELS_PROFILE_H

#include <stdio.h>
#include "kernels/device.h"

/* Measures the roof first: a large product in each type and a large copy. Does nothing to a device that is profiled already. */
int profile_begin(Device *d, Error *err);
/* Prints a line an operation (calls, seconds, share of the time since profile_begin, GFLOP/s, GB/s, and the least time that the roof
 * allows as a share of the time taken) and gives the device its own table back. */
void profile_end(Device *d, FILE *out);

#endif
