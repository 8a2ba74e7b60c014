/* Counts, in a rank of an MPI job, the bytes that the collectives and sends of libcommon/dist/mpi hand to MPI for other ranks, by MPI's
 * profiling interface, and leaves the number in $MPI_BYTES.RANK. Sums take what their counts say, gathers one part for each other. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static _Atomic long long sent; /* threads beside the computation count too */

static long long bytes_of(int count, MPI_Datatype t)
{
    int size;
    PMPI_Type_size(t, &size);
    return (long long)count * size;
}

static int others(MPI_Comm c)
{
    int size;
    PMPI_Comm_size(c, &size);
    return size - 1;
}

/* What a rank sends of a gather that has so many of each, and of its own counts. */
static void count_gather(int each, MPI_Datatype t, MPI_Comm c)
{
    sent += others(c) * bytes_of(each, t);
}

static void count_gatherv(const int *counts, MPI_Datatype t, MPI_Comm c)
{
    int rank;
    PMPI_Comm_rank(c, &rank);
    count_gather(counts[rank], t, c);
}

static void count_exchange(const int *counts, MPI_Datatype t, MPI_Comm c)
{
    int rank, n = others(c) + 1;
    PMPI_Comm_rank(c, &rank);
    for (int r = 0; r < n; r++)
        sent += r == rank ? 0 : bytes_of(counts[r], t);
}

int MPI_Iallgather(const void *from, int count, MPI_Datatype t, void *to, int each, MPI_Datatype to_type, MPI_Comm c, MPI_Request *r)
{
    count_gather(each, to_type, c);
    return PMPI_Iallgather(from, count, t, to, each, to_type, c, r);
}

int MPI_Iallgatherv(const void *from, int count, MPI_Datatype t, void *to, const int *counts, const int *places, MPI_Datatype to_type, MPI_Comm c, MPI_Request *r)
{
    count_gatherv(counts, to_type, c);
    return PMPI_Iallgatherv(from, count, t, to, counts, places, to_type, c, r);
}

int MPI_Ialltoallv(const void *from, const int *counts, const int *places, MPI_Datatype t, void *to, const int *to_counts, const int *to_places, MPI_Datatype to_type,
                   MPI_Comm c, MPI_Request *r)
{
    count_exchange(counts, t, c);
    return PMPI_Ialltoallv(from, counts, places, t, to, to_counts, to_places, to_type, c, r);
}

int MPI_Isend(const void *from, int count, MPI_Datatype t, int to, int tag, MPI_Comm c, MPI_Request *r)
{
    sent += bytes_of(count, t);
    return PMPI_Isend(from, count, t, to, tag, c, r);
}

int MPI_Finalize(void)
{
    int rank;
    char path[4096];
    const char *name = getenv("MPI_BYTES");
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    snprintf(path, sizeof path, "%s.%d", name ? name : "mpi_bytes", rank);
    FILE *f = fopen(path, "w");
    if (f) {
        fprintf(f, "%lld\n", (long long)sent);
        fclose(f);
    }
    return PMPI_Finalize();
}
