/* Counter-based random numbers: Philox4x32-10.
 *
 * J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011. A block of four words is a pure function of (seed, stream, major, minor):
 * there is no state to keep, to lock or to advance, any thread may make any block, and the same
 * four numbers give the same words on every machine and with any number of threads.
 *
 * How the counter is laid out (the streams keep uses apart that share seed and counters):
 *
 *   key      seed, low word first
 *   word 0,1 minor (56 bits): the position, that is the block of a fill, the image's index, ...
 *   word 1   its top 8 bits: the stream
 *   word 2,3 major: the draw's number, the epoch, ...
 */
#ifndef ATTN_BASE_RANDOM_H
#define ATTN_BASE_RANDOM_H

#include <stdint.h>

/* Never renumber: seeds that people wrote down would give other numbers. */
typedef enum attn_stream {
    ATTN_STREAM_FILL = 1,    /* attn_random_uniform, attn_random_normal */
    ATTN_STREAM_DROPOUT = 2, /* minor: the element's index / 4 */
    ATTN_STREAM_SHUFFLE = 3, /* major: the epoch, minor: the step of the shuffle / 2 */
    ATTN_STREAM_AUGMENT = 4  /* major: the epoch, minor: the image's index */
} attn_stream;

/* out (4) = ten rounds of Philox over counter (4) under key (2). */
static inline void philox4x32_10(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]) {
    uint32_t x0 = counter[0], x1 = counter[1], x2 = counter[2], x3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * x0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * x2;
        x0 = (uint32_t)(p1 >> 32) ^ x1 ^ k0;
        x1 = (uint32_t)p1;
        x2 = (uint32_t)(p0 >> 32) ^ x3 ^ k1;
        x3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

/* out (4) = the block at (seed, stream, major, minor); minor < 2^56. */
static inline void attn_random_block(uint32_t out[4], uint64_t seed, attn_stream stream,
                                     uint64_t major, uint64_t minor) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {(uint32_t)minor,
                                 ((uint32_t)(minor >> 32) & 0x00FFFFFFu) | (uint32_t)stream << 24,
                                 (uint32_t)major, (uint32_t)(major >> 32)};
    philox4x32_10(out, counter, key);
}

/* A word as a number in [0, 1): a multiple of 2^-24, so that it is exact as a float. */
static inline float attn_random_unit(uint32_t word) {
    return (float)(word >> 8) * 0x1p-24f;
}

/* A number in [0, n) from 64 random bits: multiply and shift. n < 2^32, so that the bias,
 * below n / 2^64, is out of anybody's reach. */
static inline uint32_t attn_random_below(uint64_t bits, uint32_t n) {
    uint64_t low = (bits & 0xFFFFFFFFu) * n;
    return (uint32_t)(((bits >> 32) * n + (low >> 32)) >> 32);
}

/* out (n) = uniform in [low, high). Element i depends on (seed, counter, i) alone.
 * low >= high gives low everywhere. */
void attn_random_uniform(float *out, int64_t n, float low, float high, uint64_t seed,
                         uint64_t counter);

/* out (n) = normal, by Box and Muller in double. Element i depends on (seed, counter, i) alone. */
void attn_random_normal(float *out, int64_t n, float mean, float std, uint64_t seed,
                        uint64_t counter);

/* out (n) = the numbers 0..n-1 in the order of (seed, epoch): Fisher and Yates, from the end.
 * n < 2^32. */
void attn_random_permutation(int64_t *out, int64_t n, uint64_t seed, uint64_t epoch);

#endif
