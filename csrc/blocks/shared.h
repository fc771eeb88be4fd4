/* What the block operations share: argument checks, the channel gate's small matrices, and the
 * spatial engine that SA and NEW have in common. Not for other rooms. */
#ifndef ATTN_BLOCKS_SHARED_H
#define ATTN_BLOCKS_SHARED_H

#include "../kernels/kernels.h"
#include "blocks.h"

/* checks.c ------------------------------------------------------------------------------------- */

/* x is 4-D and has at least one channel and one pixel. */
attn_status attn_block_check_input(const char *block, const attn_tensor *x);
/* A vector of `size` elements; NULL fails too. */
attn_status attn_block_check_vector(const char *block, const char *name, const attn_tensor *v,
                                    int64_t size);
/* A matrix (rows, columns), perhaps as (rows, columns, 1, 1); rows < 0: any number above 0. */
attn_status attn_block_check_matrix(const char *block, const char *name, const attn_tensor *w,
                                    int64_t rows, int64_t columns);
/* An exact 4-D shape. */
attn_status attn_block_check_kernel(const char *block, const char *name, const attn_tensor *w,
                                    const int64_t shape[4]);

/* The geometry of x (blocked where it can be); streams stores when the tensor is large. */
attn_gates attn_block_geometry(const attn_tensor *x, bool relu);
/* *x_ready is x in the layout that the kernels work in. */
attn_status attn_block_ready(attn_tensor **x_ready, attn_tensor *x);

/* channel_mlp.c -------------------------------------------------------------------------------- */

/* The matrices in the kernels' form. Biases are NULL where the block has none. */
typedef struct {
    attn_gate_mlp kernel;
    float *w2t; /* owned */
} attn_channel_mlp;

attn_status attn_channel_mlp_check(const char *block, int64_t C, const attn_tensor *w1,
                                   const attn_tensor *b1, const attn_tensor *w2,
                                   const attn_tensor *b2, bool with_bias);
/* Takes checked weights; holds pointers into them. */
attn_status attn_channel_mlp_open(attn_channel_mlp *mlp, const attn_tensor *w1,
                                  const attn_tensor *b1, const attn_tensor *w2,
                                  const attn_tensor *b2, int pools, float offset);
void attn_channel_mlp_close(attn_channel_mlp *mlp);

/* What forward leaves for backward, a piece of the saved tensor; N images. */
typedef struct {
    float *pooled; /* (N, pools, C) */
    float *hidden; /* (N, pools, K) */
    float *gate;   /* (N, C) */
    float *factor; /* (N, C): offset + gate, what x is multiplied with */
} attn_channel_saved;

/* What backward computes by image. */
typedef struct {
    float *dgate;   /* (N, C) */
    float *dlogit;  /* (N, C) */
    float *dhidden; /* (N, pools, K) */
    float *dpooled; /* (N, pools, C) */
} attn_channel_gradients;

int64_t attn_channel_saved_size(const attn_gate_mlp *mlp, int64_t N);
float *attn_channel_saved_place(attn_channel_saved *saved, float *at, const attn_gate_mlp *mlp,
                                int64_t N); /* returns what follows */
int64_t attn_channel_gradients_size(const attn_gate_mlp *mlp, int64_t N);
float *attn_channel_gradients_place(attn_channel_gradients *gradients, float *at,
                                    const attn_gate_mlp *mlp, int64_t N);

/* pooled -> gate and factor, and the way back, of image n. */
void attn_channel_forward(const attn_channel_saved *saved, const attn_gate_mlp *mlp, int64_t n);
void attn_channel_backward(const attn_channel_gradients *gradients, const attn_channel_saved *saved,
                           const attn_gate_mlp *mlp, int64_t n);

/* The parameters' gradients, summed over images in their order. w: the parameters (for shapes);
 * dx[input], .. are set where the node wants them. inputs: the node's index of w1, b1, w2, b2; -1
 * for none. */
attn_status attn_channel_parameter_gradients(attn_node *node, attn_tensor **dx, const int inputs[4],
                                             const attn_gate_mlp *mlp,
                                             const attn_channel_gradients *gradients,
                                             const attn_channel_saved *saved, int64_t N);

/* channel_gate.c: the engine of SE, SEC and CA; inputs x, w1, b1, w2, b2 */
typedef struct {
    const char *block;
    const attn_operation *operation;
    attn_gate_pool pools[ATTN_POOL_TYPES];
    int pool_count;
    float offset; /* y = x * (offset + gate) */
    bool relu;
} attn_channel_options;
attn_status attn_channel_gate_run(attn_tensor **y, attn_block_gates *gates,
                                  attn_tensor *const inputs[5], const attn_channel_options *options);
attn_status attn_channel_gate_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx);

/* spatial_gate.c: the engine of SA and NEW (w1, w2: NULL for SA) */
typedef struct { /* what the node keeps beside tensors */
    double mean, rstd; /* of the batch norm, as used in forward */
    bool training, relu;
} attn_spatial_state;
attn_status attn_spatial_run(attn_tensor **y, attn_block_gates *gates, const char *block,
                             const attn_operation *operation, attn_tensor *x, attn_tensor *w1,
                             attn_tensor *w2, const attn_spatial_parameters *parameters, bool relu);
attn_status attn_spatial_backward(attn_node *node, attn_tensor *const *dy, attn_tensor **dx);

#endif
