/* Arrays of random numbers; see random.h for what they are a function of. */
#include "random.h"

#include <math.h>

void attn_random_uniform(float *out, int64_t n, float low, float high, uint64_t seed,
                         uint64_t counter) {
    const double range = (double)high - (double)low;
    uint32_t word[4] = {0, 0, 0, 0};
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0)
            attn_random_block(word, seed, ATTN_STREAM_FILL, counter, (uint64_t)i / 4);
        float value = (float)(low + range * attn_random_unit(word[i % 4]));
        /* The rounding to float may reach high, which is not part of the range. */
        if (value >= high)
            value = range > 0 ? nextafterf(high, low) : low;
        out[i] = value;
    }
}

void attn_random_normal(float *out, int64_t n, float mean, float std, uint64_t seed,
                        uint64_t counter) {
    const double two_pi = 6.283185307179586476925286766559;
    uint32_t word[4] = {0, 0, 0, 0};
    for (int64_t i = 0; i < n; i += 2) {
        if (i % 4 == 0)
            attn_random_block(word, seed, ATTN_STREAM_FILL, counter, (uint64_t)i / 4);
        /* All 32 bits of each word; the half keeps the logarithm's argument off zero. */
        double u = (word[i % 4] + 0.5) * 0x1p-32, v = (word[i % 4 + 1] + 0.5) * 0x1p-32;
        double radius = sqrt(-2.0 * log(u));
        out[i] = (float)(mean + std * (radius * cos(two_pi * v)));
        if (i + 1 < n)
            out[i + 1] = (float)(mean + std * (radius * sin(two_pi * v)));
    }
}

void attn_random_permutation(int64_t *out, int64_t n, uint64_t seed, uint64_t epoch) {
    uint32_t word[4] = {0, 0, 0, 0};
    for (int64_t i = 0; i < n; i++)
        out[i] = i;
    for (int64_t step = 0; step < n - 1; step++) {
        if (step % 2 == 0)
            attn_random_block(word, seed, ATTN_STREAM_SHUFFLE, epoch, (uint64_t)step / 2);
        uint64_t bits = (uint64_t)word[step % 2 * 2] << 32 | word[step % 2 * 2 + 1];
        int64_t last = n - 1 - step;
        int64_t other = attn_random_below(bits, (uint32_t)(last + 1));
        int64_t kept = out[last];
        out[last] = out[other];
        out[other] = kept;
    }
}
