/* What a log looks like: on a terminal while the run goes on, and as a picture. */
#ifndef PRETRAIN_CURVES_H
#define PRETRAIN_CURVES_H

/* --watch LOG: the loss by tokens and the newest numbers, drawn anew each second until the run's last line; once where standard
 * output is no terminal. A terminal waits for a log that is not there yet. Returns the exit status. */
int curves_watch(const char *log);
/* --plot FILE.svg|png LOG…: loss, held-out loss, learning rate and gradient norm by tokens. Returns the exit status. */
int curves_plot(const char *file, const char *const *logs);

#endif
