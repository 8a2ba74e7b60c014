/* Jobs that hang, in processes of their own: which rank the one message names, in which step and operation. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/plugin.h"
#include "dist/internal.h"
#include "dist/side.h"
#include "tests/unit/tap.h"

static const double timeout = 0.5;

static int watched(Grid *g, int64_t step)
{
    Error err;
    if (grid_watch(g, timeout, NULL, &err) < 0)
        return grid_failed(g, &err);
    grid_step(g, step);
    return 0;
}

/* The second rank does something else for too long. */
static int hangs(void *context, Grid *g)
{
    (void)context;
    float x[3] = {0};
    Error err;
    watched(g, 7);
    if (g->rank == 1)
        sleep(60);
    comm_sum(&g->group[GRID_DP], NULL, DTYPE_F32, x, 3, &err);
    return 0;
}

/* The third rank waits for what the others never send. */
static int strays(void *context, Grid *g)
{
    (void)context;
    float x[3] = {0};
    Error err;
    CommRequest r;
    watched(g, 8);
    if (g->rank == 2 && comm_recv(&g->world, NULL, x, sizeof x, 0, 1, &r, &err) == 0)
        comm_wait(&g->world, NULL, &r, &err);
    comm_sum(&g->group[GRID_DP], NULL, DTYPE_F32, x, 3, &err);
    return 0;
}

/* A thread beside the first rank's computation waits for what the second, which hangs, never begins. Does the first rank compute or wait for it? */
static int beside(Grid *g, bool waits)
{
    float x[6] = {0};
    Error err;
    Device *d = device_open("cpu", 1, &err);
    watched(g, 11);
    Side *s = side_open(g, GRID_DATA, d, &err);
    if (!s)
        return grid_failed(g, &err);
    if (g->rank == 1)
        sleep(60);
    side_reduce_scatter(s, NULL, DTYPE_F32, x, x + 2 * g->rank, 2, 0, &err);
    if (waits && side_wait(s, NULL, &err) < 0)
        return grid_failed(g, &err);
    sleep(60);
    return 0;
}

static int hangs_beside(void *context, Grid *g)
{
    (void)context;
    return beside(g, false);
}

static int hangs_waited_for(void *context, Grid *g)
{
    (void)context;
    return beside(g, true);
}

/* A rank that fails by itself ends, and so do the others' threads that wait for it. */
static int fails_beside(void *context, Grid *g)
{
    (void)context;
    float x[6] = {0};
    Error err;
    Device *d = device_open("cpu", 1, &err);
    watched(g, 12);
    Side *s = side_open(g, GRID_DATA, d, &err);
    int status = g->rank == 1 ? error_set(&err, "it has had enough") : 0;
    if (status == 0)
        status = side_sum(s, NULL, DTYPE_F32, x, 6, 0, &err);
    if (status == 0)
        status = side_wait(s, NULL, &err);
    status = grid_failed(g, &err);
    side_close(s);
    device_close(d);
    return status;
}

/* Waiting for less than allowed is none of the watch's business. */
static int slow(void *context, Grid *g)
{
    (void)context;
    float x[3] = {0};
    Error err;
    watched(g, 9);
    for (int i = 0; i < 3; i++) {
        usleep(g->rank == 1 ? 200000 : 0);
        if (comm_sum(&g->group[GRID_DP], NULL, DTYPE_F32, x, 3, &err) < 0)
            return grid_failed(g, &err);
    }
    return grid_waited(g) >= (g->rank == 1 ? 0 : 0.3) ? 0 : 1;
}

static Device *(*emulated_open)(int, Error *);
static NcclWrap wrap;
static void (*standin_fail)(void);

/* The device's library hears of a failure while the host does something else. */
static int device_fails(void *context, Grid *g)
{
    (void)context;
    Error err;
    Device *d = emulated_open(g->local_rank, &err);
    if (!d || wrap(&g->group[GRID_DP], d, 0, &err) < 0 || watched(g, 10) != 0)
        return grid_failed(g, &err);
    double all = 1;
    comm_sum_host(&g->world, &all, 1, &err);
    standin_fail();
    sleep(60);
    return 0;
}

/* Runs three ranks in a child; its status, and what it says. */
static int run(int (*work)(void *, Grid *), char *said, size_t size)
{
    const int extent[GRID_DIMENSIONS] = {1, 1, 1, 3};
    int ends[2], status = -1;
    if (pipe(ends) != 0)
        return -1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        Error err;
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        _exit(grid_run(extent, work, NULL, &err));
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t n;
    while ((n = read(ends[0], said + length, size - 1 - length)) > 0)
        length += (size_t)n;
    said[length] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool one_line(const char *text)
{
    const char *end = strchr(text, '\n');
    return end && !end[1];
}

static void test(const char *name, int (*work)(void *, Grid *), int status, const char *first, const char *second)
{
    char said[4096];
    int got = run(work, said, sizeof said);
    bool fits = status == 0 ? !*said : one_line(said) && strstr(said, first) && strstr(said, second);
    if (!ok(got == status && fits, "%s", name))
        printf("# status %d: %s\n", got, said);
}

int main(void)
{
    test("a rank that hangs is named with its step and operation", hangs, 1, "rank 1 (host ", "hangs: step 7, after the start; rank ");
    test("and so is one that waits for what nobody does", strays, 1, "rank 2 (host ", "step 8, in the receive of world with its rank 0; rank ");
    test("a rank that hangs while another computes and a thread beside that waits", hangs_beside, 1, "rank 1 (host ", "hangs: step 11, after the start; rank ");
    test("and while the other waits for that thread", hangs_waited_for, 1, "hangs: step 11, after the start; rank ", " s in the reduce-scatter of data (--comm-timeout");
    test("a rank that fails ends what the others wait for beside their computation", fails_beside, 1, "it has had enough", "");
    test("a rank that is late by less than the time-out is left alone", slow, 0, "", "");
    Error err;
    emulated_open = (Device * (*)(int, Error *))(uintptr_t)plugin_symbol("emulation", "LMPIPE_CUDA", "liblmpipe-emulated.so", "cuda_device_open", false, &err);
    wrap = (NcclWrap)(uintptr_t)plugin_symbol("stand-in", "LMPIPE_NCCL", "liblmpipe-nccl-emulated.so", "nccl_wrap", false, &err);
    standin_fail = (void (*)(void))(uintptr_t)plugin_symbol("stand-in", "LMPIPE_NCCL", "liblmpipe-nccl-emulated.so", "nccl_standin_fail", false, &err);
    if (emulated_open && wrap && standin_fail)
        test("an asynchronous error of NCCL ends the job", device_fails, 1, "step 10, dp: NCCL: asynchronous error: remote process exited", "rank 0 (host ");
    else
        skip("an asynchronous error of NCCL ends the job", err.text);
    return tap_end();
}
