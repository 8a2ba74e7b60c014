#include "dist/launch.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(const char *variable)
{
    const char *value = getenv(variable);
    return value ? value : "";
}

static int number_of(const char *variable, int otherwise)
{
    char *end;
    const char *value = text_of(variable);
    long n = strtol(value, &end, 10);
    return *value && !*end && n >= 0 && n <= 1 << 24 ? (int)n : otherwise;
}

/* The rank and the number of ranks of two variables; false: the second is not set. */
static bool ranks_of(Launch *l, const char *rank, const char *size)
{
    if (!*text_of(size))
        return false;
    l->size = number_of(size, -1);
    l->rank = number_of(rank, -1);
    l->variable = rank;
    return true;
}

/* Slurm starts several tasks in a step; its batch shell is no step's. */
static bool in_step(void)
{
    return getenv("SLURM_STEP_ID") && number_of("SLURM_STEP_NUM_TASKS", 1) > 1;
}

static bool launched_by_mpi(Launch *l)
{
    if (ranks_of(l, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE") || ranks_of(l, "PMI_RANK", "PMI_SIZE"))
        return true;
    return in_step() && getenv("PMIX_RANK") && ranks_of(l, "PMIX_RANK", "SLURM_STEP_NUM_TASKS");
}

static int meets(Launch *l, const char *file, Error *err)
{
    l->how = l->size > 1 ? LAUNCH_MEET : LAUNCH_ALONE;
    l->seconds = number_of("LMPIPE_MEET_TIMEOUT", 600);
    if (l->size < 1 || l->rank < 0 || l->rank >= l->size)
        return error_set(err, "the environment says neither rank nor number of ranks as LMPIPE_RANK and LMPIPE_RANKS should");
    if (*text_of("LMPIPE_JOB"))
        snprintf(l->job, sizeof l->job, "%s", text_of("LMPIPE_JOB"));
    else if (in_step())
        snprintf(l->job, sizeof l->job, "slurm-%s.%s-%s", text_of("SLURM_JOB_ID"), text_of("SLURM_STEP_ID"), text_of("SLURM_RESTART_COUNT"));
    for (char *c = l->job; *c; c++)
        *c = *c <= ' ' ? '_' : *c;
    int length = snprintf(l->file, sizeof l->file, "%s", file);
    return length < (int)sizeof l->file ? 0 : error_set(err, "LMPIPE_MEET: this path is too long: %.100s…", file);
}

int launch_read(Launch *l, Error *err)
{
    *l = (Launch){.size = 1};
    const char *file = text_of("LMPIPE_MEET");
    if (*file) {
        if (*text_of("LMPIPE_RANK") && !*text_of("LMPIPE_RANKS"))
            return error_set(err, "LMPIPE_RANK is set, LMPIPE_RANKS is not");
        if (ranks_of(l, "LMPIPE_RANK", "LMPIPE_RANKS") || ranks_of(l, "RANK", "WORLD_SIZE") || launched_by_mpi(l) ||
            (in_step() && ranks_of(l, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")))
            return meets(l, file, err);
        return 0;
    }
    if (launched_by_mpi(l)) {
        l->how = l->size > 1 ? LAUNCH_MPI : LAUNCH_ALONE;
        l->local_size = number_of("OMPI_COMM_WORLD_LOCAL_SIZE", number_of("MPI_LOCALNRANKS", 0));
        l->seconds = number_of("LMPIPE_MEET_TIMEOUT", 0);
        l->size = l->size > 1 ? l->size : 1;
        return 0;
    }
    if (in_step() && ranks_of(l, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")) {
        char path[sizeof l->file];
        const char *folder = *text_of("SLURM_SUBMIT_DIR") ? text_of("SLURM_SUBMIT_DIR") : ".";
        snprintf(path, sizeof path, "%s/.lmpipe-meet-%s.%s", folder, text_of("SLURM_JOB_ID"), text_of("SLURM_STEP_ID"));
        return meets(l, path, err);
    }
    return 0;
}
