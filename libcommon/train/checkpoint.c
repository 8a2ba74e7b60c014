#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "base/message.h"
#include "model/folder.h"
#include "model/folder_parts.h"
#include "train/same.h"

/* The whole checkpoint lies in its folder: it becomes the newest. */
static int commit(Checkpoints *c, Error *err)
{
    char *temporary = run_temporary_path(c->run, "step");
    int status = run_commit_step(c->run, temporary, c->snapshot.state.step, c->keep, c->keep_every, err);
    free(temporary);
    return status;
}

/* A disk that was full should not stay so. */
static void discard(Checkpoints *c, const char *name)
{
    char *temporary = run_temporary_path(c->run, name);
    if (c->grid->rank == 0)
        folder_remove(temporary, NULL);
    free(temporary);
}

static int write_snapshot(Checkpoints *c, Error *err)
{
    char *temporary = run_temporary_path(c->run, "step");
    int status = state_save(temporary, c->model, &c->snapshot, err);
    if (status == 0 && c->grid->rank == 0)
        status = metrics_sync(c->log, err);
    if (status == 0 && c->grid->size == 1)
        status = commit(c, err); /* nobody else to wait for */
    free(temporary);
    return status;
}

static void *writing_thread(void *argument)
{
    Checkpoints *c = argument;
    c->status = write_snapshot(c, &c->error);
    __atomic_store_n(&c->written, true, __ATOMIC_RELEASE);
    return NULL;
}

/* The first rank makes the folder and the files that all write into. */
static int begin_folder(Checkpoints *c, const char *name, const TrainState *s, Dtype type, Error *err)
{
    int status = 0;
    if (c->grid->rank == 0) {
        char *temporary = NULL;
        if (s && !metrics_whole(c->log))
            status = error_set(err, "%s: step %" PRId64 " is not saved while lines of the log are missing", c->run->folder, s->step);
        else
            status = (temporary = run_temporary(c->run, name, err)) ? 0 : -1;
        if (status == 0)
            status = s ? state_begin(temporary, c->model, err) : folder_begin(c->model, type, temporary, err);
        free(temporary);
    }
    return comm_agree(&c->grid->world, status, err);
}

int checkpoint_prepare(Checkpoints *c, const TrainState *s, Error *err)
{
    return snapshot_take(&c->snapshot, c->optimizer, c->average, s, err);
}

int checkpoint_begin(Checkpoints *c, const TrainState *s, Error *err)
{
    if (begin_folder(c, "step", s, DTYPE_F32, err) < 0) {
        discard(c, "step");
        return -1;
    }
    c->writing = true;
    c->written = true;
    c->status = snapshot_take(&c->snapshot, c->optimizer, c->average, s, &c->error);
    if (c->status < 0)
        return 0; /* the others write; that this rank fails is said when all meet */
    c->written = false;
    if (pthread_create(&c->thread, NULL, writing_thread, c) != 0) {
        c->written = true;
        c->status = error_set(&c->error, "cannot start a thread that writes step %" PRId64, s->step);
    } else {
        c->threaded = true;
    }
    return 0;
}

bool checkpoint_written(const Checkpoints *c)
{
    return c->writing && __atomic_load_n(&c->written, __ATOMIC_ACQUIRE);
}

static void join(Checkpoints *c)
{
    if (c->threaded)
        pthread_join(c->thread, NULL);
    c->threaded = false;
}

int checkpoint_settle(Checkpoints *c, Error *err)
{
    if (!c->writing)
        return 0;
    join(c);
    c->writing = false;
    if (c->status < 0)
        *err = c->error;
    int status = comm_agree(&c->grid->world, c->status, err);
    if (status == 0 && c->grid->size > 1) {
        status = c->grid->rank == 0 ? commit(c, err) : 0;
        status = comm_agree(&c->grid->world, status, err);
    }
    if (status < 0)
        discard(c, "step");
    return status;
}

void checkpoint_close(Checkpoints *c)
{
    join(c);
    snapshot_free(&c->snapshot);
}

/* All ranks get 0, or -1 and what is wrong with the step; or, with *other, with the model, which another checkpoint would not mend. */
static int load(Checkpoints *c, int64_t step, TrainState *s, bool *other, Error *err)
{
    Grid *g = c->grid;
    char *path = run_step_path(c->run, step);
    int status = comm_agree(&g->world, state_check(path, g->rank, g->size, err), err);
    if (status == 0) {
        status = comm_agree(&g->world, run_same_model(c->run, c->model, path, err), err);
        *other = status < 0;
    }
    if (status == 0)
        status = comm_agree(&g->world, state_load(path, c->model, c->optimizer, c->average, s, err), err);
    free(path);
    return status;
}

/* The step that the first rank sees before `step`. */
static int step_before(Checkpoints *c, int64_t step, int64_t *before, Error *err)
{
    *before = c->grid->rank == 0 ? run_step_before(c->run, step) : 0;
    return comm_broadcast_host(&c->grid->world, before, sizeof *before, 0, err);
}

int checkpoint_resume(Checkpoints *c, TrainState *s, Error *err)
{
    Grid *g = c->grid;
    int64_t done = c->run->done, step, newest;
    if (comm_broadcast_host(&g->world, &done, sizeof done, 0, err) < 0 || step_before(c, INT64_MAX, &newest, err) < 0)
        return -1;
    c->run->done = done != 0;
    for (step = c->run->done ? -1 : newest; step >= 0;) {
        bool other = false;
        if (load(c, step, s, &other, err) == 0)
            break;
        if (other)
            return -1;
        if (g->rank == 0)
            message_warning("%s; going on from the checkpoint before", err->text);
        if (step_before(c, step, &step, err) < 0)
            return -1;
    }
    if (c->run->done || newest < 0)
        return 0;
    if (step < 0)
        return error_set(err, "%s: no checkpoint is whole", c->run->folder);
    if (g->rank == 0)
        message("resuming at step %" PRId64, step);
    return 0;
}

/* This rank's part of a model, from where it lies if the host can read it there in one go: a copy would be the largest thing in memory. */
static int write_part(Checkpoints *c, const float *weights, Dtype type, const char *name, Error *err)
{
    Model *m = c->model;
    ArenaShare share = share_open(c->optimizer);
    const float *values = share_in_place(&share, c->optimizer, weights);
    float *copy = NULL;
    if (!values) {
        values = copy = memory_alloc(share.count, sizeof *copy);
        share_copy(&share, c->optimizer, copy, weights, false);
    }
    int status = m->device->stream_wait(m->stream, err);
    char *temporary = run_temporary_path(c->run, name);
    if (status == 0)
        status = parts_write(m, values, share.stretches, share.n, type, temporary, NULL, err);
    free(temporary);
    free(copy);
    share_close(&share);
    return status;
}

int checkpoint_keep(Checkpoints *c, const float *weights, Dtype type, const char *name, Error *err)
{
    Comm *world = &c->grid->world;
    int status = begin_folder(c, name, NULL, type, err);
    if (status == 0)
        status = comm_agree(world, write_part(c, weights, type, name, err), err);
    if (status == 0 && c->grid->rank == 0) {
        char *temporary = run_temporary_path(c->run, name);
        status = strcmp(name, "final") == 0 ? run_commit_final(c->run, temporary, err) : run_commit_model(c->run, temporary, name, err);
        free(temporary);
    }
    status = comm_agree(world, status, err);
    if (status < 0)
        discard(c, name);
    return status;
}
