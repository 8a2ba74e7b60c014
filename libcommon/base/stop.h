/* SIGTERM and SIGUSR1 ask a run to save and stop: status 75. SIGINT kills as usual. */
#ifndef BASE_STOP_H
#define BASE_STOP_H

#include <stdbool.h>

enum { STATUS_DONE = 0, STATUS_FAILED = 1, STATUS_STOPPED = 75 };

void stop_install(void);
bool stop_requested(void);

#endif
