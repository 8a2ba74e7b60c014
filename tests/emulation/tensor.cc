/* The emulation of what kernels/cuda/mma.h writes in PTX: matrix products of a warp, ldmatrix, asynchronous copies. */
#include "fiber.h"

using namespace emulation;

static float bf16(uint32_t pair, int high)
{
    uint32_t bits = high ? pair & 0xffff0000u : pair << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

struct MmaOperands {
    uint32_t a[4], b[2];
    float c[4];
};

/* mma.sync m16n8k16, row.col: with g = lane/4, t = lane%4, A holds (g, 2t) (g+8, 2t) (g, 2t+8) (g+8, 2t+8) in pairs along k, B k = 2t and
 * 2t+8 of column g, C (g, 2t) and (g+8, 2t) in pairs along n. */
static void mma_last(Warp *w, unsigned set)
{
    float a[16][16], b[16][8], c[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        unsigned g = lane / 4, t = lane % 4;
        MmaOperands o;
        move_bytes(&o, w->given[set][lane], sizeof o);
        for (int i = 0; i < 4; i++)
            for (int high = 0; high < 2; high++)
                a[g + i % 2 * 8][2 * t + i / 2 * 8 + high] = bf16(o.a[i], high);
        for (int i = 0; i < 2; i++)
            for (int high = 0; high < 2; high++)
                b[2 * t + i * 8 + high][g] = bf16(o.b[i], high);
        for (int i = 0; i < 4; i++)
            c[g + i / 2 * 8][2 * t + i % 2] = o.c[i];
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                c[i][j] += a[i][k] * b[k][j];
    for (unsigned lane = 0; lane < 32; lane++) {
        unsigned g = lane / 4, t = lane % 4;
        float out[4] = {c[g][2 * t], c[g][2 * t + 1], c[g + 8][2 * t], c[g + 8][2 * t + 1]};
        move_bytes(w->results[set][lane], out, sizeof out);
    }
}

static void whole_warp(const char *place)
{
    if (current()->warp->lanes != 32)
        fail("a matrix operation in a warp of fewer than 32 lanes, at", place, NULL);
}

void emulation_mma(const char *place, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    whole_warp(place);
    MmaOperands o = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
    unsigned set = warp_gather(place, &o, sizeof o, mma_last);
    move_bytes(c, current()->warp->results[set][current()->lane], sizeof c);
}

/* Lanes 8i … 8i+7 give the rows of the 8×8 matrix i; lane l gets of each matrix row l/4, elements 2(l%4) and the next, or of the
 * transposed matrix the same. */
static void ldmatrix_rows(Warp *w, unsigned set, bool transposed)
{
    const uint16_t *rows[32];
    for (unsigned lane = 0; lane < 32; lane++)
        move_bytes(&rows[lane], w->given[set][lane], sizeof rows[lane]);
    for (unsigned i = 0; i < 4; i++) {
        unsigned banks = 0;
        for (unsigned r = 0; r < 8; r++)
            banks |= 1u << ((uintptr_t)rows[8 * i + r] / 16 % 8);
        if (banks != 0xff)
            fail("rows of a matrix share shared memory's banks, at", w->place, NULL);
    }
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 4; i++) {
            unsigned g = lane / 4, t = lane % 4;
            uint16_t low = transposed ? rows[8 * i + 2 * t][g] : rows[8 * i + g][2 * t];
            uint16_t high = transposed ? rows[8 * i + 2 * t + 1][g] : rows[8 * i + g][2 * t + 1];
            uint32_t pair = low | (uint32_t)high << 16;
            move_bytes(w->results[set][lane] + 4 * i, &pair, sizeof pair);
        }
}

void emulation_ldmatrix(const char *place, uint32_t (&to)[4], const void *row, bool transposed)
{
    whole_warp(place);
    emulation_check_aligned(place, row, 16);
    RACES_READ(row, 16);
    unsigned set = warp_gather(place, &row, sizeof row, transposed ? [](Warp *w, unsigned s) { ldmatrix_rows(w, s, true); }
                                                                   : [](Warp *w, unsigned s) { ldmatrix_rows(w, s, false); });
    move_bytes(to, current()->warp->results[set][current()->lane], sizeof to);
}

void emulation_copy_async(const char *place, void *to, const void *from, unsigned bytes, bool wanted)
{
    emulation_check_aligned(place, to, bytes);
    emulation_check_aligned(place, from, bytes);
    RACES_WRITE(to, bytes);
    static const unsigned char poison[16] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    move_bytes(to, poison, bytes);
    current()->copies.push_back({(unsigned char *)to, wanted ? (const unsigned char *)from : NULL, bytes, current()->group});
}

void emulation_copy_commit()
{
    current()->group++;
}

void emulation_copy_wait(unsigned pending)
{
    Fiber *f = current();
    size_t kept = 0;
    for (const AsyncCopy &c : f->copies) {
        if (c.group + pending >= f->group) {
            f->copies[kept++] = c;
        } else {
            static const unsigned char zeros[16] = {0};
            RACES_WRITE(c.to, c.bytes);
            if (c.from)
                RACES_READ(c.from, c.bytes);
            move_bytes(c.to, c.from ? c.from : zeros, c.bytes);
            f->unseen = true;
        }
    }
    f->copies.resize(kept);
}
