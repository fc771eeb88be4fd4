/* From stored images to a batch: crop, flip, normalise, cut out, in one pass over the pixels.
 *
 * Letters: N images of the batch, C channels, H rows, W columns. Everything drawn for an image
 * is a function of (seed, epoch, index of the image) alone, so a batch does not depend on its
 * place in a queue, on threads or on what was made before it.
 */
#ifndef ATTN_DATA_AUGMENT_H
#define ATTN_DATA_AUGMENT_H

#include <stdint.h>

typedef struct attn_augmentation {
    int64_t padding; /* pixels on each side that the random crop may reach into; 0: no crop */
    int reflect;     /* 0: the padding is black; 1: it mirrors the image, edge not repeated */
    double flip;     /* probability of a horizontal flip */
    int alternate;   /* 1: flip decides in epoch 0 alone, from then on an image turns each epoch */
    int64_t cutout;  /* side of the square that is cut out, in pixels; 0: none */
    uint64_t seed;
    uint64_t epoch;
} attn_augmentation;

/* table (C,256) = (value / 255 - mean) / std, in float and in this order of operations, so that
 * it has the bits that the usual tensor transforms have. mean, std (C). */
void attn_normalisation_table(float *table, const float *mean, const float *std, int64_t C);

/* out (N,C,H,W) = the images that indices (N) name, augmented and normalised by table (C,256).
 * images (any,C,H,W). Padding is black before the normalisation, that is table[c][0]; the square
 * cut out is 0 after it, that is the mean colour. The crop comes first, then the flip, then the
 * cutout. Needs indices within images, H and W below 65536, and padding < H, W when reflecting.
 * Does not allocate; call it on slices of indices and out to share the work among threads. */
void attn_augment_batch(float *out, const uint8_t *images, const int64_t *indices,
                        const float *table, const attn_augmentation *how, int64_t N, int64_t C,
                        int64_t H, int64_t W);

#endif
