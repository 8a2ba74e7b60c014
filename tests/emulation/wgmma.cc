/* The emulation of what kernels/cuda/wgmma.h writes in PTX. A product is carried out when its group is waited for, on what shared memory
 * holds then; its registers are NaN until all that was asked of them is done. */
#include "fiber.h"

using namespace emulation;

/* Addresses of shared memory as the matrix unit takes them: the piece of 16 bytes exchanged by the row of 128. */
static float number_at(uintptr_t p)
{
    p ^= (p >> 7 & 7) << 4;
    uint32_t bits = (uint32_t) * (const uint16_t *)p << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Row r and number k of a tile's rows that begin at p. */
static uintptr_t row_at(uintptr_t p, int r)
{
    return p + (uintptr_t)(r / 8 * 1024 + r % 8 * 128);
}

void emulation_wgmma(const char *place, float (*d)[4], int n, const uint32_t *a, const uint16_t *a_rows, const uint16_t *b, int block, bool add)
{
    Fiber *f = current();
    if (f->self.block_size.x % 128 != 0 || f->warp->lanes != 32)
        fail("a matrix operation without a group of 128 threads, at", place, NULL);
    emulation_syncwarp(place);
    for (unsigned lane = 0; lane < 32; lane++)
        if (f->warp->fibers[lane].unseen)
            fail("a matrix operation reads shared memory that was not made visible to it, at", place, NULL);
    if (!f->begun)
        fail("the first matrix operation of a group follows no wgmma_begin, at", place, NULL);
    Product p = {d, n, {}, (uintptr_t)a_rows, (uintptr_t)b, block, add, f->product_group};
    unsigned row = f->self.thread.x / 32 % 4 * 16 + f->lane / 4;
    if (a)
        /* Rows g and g+8 of A are in the registers of the four lanes of this row. */
        for (unsigned t = 0; t < 4; t++) {
            uint32_t given[4] = {a[0], a[1], a[2], a[3]}, taken[4];
            emulation_exchange(place, 0xffffffffu, given, taken, sizeof taken, f->lane / 4 * 4 + t);
            for (unsigned i = 0; i < 4; i++)
                for (unsigned high = 0; high < 2; high++) {
                    uint32_t bits = high ? taken[i] & 0xffff0000u : taken[i] << 16;
                    memcpy(&p.a[i % 2][2 * t + i / 2 * 8 + high], &bits, 4);
                }
        }
    else
        p.a_rows = row_at(p.a_rows, (int)row);
    Sums *sums = NULL;
    for (Sums &known : f->sums)
        if (known.d == d)
            sums = &known;
    if (!sums) {
        f->sums.push_back({d, n, 0, {}});
        sums = &f->sums.back();
        move_bytes(sums->value, d, (size_t)n / 2 * sizeof(float));
    }
    sums->pending++;
    for (int i = 0; i < n / 2; i++)
        ((volatile float *)d)[i] = NAN;
    f->products.push_back(p);
}

static void carry_out(Fiber *f, const Product &p)
{
    Sums *sums = NULL;
    for (Sums &known : f->sums)
        if (known.d == p.d)
            sums = &known;
    float a[2][16];
    for (int half = 0; half < 2; half++)
        for (int k = 0; k < 16; k++)
            a[half][k] = p.a_rows ? number_at(row_at(p.a_rows, 8 * half) + 2 * (uintptr_t)k) : p.a[half][k];
#ifdef RACES
    for (int half = 0; half < 2 && p.a_rows; half++)
        RACES_READ(row_at(p.a_rows, 8 * half) / 128 * 128, 128);
    for (int c = 0; c < (p.block ? p.n : 64); c += 64)
        for (int r = 0; r < (p.block ? 16 : p.n); r++)
            RACES_READ(row_at(p.b + (uintptr_t)(c / 64 * p.block), r) / 128 * 128, 128);
#endif
    unsigned t = f->lane % 4;
    for (int c = 0; c < p.n / 8; c++)
        for (int i = 0; i < 2; i++) {
            int column = c * 8 + 2 * (int)t + i;
            float x = p.add ? sums->value[c * 4 + i] : 0, y = p.add ? sums->value[c * 4 + 2 + i] : 0;
            for (int k = 0; k < 16; k++) {
                float b = number_at(p.block ? row_at(p.b + (uintptr_t)(column / 64 * p.block), k) + 2 * (uintptr_t)(column % 64) : row_at(p.b, column) + 2 * (uintptr_t)k);
                x += a[0][k] * b;
                y += a[1][k] * b;
            }
            sums->value[c * 4 + i] = x;
            sums->value[c * 4 + 2 + i] = y;
        }
    if (--sums->pending > 0)
        return;
    move_bytes(p.d, sums->value, (size_t)p.n / 2 * sizeof(float));
    *sums = f->sums.back();
    f->sums.pop_back();
}

void emulation_wgmma_begin(const char *place)
{
    emulation_syncwarp(place);
    current()->begun = true;
}

void emulation_wgmma_commit()
{
    current()->product_group++;
    current()->begun = false;
}

void emulation_wgmma_wait(const char *place, unsigned pending)
{
    emulation_syncwarp(place);
    Fiber *f = current();
    size_t done = 0;
    while (done < f->products.size() && f->products[done].group + pending < f->product_group)
        carry_out(f, f->products[done++]);
    f->products.erase(f->products.begin(), f->products.begin() + (long)done);
}

void emulation_wgmma_visible()
{
    current()->unseen = false;
}
