/* Images with fewer pixels, for the epochs of a training that see less. */
#ifndef ATTN_DATA_SHRINK_H
#define ATTN_DATA_SHRINK_H

#include <stdint.h>

/* out (N,h,w) = in (N,H,W), each pixel the mean over the area of the image that it covers, pixels
 * that it covers in part counted by their part. N: images times channels. Needs 1 <= h <= H < 65536
 * and 1 <= w <= W < 65536. Does not allocate. */
void attn_shrink(float *out, const float *in, int64_t N, int64_t H, int64_t W, int64_t h,
                 int64_t w);

#endif
