/* The attention blocks as fused differentiable operations, each forward and backward in one file.
 *
 * x is (N, C, H, W) in any layout; y has its shape, in the BLOCKED16 layout where C is a multiple
 * of 16. Each block reads x once for its statistics and once to apply its gates, and saves nothing
 * of x's size beside x itself.
 *
 * Weights are taken as linear (K, C) or 1x1 convolution (K, C, 1, 1) shapes alike; gradients have
 * the shape that came. With relu, y = max(0, block(x)) in the same passes.
 *
 * gates: NULL, or where to put the gates themselves, without a tape. With gates, y may be NULL:
 * then y is not computed, no node is left and running statistics stay as they are.
 */
#ifndef ATTN_BLOCKS_H
#define ATTN_BLOCKS_H

#include "../tensor/tape.h"
#include "../tensor/tensor.h"

/* New references, NULL where the block has no such gate. */
typedef struct {
    attn_tensor *channel;  /* (N, C) */
    attn_tensor *position; /* (N, 1, H, W) */
} attn_block_gates;

/* squeeze_excite.c: w1 (K, C), w2 (C, K)
 * SE: y = x + x * g, g = sigmoid(w2 relu(w1 mean(x)));  SEC: y = x * g, with biases (K), (C) */
attn_status attn_se(attn_tensor **y, attn_block_gates *gates, attn_tensor *x, attn_tensor *w1,
                    attn_tensor *w2, bool relu);
attn_status attn_sec(attn_tensor **y, attn_block_gates *gates, attn_tensor *x, attn_tensor *w1,
                     attn_tensor *b1, attn_tensor *w2, attn_tensor *b2, bool relu);

/* channel_gate.c: y = x * sigmoid(sum over pools of mlp(pool(x))) */
typedef enum {
    ATTN_POOL_AVG, ATTN_POOL_MAX, ATTN_POOL_LP, ATTN_POOL_LSE,
    ATTN_POOL_TYPES
} attn_gate_pool;
attn_status attn_channel_attention(attn_tensor **y, attn_block_gates *gates, attn_tensor *x,
                                   attn_tensor *w1, attn_tensor *b1, attn_tensor *w2,
                                   attn_tensor *b2, const attn_gate_pool *pools, int pool_count,
                                   bool relu);

/* The spatial gate's parameters: a 7x7 convolution of 2 maps to 1, and its batch norm. */
typedef struct {
    attn_tensor *conv_w, *conv_b;             /* (1, 2, 7, 7), (1) */
    attn_tensor *running_mean, *running_var;  /* (1); written in training, NULL allowed there */
    attn_tensor *bn_w, *bn_b;                 /* (1) */
    bool training;
    float momentum, eps;
} attn_spatial_parameters;

/* spatial_gate.c: y = x * sigmoid(bn(conv([max over channels, mean over channels]))) */
attn_status attn_spatial_attention(attn_tensor **y, attn_block_gates *gates, attn_tensor *x,
                                   const attn_spatial_parameters *parameters, bool relu);

/* new_block.c: a = spatial attention of x; y = a + a * g, g as SE's, from x */
attn_status attn_new_block(attn_tensor **y, attn_block_gates *gates, attn_tensor *x,
                           attn_tensor *w1, attn_tensor *w2,
                           const attn_spatial_parameters *parameters, bool relu);

/* nab.c: y = x * p * c, p = sigmoid(sam_w x + sam_b) a position, sam_w (1, C, 1, 1);
 * c = max over positions of sigmoid(conv 7x7, stride 3, no padding), cam_w (C, C, 7, 7) */
attn_status attn_nab(attn_tensor **y, attn_block_gates *gates, attn_tensor *x, attn_tensor *sam_w,
                     attn_tensor *sam_b, attn_tensor *cam_w, attn_tensor *cam_b, bool relu);

#endif
