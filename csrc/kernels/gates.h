/* What the gate kernels (gates_*.c) receive. All of them work on one image.
 *
 * An attention block scales an image x (C, HW) by a factor a channel, a factor a position, or both:
 *     y[c, p] = x[c, p] * channel[c] * position[p]
 * Its gates come from statistics of x, so the gradient of x is dy times the same factors plus
 * terms that spread the statistics' gradients back over the image.
 */
#ifndef ATTN_KERNELS_GATES_H
#define ATTN_KERNELS_GATES_H

#include "../attnnet.h"

/* Maps (max and mean over channels, the convolution's result) have a 7x7 kernel around them. */
enum { ATTN_GATE_KERNEL = 7, ATTN_GATE_HALO = 3, ATTN_GATE_TAPS = 49 };

typedef struct {
    int64_t C, HW;
    bool blocked;          /* the image is (C/16, HW, 16), else (C, HW) */
    bool stream;           /* results pass by the cache: the tensor is too large to stay there */
    bool relu;             /* y = max(0, y) */
    const float *channel;  /* (C), or NULL for 1 */
    const float *position; /* (HW), or NULL for 1 */
} attn_gates;

/* dx[c, p] = dy[c, p] * channel[c] * position[p]
 *          + per_channel[c] + per_position[p] * position_weight[c]
 *          + channel_peak[c] where p = channel_peak_at[c]
 *          + position_peak[p] where c = position_peak_at[p]
 * NULL leaves a term out (position_weight: stands for 1). The blocked kernel has the five
 * combinations that the blocks need: see gate_backward in gates_apply.c. */
typedef struct {
    const float *per_channel;                     /* (C) */
    const float *per_position, *position_weight;  /* (HW), (C) */
    const float *channel_peak;                    /* (C) */
    const int32_t *channel_peak_at;               /* (C) */
    const float *position_peak;                   /* (HW) */
    const int32_t *position_peak_at;              /* (HW) */
} attn_gate_terms;

/* gate = sigmoid(sum over pools of (W2 relu(W1 pooled + b1) + b2));  factor = offset + gate */
typedef struct {
    int64_t C, K, pools;
    float offset;
    const float *w1;  /* (K, C) */
    const float *b1;  /* (K) or NULL */
    const float *w2t; /* (K, C): the transposed second matrix */
    const float *b2;  /* (C) or NULL */
} attn_gate_mlp;

/* A map with its halo: rows of `pitch` = W + 6 floats, `plane` floats from one map to the next.
 * Halo and slack behind the last row are zero; whole registers may be read there. */
typedef struct {
    int64_t H, W, pitch, plane;
} attn_gate_map;

#endif
