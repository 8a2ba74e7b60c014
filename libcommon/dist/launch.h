/* Which rank of how many this process is, as launchers tell it in the environment, and how the ranks find one another: over MPI, or
 * without it in a file (meet.h). */
#ifndef DIST_LAUNCH_H
#define DIST_LAUNCH_H

#include "base/error.h"

typedef struct Launch {
    enum { LAUNCH_ALONE, LAUNCH_MPI, LAUNCH_MEET } how;
    int rank, size;
    const char *variable; /* of the environment, that said the rank; NULL: none */
    int local_size;       /* ranks of this machine; 0: nobody says */
    double seconds;  /* in which the ranks must come together: MEET: the first is waited for at most, and waits for the others; MPI: 0: nobody says */
    char file[512];  /* MEET: where the first rank says how it can be reached */
    char job[128];   /* MEET: a start of a job; files of another are not believed */
} Launch;

/* -1: what the environment says does not fit together.
 *
 *   LMPIPE_MEET=FILE                the ranks meet in that file, whoever started them; their number and place are in the first of
 *     LMPIPE_RANK, LMPIPE_RANKS     these that is set; in none: one rank
 *     RANK, WORLD_SIZE              torchrun and others
 *     OMPI_COMM_WORLD_RANK, _SIZE   Open MPI's mpirun
 *     PMI_RANK, PMI_SIZE            MPICH's, and Slurm's PMI-2
 *     SLURM_PROCID, SLURM_STEP_NUM_TASKS
 *   LMPIPE_JOB=NAME                 of this start, where one file serves several (default: Slurm's job, step and restart)
 *   LMPIPE_MEET_TIMEOUT=SECONDS     (default 600; of MPI's ranks grid_run_within's)
 *
 * Without LMPIPE_MEET a launcher of MPI's is one of the two above or srun with PMIx; ranks of srun without PMIx meet in
 * $SLURM_SUBMIT_DIR/.lmpipe-meet-JOB.STEP. */
int launch_read(Launch *l, Error *err);

#endif
