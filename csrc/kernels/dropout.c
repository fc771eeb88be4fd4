/* Dropout: whether element i stays is a pure function of (seed, counter, i), see base/random.h. */
#include "../base/random.h"
#include "kernels.h"
#include "simd.h"

enum { BATCH = 16 }; /* blocks of four words that are made side by side */

/* words (BATCH, 4) = the random blocks first .. first + BATCH - 1. */
INLINE void make_words(uint32_t *words, uint64_t seed, uint64_t counter, uint64_t first)
{
    for (int i = 0; i < BATCH; i++)
        attn_random_block(words + 4 * i, seed, ATTN_STREAM_DROPOUT, counter, first + (uint64_t)i);
}

/* y = x * scale where the element's 24 random bits are not below `threshold`, else 0, for elements
 * begin .. begin + count - 1 of the tensor, to which y and x point; begin is a multiple of 4. */
void KERNEL(dropout_scale)(float *y, const float *x, uint32_t threshold, float scale, uint64_t seed,
                           uint64_t counter, int64_t begin, int64_t count)
{
    uint32_t words[4 * BATCH];
    for (int64_t at = 0; at < count; at += 4 * BATCH) {
        int64_t here = attn_min(4 * BATCH, count - at);
        make_words(words, seed, counter, (uint64_t)(begin + at) / 4);
        for (int64_t i = 0; i < here; i++)
            y[at + i] = words[i] >> 8 >= threshold ? x[at + i] * scale : 0.0f;
    }
}
