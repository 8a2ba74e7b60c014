/* The matrix product of the CPU: what its parts share.
 *
 * C = alpha·op(A)·op(B) + beta·C after Goto and van de Geijn (2008): B is packed in panels of up to three vectors of columns, and a
 * micro-kernel (matmul_tile.h) multiplies a few rows of A with a panel while their part of C stays in registers. matmul.c says what a
 * product is, matmul_plan.c how it is cut, matmul_pack.c makes words of operands, matmul_block.c goes through blocks. Nothing is cut by
 * the number of threads but rows, so every element is summed in the same order whatever that is.
 *
 * The micro-kernels see 32-bit words: an f32, or where the CPU multiplies bf16 a pair of bf16 that follow each other along k.
 * Where it does not, bf16 is widened to f32 as it is packed. An f32 B beside a bf16 A is rounded as it is packed, to what the product of
 * a rounded copy would read. */
#ifndef KERNELS_CPU_MATMUL_H
#define KERNELS_CPU_MATMUL_H

#include "kernels/cpu/cpu.h"

enum { MATMUL_MR = 8, MATMUL_PANEL = 48 /* rows of a tile and columns of a panel at most */ };
enum { MATMUL_HALVES_BLOCK = 128 /* words along k of a block in halves of k */ };

/* Element (i, l) of a matrix lies at data[i·row + l·column]. */
typedef struct View {
    const void *data;
    Dtype dtype;
    int64_t row, column;
    bool rounded; /* f32, read as bf16 */
} View;

/* A product and how it is cut. Depths and offsets along k are in words. "Rows" of B are C's columns. */
typedef struct Product {
    const MatmulKernel *kernel;
    Tensor c;
    View a, b;
    bool pairs, a_direct, b_direct; /* direct: read where it lies */
    bool own_panels, halves;        /* threads' panels of B have room behind their blocks of A; the sum of two halves of k (matmul_halves.c) */
    const uint32_t *packed;         /* all of B's panels, a block of columns behind the other, in each a block of k; NULL: packed here */
    int64_t m, n, k, depth;         /* k elements, depth words */
    int64_t vectors, panels;        /* of the block of columns at hand */
    int64_t block_rows, block_depth, block_columns;
    float alpha, beta;
} Product;

static inline int64_t matmul_round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static inline int64_t matmul_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Words that k elements are. */
static inline int64_t matmul_words(const Product *p, int64_t k)
{
    return p->pairs ? (k + 1) / 2 : k;
}

/* Words from one step of k to the next in a packed block of A: an odd number of cache lines, so that a tile's lie in many sets. */
static inline int64_t matmul_apart(int64_t rows)
{
    int64_t lines = (rows + 15) / 16;
    return (lines | 1) * 16;
}

/* Panel j of a block of columns holds vectors [matmul_vector(j), matmul_vector(j + 1)). */
static inline int64_t matmul_vector(const Product *p, int64_t j)
{
    return j * p->vectors / p->panels;
}

/* Chooses kernel and blocks; c, a, b, m, n and k are set, and operands are read as `type`. */
void matmul_plan(Product *p, Dtype type);
/* The block of `columns` columns is the one at hand. */
void matmul_columns(Product *p, int64_t columns);

/* Rows of bf16 that can be read as words where they lie. */
bool matmul_whole_pairs(View x, int64_t k);
/* out[w·ld + i] = word begin+w of row first+i of x, for m rows and n words. */
void matmul_pack(const Product *p, uint32_t *out, int64_t ld, View x, int64_t first, int64_t m, int64_t begin, int64_t n);
/* Panel j of the block of columns, `depth` words from `begin` on, to its place among the panels of that block. */
void matmul_pack_panel(const Product *p, uint32_t *panels, int64_t j, int64_t column, int64_t columns, int64_t begin, int64_t depth);

/* Does the product, with all threads. */
void matmul_blocks(Stream *s, const Product *whole);
/* Rows [begin, end) of it, by one thread whose room is panel_a: panels of B lie there too, unless they are ready. */
void matmul_rows(const Product *whole, uint32_t *panel_a, int64_t begin, int64_t end);
/* Its rows of part `part` of all. */
void matmul_share(const Product *whole, CpuState *state, int thread, int part, int parts);

/* Products that are planned in halves, with all threads … */
void matmul_halves(Stream *s, const Product *whole);
/* … or collected to go by rows with other operations: false where they cannot be. */
bool matmul_halves_collect(Stream *s, const Product *whole);
/* The same of other products; sets what of p says where panels are. */
bool matmul_packed_collect(Stream *s, Product *p);

#endif
