/* The optimisers' steps, averages of weights, and the norm and clipping of gradients: in-place passes over many tensors.
 *
 * Each is one pass over memory, cut into chunks by the tensors' sizes alone, so that the bits do
 * not depend on the number of threads. Nothing here is on the tape. Tensors of one parameter have
 * one shape; a gradient in another layout than its parameter is converted first. Written tensors'
 * versions are raised.
 */
#ifndef ATTN_OPTIMISE_H
#define ATTN_OPTIMISE_H

#include "../tensor/tensor.h"

typedef struct {
    double rate, momentum, decay;
    bool nesterov;
} attn_sgd_options;

/* SGD as PyTorch has it: d = g + decay * w; v = momentum * v + d, or v = d where first[i];
 * w -= rate * v, with Nesterov rate * (d + momentum * v).
 * velocity: NULL without momentum. first: count flags, NULL for none set. */
attn_status attn_sgd_step(int64_t count, attn_tensor *const *w, attn_tensor *const *g,
                          attn_tensor *const *velocity, const bool *first,
                          const attn_sgd_options *options);

typedef struct {
    double rate, beta1, beta2, eps, decay;
    int64_t step; /* of these parameters, from 1 */
} attn_adamw_options;

/* AdamW (Loshchilov & Hutter 2019) as PyTorch has it: decay apart from the gradient. */
attn_status attn_adamw_step(int64_t count, attn_tensor *const *w, attn_tensor *const *g,
                            attn_tensor *const *mean, attn_tensor *const *square,
                            const attn_adamw_options *options);

/* average += share * (x - average), for each pair: a step of an exponential moving average. */
attn_status attn_average_step(int64_t count, attn_tensor *const *average, attn_tensor *const *x,
                              double share);

/* *norm = square root of the sum of squares of all values, summed in double. */
attn_status attn_global_norm(double *norm, int64_t count, attn_tensor *const *x);

/* x *= factor, for each x. */
attn_status attn_scale_all(int64_t count, attn_tensor *const *x, double factor);

/* x = min(max(x, -limit), limit), for each x; limit >= 0. */
attn_status attn_clip_all(int64_t count, attn_tensor *const *x, double limit);

#endif
