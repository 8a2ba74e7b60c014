#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include "base/memory.h"
#include "base/message.h"

static int write_snapshot(Checkpoints *c, Error *err)
{
    char *temporary = run_temporary(c->run, "step", err);
    if (!temporary)
        return -1;
    int status = state_save(temporary, c->model, &c->snapshot, err);
    if (status == 0)
        status = metrics_sync(c->log, err);
    if (status == 0)
        status = run_commit_step(c->run, temporary, c->snapshot.state.step, c->keep, c->keep_every, err);
    if (status < 0)
        folder_remove(temporary, NULL); /* a disk that was full should not stay so */
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

int checkpoint_begin(Checkpoints *c, const TrainState *s, Error *err)
{
    if (!metrics_whole(c->log))
        return error_set(err, "%s: step %" PRId64 " is not saved while lines of the log are missing", c->run->folder, s->step);
    if (snapshot_take(&c->snapshot, c->model, c->optimizer, c->average, s, err) < 0)
        return -1;
    c->written = false;
    if (pthread_create(&c->thread, NULL, writing_thread, c) != 0)
        return error_set(err, "cannot start a thread that writes step %" PRId64, s->step);
    c->writing = true;
    return 0;
}

int checkpoint_settle(Checkpoints *c, bool wait, Error *err)
{
    if (!c->writing || (!wait && !__atomic_load_n(&c->written, __ATOMIC_ACQUIRE)))
        return 0;
    pthread_join(c->thread, NULL);
    c->writing = false;
    if (c->status < 0 && err)
        *err = c->error;
    return c->status;
}

void checkpoint_close(Checkpoints *c)
{
    checkpoint_settle(c, true, NULL);
    snapshot_free(&c->snapshot);
}

static int load(Checkpoints *c, int64_t step, bool check, TrainState *s, Error *err)
{
    char *path = run_step_path(c->run, step);
    int status = check ? state_check(path, err) : 0;
    if (status == 0)
        status = state_load(path, c->model, c->optimizer, c->average, s, err);
    free(path);
    return status;
}

static int load_newest(Checkpoints *c, int64_t *found, TrainState *s, Error *err)
{
    for (*found = c->run->step; *found >= 0; *found = run_step_before(c->run, *found)) {
        if (load(c, *found, true, s, err) == 0)
            return 0;
        message_warning("%s; going on from the checkpoint before", err->text);
    }
    return c->run->step >= 0 ? error_set(err, "%s: no checkpoint is whole", c->run->folder) : 0;
}

int checkpoint_resume(Checkpoints *c, Grid *g, TrainState *s, Error *err)
{
    struct {
        int64_t step, done;
    } first = {-1, c->run->done};
    if (g->rank == 0 && !c->run->done && load_newest(c, &first.step, s, err) < 0)
        return -1;
    if (comm_broadcast_host(&g->world, &first, sizeof first, 0, err) < 0)
        return -1;
    c->run->done = first.done != 0;
    if (first.step < 0)
        return 0;
    if (g->rank > 0)
        return load(c, first.step, false, s, err);
    message("resuming at step %" PRId64, first.step);
    return 0;
}
