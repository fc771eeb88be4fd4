/* The differentiable operations. Each creates *y (a new reference) and leaves a node on the tape
 * where a gradient is wanted. Arguments called `x` may have any layout; every operation says in its
 * file which layouts it computes in. Optional tensors may be NULL.
 */
#ifndef ATTN_OPS_H
#define ATTN_OPS_H

#include "../tensor/tape.h"
#include "../tensor/tensor.h"
#include "kinds.h"

/* elementwise.c, binary.c */
attn_status attn_unary(attn_tensor **y, attn_tensor *x, attn_unary_kind kind);
attn_status attn_clamp(attn_tensor **y, attn_tensor *x, float low, float high);
attn_status attn_binary(attn_tensor **y, attn_tensor *a, attn_tensor *b, attn_binary_kind kind);
/* The same with the shape and layout of y given; a and b broadcast to it. No tape. */
attn_status attn_broadcast(attn_tensor **y, attn_tensor *a, attn_tensor *b, attn_binary_kind kind,
                           int ndim, const int64_t *shape, attn_layout layout);
/* A tensor without dimensions that holds one number. */
attn_status attn_scalar(attn_tensor **y, float value);
/* y += x, same shape and layout, no tape. */
void attn_add_into(attn_tensor *y, const attn_tensor *x);
attn_status attn_dropout(attn_tensor **y, attn_tensor *x, float p, uint64_t seed, uint64_t counter);

/* reduce.c: over the axes whose flag is set; keepdim keeps them with size 1 */
attn_status attn_reduce(attn_tensor **y, attn_tensor *x, attn_reduction kind, const bool *axes,
                        bool keepdim, int64_t correction);

/* shape.c */
attn_status attn_reshape(attn_tensor **y, attn_tensor *x, int ndim, const int64_t *shape);
attn_status attn_permute(attn_tensor **y, attn_tensor *x, const int *order);
attn_status attn_concatenate(attn_tensor **y, attn_tensor *const *x, int count, int axis);
/* y = x[start : start + step * size : step] on every axis */
attn_status attn_slice(attn_tensor **y, attn_tensor *x, const int64_t *start, const int64_t *step,
                       const int64_t *size);
attn_status attn_pad(attn_tensor **y, attn_tensor *x, const int64_t *before, const int64_t *after,
                     float value);

/* matmul.c: matrices in the last two axes, leading axes broadcast */
attn_status attn_matmul(attn_tensor **y, attn_tensor *a, attn_tensor *b);
/* y(.., K) = x(.., C) weight(K, C)^T + bias(K) */
attn_status attn_linear(attn_tensor **y, attn_tensor *x, attn_tensor *weight, attn_tensor *bias);

/* softmax.c */
attn_status attn_softmax(attn_tensor **y, attn_tensor *x, int axis, bool logarithm);
attn_status attn_cross_entropy(attn_tensor **loss, attn_tensor *logits, const int64_t *target,
                               float label_smoothing);

/* pool.c */
typedef struct {
    int64_t window[2], stride[2], padding[2];
    bool count_padding; /* average: divide by the whole window */
} attn_pool_options;
attn_status attn_max_pool(attn_tensor **y, attn_tensor *x, const attn_pool_options *options);
attn_status attn_average_pool(attn_tensor **y, attn_tensor *x, const attn_pool_options *options);
attn_status attn_adaptive_pool(attn_tensor **y, attn_tensor *x, int64_t P, int64_t Q, bool maximum);

/* batch_norm.c: y = [relu](normalised x * weight + bias [+ residual]) */
typedef struct {
    bool training, relu;
    float momentum, eps;
} attn_batch_norm_options;
/* (C) each, may be NULL. */
typedef struct {
    attn_tensor *weight, *bias, *running_mean, *running_var;
} attn_norm_parameters;
attn_status attn_batch_norm(attn_tensor **y, attn_tensor *x, attn_tensor *weight, attn_tensor *bias,
                            attn_tensor *running_mean, attn_tensor *running_var,
                            attn_tensor *residual, const attn_batch_norm_options *options);

/* convolution.c: x(N,C,H,W), weight(K,C/groups,R,S), bias(K) or NULL */
typedef struct {
    int64_t stride[2], padding[2], groups;
} attn_convolution_options;
attn_status attn_convolution(attn_tensor **y, attn_tensor *x, attn_tensor *weight, attn_tensor *bias,
                             const attn_convolution_options *options);
/* For inference only (leaves no node): relu(convolution + residual), the last two optional. */
attn_status attn_convolution_fused(attn_tensor **y, attn_tensor *x, attn_tensor *weight,
                                   attn_tensor *bias, attn_tensor *residual, bool relu,
                                   const attn_convolution_options *options);
/* The same with weights that serve many calls (conv/kept.h). */
typedef struct attn_conv_kept attn_conv_kept;
attn_status attn_convolution_kept(attn_tensor **y, attn_tensor *x, attn_conv_kept *weight,
                                  attn_tensor *bias, attn_tensor *residual, bool relu,
                                  const attn_convolution_options *options);

/* convolution_norm.c: y = [relu](batch norm(convolution of x + bias) [+ residual]) */
typedef struct {
    attn_tensor *x, *x_constants; /* with constants, x is what `defer` left of the real one */
    attn_tensor *weight, *bias;
    attn_convolution_options options;
    attn_norm_parameters norm;
    attn_tensor *residual;
    attn_batch_norm_options norm_options;
    bool defer; /* if it can be, y is not computed: it and its constants make it */
} attn_convolution_norm;
attn_status attn_convolution_norm_run(attn_tensor **y, attn_tensor **y_constants,
                                      const attn_convolution_norm *operands);
/* What was deferred, after all. */
attn_status attn_deferred_compute(attn_tensor **y, attn_tensor *z, const attn_tensor *constants);

#endif
