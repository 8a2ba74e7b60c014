/* A run: the folder that a training tool's -o names. It holds step-NNNNNNNN/ (whole checkpoints), `latest` (a relative link
 * to the newest), options.json (what the run was started with), `lock`, and once finished the model folder `final` and,
 * written last, `done`. A checkpoint is written under a temporary name and renamed, so that a kill at any moment leaves the
 * one before whole. */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

typedef struct Run {
    char *folder;
    int lock;      /* file descriptor */
    bool done;     /* it had finished before */
    int64_t step;  /* newest whole step, -1: none */
} Run;

/* Creates or opens the folder and takes its lock (a second process gets an error). `options` is the tool's merged options
 * as a JSON object: where the run exists, options other than those named in `free_options` (NULL-terminated) must equal
 * the saved ones, else the error names the option with both values. Left-over temporary folders are removed. */
int run_open(Run *run, const char *folder, const char *options, const char *const *free_options, Error *err);
/* 1 where the run in `folder` has finished, 0 where it has not, -1 where it was another: it was started with other options. */
int run_finished(const char *folder, const char *options, const char *const *free_options, Error *err);
/* What the other ranks of a job have of a run that the first has opened: its folder, to read from. */
void run_follow(Run *run, const char *folder);
/* Path of a step's folder; caller frees. */
char *run_step_path(const Run *run, int64_t step);
/* The newest whole step before `step` (INT64_MAX: the newest of all), -1 where there is none. */
int64_t run_step_before(const Run *run, int64_t step);
/* A fresh temporary folder to write a checkpoint or `final` into; caller frees. */
char *run_temporary(const Run *run, const char *name, Error *err);
/* Its path, which is there already. */
char *run_temporary_path(const Run *run, const char *name);
/* Makes the temporary folder step-N, points `latest` at it and removes older steps but the newest `keep` (0: all stay) and the
 * multiples of keep_every (0: none), which stay for good. */
int run_commit_step(Run *run, const char *temporary, int64_t step, int64_t keep, int64_t keep_every, Error *err);
/* Makes the temporary folder a model of that name: `best`, `average`. */
int run_commit_model(const Run *run, const char *temporary, const char *name, Error *err);
/* Makes the temporary folder `final`, then writes `done`. */
int run_commit_final(Run *run, const char *temporary, Error *err);
void run_close(Run *run);

/* Removes a folder and what is in it, or a file; of a link the link alone. */
int folder_remove(const char *path, Error *err);

#endif
