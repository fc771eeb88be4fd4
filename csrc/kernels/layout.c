#include "kernels.h"
#include "simd.h"

/* Positions in strips of one block, so that reads and writes both stay within a few cache lines. */
void KERNEL(layout_block)(float *y, const float *x, int64_t C, int64_t HW)
{
    for (int64_t c = 0; c < C; c += ATTN_LANES) {
        const float *plane = x + c * HW;
        float *block = y + c * HW;
        for (int64_t at = 0; at < HW; at++)
            for (int lane = 0; lane < ATTN_LANES; lane++)
                block[at * ATTN_LANES + lane] = plane[lane * HW + at];
    }
}

void KERNEL(layout_unblock)(float *y, const float *x, int64_t C, int64_t HW)
{
    for (int64_t c = 0; c < C; c += ATTN_LANES) {
        const float *block = x + c * HW;
        float *plane = y + c * HW;
        for (int64_t at = 0; at < HW; at++)
            for (int lane = 0; lane < ATTN_LANES; lane++)
                plane[lane * HW + at] = block[at * ATTN_LANES + lane];
    }
}
