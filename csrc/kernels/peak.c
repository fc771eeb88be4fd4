/* What the machine can do at most: multiply-adds that wait for nothing, not even for memory. */
#include "kernels.h"
#include "simd.h"

enum { CHAINS = 12 }; /* independent, so that the latency of one hides behind the others */

void KERNEL(multiply_adds)(float *y, int64_t rounds, float factor)
{
    vf chain[CHAINS], by = vset(factor);
    for (int i = 0; i < CHAINS; i++)
        chain[i] = vset((float)i);
    for (int64_t n = 0; n < rounds * VECTORS_IN_BLOCK; n++) {
        UNROLL(12)
        for (int i = 0; i < CHAINS; i++)
            chain[i] = chain[i] * by + by;
    }
    vf sum = vzero();
    for (int i = 0; i < CHAINS; i++)
        sum += chain[i];
    *y = vsum(sum);
}
