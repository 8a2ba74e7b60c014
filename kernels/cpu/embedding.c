/* out[t] = table[tokens[t]]; dtable[tokens[t]] += dout[t]; tokens < 0 are not in this table. */
#include "kernels/cpu/cpu.h"

#include <string.h>

void cpu_embedding_forward(Stream *s, Tensor out, Tensor table, const int32_t *tokens)
{
    cpu_settle(s);
    cpu_check(out.cols == table.cols, "embedding_forward", "shapes");
#pragma omp parallel for schedule(static) num_threads(cpu_threads(s))
    for (int64_t t = 0; t < out.rows; t++) {
        cpu_check(tokens[t] < table.rows, "embedding_forward", "tokens");
        if (tokens[t] < 0)
            memset(f32(out) + t * out.ld, 0, (size_t)out.cols * sizeof(float));
        else
            memcpy(f32(out) + t * out.ld, f32(table) + tokens[t] * table.ld, (size_t)out.cols * sizeof(float));
    }
}

CLONES static void row_add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

/* Threads own columns: every row of the table is summed in the order of the positions, and nobody has to sort. */
void cpu_embedding_backward(Stream *s, Tensor dtable, Tensor dout, const int32_t *tokens)
{
    cpu_settle(s);
    cpu_check(dout.cols == dtable.cols, "embedding_backward", "shapes");
    int threads = cpu_threads(s);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int thread = 0; thread < threads; thread++) {
        int64_t begin, end;
        cpu_share(dout.cols, 16, thread, threads, &begin, &end);
        for (int64_t t = 0; t < dout.rows && end > begin; t++)
            if (tokens[t] >= 0)
                row_add(f32(dtable) + tokens[t] * dtable.ld + begin, f32(dout) + t * dout.ld + begin, end - begin);
    }
}
